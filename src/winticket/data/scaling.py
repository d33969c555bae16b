"""Standardise features, channels and uint8 pixels by the training split alone, and fill what is missing from it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from winticket.data.content import Decoded, Split

Moments = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each feature or channel."""


def standardised(splits: Mapping[str, Split], content: Decoded) -> tuple[dict[str, Split], Moments]:
    """The splits with x in float32, filled and scaled as `content` says, and the moments that scaled them.

    For feature (or channel) j that is scaled, x_j becomes (x_j - mean_j) / std_j, with mean and population standard
    deviation over the rows (and positions) of the training split, in float64. A missing value becomes the training
    split's mean or median before that; one of a feature that has no value in the training split becomes 0. If a
    feature is constant there, it is centred and not divided. Features that are not scaled (the 0 and 1 of categories)
    keep their values, except that a category which no training row has is 0 in all rows.
    """
    assert content.scaled is not None
    known = _rows(splits["train"].x)
    fills = _fills(known, content)
    scaled = torch.tensor(content.scaled)
    filled = torch.where(known.isnan(), fills, known)
    means = torch.where(scaled, filled.mean(0), 0.0)
    deviations = torch.where(scaled, filled.sub(means).square().mean(0).sqrt(), 1.0)
    # Rounding leaves a constant with a deviation of some 1e-16 of its size.
    constant = filled.amax(0) == filled.amin(0)
    deviations = torch.where(constant | (deviations == 0), 1.0, deviations)
    absent = ~scaled & ~(filled != 0).any(0)

    def ready(x: Tensor) -> Tensor:
        shape = (1, -1, *(1,) * (x.dim() - 2))
        fill, mean, deviation = (v.view(shape) for v in (fills, means, deviations))
        values = torch.where(x.isnan(), fill, x.double())
        values = torch.where(absent.view(shape), 0.0, values)
        return values.sub(mean).div(deviation).float().contiguous()

    ready_splits = {name: Split(ready(split.x), split.y) for name, split in splits.items()}
    return ready_splits, (tuple(means.tolist()), tuple(deviations.tolist()))


def _rows(x: Tensor) -> Tensor:
    """x [N, C, ...] as float64 [N * positions, C]."""
    return x.double().movedim(1, -1).reshape(-1, x.shape[1])


def _fills(known: Tensor, content: Decoded) -> Tensor:
    """What replaces a missing value of each feature, float64 [F]."""
    if content.fill is None:
        return torch.zeros(known.shape[1], dtype=torch.float64)
    if content.fill == "mean":
        fills = known.nanmean(0)
    else:
        columns = known.numpy()  # torch's quantile takes no more than 2^24 values
        fills = torch.tensor([_median(columns[:, j]) for j in range(columns.shape[1])], dtype=torch.float64)
    return torch.where(fills.isnan(), 0.0, fills)


def _median(column: NDArray[np.float64]) -> float:
    """The median of the values that are not missing: the mean of the two middle ones of an even number; else NaN."""
    values = column[~np.isnan(column)]
    return float(np.median(values)) if len(values) else float("nan")


def moments_of_pixels(x: Tensor, *, scale: float, name: str) -> Moments:
    """Mean and population standard deviation of each channel of uint8 x [N, C, H, W], in units of `scale`."""
    values = torch.arange(256, dtype=torch.float64) / scale
    means, deviations = [], []
    for channel in range(x.shape[1]):
        # Counting pixel values makes the sums exact, so they do not depend on the order of addition.
        share = torch.bincount(x[:, channel].flatten(), minlength=256).double() / x[:, channel].numel()
        mean = float((share * values).sum())
        deviation = float((share * (values - mean) ** 2).sum().sqrt())
        if deviation == 0.0:
            raise ValueError(
                f"channel {channel} of {name} has the same value {mean:g} in all training images, so "
                "it cannot be normalised; drop that channel (convert the images to grey)"
            )
        means.append(mean)
        deviations.append(deviation)
    return tuple(means), tuple(deviations)


def normalised(x: Tensor, *, scale: float, moments: Moments) -> Tensor:
    """uint8 x [N, C, ...] divided by `scale` and standardised, in float32; any other x as it is."""
    if x.dtype != torch.uint8:
        return x.contiguous()
    ready = x.to(torch.float32, memory_format=torch.contiguous_format)
    shape = (1, -1, *(1,) * (x.dim() - 2))
    centre, deviation = (torch.tensor(part, dtype=torch.float32).view(shape) for part in moments)
    return ready.div_(scale).sub_(centre).div_(deviation)
