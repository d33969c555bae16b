"""The tasks that can start, in the order in which a run starts them."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field


@dataclass
class _Alike:
    """Ready tasks with equally long chains after them; a rank stays here until it comes up, also if it is taken."""

    ranks: list[int] = field(default_factory=list)
    """A heap of positions in the plan."""
    at_hand: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    """By worker, a heap of tasks some of whose inputs it made: (minus their number, rank)."""
    count: int = 0
    """How many tasks are still ready."""


class Ready:
    """The tasks that can start. Adding, removing and popping one takes time logarithmic in their number.

    order  each task's key and the cost of the longest chain of tasks that waits for it, its own included; tasks with
           equally long chains start in this order

    >>> ready = Ready({"short": 1.0, "long": 9.0, "long too": 9.0})
    >>> for key in ("short", "long", "long too"):
    ...     ready.add(key)
    >>> ready.pop(worker=0), ready.pop(worker=0), len(ready), "short" in ready
    ('long', 'long too', 1, True)
    """

    def __init__(self, order: Mapping[str, float]) -> None:
        self._path = order
        self._keys = list(order)
        self._rank = {key: rank for rank, key in enumerate(self._keys)}
        self._members: set[str] = set()
        self._longest: list[float] = []  # a heap of minus the lengths of the chains
        self._alike: dict[float, _Alike] = {}

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, key: object) -> bool:
        return key in self._members

    def __iter__(self) -> Iterator[str]:
        """The keys, in the order of the plan."""
        return iter(sorted(self._members, key=self._rank.__getitem__))

    def add(self, key: str, made_by: Counter[int] | None = None) -> None:
        """Add a task, unless it is here; `made_by` counts its inputs by the worker that made them.

        A task that is added again, after it was popped or removed, has the same counts: its inputs exist already.
        """
        if key in self._members:
            return
        path, rank = self._path[key], self._rank[key]
        self._members.add(key)
        if path not in self._alike:
            self._alike[path] = _Alike()
            heapq.heappush(self._longest, -path)
        alike = self._alike[path]
        alike.count += 1
        heapq.heappush(alike.ranks, rank)
        for worker, number in (made_by or {}).items():
            heapq.heappush(alike.at_hand.setdefault(worker, []), (-number, rank))

    def remove(self, key: str) -> None:
        """Remove a task. KeyError if it is not ready."""
        self._members.remove(key)
        alike = self._alike[self._path[key]]
        alike.count -= 1

    def pop(self, worker: int) -> str:
        """Remove the task with the longest chain after it; among equals, one most of whose inputs this worker made.

        IndexError if no task is ready.
        """
        while not self._alike[-self._longest[0]].count:
            del self._alike[-heapq.heappop(self._longest)]
        alike = self._alike[-self._longest[0]]
        near = alike.at_hand.get(worker, [])
        while near and self._keys[near[0][1]] not in self._members:
            heapq.heappop(near)
        while self._keys[alike.ranks[0]] not in self._members:
            heapq.heappop(alike.ranks)
        key = self._keys[near[0][1] if near else alike.ranks[0]]
        self.remove(key)
        return key
