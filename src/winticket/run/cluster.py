"""How long tasks take on many workers: the run's own order of tasks, with a clock that only counts."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from winticket.run.ready import Ready

CLOSE = 0.05
"""More machines do not help if the makespan is within this share of the critical path."""


@dataclass(frozen=True)
class Work:
    """Tasks to compute.

    seconds  that each task takes on one worker, by key
    needs    the tasks that each one waits for; those that are not in `seconds` count as finished
    weights  by which a run orders tasks (`Task.weight`); by default `seconds`

    >>> seconds = {"dense": 4.0, "gate": 7.0, "ticket": 2.0, "random": 2.0}
    >>> work = Work(seconds, {"ticket": ["dense"], "random": ["ticket"]})
    >>> work.total, [work.makespan(workers) for workers in (1, 2, 3)]
    (15.0, [15.0, 8.0, 8.0])
    >>> work.critical_path, work.critical_seconds
    (('dense', 'ticket', 'random'), 8.0)
    """

    seconds: Mapping[str, float]
    needs: Mapping[str, Sequence[str]]
    weights: Mapping[str, float] | None = None

    @property
    def total(self) -> float:
        """Seconds of all tasks, one after the other."""
        return sum(self.seconds.values())

    @cached_property
    def _before(self) -> dict[str, list[str]]:
        return {
            key: [need for need in dict.fromkeys(self.needs.get(key, ())) if need in self.seconds]
            for key in self.seconds
        }

    @cached_property
    def _after(self) -> dict[str, list[str]]:
        after: dict[str, list[str]] = {key: [] for key in self.seconds}
        for key, needs in self._before.items():
            for need in needs:
                after[need].append(key)
        return after

    @cached_property
    def _order(self) -> list[str]:
        """The keys, inputs first. ValueError if tasks wait for each other in a circle."""
        waiting = {key: len(needs) for key, needs in self._before.items()}
        order = [key for key, count in waiting.items() if not count]
        for key in order:  # the loop appends to it
            for following in self._after[key]:
                waiting[following] -= 1
                if not waiting[following]:
                    order.append(following)
        if len(order) < len(self.seconds):
            raise ValueError(f"{len(self.seconds) - len(order)} tasks wait for each other in a circle")
        return order

    @property
    def chains(self) -> dict[str, float]:
        """Seconds of the longest chain of tasks that begins with each task, its own included."""
        return self._chains(self.seconds)

    def _chains(self, costs: Mapping[str, float]) -> dict[str, float]:
        """The cost of the longest chain of tasks that begins with each task."""
        chains: dict[str, float] = {}
        for key in reversed(self._order):
            chains[key] = costs[key] + max((chains[after] for after in self._after[key]), default=0.0)
        return chains

    @cached_property
    def _priority(self) -> dict[str, float]:
        chains = self._chains(self.seconds if self.weights is None else self.weights)
        return {key: chains[key] for key in self.seconds}

    @cached_property
    def critical_path(self) -> tuple[str, ...]:
        """The longest chain of tasks, each of which waits for the one before: no number of workers is faster."""
        chains = self.chains
        path: list[str] = []
        ahead: Sequence[str] = [key for key, needs in self._before.items() if not needs]
        while ahead:
            path.append(max(ahead, key=chains.__getitem__))
            ahead = self._after[path[-1]]
        return tuple(path)

    @property
    def critical_seconds(self) -> float:
        return sum(self.seconds[key] for key in self.critical_path)

    def makespan(self, workers: int) -> float:
        """Seconds until all tasks are done, if `workers` take them in the order in which a run hands them out.

        This is list scheduling (Graham 1969, "Bounds on multiprocessing timing anomalies"). While a worker is idle,
        some task of one chain is under way, so it takes at most total / workers + (1 - 1 / workers) critical_seconds.
        """
        ready, waiting = Ready(self._priority), {key: len(needs) for key, needs in self._before.items()}
        for key, count in waiting.items():
            if not count:
                ready.add(key)
        free, made_by = list(range(min(workers, len(self.seconds)))), dict[str, int]()
        running: list[tuple[float, int, str]] = []
        now = 0.0
        while ready or running:
            while ready and free:
                worker = heapq.heappop(free)
                key = ready.pop(worker)
                heapq.heappush(running, (now + self.seconds[key], worker, key))
            now, worker, key = heapq.heappop(running)
            made_by[key] = worker
            heapq.heappush(free, worker)
            for following in self._after[key]:
                waiting[following] -= 1
                if not waiting[following]:
                    ready.add(following, Counter(made_by[need] for need in self._before[following]))
        return now

    def enough(self, cores: int, *, start: float = 0.0) -> int:
        """The fewest machines of so many cores with which the makespan is within `CLOSE` of the critical path.

        Both include `start`, the seconds before a worker's first task. With one machine fewer, it is not.
        """
        least = (1 + CLOSE) * (start + self.critical_seconds)

        def close(machines: int) -> bool:
            return start + self.makespan(machines * cores) <= least * (1 + 1e-9)

        many = 1
        while not close(many):
            many *= 2
        few = many // 2  # is not enough, or 0
        while many - few > 1:
            middle = (few + many) // 2
            few, many = (few, middle) if close(middle) else (middle, many)
        return many
