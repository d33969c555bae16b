"""Progress of commands that usually take seconds, on stderr."""

from __future__ import annotations

import time
from collections.abc import Callable

from winticket.cli.answers import say

PATIENCE, QUIET_SECONDS = 2.0, 5.0
"""Seconds before the first line of progress, and between two of them."""


def patient(*, quiet: bool = False) -> Callable[[str, float | None], None]:
    """What tells, after two seconds and then every five, what is being done, and how many seconds that will take.

    >>> patient()("Nothing", 0.0)  # too early to be told
    """
    from winticket.report.durations import duration

    last = [time.monotonic() + PATIENCE - QUIET_SECONDS]

    def tell(what: str, left: float | None) -> None:
        now = time.monotonic()
        if quiet or now - last[0] < QUIET_SECONDS:
            return
        last[0] = now
        say(what if left is None else f"{what}, about {duration(left)} left")

    return tell
