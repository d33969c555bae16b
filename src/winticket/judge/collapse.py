"""Single replicates that collapsed, and how often collapses could happen unseen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from winticket import results

if TYPE_CHECKING:
    from winticket.judge.checks import Level

SPREADS = 8.0
MARGINS = 4.0
_NORMAL_MAD = 1.4826


@dataclass(frozen=True)
class Collapse:
    """One replicate whose accuracy is far under that of the others of its arm; accuracies are fractions."""

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


def collapses(level: Level, *, margin: float) -> list[Collapse]:
    """Replicates of a level that lie `SPREADS` robust deviations and `MARGINS` margins under their arm's median.

    The deviation is the median absolute one, scaled to a normal distribution's. margin: a fraction.
    """
    return [
        Collapse(level.density, arm, at, values[at], others)
        for arm, runs in level.accuracy.items()
        if (level.density == 1) == (arm == "dense")
        for values in [[-1.0 if value is None else value for value in runs]]
        for at, others in _outliers(values, margin)
    ]


def collapse_limit(values: Sequence[float | None], *, margin: float) -> float | None:
    """The accuracy under which a replicate of these counts as collapsed; None where fewer than four finished.

    values: of one arm at one level, None = failed; fractions, as `margin` is.
    """
    found = _limit([value for value in values if value is not None], margin)
    return None if found is None else found[0]


def _outliers(values: Sequence[float], margin: float) -> list[tuple[int, float]]:
    found = _limit([value for value in values if value >= 0], margin)
    if found is None:
        return []
    limit, middle = found
    return [(at, middle) for at, value in enumerate(values) if 0 <= value < limit]


def _limit(finished: Sequence[float], margin: float) -> tuple[float, float] | None:
    """(limit, median)."""
    if len(finished) < 4:
        return None
    there = np.array(finished)
    middle = float(np.median(there))
    spread = _NORMAL_MAD * float(np.median(np.abs(there - middle)))
    return middle - max(SPREADS * spread, MARGINS * margin), middle


def unseen_rate(replicates: int, *, confidence: float = 0.95) -> float:
    """The largest share of replicates that may collapse with none of `replicates` doing so, at this confidence.

    1 − (1 − confidence)^(1/n), the upper end of the exact binomial interval at no event (Clopper & Pearson 1934).
    No test of means can speak of what did not happen in any replicate.

    >>> [round(unseen_rate(n), 2) for n in (5, 10, 20)]
    [0.45, 0.26, 0.14]
    """
    return float(1 - (1 - confidence) ** (1 / replicates))
