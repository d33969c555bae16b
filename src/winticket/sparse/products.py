"""Sparse products over a stack: tensors in, tensors out, checked and passed to the kernels by address.

`values` [S, P] holds the kept weights of S replicates; `start` [S, rows + 1] and `place` [S, P] give their positions
(see `structure`). Dense operands have the batch last in memory, [S, features, B], and are passed and returned as the
[S, B, features] views that PyTorch's layers expect. Without the leading dimension, all operands belong to one network.
If only a dense operand lacks it, the replicates share that operand.
"""

from __future__ import annotations

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
    accumulate(
        out,
        flat,
        values,
        (start, place),
        bias=bias,
        scale=flat.stride(-2),
        between=apart(flat, values, alone=2),
        positive=relu,
    )
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
    accumulate(
        out,
        flat,
        values,
        (by_column, row_of),
        order=order,
        scale=flat.stride(-2),
        between=apart(flat, values, alone=2),
        gate=_laid(relu).contiguous() if relu is not None else None,
    )
    return out.transpose(-1, -2)


def linear_grad_weight(grad: Tensor, x: Tensor, start: Tensor, place: Tensor) -> Tensor:
    """The gradient by the kept weights alone, [S, P]; values that are in no row get 0."""
    return _linear_grad(grad, x, start, place, None)


def linear_grad_parameters(grad: Tensor, x: Tensor, start: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients by the kept weights, [S, P], and by the bias, [S, out], in one pass."""
    by_bias = grad.new_zeros((*place.shape[:-1], grad.shape[-1]))
    return _linear_grad(grad, x, start, place, by_bias), by_bias


def _linear_grad(grad: Tensor, x: Tensor, start: Tensor, place: Tensor, total: Tensor | None) -> Tensor:
    dense, flat = _laid(grad).contiguous(), _laid(x)
    out = dense.new_zeros(place.shape)
    between = apart(flat, out, alone=2)
    dot(out, dense, flat, (start, place), scale=flat.stride(-2), between=between, total=total)
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
    """x as [..., F, B], with every row contiguous."""
    return (x if is_batch_last(x) else batch_last(x)).transpose(-1, -2)


def _rows(operand: Tensor, values: Tensor, start: Tensor) -> Tensor:
    return operand.new_empty((*values.shape[:-1], start.shape[-1] - 1, operand.shape[-1]))


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
    positive: bool = False,
    gate: Tensor | None = None,
) -> None:
    """out[r, o] = bias[r, o] + Σ values · operand rows.

    A row of the operand begins at `lead` + place · `scale`, plus `between` elements for each replicate. `positive` sets
    negative results to 0. `gate`, of out's shape, sets results to 0 at positions that are not above 0 in it.
    """
    start, place = rows
    check(operand, (values, bias, out, gate), (start, place, order))
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
        address(order),
        values.data_ptr(),
        address(bias),
        operand.data_ptr() + lead * operand.element_size(),
        out.data_ptr(),
        positive,
        address(gate),
    )


def dot(
    out: Tensor,
    dense: Tensor,
    operand: Tensor,
    rows: tuple[Tensor, Tensor],
    *,
    scale: int,
    between: int,
    total: Tensor | None = None,
) -> None:
    """out[r, k] += dense[r, o] · operand's row, for every k of row o; the rows of `dense` must be contiguous.

    The sum of each row of `dense` is added to `total` [S, rows].
    """
    start, place = rows
    check(operand, (out, total), (start, place))
    count, length = dense.shape[-2:]
    stack = dense.numel() // max(1, count * length)
    if not dense.numel() or not (out.numel() or total is not None):
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
        address(total),
    )


def address(x: Tensor | None) -> int:
    """The address of the first element; 0 if there is no tensor."""
    return 0 if x is None else x.data_ptr()


def apart(operand: Tensor, values: Tensor, *, alone: int) -> int:
    """The elements from one replicate's operand to the next; 0 if they share it: then it has `alone` dimensions."""
    return operand.stride(0) if values.ndim == 2 and operand.ndim > alone else 0
