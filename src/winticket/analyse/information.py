"""Information of layers with inputs and classes: estimates by several estimators, since none alone means much.

The layers of a network that is not random are functions of its input, so I(X;T) is infinite for continuous values, or
log₂ N on N examples: what a plot shows is its estimator (Goldfeld et al. 2019). All quantities are in bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp

REVISION = 1
Values = NDArray[np.float64]
Codes = NDArray[np.int64]


class Information(NamedTuple):
    """Estimates for a layer T: I(X;T) with the input and I(T;Y) with the class, in bits."""

    x: float
    y: float


def entropy(codes: ArrayLike) -> float:
    """The entropy, in bits, of the rows of codes [N] or [N, F] as drawn: -Σ p log₂ p over distinct rows.

    >>> entropy([0, 0, 1, 1])
    1.0
    """
    counts = np.bincount(_numbered(codes))
    shares = counts[counts > 0] / counts.sum()
    return float(max(0.0, -(shares * np.log2(shares)).sum()))


def _numbered(codes: ArrayLike) -> Codes:
    """Distinct rows of codes [N] or [N, F] as numbers [N]."""
    table = np.asarray(codes)
    rows = np.ascontiguousarray(table.reshape(len(table), -1))
    if rows.dtype == np.int64 and rows.size and rows.min() >= 0 and rows.max() < 256:
        rows = rows.astype(np.uint8)  # an eighth of the bytes to sort
    whole = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    return np.unique(whole, return_inverse=True)[1].reshape(-1).astype(np.int64)


def discrete_information(a: ArrayLike, b: ArrayLike) -> float:
    """The mutual information, in bits, of two discrete variables [N] or [N, F] in their joint sample.

    It is exact for the distribution of the sample: H(A) + H(B) - H(A, B).

    >>> discrete_information([0, 0, 1, 1], [5, 5, 7, 7])
    1.0
    """
    first, second = _numbered(a), _numbered(b)
    together = first * (int(second.max()) + 1) + second
    return max(0.0, entropy(first) + entropy(second) - entropy(together))


def fixed_bins(t: ArrayLike, bins: int) -> Codes:
    """Codes [N, F] of values [N, F]: the number of the bin, of `bins` equally wide ones from least to largest value.

    Saxe et al. 2018 bin each unit of a layer by the same edges, as here. ValueError for fewer than two bins.

    >>> fixed_bins([[0.0], [0.4], [1.0]], 2).ravel().tolist()
    [0, 0, 1]
    """
    values = _table(t)
    if bins < 2:
        raise ValueError(f"bins is {bins}; at least 2 distinguish anything")
    low, high = float(values.min()), float(values.max())
    if high == low:
        return np.zeros(values.shape, np.int64)
    return np.minimum((bins * ((values - low) / (high - low))).astype(np.int64), bins - 1)


def quantile_bins(t: ArrayLike, bins: int) -> Codes:
    """Codes [N, F] of values [N, F] by `bins` bins that hold equally many of the layer's values, ties together.

    >>> quantile_bins([[0.0], [0.1], [5.0], [90.0]], 2).ravel().tolist()
    [0, 0, 1, 1]
    """
    values = _table(t)
    if bins < 2:
        raise ValueError(f"bins is {bins}; at least 2 distinguish anything")
    edges = np.unique(np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1]))
    return np.searchsorted(edges, values, side="left").astype(np.int64)


def binned(t: ArrayLike, y: ArrayLike, codes: Callable[[ArrayLike, int], Codes], bins: int) -> Information:
    """I(X;T) and I(T;Y) of values [N, F] and classes [N] after binning, all N inputs taken as different.

    >>> binned([[0.0], [0.0], [1.0], [1.0]], [0, 0, 1, 1], fixed_bins, 2)
    Information(x=1.0, y=1.0)
    """
    coded = codes(t, bins)
    return Information(entropy(coded), discrete_information(coded, y))


def kde_bounds(t: ArrayLike, y: ArrayLike, *, noise: float) -> tuple[Information, Information]:
    """Lower and upper bounds by pairwise distances, if noise of variance `noise` is added to each unit.

    T is then a mixture of N Gaussians. Kolchinsky & Tracey 2017 (Estimating Mixture Entropy with Pairwise Distances),
    section 5: I(X;T) is at most -1/N Σᵢ log 1/N Σⱼ exp(-|tᵢ - tⱼ|²/(2 noise)), and at least the same with 8 in place of
    2. For I(T;Y) each bound is that of H(T) less the same bound of H(T|Y), as Saxe et al. 2018 take it, so there the
    two are estimates and no bounds. ValueError unless noise is positive.

    >>> low, high = kde_bounds([[0.0], [100.0]], [0, 1], noise=1.0)
    >>> round(low.x, 6), round(high.x, 6)
    (1.0, 1.0)
    """
    if not noise > 0:
        raise ValueError(f"noise is {noise}; the variance of the added noise has to be positive")
    values, classes = _table(t), np.asarray(y).ravel()
    squares = (values**2).sum(1)
    distances = np.maximum(squares[:, None] + squares[None] - 2 * values @ values.T, 0.0)

    def spread(rows: NDArray[np.bool_], scale: float) -> float:
        part = -distances[np.ix_(rows, rows)] / (scale * noise)
        return float(-(logsumexp(part, axis=1) - math.log(rows.sum())).mean() / math.log(2))

    made = []
    everything = np.ones(len(values), bool)
    for scale in (8.0, 2.0):
        whole = spread(everything, scale)
        within = sum((classes == c).mean() * spread(classes == c, scale) for c in np.unique(classes))
        made.append(Information(whole, float(whole - within)))
    return made[0], made[1]


def _table(t: ArrayLike) -> Values:
    values = np.asarray(t, np.float64)
    return values.reshape(len(values), -1)


BINS = (4, 16, 64)
LEVELS_OF_EXACT = 16


def estimates(t: ArrayLike, *classes: ArrayLike, noise: float) -> dict[str, tuple[Information, ...]]:
    """All estimates for values [N, F] and one or more sets of classes [N], by the estimator's name.

    `noise` is the variance of the pairwise bounds' noise, relative to the mean variance of T's units.

    >>> made = estimates([[0.0], [0.1], [1.0], [1.1]], [0, 0, 1, 1], noise=0.1)
    >>> len(made), made["4 bins"][0].y
    (8, 1.0)
    """
    values = _table(t)
    made: dict[str, tuple[Information, ...]] = {}
    for words, codes in (("bins", fixed_bins), ("quantiles", quantile_bins)):
        for n in BINS:
            numbers = _numbered(codes(values, n))
            x = entropy(numbers)
            made[f"{n} {words}"] = tuple(Information(x, discrete_information(numbers, y)) for y in classes)
    variance = float(values.var(0).mean())
    # Without any spread there is nothing to know.
    nothing = (Information(0.0, 0.0),) * 2
    bounds = [kde_bounds(values, y, noise=noise * variance) if variance > 0 else nothing for y in classes]
    made["pairwise, lower"] = tuple(low for low, _ in bounds)
    made["pairwise, upper"] = tuple(high for _, high in bounds)
    return made


def quantised(values: Values, low: float, high: float, levels: int) -> Values:
    """The values rounded to the middle of one of `levels` equal steps from low to high; others to the nearest step.

    >>> quantised(np.array([0.0, 0.3, 2.0]), 0.0, 1.0, 2).tolist()
    [0.25, 0.25, 0.75]
    """
    if high <= low:
        return np.full_like(values, low)
    step = (high - low) / levels
    return low + step * (np.clip(np.floor((values - low) / step), 0, levels - 1) + 0.5)
