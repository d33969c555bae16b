"""Perplexity of held-out text, with intervals over its documents, or over the windows of a single one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

CHUNK = 128
"""Tokens whose logits are turned into losses at a time, since a vocabulary is large."""


class Estimate(TypedDict):
    """A perplexity, or a ratio of two."""

    value: float
    """exp of the mean."""
    interval: list[float] | None
    """95 % interval: low, high; null for a single window."""


@torch.no_grad()
def losses(
    model: nn.Module, windows: Tensor, *, progress: Callable[[int], None] = lambda _: None
) -> list[float]:
    """Mean loss in nats of each window's tokens but the first, each predicted from those before it in its window.

    windows: token ids [windows, length], length of at least 2. `progress` gets the number of windows done. Raises
    FloatingPointError if a loss is not finite, as when numbers are too large for float16.
    """
    means = []
    for number, window in enumerate(windows, 1):
        logits = model(input_ids=window[None], use_cache=False).logits[0]
        parts = zip(logits[:-1].split(CHUNK), window[1:].split(CHUNK), strict=True)
        summed = sum(float(functional.cross_entropy(x.float(), y, reduction="sum")) for x, y in parts)
        if not math.isfinite(summed):
            raise FloatingPointError(
                f"the loss of window {number} is {summed}: weights of the model are not finite, or what it computes is "
                f"too large for {str(logits.dtype).removeprefix('torch.')}"
            )
        means.append(summed / (window.numel() - 1))
        progress(number)
    return means


def estimate(values: Sequence[float], documents: Sequence[int] | None = None) -> Estimate:
    """exp of the mean over windows of equal length, with a 95 % interval by Student's t.

    Of losses, this is the perplexity; of differences of losses on the same windows, the ratio of two perplexities, as
    which paired windows are compared. `documents` has the number of each window's document. If there are several, these
    are what is drawn: windows of one document resemble each other. The mean then is a ratio of sums over documents, and
    its variance that of their residuals (ratio estimators: Cochran 1977, Sampling Techniques, chapter 6), with
    documents - 1 degrees of freedom. Else windows are what is drawn. Raises FloatingPointError if the result is larger
    than numbers are.

    >>> import math
    >>> round(estimate([math.log(8), math.log(8)])["value"], 6)
    8.0
    >>> estimate([1.0, 1.0, 3.0], [0, 0, 1])["interval"] == estimate([1.0, 3.0, 1.0], [0, 1, 0])["interval"]
    True
    """
    whole, mean = np.asarray(values, np.float64), float(np.mean(values))
    drawn = np.unique(documents, return_inverse=True)[1] if documents is not None else np.zeros(0, np.int64)
    if drawn.size == 0 or drawn.max() == 0:
        drawn = np.arange(whole.size)
    count = int(drawn.max()) + 1
    if count < 2:
        return {"value": _exp(mean), "interval": None}
    from scipy import stats  # takes a second to import, which a refusal need not wait for

    residuals = np.bincount(drawn, whole - mean)
    error = math.sqrt(count / (count - 1) * float((residuals**2).sum())) / whole.size
    half = float(stats.t.ppf(0.975, count - 1)) * error
    return {"value": _exp(mean), "interval": [_exp(mean - half), _exp(mean + half)]}


def _exp(exponent: float) -> float:
    try:
        return math.exp(exponent)
    except OverflowError as error:
        raise FloatingPointError(
            f"a perplexity of exp({exponent:.4g}) is larger than numbers are; the model predicts nothing"
        ) from error


def ratio(
    after: Sequence[float], before: Sequence[float], documents: Sequence[int] | None = None
) -> Estimate:
    """How many times larger the perplexity is after than before, from losses on the same windows.

    documents: as in `estimate`. Raises ValueError if the numbers of windows differ.

    >>> ratio([2.0, 3.0], [2.0, 3.0])
    {'value': 1.0, 'interval': [1.0, 1.0]}
    """
    return estimate([a - b for a, b in zip(after, before, strict=True)], documents)
