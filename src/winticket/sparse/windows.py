"""Convolutions as sparse products: images laid out so that every tap of a kernel window is a constant offset.

Images follow one another in one long row per channel, with borders of zeros between them, so a shifted channel is the
channel read at an offset. With a stride, each channel becomes one row for each phase of the padded coordinates. A few
images are computed at a time, so that they stay in the cache. See kernels/planes.hpp.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from winticket.sparse import products
from winticket.sparse.native import require

Pair = tuple[int, int]


@dataclass(frozen=True)
class Window:
    """A Conv2d's kernel: `kernel`, `stride` and `padding` as (down, across), over `channels` input channels."""

    channels: int
    kernel: Pair
    stride: Pair
    padding: Pair

    @property
    def phases(self) -> int:
        return self.stride[0] * self.stride[1]

    def numbered(self) -> Tensor:
        """The columns (channel, row, column of the window) in the order of the planes that they read, [columns]."""
        order = sorted(range(self.kernel[0] * self.kernel[1]), key=self._phase_of_tap)
        taps = len(order)
        return torch.tensor([c * taps + tap for c in range(self.channels) for tap in order])

    def taps(self) -> list[tuple[Pair, int]]:
        """The row and column of each tap, and its phase, in the order of `numbered`."""
        across = self.kernel[1]
        order = sorted(range(self.kernel[0] * across), key=self._phase_of_tap)
        return [((tap // across, tap % across), self._phase_of_tap(tap)) for tap in order]

    def _phase_of_tap(self, tap: int) -> int:
        down, across = divmod(tap, self.kernel[1])
        return down % self.stride[0] * self.stride[1] + across % self.stride[1]

    def result(self, height: int, width: int) -> Pair:
        """The height and width of the convolution's result."""
        sizes = zip((height, width), self.kernel, self.stride, self.padding, strict=True)
        down, across = ((size + 2 * pad - k) // step + 1 for size, k, step, pad in sizes)
        return down, across


LINE = 16  # floats of a cache line, on which every plane begins
CACHE = 128 * 1024  # bytes for the planes of a few images, so that they stay in the second-level cache


@dataclass(frozen=True)
class Grid:
    """The layout of a few images: `shape` of one's grid, `reach` of the widest shift.

    `length` is that of a row of all images, up to the end of a cache line.

    place [columns]: the position that each column of a forward product reads; shift [columns]: its offset within its
    plane; bounds [planes + 1]: the first column of each plane.
    """

    images: int
    shape: Pair
    length: int
    reach: int
    place: Tensor
    shift: Tensor
    bounds: Tensor

    @property
    def lead(self) -> int:
        """Zeros before the first row, for shifts backwards: `reach`, rounded up to a whole cache line."""
        return -(-self.reach // LINE) * LINE

    def planes(
        self,
        image: tuple[int, int, int],
        window: Window | None = None,
        *,
        lead: int = 0,
        tail: int | None = None,
    ) -> tuple[int, ...]:
        """`Planes` of kernels/planes.hpp for images (channels, height, width); without `window`, for results."""
        stride, padding = (window.stride, window.padding) if window else ((1, 1), (0, 0))
        return (
            *image,
            *stride,
            *padding,
            *self.shape,
            self.images,
            self.length,
            lead,
            self.reach if tail is None else tail,
        )


@lru_cache(maxsize=256)
def grid(window: Window, images: int, height: int, width: int) -> Grid:
    """The grid for a batch of images of that size. Raises ValueError if positions would not fit into 32 bits."""
    shape = (_extent(window, height, 0), _extent(window, width, 1))
    length = -(-images * shape[0] * shape[1] // LINE) * LINE
    shifts: list[int] = []
    planes: list[int] = []
    bounds: list[int] = []
    for channel in range(window.channels):
        for (down, across), phase in window.taps():
            plane = channel * window.phases + phase
            while len(bounds) <= plane:
                bounds.append(len(shifts))
            shifts.append(down // window.stride[0] * shape[1] + across // window.stride[1])
            planes.append(plane)
    bounds += [len(shifts)] * (window.channels * window.phases + 1 - len(bounds))
    reach = max(shifts)
    if (window.channels * window.phases + 1) * length + reach >= 2**31:
        raise ValueError(
            f"{images} images of {height}x{width} in {window.channels} channels are too many at once"
        )
    shift = torch.tensor(shifts, dtype=torch.int32)
    place = torch.tensor(planes, dtype=torch.int32) * length + shift
    return Grid(images, shape, length, reach, place, shift, torch.tensor(bounds))


def _extent(window: Window, size: int, axis: int) -> int:
    """The number of rows (axis 0) or columns (axis 1) of one image's grid, including its borders."""
    kernel, step, pad = window.kernel[axis], window.stride[axis], window.padding[axis]
    result = (size + 2 * pad - kernel) // step + 1
    if step == 1:
        # Neighbours share one border: the zeros after one image are the zeros before the next.
        return max(size + pad, result)
    return max(result + (kernel - 1) // step, (size - 1 + pad) // step + 1)


def conv2d(
    x: Tensor,
    values: Tensor,
    bias: Tensor | None,
    start: Tensor,
    place: Tensor,
    *,
    window: Window,
    relu: bool = False,
) -> Tensor:
    """x [S, N, C, H, W] convolved with sparse kernels, plus bias [S, O]: [S, N, O, H', W']; `relu` clips it at 0."""
    x = x.contiguous()
    *_, images, _, height, width = x.shape
    rows, size = start.shape[-1] - 1, window.result(height, width)
    out = values.new_empty((*values.shape[:-1], images, rows, *size))
    products.check(x, (values, bias), (start, place))
    if not out.numel():
        return out
    g = fitting(window, images, height, width, rows=rows, bytes_each=x.element_size())
    taken = _take(g.place, place)
    require().conv(
        x.dtype == torch.float64, torch.get_num_threads(), math.prod(values.shape[:-1]), images,
        g.planes((window.channels, height, width), window), g.planes((rows, *size)),
        rows, start.shape[-2], place.shape[-1], values.shape[-1], start.data_ptr(), taken.data_ptr(), values.data_ptr(),
        products.address(bias), x.data_ptr(), products.apart(x, values, alone=4), out.data_ptr(), out[0].numel(),
        relu,
    )  # fmt: skip
    return out


def conv2d_backward(
    grad: Tensor,
    x: Tensor,
    values: Tensor,
    rows_in: tuple[Tensor, Tensor],
    columns: Sequence[Tensor],
    *,
    window: Window,
    input_wanted: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients by x, by the kept weights [S, P] and by the bias [S, O], from the gradient by the output.

    The gradient by x is [S, N, C, H, W], or empty unless `input_wanted`. `rows_in` are start and place of a
    `Structure`; `columns` are its by_column, row_of, order and column_of.
    """
    x, grad = x.contiguous(), grad.contiguous()
    (start, place), (by_column, row_of, order, column_of) = rows_in, columns
    *_, images, _, height, width = x.shape
    rows, stack = start.shape[-1] - 1, values.shape[:-1]
    by_weight, by_bias = values.new_zeros(place.shape), values.new_zeros((*stack, rows))
    by_x = values.new_empty((*stack, images, *x.shape[-3:]) if input_wanted else (*stack, 0))
    products.check(x, (values, grad), (start, place, by_column, row_of, order, column_of))
    if not grad.numel():
        return by_x.zero_(), by_weight, by_bias
    g = fitting(window, images, height, width, rows=rows, bytes_each=x.element_size())
    image = (window.channels, height, width)
    by_plane, taken = by_column[..., g.bounds].contiguous(), _take(g.place, place)
    row_place = row_of * g.length - _take(g.shift, column_of)
    require().conv_back(
        x.dtype == torch.float64, torch.get_num_threads(), math.prod(values.shape[:-1]), images,
        g.planes(image, window), g.planes((rows, *grad.shape[-2:]), lead=g.lead), g.planes(image, window, tail=0),
        rows, start.shape[-2], place.shape[-1], start.data_ptr(), taken.data_ptr(), by_plane.shape[-1] - 1,
        by_plane.shape[-2], by_plane.data_ptr(),
        row_place.data_ptr(), order.data_ptr(), values.data_ptr(), x.data_ptr(),
        products.apart(x, values, alone=4), grad.data_ptr(), products.apart(grad, values, alone=4),
        by_x.data_ptr() if input_wanted else 0, by_x[0].numel() if input_wanted else 0, by_weight.data_ptr(),
        by_bias.data_ptr(),
    )  # fmt: skip
    return by_x, by_weight, by_bias


def fitting(window: Window, images: int, height: int, width: int, *, rows: int, bytes_each: int) -> Grid:
    """A grid of as many images, at least one, as let the planes of a product fit into the cache."""
    one = grid(window, 1, height, width)
    fits = CACHE // (bytes_each * one.length * (window.channels * window.phases + rows))
    blocks = -(-images // max(1, min(fits, images)))
    return grid(window, -(-images // blocks), height, width)


def _take(table: Tensor, index: Tensor) -> Tensor:
    return table.index_select(0, index.reshape(-1)).view(index.shape)
