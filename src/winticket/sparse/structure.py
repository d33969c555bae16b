"""The positions of a stack's kept weights: by rows for the forward product, by columns for the gradient by input."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
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
    keep: Tensor,
    live: Tensor | None = None,
    *,
    columns_in: Tensor | None = None,
    batch: int | None = None,
    blocks: tuple[int, int] | None = None,
) -> Structure:
    """The structure of masks `keep` [S, out, ...]; `live`, a part of them, marks the weights that can have an effect.

    Columns are the flattened positions within a row; `columns_in` gives the order in which they are numbered. `blocks`
    are the numbers of blocks of columns and of rows. Without them, they follow from `batch`, the number of examples in
    an operand (float32); without either there is one block each.

    >>> kept = structure(torch.tensor([[[True, False, True], [False, True, False]]]))
    >>> kept.start, kept.place
    (tensor([[[0, 2, 3]]], dtype=torch.int32), tensor([[0, 2, 1]], dtype=torch.int32))
    """
    live = keep if live is None else live & keep
    stack, rows = keep.shape[:2]
    columns = keep[0, 0].numel()
    flat, effective, numbered = keep.flatten(2), live.flatten(2), torch.arange(columns)
    if columns_in is not None:
        flat, effective, numbered = flat[..., columns_in], effective[..., columns_in], columns_in
    size = rows * columns
    density = float(np.count_nonzero(effective.numpy())) / max(1, stack * size)
    across, down = blocks or (rule(rows, columns, batch, density) if batch else (1, 1))
    capacity = max(int(np.count_nonzero(one.numpy())) for one in flat)
    index = torch.full((stack, capacity), size, dtype=torch.int64)
    place = torch.zeros((stack, capacity), dtype=torch.int32)
    row_of, order, column_of = (torch.zeros_like(place) for _ in range(3))
    start = torch.zeros((stack, across, rows + 1), dtype=torch.int32)
    by_column = torch.zeros((stack, down, columns + 1), dtype=torch.int32)
    for r in range(stack):
        of_row, of_column, start[r] = _in_blocks(effective[r], across)
        idle_row, idle_column = _nonzero(flat[r] & ~effective[r])
        count = len(of_row)
        index[r, :count] = of_row * columns + numbered[of_column]
        index[r, count : count + len(idle_row)] = idle_row * columns + numbered[idle_column]
        place[r, :count] = of_column.to(torch.int32)
        number = torch.empty(size, dtype=torch.int32)
        number.scatter_(0, of_row * columns + of_column, torch.arange(count, dtype=torch.int32))
        second_column, second_row, by_column[r] = _in_blocks(effective[r].mT, down)
        order[r, :count] = number.index_select(0, second_row * columns + second_column)
        row_of[r, :count] = second_row.to(torch.int32)
        column_of[r, :count] = second_column.to(torch.int32)
    return Structure(tuple(keep.shape[1:]), index, start, place, by_column, row_of, order, column_of)


def rule(rows: int, columns: int, batch: int, density: float) -> tuple[int, int]:
    """The numbers of blocks of columns and of rows, for batches of float32, if none have been measured."""
    return (
        blocks_of(columns, 4 * batch, density),
        blocks_of(rows, 4 * batch, density, full=FULL_BY_INPUT),
    )


def _in_blocks(keep: Tensor, blocks: int) -> tuple[Tensor, Tensor, Tensor]:
    """The rows and columns of the entries of keep [rows, columns], block by block of its columns, then row by row.

    The third is where the entries of each row begin in each block, [blocks, rows + 1], int32.
    """
    rows, columns = keep.shape
    edges = [-(-block * columns // blocks) for block in range(blocks + 1)]
    within = [_nonzero(keep[:, a:b]) for a, b in pairwise(edges)]
    of_row = torch.cat([row for row, _ in within])
    of_column = torch.cat([column + edge for (_, column), edge in zip(within, edges, strict=False)])
    counts = torch.cat([torch.bincount(row, minlength=rows) for row, _ in within])
    ends = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    firsts = torch.arange(blocks)[:, None] * rows + torch.arange(rows + 1)
    return of_row, of_column, ends[firsts].to(torch.int32)


def _nonzero(keep: Tensor) -> tuple[Tensor, Tensor]:
    """The rows and columns of the entries of keep [rows, columns], row by row; five times as fast as PyTorch's."""
    flat = torch.from_numpy(np.flatnonzero(keep.contiguous().numpy()))
    row = flat // max(1, keep.shape[1])
    return row, flat - row * keep.shape[1]
