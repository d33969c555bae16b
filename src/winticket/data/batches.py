"""The order of examples and their augmentation, each epoch's a pure function of (seed, epoch)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from winticket.data.draws import bits, order


def permutation(count: int, *, seed: int, epoch: int) -> Tensor:
    """The order in which one epoch visits `count` examples: int64 [count], every index once.

    Orders of different seeds or epochs are independent, and an epoch's order needs no earlier epoch.
    Raises ValueError for a negative count or epoch.
    """
    _check(count, epoch)
    return order(count, "order", seed, epoch)


def augmentation(
    count: int, *, seed: int, epoch: int, flip: bool, crop: int
) -> tuple[Tensor | None, Tensor | None]:
    """What `augment` does to each of `count` examples in one epoch: (flip, shift).

    flip: bool [count], true for half of them on average; None if not `flip`. shift: int64 [count, 2],
    vertical and horizontal, uniform on -crop..crop; None if `crop` is 0. The two come from streams of their
    own, apart from the data order's, so that switching one on changes nothing else.
    Raises ValueError for a negative count, epoch or crop.
    """
    _check(count, epoch)
    if crop < 0:
        raise ValueError(
            f"crop {crop} is negative; give the pixels of padding on each side, or 0 for no crop"
        )
    flips = shifts = None
    if flip:
        flips = torch.from_numpy(bits(count, "flip", seed, epoch) >> np.uint64(63) == 1)
    if crop:
        words = bits(2 * count, "crop", seed, epoch) % np.uint64(2 * crop + 1)
        shifts = torch.from_numpy(words.astype(np.int64).reshape(count, 2) - crop)
    return flips, shifts


def _check(count: int, epoch: int) -> None:
    if count < 0 or epoch < 0:
        raise ValueError(f"{count} examples in epoch {epoch}: neither number can be negative")


def augment(x: Tensor, *, flip: Tensor | None, shift: Tensor | None, pad: int = 4) -> Tensor:
    """Mirror and shift each image of x [B, C, H, W] by its own draw; every value is copied or zero.

    flip: bool [B], left-right. shift: integers [B, 2] in -pad..pad: pixel (i, j) of the result is pixel
    (i + shift[b, 0], j + shift[b, 1]) of the mirrored image, and 0 outside it. That is the usual crop of a
    zero-padded image (He et al. 2016, section 4.2). x is normalised, so the zeros are the training mean, not
    black.
    Raises ValueError for other shapes and, on the CPU, for a shift beyond `pad`.
    """
    _check_shapes(x, flip, shift, pad)
    batch, channels, height, width = x.shape
    if shift is None:
        return x.clone() if flip is None else torch.where(flip[:, None, None, None], x.flip(-1), x)
    rows = torch.arange(height, device=x.device) + shift[:, :1]
    columns = torch.arange(width, device=x.device) + shift[:, 1:]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    if flip is not None:
        columns = torch.where(flip[:, None], width - 1 - columns, columns)
    index = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None, :]
    index = index.view(batch, 1, height * width).expand(batch, channels, height * width)
    taken = x.reshape(batch, channels, height * width).gather(2, index).view(x.shape)
    return torch.where(inside[:, None], taken, torch.zeros((), dtype=x.dtype, device=x.device))


def _check_shapes(x: Tensor, flip: Tensor | None, shift: Tensor | None, pad: int) -> None:
    if x.dim() != 4:
        raise ValueError(
            f"inputs of shape {tuple(x.shape)} cannot be flipped or cropped; images are [batch, channels, "
            "height, width]: switch augmentation off for other data"
        )
    if flip is not None and (flip.shape != x.shape[:1] or flip.dtype != torch.bool):
        raise ValueError(f"flip is {flip.dtype} {tuple(flip.shape)}; {len(x)} images need bool [{len(x)}]")
    if shift is None:
        return
    if shift.shape != (len(x), 2) or shift.is_floating_point() or shift.dtype == torch.bool:
        raise ValueError(
            f"shift is {shift.dtype} {tuple(shift.shape)}; {len(x)} images need integers [{len(x)}, 2]"
        )
    # Not on other devices: looking at values there holds up the queue and breaks the capture of a graph.
    if shift.device.type == "cpu" and shift.numel() and int(shift.abs().max()) > pad:
        raise ValueError(
            f"a shift of {int(shift.abs().max())} pixels needs more than {pad} pixels of padding; pass pad"
        )
