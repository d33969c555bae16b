"""Gains as shares of the dense network's mean, with limits by Fieller's theorem."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from winticket import results
from winticket.judge.frame import Frame, Values
from winticket.judge.statistics import Array, t_test


@dataclass(frozen=True)
class Relative:
    """A mean gain as a share of the dense network's mean, over the pairs that finished, and its lower limit.

    estimate: None if no pair finished or that mean is 0. bound: the one-sided lower limit at the check's level, failed
    trainings counted as in its test; None if there is none. If there is one, a match is shown exactly if it is above
    minus the margin.
    """

    estimate: float | None
    bound: float | None

    @classmethod
    def of(
        cls,
        ours: Values,
        theirs: Values,
        frame: Frame,
        worst: tuple[Array, Array | None],
        *,
        level: float,
        floor: float,
    ) -> Relative | None:
        """Of framed values; worst: the differences and the dense network's values [n] that the test takes, if any."""
        gains, references = worst
        if references is None:
            return None
        pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a is not None and b is not None]
        estimate = None
        dense = float(np.mean(frame.measured([b for _, b in pairs], frame.worst))) if pairs else 0.0
        if dense > 0:
            estimate = float(np.mean([a - b for a, b in pairs])) / dense
        return cls(estimate, ratio_limit(gains, references, level=level, floor=floor))

    def as_json(self) -> results.Relative:
        return {"estimate": self.estimate, "bound": self.bound}


def ratio_limit(gains: Array, dense: Array, *, level: float, floor: float = 0.0) -> float | None:
    """One-sided lower limit at `level` of mean(gains) / mean(dense), both [n] and paired; None if nothing bounds it.

    The limit is the share r at which the t test of gainsᵢ − r · denseᵢ > 0 just passes, Fieller's (1954) limit for
    pairs (von Luxburg & Franz 2009, theorem 3). With k = t²/n, it is a root of
    (m_d² − k s_dd) r² − 2 (m_g m_d − k s_gd) r + m_g² − k s_gg = 0. Nothing bounds the ratio if the mean of `dense` is
    not shown to be above 0 at that level. floor: the least sd of the combination, as in `t_test`.

    >>> gains, dense = np.array([-0.1, 0.2, 0.0, 0.1, -0.2]), np.array([9.0, 10.0, 11.0, 10.0, 10.0])
    >>> round(ratio_limit(gains, dense, level=0.025), 4)
    -0.0201
    """
    n = len(gains)
    if n < 2:
        return None
    from scipy import special  # takes a third of a second to import, and most commands judge nothing

    mean_gain, mean = float(gains.mean()), float(dense.mean())
    covariance = np.cov(gains, dense)
    k = float(special.stdtrit(n - 1, 1 - level)) ** 2 / n
    square = mean**2 - k * float(covariance[1, 1])
    if mean <= 0 or square <= 0:
        return None
    half = mean_gain * mean - k * float(covariance[0, 1])
    rest = mean_gain**2 - k * float(covariance[0, 0])
    # The smaller root is where the combination lies above 0 by t standard errors; the larger is the other limit.
    limit = (half - math.sqrt(max(half**2 - square * rest, 0.0))) / square
    limit = min(limit, (mean_gain - math.sqrt(k) * floor) / mean)
    below = t_test(gains - (limit - 1e-9 * max(1.0, abs(limit))) * dense, null=0.0, floor=floor)
    return limit if float(below.p_greater) <= level else None
