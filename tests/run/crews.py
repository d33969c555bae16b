"""Every crew that the conformance suite of executors runs on: a new one is a file and a row here."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from winticket.run import Crew, Inline, Pool

from .threaded import Threaded

CREWS: Mapping[str, Crew] = {
    "inline": Inline(),
    "pool of 1": Pool(1),
    "pool of 2": Pool(2),
    "thread": Threaded(),
}
EVERY_CREW = pytest.mark.parametrize("crew", CREWS.values(), ids=CREWS)
PROCESSES = pytest.mark.parametrize(
    "crew", [c for c in CREWS.values() if c.workers], ids=lambda c: f"{c.workers}"
)
