"""The positions of a stack's kept weights: by rows for the forward product, by columns for the gradient by input."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Structure:
    """The kept weights of one layer in S replicates, as the kernels read them.

    The values of a layer are [S, P], where P is the largest number that any replicate keeps. A replicate's values are
    its *live* weights in row-major order, then the kept weights without effect (their gradient is 0), then zeros up to
    P, which no index refers to. All index tensors except `index` are int32.

    index [S, P]: the position of each value in the flattened dense weight; for the zeros at the end, the weight's size.
    start [S, rows + 1]: the first live value of each row. place [S, P]: the column of each live value. by_column [S,
    columns + 1], row_of [S, P], order [S, P]: the same by columns: the first entry of each column, and the row and the
    number of each entry's value. column_of [S, P]: the column of each entry in that order.
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


def structure(keep: Tensor, live: Tensor | None = None, *, columns_in: Tensor | None = None) -> Structure:
    """The structure of masks `keep` [S, out, ...]; `live`, a part of them, marks the weights that can have an effect.

    Columns are the flattened positions within a row; `columns_in` gives the order in which they are numbered.

    >>> kept = structure(torch.tensor([[[True, False, True], [False, True, False]]]))
    >>> kept.start, kept.place
    (tensor([[0, 2, 3]], dtype=torch.int32), tensor([[0, 2, 1]], dtype=torch.int32))
    """
    live = keep if live is None else live & keep
    stack, rows = keep.shape[:2]
    columns = keep[0, 0].numel()
    numbered = torch.arange(columns) if columns_in is None else columns_in
    flat, effective = keep.flatten(2)[..., numbered], live.flatten(2)[..., numbered]
    size = rows * columns
    capacity = int(flat.sum((1, 2)).max())
    index = torch.full((stack, capacity), size, dtype=torch.int64)
    place = torch.zeros((stack, capacity), dtype=torch.int32)
    row_of, order, column_of = (torch.zeros_like(place) for _ in range(3))
    start = torch.zeros((stack, rows + 1), dtype=torch.int32)
    by_column = torch.zeros((stack, columns + 1), dtype=torch.int32)
    for r in range(stack):
        of_row, of_column = effective[r].nonzero(as_tuple=True)
        idle_row, idle_column = (flat[r] & ~effective[r]).nonzero(as_tuple=True)
        count = len(of_row)
        index[r, :count] = of_row * columns + numbered[of_column]
        index[r, count : count + len(idle_row)] = idle_row * columns + numbered[idle_column]
        place[r, :count] = of_column.to(torch.int32)
        start[r, 1:] = effective[r].sum(1).cumsum(0)
        # Stable: within a column, rows stay in order, so every machine sums in the same order.
        order[r, :count] = torch.sort(of_column, stable=True).indices.to(torch.int32)
        row_of[r, :count] = of_row[order[r, :count].long()].to(torch.int32)
        column_of[r, :count] = place[r, order[r, :count].long()]
        by_column[r, 1:] = effective[r].sum(0).cumsum(0)
    return Structure(tuple(keep.shape[1:]), index, start, place, by_column, row_of, order, column_of)
