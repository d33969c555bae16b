"""Information of representations with inputs and classes: estimates by several estimators, in bits.

A layer of a network without noise is a function of its input. So I(X;T) is infinite if values are continuous, and
log2 N on N examples that all have their own value. What a plot shows is its estimator, and how the representations
cluster (Goldfeld et al. 2019, Estimating Information Flow in Deep Neural Networks).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

REVISION = 1
Values = NDArray[np.float64]
Codes = NDArray[np.int64]
Some = ArrayLike | Tensor
"""What the functions take: lists, arrays or tensors."""


class Information(NamedTuple):
    """Estimates for a representation T: I(X;T) with the input and I(T;Y) with the class, in bits."""

    x: float
    y: float


class Bounds(NamedTuple):
    """Lower and upper bound of I(X;T) and of I(T;Y), and the two estimates of I(T;Y) that papers plot, in bits."""

    x: tuple[float, float]
    y: tuple[float, float]
    plotted_y: tuple[float, float]


def entropy(codes: Some) -> float:
    """The entropy, in bits, of the rows of codes [N] or [N, F] in their sample: -Σ p log2 p over distinct rows.

    >>> entropy([0, 0, 1, 1])
    1.0
    """
    counts = np.bincount(numbered(codes))
    shares = counts[counts > 0] / counts.sum()
    return float(max(0.0, -(shares * np.log2(shares)).sum()))


def numbered(codes: Some) -> Codes:
    """Numbers [N] of the rows of codes [N] or [N, F]: equal rows have equal numbers, from 0 up.

    >>> numbered([[5, 5], [1, 2], [5, 5]]).tolist()
    [1, 0, 1]
    """
    table = _array(codes)
    rows = table.reshape(len(table), -1)
    if np.issubdtype(rows.dtype, np.floating):
        rows = rows + 0.0  # -0 and 0 are equal, though their bytes are not
    elif np.issubdtype(rows.dtype, np.integer) and rows.min() >= 0 and rows.max() < 256:
        rows = rows.astype(np.uint8)  # an eighth of the bytes to sort
    rows = np.ascontiguousarray(rows)
    whole = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    return np.unique(whole, return_inverse=True)[1].reshape(-1).astype(np.int64)


def discrete_information(a: Some, b: Some) -> float:
    """The mutual information, in bits, of two discrete variables [N] or [N, F] in their joint sample.

    It is exact for the distribution of the sample: H(A) + H(B) - H(A, B). ValueError if their lengths differ.

    >>> discrete_information([0, 0, 1, 1], [5, 5, 7, 7])
    1.0
    """
    first, second = numbered(a), numbered(b)
    _same_length(first, second)
    together = first * (int(second.max()) + 1) + second
    return max(0.0, entropy(first) + entropy(second) - entropy(together))


def fixed_bins(t: Some, bins: int, *, ends: tuple[float, float] | None = None) -> Codes:
    """Codes [N, F] of values [N, F]: the number of the bin, of `bins` bins of one width between the two ends.

    ends: by default the least and the largest value. Values beyond fall into the outer bins. Saxe et al. 2018 bin every
    unit of a layer by the same edges, as here, and keep the edges during a training, which `ends` does. ValueError for
    fewer than two bins.

    >>> fixed_bins([[0.0], [0.4], [1.0]], 2).ravel().tolist()
    [0, 0, 1]
    """
    values = _table(t)
    _enough(bins)
    low, high = (float(values.min()), float(values.max())) if ends is None else ends
    if high <= low:
        return np.zeros(values.shape, np.int64)
    return np.clip(np.floor(bins * ((values - low) / (high - low))), 0, bins - 1).astype(np.int64)


def quantile_bins(t: Some, bins: int) -> Codes:
    """Codes [N, F] of values [N, F] by `bins` bins that hold equally many of the layer's values; ties stay together.

    So the edges follow the values at every step of a training, as the adaptive bins of Chelombiev et al. 2019 (Adaptive
    Estimators Show Information Compression in Deep Neural Networks) do. ValueError for fewer than two bins.

    >>> quantile_bins([[0.0], [0.1], [5.0], [90.0]], 2).ravel().tolist()
    [0, 0, 1, 1]
    """
    values = _table(t)
    _enough(bins)
    edges = np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1])
    return np.searchsorted(edges, values, side="left").astype(np.int64)


def binned(t: Some, y: Some, codes: Callable[[Some, int], Codes], bins: int) -> Information:
    """I(X;T) and I(T;Y) of values [N, F] and classes [N] after binning.

    T after binning is a function of X, so I(X;T) is its entropy. ValueError for fewer than two bins.

    >>> binned([[0.0], [0.0], [1.0], [1.0]], [0, 0, 1, 1], fixed_bins, 2)
    Information(x=1.0, y=1.0)
    """
    coded = numbered(codes(t, bins))
    return Information(entropy(coded), discrete_information(coded, y))


def kde_bounds(t: Some, y: Some, *, noise: float) -> Bounds:
    """Bounds by pairwise distances of values [N, F], if normal noise of variance `noise` is added to every unit.

    T is then a mixture of N Gaussians, one for each example. With d the distance of two examples' values, I(X;T) is at
    most -1/N Σᵢ log2 1/N Σⱼ exp(-dᵢⱼ²/(2 noise)), and at least the same with 8 in place of 2: Kolchinsky & Tracey 2017
    (Estimating Mixture Entropy with Pairwise Distances), whose distances are here the Kullback-Leibler divergence and
    the Bhattacharyya distance of the Gaussians.

    y: classes [N]. I(T;Y) = H(T) - H(T|Y), so it is at least the lower bound of H(T) less the upper bound of H(T|Y),
    and at most the other way round (and at most H(Y)). Saxe et al. 2018 plot the difference of two lower or of two
    upper bounds, which lies between these and bounds nothing: `plotted_y`.

    The result is about the N examples, and in bits. ValueError unless noise is positive.

    >>> bounds = kde_bounds([[0.0], [100.0]], [0, 1], noise=1.0)
    >>> bounds.x, bounds.y
    ((1.0, 1.0), (1.0, 1.0))
    """
    if not noise > 0:
        raise ValueError(f"noise is {noise}; the variance of the added noise has to be positive")
    values, classes = _table(t), numbered(y)
    _same_length(values, classes)
    return pairwise_bounds(squared_distances(values), [classes], noise=noise)[0]


def squared_distances(values: Values) -> Values:
    """Squared distances [N, N] of the rows of values [N, F].

    >>> squared_distances(np.array([[0.0, 0.0], [3.0, 4.0]])).tolist()
    [[0.0, 25.0], [25.0, 0.0]]
    """
    centred = values - values.mean(0)
    squares = (centred**2).sum(1)
    distances: Values = np.maximum(squares[:, None] + squares[None] - 2 * centred @ centred.T, 0.0)
    np.fill_diagonal(distances, 0.0)
    return distances


def pairwise_bounds(distances: Values, classes: Sequence[Codes], *, noise: float) -> list[Bounds]:
    """As `kde_bounds`, from squared distances [N, N], for each of several sets of classes [N], numbered from 0 up.

    >>> distances = np.array([[0.0, 1e4], [1e4, 0.0]])
    >>> [bounds.x for bounds in pairwise_bounds(distances, [np.array([0, 1])], noise=1.0)]
    [(1.0, 1.0)]
    """
    widths = [int(y.max()) + 1 for y in classes]
    member = np.concatenate(
        [np.eye(width, dtype=np.float32)[y] for width, y in zip(widths, classes, strict=True)], axis=1
    )
    low, high = (_entropies(distances / (scale * noise), classes, widths, member) for scale in (8.0, 2.0))
    made = []
    for n, y in enumerate(classes):
        most = entropy(y)
        bounds = max(0.0, low[0] - high[1][n]), max(0.0, min(most, high[0] - low[1][n]))
        made.append(Bounds((low[0], high[0]), bounds, (low[0] - low[1][n], high[0] - high[1][n])))
    return made


def _entropies(
    exponents: Values, classes: Sequence[Codes], widths: Sequence[int], member: NDArray[np.float32]
) -> tuple[float, list[float]]:
    """-mean log2 of the mean of exp(-exponents) over all examples, and over those of each example's own class."""
    # Single precision suffices: every sum has the term exp(0) = 1, and terms below 1e-7 of it do not count.
    kernel = np.exp(-exponents.astype(np.float32))
    sums = (kernel @ member).astype(np.float64)
    whole = np.log2(len(kernel)) - np.log2(sums[:, : widths[0]].sum(1)).mean()
    within, first = [], 0
    for y, width in zip(classes, widths, strict=True):
        own = sums[np.arange(len(y)), first + y]
        within.append(float((np.log2(np.bincount(y)[y]) - np.log2(own)).mean()))
        first += width
    return float(max(whole, 0.0)), [max(one, 0.0) for one in within]


def rounded(values: Values, ends: tuple[float, float], levels: int) -> Values:
    """The values rounded to the middle of one of `levels` equal steps between the ends; others to the nearest step.

    >>> rounded(np.array([0.0, 0.3, 2.0]), (0.0, 1.0), 2).tolist()
    [0.25, 0.25, 0.75]
    """
    low, high = ends
    if high <= low:
        return np.full_like(values, low)
    step = (high - low) / levels
    return low + step * (np.clip(np.floor((values - low) / step), 0, levels - 1) + 0.5)


def _array(some: Some) -> NDArray[Any]:
    made = some.detach().cpu().numpy() if isinstance(some, torch.Tensor) else np.asarray(some)
    if made.size == 0:
        raise ValueError(
            f"the values have shape {list(made.shape)}; without any there is no information to estimate"
        )
    return made


def _table(t: Some) -> Values:
    values = _array(t).astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("some values are infinite or nan, so they have no bins and no distances")
    return values.reshape(len(values), -1)


def _enough(bins: int) -> None:
    if bins < 2:
        raise ValueError(f"bins is {bins}; it takes at least 2 to tell values apart")


def _same_length(first: NDArray[Any], second: NDArray[Any]) -> None:
    if len(first) != len(second):
        raise ValueError(f"there are {len(first)} and {len(second)} rows; each example has one row of both")
