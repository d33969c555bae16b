"""The products as PyTorch operators: `torch.ops.winticket.sparse_linear`, `sparse_conv2d` and their gradients.

They have autograd formulas, batching rules (under `torch.func.vmap`, a stack of replicates is one kernel call) and
shapes for `torch.compile`. They are differentiable once: a second derivative raises an error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from winticket.sparse import products, windows
from winticket.sparse.windows import Window

_library = torch.library.Library("winticket", "DEF")  # type: ignore[no-untyped-call]
_DIRECT: dict[Any, Callable[..., Any]] = {}


def direct(operator: Any) -> Callable[..., Any]:
    """The function that computes `operator` on plain tensors, without PyTorch's dispatch; others are returned as is."""
    function: Callable[..., Any] = _DIRECT.get(operator, operator)
    return function


def _define(schema: str, compute: Callable[..., Any], shape: Callable[..., Any], *, shared: int = -1) -> None:
    """Define an operator on tensors with or without a replicate dimension; replicates may share argument `shared`."""
    name = schema.partition("(")[0]
    full = f"winticket::{name}"
    _library.define(schema)  # type: ignore[no-untyped-call]
    torch.library.impl(full, "CPU", compute, lib=_library)
    torch.library.register_fake(full, shape, lib=_library)
    torch.library.register_vmap(full, _batching(getattr(torch.ops.winticket, name), shared), lib=_library)
    _DIRECT[getattr(torch.ops.winticket, name).default] = compute


def _batching(operator: Any, shared: int) -> Callable[..., Any]:
    def rule(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> tuple[Any, Any]:
        stacked = []
        for position, (value, dim) in enumerate(zip(arguments, in_dims, strict=True)):
            if not isinstance(value, Tensor):
                stacked.append(value)
            elif dim is not None:
                stacked.append(value.movedim(dim, 0) if dim else value)
            elif position == shared:
                stacked.append(value)
            else:
                stacked.append(value.expand(info.batch_size, *value.shape).contiguous())
        result = operator(*stacked)
        return result, 0 if isinstance(result, Tensor) else (0,) * len(result)

    return rule


def _turned(like: Tensor, *shape: int) -> Tensor:
    """An empty tensor [..., B, F] with the batch innermost in memory."""
    return like.new_empty((*shape[:-2], shape[-1], shape[-2])).transpose(-1, -2)


def _same_turned(x: Tensor) -> Tensor:
    return _turned(x, *x.shape)


def linear(x: Tensor, values: Tensor, bias: Tensor | None, *indices: Tensor, relu: bool = False) -> Tensor:
    """`sparse_linear` on plain tensors, optionally followed by a ReLU."""
    start, place, *_ = indices  # the others are for the gradient
    return products.linear(x, values, bias, start, place, relu=relu)


_INDICES = "Tensor start, Tensor place, Tensor by_column, Tensor row_of, Tensor order"
_define("batch_last(Tensor x) -> Tensor", products.batch_last, _same_turned)
_define(
    f"sparse_linear(Tensor x, Tensor values, Tensor? bias, {_INDICES}) -> Tensor",
    linear,
    lambda x, values, _bias, start, *_: _turned(x, *values.shape[:-1], x.shape[-2], start.shape[-1] - 1),
    shared=0,
)
_define(
    "sparse_linear_grad_input(Tensor grad, Tensor values, Tensor by_column, Tensor row_of, Tensor order) -> Tensor",
    products.linear_grad_input,
    lambda grad, values, by_column, *_: _turned(
        grad, *values.shape[:-1], grad.shape[-2], by_column.shape[-1] - 1
    ),
)
_define(
    "sparse_linear_grad_weight(Tensor grad, Tensor x, Tensor start, Tensor place) -> Tensor",
    products.linear_grad_weight,
    lambda grad, _x, _start, place: grad.new_empty(place.shape),
    shared=1,
)
_define(
    "cross_entropy(Tensor logits, Tensor y) -> (Tensor, Tensor)",
    products.cross_entropy,
    lambda logits, _y: (logits.new_empty(logits.shape[:-2]), torch.empty_like(logits.contiguous())),
    shared=1,
)
_define(
    "loss_and_correct(Tensor logits, Tensor y) -> (Tensor, Tensor)",
    products.loss_and_correct,
    lambda logits, y: (
        logits.new_empty(logits.shape[:-2], dtype=torch.float64),
        y.new_empty(logits.shape[:-2]),
    ),
    shared=1,
)


_PAIRS = "int channels, int[] kernel, int[] stride, int[] padding"


def _window(channels: int, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]) -> Window:
    pairs = [(int(a), int(b)) for a, b in (kernel, stride, padding)]
    return Window(channels, *pairs)


def conv2d(x: Tensor, values: Tensor, bias: Tensor | None, *rest: Any, relu: bool = False) -> Tensor:
    """`sparse_conv2d` on plain tensors, optionally followed by a ReLU."""
    return windows.conv2d(x, values, bias, rest[0], rest[1], window=_window(*rest[6:]), relu=relu)


def _conv2d_shape(x: Tensor, values: Tensor, _bias: Tensor | None, *rest: Any) -> Tensor:
    size = _window(*rest[6:]).result(x.shape[-2], x.shape[-1])
    return x.new_empty((*values.shape[:-1], x.shape[-4], rest[0].shape[-1] - 1, *size))


_define(
    f"sparse_conv2d(Tensor x, Tensor values, Tensor? bias, {_INDICES}, Tensor column_of, {_PAIRS}) -> Tensor",
    conv2d,
    _conv2d_shape,
    shared=0,
)


def _conv2d_backward(grad: Tensor, x: Tensor, values: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    indices, input_wanted, pairs = rest[:6], rest[6], rest[7:]
    return windows.conv2d_backward(
        grad, x, values, indices[:2], indices[2:], window=_window(*pairs), input_wanted=input_wanted
    )


def _conv2d_backward_shape(_grad: Tensor, x: Tensor, values: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    stack = values.shape[:-1]
    by_x = values.new_empty((*stack, *x.shape[-4:]) if rest[6] else (*stack, 0))
    return by_x, torch.empty_like(values), values.new_empty((*stack, rest[0].shape[-1] - 1))


_define(
    f"sparse_conv2d_backward(Tensor grad, Tensor x, Tensor values, {_INDICES}, Tensor column_of, bool input_wanted, "
    f"{_PAIRS}) -> (Tensor, Tensor, Tensor)",
    _conv2d_backward,
    _conv2d_backward_shape,
    shared=1,
)


def _keep_for_conv2d(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    del output
    x, values, _, *rest = inputs
    ctx.save_for_backward(x, values, *rest[:6])
    ctx.pairs = rest[6:]


def _conv2d_gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, values, *indices = ctx.saved_tensors
    needed = ctx.needs_input_grad
    by_x, by_values, by_bias = torch.ops.winticket.sparse_conv2d_backward(
        grad, x, values, *indices, needed[0], *ctx.pairs
    )
    if by_x.ndim > x.ndim:
        by_x = by_x.sum(0)  # the replicates shared x
    return by_x if needed[0] else None, by_values, by_bias if needed[2] else None, *[None] * 10


torch.library.register_autograd(
    "winticket::sparse_conv2d", _conv2d_gradients, setup_context=_keep_for_conv2d, lib=_library
)


def _keep_for_linear(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    del output
    x, values, _, *indices = inputs
    ctx.save_for_backward(x, values, *indices)


def _linear_gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, values, start, place, by_column, row_of, order = ctx.saved_tensors
    operators, needed = torch.ops.winticket, ctx.needs_input_grad
    by_x = operators.sparse_linear_grad_input(grad, values, by_column, row_of, order) if needed[0] else None
    if by_x is not None and by_x.ndim > x.ndim:
        by_x = by_x.sum(0)  # the replicates shared x
    by_values = operators.sparse_linear_grad_weight(grad, x, start, place) if needed[1] else None
    by_bias = grad.sum(-2) if needed[2] else None
    return by_x, by_values, by_bias, None, None, None, None, None


torch.library.register_autograd(
    "winticket::sparse_linear", _linear_gradients, setup_context=_keep_for_linear, lib=_library
)
torch.library.register_autograd("winticket::batch_last", lambda _ctx, grad: grad, lib=_library)


class _Linear(torch.autograd.Function):
    """The same operator and formula, in the form that the transforms of `torch.func` accept."""

    generate_vmap_rule = True

    @staticmethod
    def forward(  # noqa: PLR0917  # spelled out, since torch.compile takes no starred arguments here
        x: Tensor,
        values: Tensor,
        bias: Tensor | None,
        start: Tensor,
        place: Tensor,
        by_column: Tensor,
        row_of: Tensor,
        order: Tensor,
    ) -> Tensor:
        y: Tensor = torch.ops.winticket.sparse_linear(x, values, bias, start, place, by_column, row_of, order)
        return y

    setup_context = staticmethod(_keep_for_linear)
    backward = staticmethod(_linear_gradients)


class _Conv2d(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(  # noqa: PLR0917
        x: Tensor,
        values: Tensor,
        bias: Tensor | None,
        start: Tensor,
        place: Tensor,
        by_column: Tensor,
        row_of: Tensor,
        order: Tensor,
        column_of: Tensor,
        channels: int,
        kernel: list[int],
        stride: list[int],
        padding: list[int],
    ) -> Tensor:
        indices = (start, place, by_column, row_of, order, column_of)
        y: Tensor = torch.ops.winticket.sparse_conv2d(
            x, values, bias, *indices, channels, kernel, stride, padding
        )
        return y

    setup_context = staticmethod(_keep_for_conv2d)
    backward = staticmethod(_conv2d_gradients)


class _BatchLast(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        y: Tensor = torch.ops.winticket.batch_last(x)
        return y

    @staticmethod
    def setup_context(_ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(_ctx: Any, grad: Tensor) -> Tensor:
        return grad


class _CrossEntropy(torch.autograd.Function):
    """Computes the gradient together with the loss, since training always needs both."""

    generate_vmap_rule = True

    @staticmethod
    def forward(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        loss, grad = torch.ops.winticket.cross_entropy(logits, y)
        return loss, grad

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        del inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])

    @staticmethod
    def backward(ctx: Any, by_loss: Tensor, by_grad: Tensor) -> tuple[Tensor, None]:
        del by_grad
        (grad,) = ctx.saved_tensors
        return grad * by_loss[..., None, None], None


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Mean cross-entropy of logits [B, K] against classes y [B], in one kernel with its gradient.

    >>> cross_entropy(torch.zeros(3, 2), torch.tensor([0, 1, 1]))
    tensor(0.6931)
    """
    loss: Tensor = _CrossEntropy.apply(logits, y)[0]  # type: ignore[no-untyped-call]
    return loss


def loss_and_correct(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The summed cross-entropy (float64) and the number of correct answers of logits [N, K] against y [N].

    >>> total, correct = loss_and_correct(torch.tensor([[2.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 0]))
    >>> round(total.item(), 4), correct.item()
    (2.2539, 1)
    """
    total, right = torch.ops.winticket.loss_and_correct(logits, y)
    return total, right


sparse_linear: Callable[..., Tensor] = _Linear.apply
"""x [B, in], values [P], bias [out] or None, then the five indices of a `Structure` -> [B, out]; differentiable."""
sparse_conv2d: Callable[..., Tensor] = _Conv2d.apply
batch_last: Callable[..., Tensor] = _BatchLast.apply
