"""Sparse products over a stack: tensors in, tensors out, checked and handed to the kernels by address.

`values` [S, P] holds the kept weights of S replicates, `start` [S, rows + 1] and `place` [S, P] say where they stand
(see `structure`). Dense operands carry the batch last in memory, [S, features, B], and are passed and
returned as the [S, B, features] views that PyTorch's layers expect. Without the leading dimension everything
is one network. A dense operand without it beside stacked values is shared by the replicates.
"""

import torch
from torch import Tensor

from winticket.sparse.native import require

FLOATS = (torch.float32, torch.float64)


def batch_last(x: Tensor) -> Tensor:
    """A copy of x [..., B, F] whose batch is innermost in memory; of the same shape.

    Each feature begins on a cache line of its own, which a product is a tenth faster for.
    """
    x = x.contiguous()
    rows, columns = x.shape[-2:]
    width = padded(rows, x.element_size())
    out = x.new_empty((*x.shape[:-2], columns, width))
    if x.numel():
        stack = x.numel() // (rows * columns)
        threads = torch.get_num_threads()
        require().transpose(_twice(x), threads, stack, rows, columns, width, x.data_ptr(), out.data_ptr())
    return out[..., :rows].transpose(-1, -2)


def padded(length: int, element_size: int) -> int:
    """`length` and the elements up to the end of its last cache line; short rows stay as they are."""
    line = 64 // element_size
    return length if length < 2 * line else -(-length // line) * line


def is_batch_last(x: Tensor) -> bool:
    """Whether x [..., B, F] already lies so."""
    *_, rows, columns = x.shape
    *before, across, down = x.stride()
    fits = across == 1 and (down >= rows or columns == 1)
    return fits and (x.ndim == 2 or (x.ndim == 3 and before[0] == down * columns))


def linear(x: Tensor, values: Tensor, bias: Tensor | None, start: Tensor, place: Tensor) -> Tensor:
    """x [S, B, in] times the sparse weights' transpose, plus bias [S, out]: [S, B, out]."""
    flat = _laid(x)
    out = _rows(flat, values, start)
    accumulate(
        out,
        flat,
        values,
        (start, place),
        bias=bias,
        scale=flat.stride(-2),
        between=apart(flat, values, alone=2),
    )
    return out.transpose(-1, -2)


def linear_grad_input(
    grad: Tensor, values: Tensor, by_column: Tensor, row_of: Tensor, order: Tensor
) -> Tensor:
    """The gradient by x [S, B, in] from that by the output [S, B, out]: the weights met by columns."""
    flat = _laid(grad)
    out = _rows(flat, values, by_column)
    accumulate(
        out,
        flat,
        values,
        (by_column, row_of),
        order=order,
        scale=flat.stride(-2),
        between=apart(flat, values, alone=2),
    )
    return out.transpose(-1, -2)


def linear_grad_weight(grad: Tensor, x: Tensor, start: Tensor, place: Tensor) -> Tensor:
    """The gradient by the kept weights alone, [S, P]; what is not in a row gets 0."""
    dense, flat = _laid(grad).contiguous(), _laid(x)
    out = dense.new_zeros(place.shape)
    dot(out, dense, flat, (start, place), scale=flat.stride(-2), between=apart(flat, out, alone=2))
    return out


def cross_entropy(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy [S] of logits [S, B, K] against classes y [S, B] or [B], and its gradient [S, B, K]."""
    logits = logits.contiguous()
    grad = torch.empty_like(logits)
    total, _ = _loss(logits, y, grad)
    return (total / y.shape[-1]).to(logits.dtype), grad


def judged(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Summed cross-entropy (float64) and right answers (int64), [S], of logits [S, N, K] against y [S, N] or [N]."""
    return _loss(logits.contiguous(), y, None)


def _loss(logits: Tensor, y: Tensor, grad: Tensor | None) -> tuple[Tensor, Tensor]:
    y, (*stack, rows, classes) = y.contiguous(), logits.shape
    if y.dtype != torch.int64 or y.shape[-1] != rows:
        raise TypeError(
            f"classes are int64, one for each of {rows} rows of logits, not {y.dtype} {tuple(y.shape)}"
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
        grad.data_ptr() if grad is not None else 0,
        total.data_ptr(),
        right.data_ptr(),
    )
    return total, right


def _laid(x: Tensor) -> Tensor:
    """[..., F, B], every row contiguous."""
    return (x if is_batch_last(x) else batch_last(x)).transpose(-1, -2)


def _rows(operand: Tensor, values: Tensor, start: Tensor) -> Tensor:
    return operand.new_empty((*values.shape[:-1], start.shape[-1] - 1, operand.shape[-1]))


def _twice(x: Tensor) -> bool:
    if x.dtype not in FLOATS or x.device.type != "cpu":
        raise TypeError(
            f"sparse products are for float32 and float64 on the CPU, not {x.dtype} on {x.device}"
        )
    return x.dtype == torch.float64


def _check(operand: Tensor, others: tuple[Tensor | None, ...], indices: tuple[Tensor | None, ...]) -> None:
    for other in others:
        if other is not None and (other.dtype != operand.dtype or not other.is_contiguous()):
            raise TypeError(
                f"operands are contiguous and of one type; given are {other.dtype} and {operand.dtype}"
            )
    for index in indices:
        if index is not None and (index.dtype != torch.int32 or not index.is_contiguous()):
            raise TypeError(f"rows are described by contiguous int32 tensors, not {index.dtype}")


def accumulate(
    out: Tensor,
    operand: Tensor,
    values: Tensor,
    rows: tuple[Tensor, Tensor],
    *,
    order: Tensor | None = None,
    bias: Tensor | None = None,
    scale: int,
    between: int,
    lead: int = 0,
) -> None:
    """out[r, o] = bias[r, o] + Σ values · operand rows.

    A row of the operand is at `lead` + place · `scale`, `between` elements further for each replicate.
    """
    start, place = rows
    _check(operand, (values, bias, out), (start, place, order))
    count, length = out.shape[-2:]
    stack = out.numel() // max(1, count * length)
    if not out.numel():
        return
    require().sum(
        _twice(operand),
        torch.get_num_threads(),
        stack,
        count,
        length,
        place.shape[-1],
        values.shape[-1],
        scale,
        between,
        count * length,
        start.data_ptr(),
        place.data_ptr(),
        order.data_ptr() if order is not None else 0,
        values.data_ptr(),
        bias.data_ptr() if bias is not None else 0,
        operand.data_ptr() + lead * operand.element_size(),
        out.data_ptr(),
    )


def dot(
    out: Tensor, dense: Tensor, operand: Tensor, rows: tuple[Tensor, Tensor], *, scale: int, between: int
) -> None:
    """out[r, k] += dense[r, o] · operand's row, for every k of row o; the rows of `dense` are contiguous."""
    start, place = rows
    _check(operand, (out,), (start, place))
    count, length = dense.shape[-2:]
    stack = dense.numel() // max(1, count * length)
    if not dense.numel() or not out.numel():
        return
    require().dot(
        _twice(operand),
        torch.get_num_threads(),
        stack,
        count,
        length,
        place.shape[-1],
        dense.stride(0) if dense.ndim == 3 else 0,
        scale,
        between,
        out.shape[-1],
        start.data_ptr(),
        place.data_ptr(),
        dense.data_ptr(),
        operand.data_ptr(),
        out.data_ptr(),
    )


def apart(operand: Tensor, values: Tensor, *, alone: int) -> int:
    """Elements from one replicate's operand to the next; 0 where they share it, which has `alone` dimensions."""
    return operand.stride(0) if values.ndim == 2 and operand.ndim > alone else 0
