"""Sparse products over a stack: tensors in, tensors out, checked and passed to the kernels by address.

`values` [S, P] holds the kept weights of S replicates; `start` [S, blocks, rows + 1] and `place` [S, P] give their
positions (see `structure`). Dense operands have the batch last in memory, [S, features, B], and are passed and returned
as the [S, B, features] views that PyTorch's layers expect. Without the leading dimension, all operands belong to one
network. If only a dense operand lacks it, the replicates share that operand.

Each row of a batch ends on a cache line (`padded`), so every vector of a product lies within one. The elements between
the batch and the end of its row have no meaning: the kernels read and write them, and they reach no result.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from winticket.sparse.native import require

FLOATS = (torch.float32, torch.float64)


def batch_last(x: Tensor, chosen: Tensor | None = None) -> Tensor:
    """A copy of x [..., B, F] with the same shape whose batch is innermost in memory.

    With `chosen` [S, B] (int64), it copies the rows of x [N, F] that `chosen` numbers: [S, B, F]. Each feature begins
    on a new cache line, which makes a product a tenth faster. Raises IndexError if x has no such row, and TypeError for
    other types.

    >>> x = batch_last(torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
    >>> x.shape, x.stride()[0]
    (torch.Size([3, 2]), 1)
    """
    x = x.contiguous()
    count, columns = x.shape[-2:]
    shape = x.shape[:-1] if chosen is None else chosen.shape
    if chosen is not None:
        chosen = chosen.contiguous()
        if chosen.dtype != torch.int64 or x.ndim != 2:
            raise TypeError(
                f"rows of x [N, F] must be numbered by int64, but these are {chosen.dtype} and x is {tuple(x.shape)}"
            )
    *stack, rows = shape
    width = padded(rows, x.element_size())
    out = x.new_empty((*stack, columns, width))
    if out.numel():
        require().transpose(
            _twice(x),
            torch.get_num_threads(),
            out.numel() // (columns * width),
            rows,
            columns,
            width,
            x.data_ptr(),
            address(chosen),
            count,
            out.data_ptr(),
        )
    return out[..., :rows].transpose(-1, -2)


def padded(length: int, element_size: int) -> int:
    """`length` rounded up to whole cache lines; short rows keep their length."""
    line = 64 // element_size
    return length if length < 2 * line else -(-length // line) * line


def is_batch_last(x: Tensor) -> bool:
    """True if x [..., B, F] has its batch innermost in memory."""
    *_, rows, columns = x.shape
    *before, across, down = x.stride()
    fits = across == 1 and (down >= rows or columns == 1)
    return fits and (x.ndim == 2 or (x.ndim == 3 and before[0] == down * columns))


def linear(
    x: Tensor,
    values: Tensor,
    bias: Tensor | None,
    start: Tensor,
    place: Tensor,
    *,
    relu: bool = False,
) -> Tensor:
    """x [S, B, in] times the sparse weights' transpose, plus bias [S, out]: [S, B, out]; `relu` clips it at 0."""
    flat = _laid(x)
    out = _rows(flat, values, start)
    accumulate(out, flat, values, (start, place), bias=bias, positive=relu)
    return out.transpose(-1, -2)


def linear_grad_input(
    grad: Tensor,
    values: Tensor,
    by_column: Tensor,
    row_of: Tensor,
    order: Tensor,
    *,
    relu: Tensor | None = None,
) -> Tensor:
    """The gradient by x [S, B, in] from the gradient by the output [S, B, out]; the weights are read by columns.

    If x is the result of a ReLU, pass it as `relu` to get the gradient by the ReLU's input.
    """
    flat = _laid(grad)
    out = _rows(flat, values, by_column)
    gate = None if relu is None else _laid(relu)
    accumulate(out, flat, values, (by_column, row_of), order=order, gate=gate)
    return out.transpose(-1, -2)


def linear_grad_weight(grad: Tensor, x: Tensor, start: Tensor, place: Tensor) -> Tensor:
    """The gradient by the kept weights alone, [S, P]; values that are in no row get 0."""
    return _linear_grad(grad, x, start, place, None)


def linear_grad_parameters(grad: Tensor, x: Tensor, start: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients by the kept weights, [S, P], and by the bias, [S, out], in one pass."""
    by_bias = grad.new_zeros((*place.shape[:-1], grad.shape[-1]))
    return _linear_grad(grad, x, start, place, by_bias), by_bias


def _linear_grad(grad: Tensor, x: Tensor, start: Tensor, place: Tensor, total: Tensor | None) -> Tensor:
    out = grad.new_zeros(place.shape)
    dot(out, _laid(grad), _laid(x), (start, place), total=total)
    return out


def cross_entropy(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy [S] of logits [S, B, K] against classes y [S, B] or [B], and its gradient [S, B, K]."""
    logits = logits.contiguous()
    grad = torch.empty_like(logits)
    total, _ = _loss(logits, y, grad)
    return (total / y.shape[-1]).to(logits.dtype), grad


def loss_and_correct(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Summed cross-entropy (float64) and correct answers (int64), [S], of logits [S, N, K] against y [S, N] or [N]."""
    return _loss(logits.contiguous(), y, None)


def _loss(logits: Tensor, y: Tensor, grad: Tensor | None) -> tuple[Tensor, Tensor]:
    y, (*stack, rows, classes) = y.contiguous(), logits.shape
    if y.dtype != torch.int64 or y.shape[-1] != rows:
        raise TypeError(
            f"classes must be int64, one for each of {rows} rows of logits, not {y.dtype} {tuple(y.shape)}"
        )
    total = logits.new_empty(stack, dtype=torch.float64)
    right = y.new_empty(stack)
    require().loss(
        _twice(logits),
        torch.get_num_threads(),
        total.numel(),
        rows,
        classes,
        rows if y.ndim == 2 else 0,
        1 / rows,
        logits.data_ptr(),
        y.data_ptr(),
        address(grad),
        total.data_ptr(),
        right.data_ptr(),
    )
    return total, right


def _laid(x: Tensor) -> Tensor:
    """x as [..., F, B], with every row contiguous and starting on a cache line; copied if it is not so already."""
    if not is_batch_last(x):
        return batch_last(x).transpose(-1, -2)
    flat = x.transpose(-1, -2)
    *stack, features, length = flat.shape
    width = padded(length, x.element_size())
    if flat.stride(-2) % width and features > 1:
        return x.new_empty((*stack, features, width))[..., :length].copy_(flat)
    return flat


def _rows(operand: Tensor, values: Tensor, start: Tensor) -> Tensor:
    """An empty result [..., rows, B] for an operand [..., F, B]."""
    length = operand.shape[-1]
    width = padded(length, operand.element_size())
    return operand.new_empty((*values.shape[:-1], start.shape[-1] - 1, width))[..., :length]


def _strides(rows: Tensor) -> tuple[int, int]:
    """Elements between replicates and between rows of [..., F, B]; 0 between replicates if there is one network."""
    return (rows.stride(0) if rows.ndim == 3 else 0), rows.stride(-2)


def _width(*operands: Tensor | None) -> int:
    """The elements that may be touched in every row of every operand [..., F, B].

    A row reaches up to the next one if the storage holds that much for the last row as well, else up to its own end.
    """
    least = None
    for rows in operands:
        if rows is None:
            continue
        *stack, features, width = rows.shape
        between = rows.stride(-2)
        if between > width and features > 1:
            end = rows.storage_offset() + features * between
            if stack:
                end += (stack[0] - 1) * rows.stride(0)
            if end * rows.element_size() <= rows.untyped_storage().nbytes():
                width = between
        least = width if least is None or width < least else least
    return least or 0


def _twice(x: Tensor) -> bool:
    if x.dtype not in FLOATS or x.device.type != "cpu":
        raise TypeError(
            f"sparse products are for float32 and float64 on the CPU, not {x.dtype} on {x.device}"
        )
    return x.dtype == torch.float64


def check(operand: Tensor, others: tuple[Tensor | None, ...], indices: tuple[Tensor | None, ...]) -> None:
    """Raise TypeError unless the kernels can read these tensors by address."""
    for other in others:
        if other is not None and (other.dtype != operand.dtype or not other.is_contiguous()):
            raise TypeError(
                f"operands must be contiguous and of one type, but these are {other.dtype} and {operand.dtype}"
            )
    for index in indices:
        if index is not None and (index.dtype != torch.int32 or not index.is_contiguous()):
            raise TypeError(f"rows must be described by contiguous int32 tensors, not {index.dtype}")


def _entries(start: Tensor, place: Tensor, order: Tensor | None, operand: Tensor) -> tuple[int, ...]:
    """Rows, blocks, rows of the operand, entries for each replicate, and the addresses of where they are."""
    *_, blocks, ends = start.shape
    addresses = (start.data_ptr(), place.data_ptr(), address(order))
    return (ends - 1, blocks, operand.shape[-2], place.shape[-1], *addresses)


def accumulate(
    out: Tensor,
    operand: Tensor,
    values: Tensor,
    entries: tuple[Tensor, Tensor],
    *,
    order: Tensor | None = None,
    bias: Tensor | None = None,
    positive: bool = False,
    gate: Tensor | None = None,
) -> None:
    """out[r, o] = bias[r, o] + Σ values · operand's rows, for out [S, rows, B] and an operand [S, F, B].

    `entries` are `start` and `place` of a `Structure`. `positive` sets negative results to 0. `gate`, of out's shape,
    sets results to 0 at positions that are not above 0 in it.
    """
    start, place = entries
    check(operand, (values, bias), (start, place, order))
    if not out.numel():
        return
    between, scale = _strides(operand)
    require().sum(
        _twice(operand), torch.get_num_threads(), math.prod(values.shape[:-1]), *_entries(start, place, order, operand),
        out.shape[-1], _width(out, operand, gate), values.data_ptr(), values.shape[-1], operand.data_ptr(), between,
        scale, out.data_ptr(), *_strides(out), address(bias), positive, address(gate),
        *(_strides(gate) if gate is not None else (0, 0)),
    )  # fmt: skip


def dot(
    out: Tensor,
    dense: Tensor,
    operand: Tensor,
    entries: tuple[Tensor, Tensor],
    *,
    total: Tensor | None = None,
) -> None:
    """out[r, k] += dense[r, o] · operand's row, for every k of row o, with dense [S, rows, B], operand [S, F, B].

    The sum of each row of `dense` is added to `total` [S, rows].
    """
    start, place = entries
    check(operand, (out, total), (start, place))
    if not dense.numel() or not (out.numel() or total is not None):
        return
    between, scale = _strides(operand)
    rows, blocks, features, capacity, at, places, _ = _entries(start, place, None, operand)
    require().dot(
        _twice(operand), torch.get_num_threads(), math.prod(out.shape[:-1]), rows, blocks, features, capacity, at,
        places, dense.shape[-1], _width(dense, operand), dense.data_ptr(), *_strides(dense), operand.data_ptr(),
        between, scale, out.data_ptr(), address(total),
    )  # fmt: skip


def address(x: Tensor | None) -> int:
    """The address of the first element; 0 if there is no tensor."""
    return 0 if x is None else x.data_ptr()


def apart(operand: Tensor, values: Tensor, *, alone: int) -> int:
    """The elements from one replicate's operand to the next; 0 if they share it: then it has `alone` dimensions."""
    return operand.stride(0) if values.ndim == 2 and operand.ndim > alone else 0
