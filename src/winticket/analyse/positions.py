"""Where the inputs that a unit keeps lie: how far from one another, and how far from the middle of the image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

REVISION = 2


def displacements(keep: Tensor, shape: Sequence[int]) -> Tensor:
    """How often two inputs that a unit keeps lie at each displacement from one another, in the same channel.

    keep: bool [units, inputs]; shape: of the inputs, [channels, height, width], [channels, length] or [length]. Returns
    counts [2 height - 1, 2 width - 1] (a height of 1 for signals); no displacement is in the middle, and its count is
    0. Both orders of a pair count. This is S^sc(d) of Pellegrini & Biroli 2022. ValueError if the shape does not hold
    as many inputs.

    >>> displacements(torch.tensor([[True, True, False], [True, False, True]]), (3,))
    tensor([[1., 1., 0., 1., 1.]])
    """
    together = _pairs(keep, shape)
    _, height, width = image_shape(keep, shape)
    row, column = torch.arange(height * width) // width, torch.arange(height * width) % width
    down, right = (at[None, :] - at[:, None] for at in (row, column))
    position = (down + height - 1) * (2 * width - 1) + right + width - 1
    counts = torch.zeros((2 * height - 1) * (2 * width - 1), dtype=torch.float64)
    counts.index_add_(0, position.flatten(), together.flatten())
    return counts.view(2 * height - 1, 2 * width - 1).float()


def neighbours(keep: Tensor, shape: Sequence[int]) -> tuple[float, float]:
    """How many times as often as by chance two inputs of a unit are neighbours: (as kept, by the pixels alone).

    keep and shape as for `displacements`. Two inputs are neighbours if they are in the same channel and at most one
    pixel apart, also diagonally. By chance, a unit's inputs are drawn uniformly, so each pair of pixels is as likely as
    any other, whatever the counts. The second number is expected if units drew their inputs independently, each pixel
    as often as it is read; it is above 1 if pixels that are read often lie together. nan if no unit keeps two inputs of
    a channel.

    >>> keep = torch.tensor([[True, True, False, False], [False, False, True, True]])
    >>> neighbours(keep, (4,))  # half of all pairs are neighbours, and all kept ones; every pixel is read once
    (2.0, 1.0)
    """
    channels, height, width = image_shape(keep, shape)
    near = _near(height, width)
    pixels = height * width
    chance = float(near.sum()) / (pixels * (pixels - 1)) if pixels > 1 else math.nan
    together = _pairs(keep, shape)
    often = keep.double().sum(0).view(channels, pixels)
    apart = torch.einsum("cp,cq->pq", often, often).fill_diagonal_(0)
    return _share(together, near) / chance, _share(apart, near) / chance


def centrality(keep: Tensor, shape: Sequence[int]) -> float:
    """The mean distance of the kept inputs from the middle of the image, relative to that of all inputs.

    keep and shape as for `displacements`. Below 1, inputs in the middle are kept more often. nan if none is kept.

    >>> centrality(torch.tensor([[False, True, False]]), (3,))
    0.0
    """
    channels, height, width = image_shape(keep, shape)
    away = _from_middle(height, width).repeat(channels)
    often = keep.double().sum(0)
    return float((often * away).sum() / often.sum() / away.mean()) if bool(often.any()) else math.nan


def image_shape(keep: Tensor, shape: Sequence[int]) -> tuple[int, int, int]:
    """A shape of inputs as (channels, height, width). ValueError for others."""
    if not 1 <= len(shape) <= 3 or keep.ndim != 2 or math.prod(shape) != keep.shape[1]:
        raise ValueError(
            f"a mask of shape {tuple(keep.shape)} is not [units, inputs] for inputs of shape {tuple(shape)}; give "
            "[channels, height, width], [channels, length] or [length]"
        )
    padded = (
        (1, 1, *shape) if len(shape) == 1 else (shape[0], 1, shape[1]) if len(shape) == 2 else tuple(shape)
    )
    return padded[0], padded[1], padded[2]


def _pairs(keep: Tensor, shape: Sequence[int]) -> Tensor:
    """How many units keep both of two pixels of a channel, float64 [pixels, pixels], 0 on the diagonal."""
    channels, height, width = image_shape(keep, shape)
    images = keep.double().view(len(keep), channels, height * width)
    return torch.einsum("ucp,ucq->pq", images, images).fill_diagonal_(0)


def _near(height: int, width: int) -> Tensor:
    """Whether two pixels are neighbours, bool [pixels, pixels]."""
    row, column = torch.arange(height * width) // width, torch.arange(height * width) % width
    apart = torch.maximum((row[:, None] - row).abs(), (column[:, None] - column).abs())
    return apart == 1


def _from_middle(height: int, width: int) -> Tensor:
    """The distance of each pixel from the middle of the image, in pixels, float64 [pixels]."""
    row = torch.arange(height, dtype=torch.float64) - (height - 1) / 2
    column = torch.arange(width, dtype=torch.float64) - (width - 1) / 2
    return torch.hypot(row[:, None], column[None, :]).flatten()


def _share(pairs: Tensor, near: Tensor) -> float:
    whole = float(pairs.sum())
    return float(pairs[near].sum()) / whole if whole else math.nan
