"""Convolutions as sparse products: images laid out so that every tap of a kernel window is a constant offset.

All images of a batch follow one another in one long row per channel, with borders of zeros between them, so that a
shifted copy of a channel is the channel read from another place. With a stride, each channel becomes one row for each
phase of the padded coordinates. See kernels/planes.hpp.
"""

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
        """Row and column of each tap and its phase, in the order of `numbered`."""
        across = self.kernel[1]
        order = sorted(range(self.kernel[0] * across), key=self._phase_of_tap)
        return [((tap // across, tap % across), self._phase_of_tap(tap)) for tap in order]

    def _phase_of_tap(self, tap: int) -> int:
        down, across = divmod(tap, self.kernel[1])
        return down % self.stride[0] * self.stride[1] + across % self.stride[1]

    def result(self, height: int, width: int) -> Pair:
        """Height and width of what the convolution gives."""
        sizes = zip((height, width), self.kernel, self.stride, self.padding, strict=True)
        down, across = ((size + 2 * pad - k) // step + 1 for size, k, step, pad in sizes)
        return down, across


@dataclass(frozen=True)
class Grid:
    """How a batch of images lies: `shape` of one image's grid, `length` of a row of all, `reach` of the widest shift.

    place [columns]: where each column of a forward product reads; shift [columns]: the offset within its plane;
    bounds [planes + 1]: the first column of each plane.
    """

    shape: Pair
    length: int
    reach: int
    place: Tensor
    shift: Tensor
    bounds: Tensor


@lru_cache(maxsize=256)
def grid(window: Window, images: int, height: int, width: int) -> Grid:
    """The grid for a batch of images of that size. ValueError where positions would not fit 32 bits."""
    shape = (_extent(window, height, 0), _extent(window, width, 1))
    length = images * shape[0] * shape[1]
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
    return Grid(shape, length, reach, place, shift, torch.tensor(bounds))


def _extent(window: Window, size: int, axis: int) -> int:
    """Rows (axis 0) or columns (axis 1) of one image's grid, its borders included."""
    kernel, step, pad = window.kernel[axis], window.stride[axis], window.padding[axis]
    result = (size + 2 * pad - kernel) // step + 1
    if step == 1:
        # One border between two neighbours serves both: the zeros after one are those before the next.
        return max(size + pad, result)
    return max(result + (kernel - 1) // step, (size - 1 + pad) // step + 1)


def conv2d(
    x: Tensor, values: Tensor, bias: Tensor | None, start: Tensor, place: Tensor, *, window: Window
) -> Tensor:
    """x [S, N, C, H, W] convolved with sparse kernels, plus bias [S, O]: [S, N, O, H', W']."""
    *_, images, _, height, width = x.shape
    g = grid(window, images, height, width)
    operand = _spread(x, g, window.phases, window)
    rows = start.shape[-1] - 1
    apart = products.apart(operand, values, alone=1)
    out = values.new_empty((*values.shape[:-1], rows, g.length))
    products.accumulate(
        out, operand, values, (start, _take(g.place, place)), bias=bias, scale=1, between=apart
    )
    return _gather(out, g, (*values.shape[:-1], images, rows, *window.result(height, width)), None)


def conv2d_grad_input(
    grad: Tensor, values: Tensor, columns: Sequence[Tensor], *, window: Window, size: Pair
) -> Tensor:
    """The gradient by x, of height and width `size`, from that by the output [S, N, O, H', W'].

    `columns` are by_column, row_of, order and column_of of a `Structure`.
    """
    by_column, row_of, order, column_of = columns
    images = grad.shape[-4]
    g = grid(window, images, *size)
    operand = _spread(grad, g, 1, None)
    by_plane = by_column[..., g.bounds].contiguous()
    place = row_of * g.length - _take(g.shift, column_of)
    apart = products.apart(operand, values, alone=1)
    out = values.new_empty((*values.shape[:-1], by_plane.shape[-1] - 1, g.length))
    products.accumulate(
        out, operand, values, (by_plane, place), order=order, scale=1, between=apart, lead=g.reach
    )
    return _gather(out, g, (*values.shape[:-1], images, window.channels, *size), window)


def conv2d_grad_weight(grad: Tensor, x: Tensor, start: Tensor, place: Tensor, *, window: Window) -> Tensor:
    """The gradient by the kept weights alone, [S, P]."""
    *_, images, _, height, width = x.shape
    g = grid(window, images, height, width)
    rows = start.shape[-1] - 1
    dense = _spread(grad, g, 1, None)[..., g.reach : g.reach + rows * g.length]
    operand = _spread(x, g, window.phases, window)
    out = grad.new_zeros(place.shape)
    dense = dense.view(*dense.shape[:-1], rows, g.length)
    apart = products.apart(operand, out, alone=1)
    products.dot(out, dense, operand, (start, _take(g.place, place)), scale=1, between=apart)
    return out


def _take(table: Tensor, index: Tensor) -> Tensor:
    return table.index_select(0, index.reshape(-1)).view(index.shape)


def _spread(x: Tensor, g: Grid, phases: int, window: Window | None) -> Tensor:
    """Images [..., N, C, H, W] as rows [..., lead + C · phases · length + tail], zeros between; None: no padding."""
    x = x.contiguous()
    *stack, images, channels, height, width = x.shape
    lead = 0 if window else g.reach
    total = lead + channels * phases * g.length + g.reach
    out = x.new_zeros((*stack, total))
    stride, padding = (window.stride, window.padding) if window else ((1, 1), (0, 0))
    if x.numel():
        count = x.numel() // (images * channels * height * width)
        require().spread(
            x.dtype == torch.float64, torch.get_num_threads(), count, images, channels, height, width,
            *stride, *padding, *g.shape, lead, images * channels * height * width, total,
            x.data_ptr(), out.data_ptr(),
        )  # fmt: skip
    return out


def _gather(rows: Tensor, g: Grid, shape: tuple[int, ...], window: Window | None) -> Tensor:
    """The way back, to images of `shape` [..., N, C, H, W]."""
    out = rows.new_empty(shape)
    *_, images, channels, height, width = shape
    stride, padding = (window.stride, window.padding) if window else ((1, 1), (0, 0))
    if out.numel():
        size = images * channels * height * width
        require().gather(
            rows.dtype == torch.float64, torch.get_num_threads(), out.numel() // size, images, channels, height,
            width, *stride, *padding, *g.shape, 0, rows.shape[-2] * rows.shape[-1], size,
            rows.data_ptr(), out.data_ptr(),
        )  # fmt: skip
    return out
