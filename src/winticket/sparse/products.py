"""Sparse products over a stack: tensors in, tensors out, checked and passed to the kernels by address.

`values` [S, P] holds the kept weights of S replicates; `start` [S, blocks, rows + 1] and `place` [S, P] give their
positions (see `structure`). Dense operands have the batch last in memory, [S, features, B], and are passed and returned
as the [S, B, features] views that PyTorch's layers expect. Without the leading dimension, all operands belong to one
network. If only a dense operand lacks it, the replicates share that operand.

Each row of a batch ends on a cache line (`padded`), so every vector of a product lies within one. The elements between
the batch and the end of its row have no meaning: the kernels read and write them, and they reach no result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

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
    return _sum(x, values, (start, place, None), bias=bias, positive=relu)


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
    return _sum(grad, values, (by_column, row_of, order), gate=relu)


def linear_grad_weight(grad: Tensor, x: Tensor, start: Tensor, place: Tensor) -> Tensor:
    """The gradient by the kept weights alone, [S, P]; values that are in no row get 0."""
    return _dot(grad, x, start, place, None)


def linear_grad_parameters(grad: Tensor, x: Tensor, start: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients by the kept weights, [S, P], and by the bias, [S, out], in one pass."""
    by_bias = grad.new_zeros((*place.shape[:-1], grad.shape[-1]))
    return _dot(grad, x, start, place, by_bias), by_bias


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


class _Rows(NamedTuple):
    """A dense operand [..., B, F], each of whose F rows of B elements lies in one piece and begins on a cache line."""

    tensor: Tensor
    replicate: int
    """Elements from one replicate to the next; 0 if they share the operand."""
    row: int
    """Elements from one row to the next."""
    width: int
    """Elements of each row that may be touched."""


def _rows(x: Tensor) -> _Rows:
    """The rows of x [..., B, F]; copied if they do not begin on cache lines already.

    Written for few calls into PyTorch, since a small product takes less time than these.
    """
    shape, strides = x.shape, x.stride()
    length, features = shape[-2:]
    between = strides[-1]
    stacked = len(shape) == 3
    whole = strides[-2] == 1 and between >= length and not between % padded(length, x.element_size())
    if features < 2 or not whole or (stacked and strides[0] != between * features):
        x = _copied(x)
        between = padded(length, x.element_size())
    replicate = between * features if stacked else 0
    width = length
    if between > length:
        end = x.storage_offset() + (shape[0] * replicate if stacked else features * between)
        width = between if end * x.element_size() <= x.untyped_storage().nbytes() else length
    return _Rows(x, replicate, between, width)


def _copied(x: Tensor) -> Tensor:
    if not is_batch_last(x):
        return batch_last(x)
    *stack, length, features = x.shape
    return _empty(x, stack, length, features, cleared=True).copy_(x)


def _empty(like: Tensor, stack: Sequence[int], length: int, features: int, *, cleared: bool) -> Tensor:
    """An empty [..., B, F] whose rows begin on cache lines, and whose storage holds the last row's padding as well.

    The padding is 0 if `cleared`.
    """
    width = padded(length, like.element_size())
    if not stack:
        out = like.new_empty_strided((width, features), (1, width))
    else:
        out = like.new_empty_strided((stack[0], width, features), (features * width, 1, width))
    if width == length:
        return out
    if cleared:  # products compute the padding as well, and denormals there would slow them down
        out.narrow(-2, length, width - length).zero_()
    return out.narrow(-2, 0, length)


def _twice(x: Tensor) -> bool:
    if x.dtype not in FLOATS or x.device.type != "cpu":
        raise TypeError(
            f"sparse products are for float32 and float64 on the CPU, not {x.dtype} on {x.device}"
        )
    return x.dtype == torch.float64


def check(operand: Tensor, others: tuple[Tensor | None, ...], indices: tuple[Tensor | None, ...]) -> None:
    """Raise TypeError unless the kernels can read these tensors by address."""
    kind = operand.dtype
    for other in others:
        if other is not None and (other.dtype is not kind or not other.is_contiguous()):
            raise TypeError(
                f"operands must be contiguous and of one type, but these are {other.dtype} and {operand.dtype}"
            )
    for index in indices:
        if index is not None and (index.dtype != torch.int32 or not index.is_contiguous()):
            raise TypeError(f"rows must be described by contiguous int32 tensors, not {index.dtype}")


def _sum(
    x: Tensor,
    values: Tensor,
    entries: tuple[Tensor, Tensor, Tensor | None],
    *,
    bias: Tensor | None = None,
    positive: bool = False,
    gate: Tensor | None = None,
) -> Tensor:
    """bias[r, o] + Σ values · rows of x [..., B, F], as [..., B, rows].

    `entries` are start, place and order of a `Structure`. `positive` sets negative results to 0. `gate`, of the
    result's shape, sets results to 0 at positions that are not above 0 in it.
    """
    start, place, order = entries
    twice = _twice(x)
    check(x, (values, bias), (start, place, order))
    operand = _rows(x)
    *stack, capacity = values.shape
    blocks, ends = start.shape[-2:]
    length, features = x.shape[-2:]
    rows, between = ends - 1, padded(length, x.element_size())
    width, at_gate = min(between, operand.width), (0, 0, 0)
    if gate is not None:
        other = _rows(gate)
        width = min(width, other.width)
        at_gate = (other.tensor.data_ptr(), other.replicate, other.row)
    out = _empty(x, stack, length, rows, cleared=width < between)
    if not out.numel():
        return out
    require().sum(
        twice, torch.get_num_threads(), stack[0] if stack else 1, rows, blocks, features, capacity,
        start.data_ptr(), place.data_ptr(), address(order), length, width, values.data_ptr(), capacity,
        operand.tensor.data_ptr(), operand.replicate, operand.row, out.data_ptr(), rows * between if stack else 0,
        between, address(bias), positive, *at_gate,
    )  # fmt: skip
    return out


def _dot(grad: Tensor, x: Tensor, start: Tensor, place: Tensor, total: Tensor | None) -> Tensor:
    """grad[r, :, o] · the row of x, [..., P], for every kept weight of row o; grad [..., B, rows] and x [..., B, F].

    The sum of each row of `grad` is added to `total` [..., rows].
    """
    twice = _twice(grad)
    out = grad.new_zeros(place.shape)
    check(grad, (out, total), (start, place))
    if not grad.numel() or not (out.numel() or total is not None):
        return out
    dense, operand = _rows(grad), _rows(x)
    blocks, ends = start.shape[-2:]
    require().dot(
        twice, torch.get_num_threads(), len(out) if out.ndim == 2 else 1, ends - 1, blocks, x.shape[-1],
        place.shape[-1], start.data_ptr(), place.data_ptr(), grad.shape[-2], min(dense.width, operand.width),
        dense.tensor.data_ptr(), dense.replicate, dense.row, operand.tensor.data_ptr(), operand.replicate,
        operand.row, out.data_ptr(), address(total),
    )  # fmt: skip
    return out


def address(x: Tensor | None) -> int:
    """The address of the first element; 0 if there is no tensor."""
    return 0 if x is None else x.data_ptr()


def apart(operand: Tensor, values: Tensor, *, alone: int) -> int:
    """The elements from one replicate's operand to the next; 0 if they share it: then it has `alone` dimensions."""
    return operand.stride(0) if values.ndim == 2 and operand.ndim > alone else 0
