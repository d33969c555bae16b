"""Estimates how long the remaining trainings take, from the speed of the trainings so far."""

from __future__ import annotations

from dataclasses import dataclass, field

LEAST_SHARE = 0.05
"""The speed of a training is measured once this share of it has run."""
FADING = 0.5
"""Factor by which a speed's weight falls per level of distance: similar densities take similar times."""


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
