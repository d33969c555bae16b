"""One-sample tests for paired differences, and the sample sizes they need.

Every test takes the differences of pairs and a boundary (`null`), and its p-values are one-sided. Nothing draws from
the global random state, and no input without variance produces a NaN or a warning.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

# Accuracies are multiples of 1/(test examples), so a difference this small is rounding.
ROUNDING = 1e-12
EXACT_FLIPS = 16
MONTE_CARLO_FLIPS = 100_000
MOST_REPLICATES = 10_000


@dataclass(frozen=True)
class TTest:
    """Both one-sided p-values, and the mean and sd that they come from; arrays of the leading shape."""

    mean: Array
    sd: Array
    p_greater: Array
    p_less: Array


@dataclass(frozen=True)
class SignedRank:
    """Exact one-sided p-values: `p_greater` is small if the values lie above zero."""

    p_greater: float
    p_less: float
    n: int
    zeros: int


def _spread(values: Array, floor: float = 0.0) -> tuple[Array, Array]:
    """Mean and sd (n − 1) along the last axis; an sd the size of rounding, or of a single value, is 0.

    floor: the least sd to assume, in the unit of the values.
    """
    mean = values.mean(axis=-1)
    if values.shape[-1] < 2:
        return mean, np.where(np.isnan(mean), mean, floor)
    sd = values.std(axis=-1, ddof=1)
    return mean, np.maximum(np.where(sd <= ROUNDING, 0.0, sd), floor)


def _student(centre: Array, error: Array, df: int, n: int) -> tuple[Array, Array]:
    """One-sided p-values of `centre / error`; if the error is 0, the exact sign-flip test's."""
    from scipy import special  # takes a third of a second to import, and most commands judge nothing

    centre = np.where(np.abs(centre) <= ROUNDING, 0.0, centre)
    flat = error == 0.0
    t = centre / np.where(flat, 1.0, error)
    p_greater = special.stdtr(df, -t)
    p_less = special.stdtr(df, t)
    floor = 0.5**n
    p_greater = np.where(flat, np.where(centre > 0, floor, 1.0), p_greater)
    p_less = np.where(flat, np.where(centre < 0, floor, 1.0), p_less)
    return p_greater, p_less


def t_test(values: Array, *, null: float, floor: float = 0.0) -> TTest:
    """Student's one-sample test of the mean against `null`, in both directions.

    Shapes: values [..., n] -> fields [...]. A NaN anywhere in a sample makes its p-values NaN, which pass no test.
    Accuracies on N test examples are multiples of 1/N, so a few of them may agree by chance, and their sd then says
    nothing about the spread; `floor`, usually 1/N, is the least sd to assume. Without a floor and without variance, t
    is undefined, and its limit (p = 0) would claim certainty from n equal numbers; the exact sign-flip p-value 2⁻ⁿ is
    used instead. Raises ValueError if n = 0.

    >>> float(t_test(np.array([-0.4, -0.4, -0.4, -0.4, -0.4, -0.4]), null=-0.5, floor=0.2).p_greater) > 0.1
    True
    """
    n = values.shape[-1]
    if n == 0:
        raise ValueError("a t test needs at least one difference, but the sample is empty")
    mean, sd = _spread(values, floor)
    p_greater, p_less = _student(mean - null, sd / math.sqrt(n), max(n - 1, 1), n)
    return TTest(mean, sd, p_greater, p_less)


def trimmed_p(values: Array, *, null: float, trim: float = 0.2, floor: float = 0.0) -> float:
    """One-sided p-value that the `trim`-trimmed mean exceeds `null`; values [n].

    t = (trimmed mean − null) · (1 − 2·trim) · √n / s_w, with the winsorised sd s_w and n − 2g − 1 degrees of
    freedom, g = ⌊trim·n⌋: Tukey & McLaughlin 1963, in the form of Wilcox, *Introduction to Robust
    Estimation*, section 4.3; the one-sample side of Yuen 1974.
    """
    n = len(values)
    cut = math.floor(trim * n)
    ordered = np.sort(values)
    inner = ordered[cut : n - cut]
    _, sd = _spread(np.clip(ordered, inner[0], inner[-1]), floor)
    error = sd / ((1 - 2 * trim) * math.sqrt(n))
    p_greater, _ = _student(inner.mean() - null, error, max(len(inner) - 1, 1), n)
    return float(p_greater)


def sign_flip_p(values: Array, *, null: float, seed: int = 0) -> float:
    """One-sided p-value that `values` [n] lie above `null`, under all 2ⁿ choices of their signs.

    Exact up to n = 16. Beyond, 100 000 random choices from a generator with `seed`, and p = (1 + hits) / (1 + draws),
    which keeps the test's level (Phipson & Smyth 2010). Differences the size of rounding count as zero.
    """
    shifted = values - null
    shifted = np.where(np.abs(shifted) <= ROUNDING, 0.0, shifted)
    observed = shifted.sum() - ROUNDING
    if len(shifted) <= EXACT_FLIPS:
        sums = np.zeros(1)
        for value in shifted:
            sums = np.concatenate([sums + value, sums - value])
        return float(np.mean(sums >= observed))
    generator = np.random.default_rng(seed)
    hits = 0
    for _ in range(MONTE_CARLO_FLIPS // 10_000):
        signs = 2.0 * generator.integers(0, 2, size=(10_000, len(shifted))) - 1.0
        hits += int(np.count_nonzero(signs @ shifted >= observed))
    return (1 + hits) / (1 + MONTE_CARLO_FLIPS)


def signed_rank(values: Array) -> SignedRank:
    """Wilcoxon's signed-rank test of values [n], with its exact null distribution for the ties and zeros that occur.

    ±inf ranks beyond every finite value. Tied magnitudes share their mean rank; zeros are ranked with the rest and then
    count for neither side (Pratt 1959). The null distribution is that of the rank sum if every non-zero value has
    either sign with probability ½; nothing is approximated.
    """
    values = np.round(values, 12)
    size = np.abs(values)
    ordered = np.sort(size)
    # Twice the mean rank: of the places that a size takes in order, the first and the last.
    ranks = np.searchsorted(ordered, size, "left") + 1 + np.searchsorted(ordered, size, "right")
    nonzero = values != 0
    probability = np.ones(1)
    for rank in ranks[nonzero]:
        taller = np.zeros(len(probability) + int(rank))
        taller[: len(probability)] += 0.5 * probability
        taller[int(rank) :] += 0.5 * probability
        probability = taller
    observed = int(ranks[values > 0].sum())
    p_greater = min(1.0, float(probability[observed:].sum()))
    p_less = min(1.0, float(probability[: observed + 1].sum()))
    return SignedRank(p_greater, p_less, len(values), int(np.count_nonzero(~nonzero)))


def hodges_lehmann(values: Array, *, level: float = 0.95) -> tuple[float, tuple[float, float] | None]:
    """The median of the pairwise means, and its interval by inverting the signed-rank test.

    values: [n], n ≥ 1, may hold ±inf. The interval is None if n is too small for the level (n ≤ 5 at 95 %).
    Hollander & Wolfe, *Nonparametric Statistical Methods*, section 3.3.
    """
    first, second = np.triu_indices(len(values))
    with np.errstate(invalid="ignore"):
        pairs = (values[first] + values[second]) / 2
    # inf − inf: one training that never arrived against another makes no difference.
    pairs = np.sort(np.where(np.isnan(pairs), 0.0, pairs))
    lower, upper = pairs[(len(pairs) - 1) // 2], pairs[len(pairs) // 2]
    centre = float(lower if lower == upper else (lower + upper) / 2)
    probability = np.ones(1)
    for rank in range(1, len(values) + 1):
        probability = 0.5 * (np.pad(probability, (0, rank)) + np.pad(probability, (rank, 0)))
    k = int(np.count_nonzero(np.cumsum(probability) <= (1 - level) / 2))
    if k == 0:
        return centre, None
    return centre, (float(pairs[k - 1]), float(pairs[len(pairs) - k]))


def mean_interval(
    values: Sequence[float | None], *, level: float = 0.95, floor: float = 0.0
) -> tuple[float, float] | None:
    """Two-sided t interval at `level` for the mean of the values that are not None (None = failed training).

    None is returned for fewer than two values, from which no spread can be estimated. The interval describes the
    trainings that finished, so report the number of failed ones beside it. floor: the least sd to assume, in the unit
    of the values; 1 / test examples for accuracies. Raises ValueError if `level` is not between 0 and 1.

    >>> from winticket.judge import mean_interval
    >>> low, high = mean_interval((0.97, 0.98, 0.96, None), floor=1 / 450)
    >>> round(low, 3), round(high, 3)
    (0.945, 0.995)
    """
    if not 0 < level < 1:
        raise ValueError(f"interval level {level} is not between 0 and 1; 0.95 is usual")
    present = np.array([value for value in values if value is not None], dtype=np.float64)
    if len(present) < 2:
        return None
    from scipy import special  # takes a third of a second to import, and most commands judge nothing

    mean, sd = _spread(present, floor)
    half = float(special.stdtrit(len(present) - 1, (1 + level) / 2)) * float(sd) / math.sqrt(len(present))
    return float(mean) - half, float(mean) + half


def power(effect: float, replicates: int, *, alpha: float = 0.05) -> float:
    """The chance that the one-sided one-sample t test at level `alpha` passes, by the noncentral t distribution.

    effect: distance from the boundary in standard deviations of the paired difference; positive effects pass.

    >>> from winticket.judge import power
    >>> round(power(1.0, 8), 2)
    0.82
    """
    from scipy import special  # takes a third of a second to import, and most commands judge nothing

    critical = special.stdtrit(replicates - 1, 1 - alpha)
    return float(1 - special.nctdtr(replicates - 1, effect * math.sqrt(replicates), critical))


def replicates_for(effect: float, *, alpha: float = 0.05, target_power: float = 0.8) -> int | None:
    """The fewest replicates with which the one-sided t test at level `alpha` has `target_power` at this effect.

    effect: distance from the boundary / sd of the paired difference, e.g. margin / sd if ticket and dense network are
    truly equal. None if the effect is not positive, so that no number helps, or if more than 10 000 would be needed.

    >>> from winticket.judge import replicates_for
    >>> [replicates_for(effect) for effect in (0.5, 0.75, 1.0, 1.5, 2.0)]
    [27, 13, 8, 5, 4]
    """
    if math.isinf(effect) and effect > 0:
        # Without variance, p is the sign-flip floor 2⁻ⁿ, which must fall to alpha.
        return max(2, math.ceil(-math.log2(alpha)))
    if not effect > 0:
        return None
    low, high = 1, 2
    while power(effect, high, alpha=alpha) < target_power:
        low, high = high, 2 * high
        if low >= MOST_REPLICATES:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        if power(effect, middle, alpha=alpha) < target_power:
            low = middle
        else:
            high = middle
    return high if high <= MOST_REPLICATES else None
