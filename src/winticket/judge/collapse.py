"""Single replicates that collapsed, and how often a collapse could happen without being seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from winticket import results
from winticket.objective import ACCURACY, Scale

if TYPE_CHECKING:
    from winticket.judge.checks import Level

SPREADS = 8.0
MARGINS = 4.0
_NORMAL_MAD = 1.4826


@dataclass(frozen=True)
class Collapse:
    """One replicate whose accuracy is far worse than the others' of its arm; accuracies are fractions.

    accuracy, others: as they were measured, in the unit of the metric by which networks are judged.
    """

    density: float
    arm: str
    replicate: int
    accuracy: float
    others: float

    def as_json(self) -> results.Collapsed:
        return {
            "density": self.density,
            "arm": self.arm,
            "replicate": self.replicate,
            "accuracy": self.accuracy,
            "median_of_others": self.others,
        }


def collapses(level: Level, *, margin: float, scale: Scale = ACCURACY) -> list[Collapse]:
    """Replicates of a level that lie far on the worse side of the median of their arm.

    Far means both `SPREADS` robust deviations and `MARGINS` margins. The deviation is the median absolute one, scaled
    to that of a normal distribution. margin: a fraction, or in the unit of the metric whose `scale` is given.
    """
    found = []
    for arm, values in level.accuracy.items():
        if (level.density == 1) != (arm == "dense"):
            continue
        limits = _limit(_gains(values, scale), margin)
        if limits is None:
            continue
        limit, median = limits
        found += [
            Collapse(level.density, arm, at, value, scale.sign * median)
            for at, value in enumerate(values)
            if value is not None and scale.sign * value < limit
        ]
    return found


def collapse_limit(values: Sequence[float | None], *, margin: float, scale: Scale = ACCURACY) -> float | None:
    """The accuracy below which one of these replicates counts as collapsed; None if fewer than four finished.

    values: one arm's at one level, None = failed. They are fractions, as `margin` is; or both are in the unit of the
    metric whose `scale` is given, and a replicate has collapsed that lies on the worse side of the limit.

    >>> round(collapse_limit((0.97, 0.98, 0.98, 0.98), margin=0.005), 2)
    0.96
    """
    limits = _limit(_gains(values, scale), margin)
    return None if limits is None else scale.sign * limits[0]


def _gains(values: Sequence[float | None], scale: Scale) -> list[float]:
    """The values that there are, with the sign that makes larger ones better."""
    return [scale.sign * value for value in values if value is not None]


def _limit(finished: Sequence[float], margin: float) -> tuple[float, float] | None:
    """(limit, median)."""
    if len(finished) < 4:
        return None
    accuracies = np.array(finished)
    median = float(np.median(accuracies))
    spread = _NORMAL_MAD * float(np.median(np.abs(accuracies - median)))
    return median - max(SPREADS * spread, MARGINS * margin), median


def unseen_rate(replicates: int, *, confidence: float = 0.95) -> float:
    """The largest rate of collapses at which none may happen in `replicates`, at this confidence.

    1 − (1 − confidence)^(1/n), the upper end of the exact binomial interval for no event (Clopper & Pearson 1934).
    A test of means says nothing about what happened in no replicate.

    >>> [round(unseen_rate(n), 2) for n in (5, 10, 20)]
    [0.45, 0.26, 0.14]
    """
    return float(1 - (1 - confidence) ** (1 / replicates))
