"""Progress of commands that usually take seconds, on stderr."""

from __future__ import annotations

import time
from collections.abc import Callable

from winticket.cli.answers import say

PATIENCE, QUIET_SECONDS = 2.0, 5.0
"""Seconds before the first line of progress, and between two of them."""


def patient(*, quiet: bool = False, every: float | None = None) -> Callable[[str, float | None], None]:
    """What tells, after two seconds and then every five or `every`, what is being done, and how long that will take.

    >>> patient()("Nothing", 0.0)  # too early to be told
    """
    from winticket.report.durations import duration

    pause = QUIET_SECONDS if every is None else every
    last = [time.monotonic() + PATIENCE - pause]

    def tell(what: str, left: float | None) -> None:
        now = time.monotonic()
        if quiet or now - last[0] < pause:
            return
        last[0] = now
        say(what if left is None else f"{what}, about {duration(left)} left")

    return tell
