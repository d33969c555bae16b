"""How long trainings that wait for one another will take, and what that is learned from."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

LEAST_SHARE = 0.05
"""Share of a training from which its speed is taken for known."""
FADING = 0.5
"""What a speed counts for at the next level, in terms of its own: trainings of like density take alike long."""


def makespan(seconds: Mapping[str, float], needs: Mapping[str, Sequence[str]], *, workers: int) -> float:
    """Seconds until all are done, by so many workers that take the one with the longest chain behind it first.

    `seconds` are those of each task that is left. A need that is not among them is met.
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
    """For each task the seconds of the longest chain that begins with it."""
    waiting = {key: len(keys) for key, keys in after.items()}
    last = [key for key, count in waiting.items() if count == 0]
    behind: dict[str, float] = {}
    for key in last:  # grows while it is walked
        behind[key] = seconds[key] + max((behind[following] for following in after[key]), default=0.0)
        for need in before[key]:
            waiting[need] -= 1
            if waiting[need] == 0:
                last.append(need)
    return behind


@dataclass
class Clocked:
    """One training as it was heard of: when it began, and how far it was at which moment."""

    began: float
    first: tuple[float, float] | None = None
    """Moment and share of the first report: what goes before it is the worker's start, mostly."""
    last: tuple[float, float] = (0.0, 0.0)

    def report(self, now: float, share: float) -> None:
        self.first = self.first or (now, share)
        self.last = (now, share)

    def whole(self, *, starting: bool) -> float | None:
        """Seconds that it takes whole, by what was seen of it; None while that is too little.

        `starting` says that its worker was starting up meanwhile, which no later training waits for.
        """
        moment, share = self.last
        if self.first and share - self.first[1] >= LEAST_SHARE:
            pace = (moment - self.first[0]) / (share - self.first[1])
            before = self.first[0] - self.began - pace * self.first[1]
            return pace if starting else pace + max(before, 0.0)
        return None if starting or share < LEAST_SHARE else (moment - self.began) / share

    def left(self, now: float, whole: float) -> float:
        """Seconds to its end, if it takes `whole` seconds."""
        moment, share = self.last
        return max((1 - share) * whole - (now - max(moment, self.began)), 0.0)


@dataclass
class Pace:
    """Seconds per unit of weight by level, from the trainings seen so far."""

    seen: list[tuple[int, float, float]] = field(default_factory=list)
    """Level, weight and seconds."""

    def note(self, level: int, weight: float, seconds: float) -> None:
        if weight > 0:
            self.seen.append((level, weight, seconds))

    def at(self, level: int) -> float | None:
        """Seconds per weight at a level, levels near it counting most; None before any was seen."""
        parts = [(FADING ** abs(level - other), weight, seconds) for other, weight, seconds in self.seen]
        total = sum(share * weight for share, weight, _ in parts)
        return sum(share * seconds for share, _, seconds in parts) / total if total else None
