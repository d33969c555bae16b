"""How many requests a run makes to its store. All constants of this forecast are here; tests count the real ones.

A request is one call of an object store, which writes a file whole by one of them, or one operation on a shared folder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

WRITE = 1
"""A file."""
CLAIM = 5
"""A task's claim: ask for the store, create the file, look for a result and a failure by others, remove the claim."""
OPEN = 3
"""Before a training: look for its result and its checkpoint, and ask for the store if it has no checkpoint."""
RESULT = WRITE + 4
"""A result: look for one, ask for the store, write; remove an earlier failure and the checkpoint."""
CHECKPOINT = WRITE + 1
RENEWAL = WRITE + 1
"""Look for the claim, and write it."""
LISTED = 1000
"""Names in one answer of a listing."""
START = 10
"""When a process starts: the store's format, a probe of writing; listings come on top."""
CHECKPOINT_SECONDS = 10.0
RENEWAL_SECONDS = 5.0
LOOK_SECONDS = 5.0
"""Mean seconds between two looks of a process that finds nothing to do."""


@dataclass(frozen=True)
class Requests:
    """Requests to a store, by their purpose.

    reads     of inputs, and of results and checkpoints that might exist
    writes    of results and checkpoints
    claims    to take tasks, and to give them back
    renewals  of the claims of tasks under way
    looks     listings of claims and results, before a task is claimed and while a process waits for others

    >>> Requests(reads=3, writes=7, claims=5, renewals=0, looks=2).total
    17
    """

    reads: int
    writes: int
    claims: int
    renewals: int
    looks: int

    @property
    def total(self) -> int:
        return self.reads + self.writes + self.claims + self.renewals + self.looks


def listings(tasks: int, processes: int) -> int:
    """Requests of one look by a process that shares its tasks: claims, results, and claims again.

    The second listing of the claims shows what others have claimed while this process read the first two. Results are
    counted half-way through the run.

    >>> listings(tasks=10_000, processes=100), listings(tasks=10_000, processes=1)
    (7, 0)
    """
    return 0 if processes == 1 else 2 * _pages(processes) + _pages(tasks / 2)


def _pages(names: float) -> int:
    return max(1, math.ceil(names / LISTED))


def requests(
    seconds: Mapping[str, float],
    inputs: Mapping[str, int],
    *,
    processes: int,
    cores: int = 1,
    makespan: float,
    beside: int = 0,
) -> Requests:
    """The requests of computing tasks of so many `seconds` each, with so many stored `inputs` each.

    processes  that share the work, each with `cores` workers
    makespan   seconds until the last task ends
    beside     results that tasks hand over beside their own

    Collisions are not counted, where two processes try to claim the same task, nor repeated work after a failure.

    >>> requests({"dense": 12.0, "ticket": 4.0}, {"ticket": 1}, processes=1, makespan=16.0)
    Requests(reads=7, writes=12, claims=10, renewals=4, looks=12)
    """
    count = len(seconds)
    renewals = sum(int(each / RENEWAL_SECONDS) for each in seconds.values())
    saved = sum(math.ceil(each / CHECKPOINT_SECONDS) - 1 for each in seconds.values() if each > 0)
    idle = max(processes * makespan - sum(seconds.values()) / cores, 0.0)
    looks = (count + int(idle / LOOK_SECONDS)) * listings(count, processes)
    return Requests(
        reads=OPEN * count + sum(inputs.get(key, 0) for key in seconds),
        writes=RESULT * (count + beside) + CHECKPOINT * saved,
        claims=CLAIM * count,
        renewals=RENEWAL * renewals,
        looks=processes * (START + 2 * _pages(count)) + looks,
    )


def in_sequence(inputs: int) -> int:
    """Requests that a worker waits for one after the other with a task of so many inputs, looks and checkpoints aside.

    >>> in_sequence(inputs=2)
    15
    """
    return CLAIM + OPEN + inputs + RESULT


def by_purpose(counted: Requests) -> Mapping[str, int]:
    """The requests by name, with their total.

    >>> by_purpose(Requests(1, 2, 3, 4, 5))
    {'reads': 1, 'writes': 2, 'claims': 3, 'renewals': 4, 'looks': 5, 'total': 15}
    """
    return {**vars(counted), "total": counted.total}
