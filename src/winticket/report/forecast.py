"""Estimates how long the remaining trainings take, from the speed of the trainings so far."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

LEAST_SHARE = 0.05
"""The speed of a training is measured once this share of it has run."""
FADING = 0.5
"""Factor by which a speed's weight falls per level of distance: similar densities take similar times."""


def makespan(seconds: Mapping[str, float], needs: Mapping[str, Sequence[str]], *, workers: int) -> float:
    """Seconds until all tasks are done, if `workers` always start the task with the longest chain of dependants.

    `seconds` has the duration of each unfinished task. A need that is not in it counts as finished.
    """
    before = {key: [need for need in needs.get(key, ()) if need in seconds] for key in seconds}
    after: dict[str, list[str]] = {key: [] for key in seconds}
    for key, keys in before.items():
        for need in keys:
            after[need].append(key)
    behind = _behind(seconds, before, after)
    waiting = {key: len(keys) for key, keys in before.items()}
    ready = [(-behind[key], key) for key, count in waiting.items() if count == 0]
    heapq.heapify(ready)
    running: list[tuple[float, str]] = []
    now = 0.0
    while ready or running:
        while ready and len(running) < max(workers, 1):
            _, key = heapq.heappop(ready)
            heapq.heappush(running, (now + seconds[key], key))
        now, key = heapq.heappop(running)
        for following in after[key]:
            waiting[following] -= 1
            if waiting[following] == 0:
                heapq.heappush(ready, (-behind[following], following))
    return now


def _behind(
    seconds: Mapping[str, float], before: Mapping[str, Sequence[str]], after: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    """Seconds of the longest chain of dependent tasks that begins with each task."""
    waiting = {key: len(keys) for key, keys in after.items()}
    last = [key for key, count in waiting.items() if count == 0]
    behind: dict[str, float] = {}
    for key in last:  # the loop appends to it
        behind[key] = seconds[key] + max((behind[following] for following in after[key]), default=0.0)
        for need in before[key]:
            waiting[need] -= 1
            if waiting[need] == 0:
                last.append(need)
    return behind


@dataclass
class Clocked:
    """The reports of one training: when it began, and its progress at the first and the last report."""

    began: float
    first: tuple[float, float] | None = None
    """Time and share of the first report. Most of the time before it is the start of the worker process."""
    last: tuple[float, float] = (0.0, 0.0)

    def report(self, now: float, share: float) -> None:
        self.first = self.first or (now, share)
        self.last = (now, share)

    def whole(self, *, starting: bool) -> float | None:
        """Estimated seconds of the whole training; None until enough of it has run.

        `starting` excludes the time before the first report, when the worker process was starting.
        """
        moment, share = self.last
        if self.first and share - self.first[1] >= LEAST_SHARE:
            pace = (moment - self.first[0]) / (share - self.first[1])
            before = self.first[0] - self.began - pace * self.first[1]
            return pace if starting else pace + max(before, 0.0)
        return None if starting or share < LEAST_SHARE else (moment - self.began) / share

    def left(self, now: float, whole: float) -> float:
        """Seconds until the training ends, if it takes `whole` seconds."""
        moment, share = self.last
        return max((1 - share) * whole - (now - max(moment, self.began)), 0.0)


@dataclass
class Pace:
    """Seconds per unit of weight at each level, from the trainings measured so far."""

    seen: list[tuple[int, float, float]] = field(default_factory=list)
    """Level, weight and seconds."""

    def note(self, level: int, weight: float, seconds: float) -> None:
        if weight > 0:
            self.seen.append((level, weight, seconds))

    def at(self, level: int) -> float | None:
        """Seconds per unit of weight at a level, mostly from nearby levels; None before any measurement."""
        parts = [(FADING ** abs(level - other), weight, seconds) for other, weight, seconds in self.seen]
        total = sum(share * weight for share, weight, _ in parts)
        return sum(share * seconds for share, _, seconds in parts) / total if total else None
