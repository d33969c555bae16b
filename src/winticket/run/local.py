"""The crews of this machine by the number of worker processes."""

from __future__ import annotations

from collections.abc import Sequence

from winticket.run.crew import Crew
from winticket.run.inline import Inline
from winticket.run.pool import Pool


def local(workers: int, *, preload: Sequence[str] = ()) -> Crew:
    """A crew on this machine: `workers` processes with one torch thread each, or, for 0, the calling process.

    `preload` names modules that are imported once and inherited by the workers (a process's first pool decides).
    Raises ValueError for a negative number.

    >>> local(0), local(2)
    (Inline(), Pool(workers=2, preload=()))
    """
    if workers < 0:
        raise ValueError(
            f"workers is {workers}; pass the number of worker processes, or 0 to compute in this process"
        )
    return Pool(workers, tuple(preload)) if workers else Inline()
