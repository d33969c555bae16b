"""The order of examples and their augmentation; both are pure functions of (seed, epoch)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from winticket.data.draws import bits, order


def permutation(count: int, *, seed: int, epoch: int) -> Tensor:
    """The order in which one epoch visits `count` examples: int64 [count], every index once.

    Orders of different seeds or epochs are independent, and an epoch's order does not depend on earlier epochs.
    Raises ValueError for a negative count or epoch.

    >>> permutation(5, seed=0, epoch=0), permutation(5, seed=0, epoch=1)
    (tensor([4, 1, 0, 2, 3]), tensor([0, 1, 4, 3, 2]))
    """
    _check(count, epoch)
    return order(count, "order", seed, epoch)


def augmentation(
    count: int, *, seed: int, epoch: int, flip: bool, crop: int
) -> tuple[Tensor | None, Tensor | None]:
    """The augmentation of each of `count` examples in one epoch, for `augment`: (flip, shift).

    flip: bool [count], true for half of them on average; None unless `flip` is on. shift: int64 [count, 2],
    vertical and horizontal, in pixels, uniform on -crop..crop; None if `crop` is 0. Flip, shift and the data
    order come from separate random streams, so switching one on changes nothing else.
    Raises ValueError for a negative count, epoch or crop.

    >>> flip, shift = augmentation(4, seed=0, epoch=0, flip=True, crop=0)
    >>> flip.dtype, flip.shape, shift
    (torch.bool, torch.Size([4]), None)
    """
    _check(count, epoch)
    if crop < 0:
        raise ValueError(
            f"crop {crop} is negative; give the number of padding pixels on each side, or 0 for no crop"
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
        raise ValueError(f"{count} examples in epoch {epoch}: neither number may be negative")


def augment(x: Tensor, *, flip: Tensor | None, shift: Tensor | None, pad: int = 4) -> Tensor:
    """Mirror and shift each image of x [B, C, H, W]; every value of the result is copied or zero.

    flip: bool [B], left to right. shift: integers [B, 2] in -pad..pad: pixel (i, j) of the result is pixel
    (i + shift[b, 0], j + shift[b, 1]) of the mirrored image, and 0 outside it. This is the usual crop of a
    zero-padded image (He et al. 2016, section 4.2). x is normalised, so the zeros are the training mean, not
    black.
    Raises ValueError for other shapes and, on the CPU, for a shift beyond `pad`.

    >>> image = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).view(1, 1, 2, 2)
    >>> augment(image, flip=torch.tensor([True]), shift=torch.tensor([[0, 1]]))
    tensor([[[[1., 0.],
              [3., 0.]]]])
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
            "height, width]; switch augmentation off for other data"
        )
    if flip is not None and (flip.shape != x.shape[:1] or flip.dtype != torch.bool):
        raise ValueError(f"flip is {flip.dtype} {tuple(flip.shape)}; {len(x)} images need bool [{len(x)}]")
    if shift is None:
        return
    if shift.shape != (len(x), 2) or shift.is_floating_point() or shift.dtype == torch.bool:
        raise ValueError(
            f"shift is {shift.dtype} {tuple(shift.shape)}; {len(x)} images need integers [{len(x)}, 2]"
        )
    # Only on the CPU: on other devices, reading values stalls the queue and breaks the capture of a graph.
    if shift.device.type == "cpu" and shift.numel() and int(shift.abs().max()) > pad:
        raise ValueError(
            f"a shift of {int(shift.abs().max())} pixels needs more than {pad} pixels of padding; pass pad"
        )
