"""The positions of a stack's kept weights: by rows for the forward product, by columns for the gradient by input."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Structure:
    """The kept weights of one layer in S replicates, as the kernels read them.

    The values of a layer are [S, P], where P is the largest number that any replicate keeps. A replicate's values are
    its *live* weights in the order in which the forward product reads them, then the kept weights without effect (their
    gradient is 0), then zeros up to P, which no index refers to. All index tensors except `index` are int32.

    A product reads the rows of its operand in blocks, so that a block stays in the processor's first-level cache (see
    `blocks_of`). Within a block it goes through the rows of the result.

    index [S, P]: the position of each value in the flattened dense weight; for the zeros at the end, the weight's size.
    start [S, blocks, rows + 1]: the first live value of each row in each block of columns. place [S, P]: the column of
    each live value. by_column [S, blocks, columns + 1], row_of [S, P], order [S, P]: the same for the gradient by
    input: the first entry of each column in each block of rows, and the row and the number of each entry's value.
    column_of [S, P]: the column of each entry in that order.
    """

    shape: tuple[int, ...]
    index: Tensor
    start: Tensor
    place: Tensor
    by_column: Tensor
    row_of: Tensor
    order: Tensor
    column_of: Tensor

    @property
    def capacity(self) -> int:
        return int(self.index.shape[1])

    def pack(self, dense: Tensor) -> Tensor:
        """The values [S, P] of a dense weight [S, *shape]."""
        flat = torch.cat([dense.flatten(1), dense.new_zeros(len(dense), 1)], 1)
        return flat.gather(1, self.index)

    def unpack(self, values: Tensor) -> Tensor:
        """The dense weight [S, *shape]; pruned positions are 0."""
        size = torch.Size(self.shape).numel()
        flat = values.new_zeros(len(values), size + 1)
        return flat.scatter_(1, self.index, values)[:, :size].reshape(-1, *self.shape)


CACHE = 32 * 1024
"""Bytes of a block of an operand: the size of a first-level cache on nearly every processor, or less."""
FULL, FULL_BY_INPUT = 20, 10
"""Kept weights for each row of the result in a block. With fewer, a block costs more than its cache hits save.

The forward product shares its blocks with the gradient by weight, which adds up sixteen weights at a time.
"""


def blocks_of(operands: int, width: int, density: float, *, full: int = FULL) -> int:
    """The number of blocks for an operand with so many rows of `width` bytes, at this mean density of the weights.

    A block fits the first-level cache, unless a row of the result would then have fewer than `full` weights in it.

    >>> blocks_of(784, 256, 0.5), blocks_of(784, 256, 0.1), blocks_of(784, 256, 0.02), blocks_of(100, 256, 0.5)
    (6, 4, 1, 1)
    """
    if not density or not operands:
        return 1
    rows = max(CACHE / max(width, 1), full / density)
    return max(1, round(operands / rows))


def structure(
    keep: Tensor, live: Tensor | None = None, *, columns_in: Tensor | None = None, batch: int | None = None
) -> Structure:
    """The structure of masks `keep` [S, out, ...]; `live`, a part of them, marks the weights that can have an effect.

    Columns are the flattened positions within a row; `columns_in` gives the order in which they are numbered. `batch`
    is the number of examples in an operand (float32), from which the number of blocks follows; without it there is one.

    >>> kept = structure(torch.tensor([[[True, False, True], [False, True, False]]]))
    >>> kept.start, kept.place
    (tensor([[[0, 2, 3]]], dtype=torch.int32), tensor([[0, 2, 1]], dtype=torch.int32))
    """
    live = keep if live is None else live & keep
    stack, rows = keep.shape[:2]
    columns = keep[0, 0].numel()
    numbered = torch.arange(columns) if columns_in is None else columns_in
    flat, effective = keep.flatten(2)[..., numbered], live.flatten(2)[..., numbered]
    size = rows * columns
    density = float(effective.sum()) / max(1, stack * size)
    across = blocks_of(columns, 4 * batch, density) if batch else 1
    down = blocks_of(rows, 4 * batch, density, full=FULL_BY_INPUT) if batch else 1
    capacity = int(flat.sum((1, 2)).max())
    index = torch.full((stack, capacity), size, dtype=torch.int64)
    place = torch.zeros((stack, capacity), dtype=torch.int32)
    row_of, order, column_of = (torch.zeros_like(place) for _ in range(3))
    start = torch.zeros((stack, across, rows + 1), dtype=torch.int32)
    by_column = torch.zeros((stack, down, columns + 1), dtype=torch.int32)
    for r in range(stack):
        of_row, of_column = effective[r].nonzero(as_tuple=True)
        first = _sorted(_block(of_column, columns, across), of_row)
        of_row, of_column = of_row[first], of_column[first]
        idle_row, idle_column = (flat[r] & ~effective[r]).nonzero(as_tuple=True)
        count = len(of_row)
        index[r, :count] = of_row * columns + numbered[of_column]
        index[r, count : count + len(idle_row)] = idle_row * columns + numbered[idle_column]
        place[r, :count] = of_column.to(torch.int32)
        start[r] = _bounds(_block(of_column, columns, across), of_row, across, rows)
        second = _sorted(_block(of_row, rows, down), of_column)
        order[r, :count] = second.to(torch.int32)
        row_of[r, :count] = of_row[second].to(torch.int32)
        column_of[r, :count] = of_column[second].to(torch.int32)
        by_column[r] = _bounds(_block(of_row, rows, down), of_column, down, columns)
    return Structure(tuple(keep.shape[1:]), index, start, place, by_column, row_of, order, column_of)


def _block(position: Tensor, count: int, blocks: int) -> Tensor:
    """The block that each position of `count` is in."""
    return position * blocks // max(1, count)


def _sorted(block: Tensor, row: Tensor) -> Tensor:
    """The order by block, then row. Stable, so that sums are taken in one order on every machine."""
    return torch.sort(block * (int(row.max()) + 1 if len(row) else 1) + row, stable=True).indices


def _bounds(block: Tensor, row: Tensor, blocks: int, rows: int) -> Tensor:
    """Where the entries of each row begin in each block, [blocks, rows + 1], int32."""
    counts = torch.bincount(block * rows + row, minlength=blocks * rows)
    ends = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    firsts = torch.arange(blocks)[:, None] * rows + torch.arange(rows + 1)
    return ends[firsts].to(torch.int32)
