"""The work of a layer in training, for clocks: its products with what surrounds them, dense and sparse, on random data.

A step is the forward pass, both gradients, what surrounds these (bias, ReLU and their gradients) and the optimiser's
update, with the mask if the layer is dense. For small layers this takes longer than the products.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from winticket.sparse import products, windows
from winticket.sparse.chain import Rule
from winticket.sparse.choices import Choice, Shape
from winticket.sparse.native import require
from winticket.sparse.structure import Structure, rule, structure
from winticket.sparse.timing import Work
from winticket.sparse.updates import Factors, Gradient, OnePass, Target, multiplies
from winticket.sparse.windows import Window

ENOUGH = 10**7  # multiplications, at density 1, of the part of a layer on which ways are compared
MANY = (
    4 * 10**6
)  # weights; of a stack with more, fewer replicates take a step, since time and memory grow alike


@dataclass(frozen=True)
class Layer:
    """The work of a layer: `usual` blocks and each product's `works` by blocks at a density, and whole steps."""

    usual: Callable[[float], tuple[int, int]]
    works: Callable[[float], dict[str, dict[int, Work]]]
    step: Callable[[Choice], Work]
    dense: Sequence[Work]


def layer_of(shape: Shape) -> Layer:
    """The work of a layer of this shape. `step` chooses instruction sets for this thread by `attempt`."""
    return _convolution(shape, shape.window) if shape.window else _linear(shape)


def _draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _kept(shape: Shape, density: float) -> Tensor:
    """The mask of one network, [1, rows, columns]."""
    chance = torch.rand(1, shape.rows, shape.columns, generator=torch.Generator().manual_seed(1))
    return chance < density


def _with_adam(
    weight: Tensor,
    gradient: Callable[[], Gradient],
    *,
    keep: Tensor | None = None,
    copy: Tensor | None = None,
) -> Work:
    """The gradient, which is bfloat16 if there is a `copy` of the weight, and the update."""
    slots = (torch.zeros_like(weight), torch.zeros_like(weight))
    update = OnePass([Target(weight, slots, keep, copy, copy is not None)], Rule("adam"))
    return lambda: update([gradient()], 1e-9, taken=1)


def _linear(shape: Shape) -> Layer:
    rows, columns, batch = shape.rows, shape.columns, shape.batch
    whole = replace(shape, stack=_share(shape.stack, rows * columns, MANY))
    part = replace(shape, stack=_share(shape.stack, rows * columns * batch, ENOUGH))
    # A product computes row after row of its result from the whole operand.
    few_rows = replace(part, rows=_share(rows, columns * batch, ENOUGH))
    few_columns = replace(part, columns=_share(columns, rows * batch, ENOUGH))

    def usual(density: float) -> tuple[int, int]:
        return rule(rows, columns, batch, density)

    def works(density: float) -> dict[str, dict[int, Work]]:
        across, down = usual(density)
        by_row, by_column = _Operands(few_rows), _Operands(few_columns)
        made: dict[str, dict[int, Work]] = {product: {} for product in shape.products}
        for blocks in _near(across, columns):
            calls = by_row.calls(structure(_kept(few_rows, density), blocks=(blocks, 1)))
            made["forward"][blocks], made["by_weight"][blocks] = calls["forward"], calls["by_weight"]
        for blocks in _near(down, rows):
            calls = by_column.calls(structure(_kept(few_columns, density), blocks=(1, blocks)))
            made["by_input"][blocks] = calls["by_input"]
        return made

    def step(choice: Choice) -> Work:
        kept = structure(_kept(shape, choice.density), blocks=choice.blocks)
        return _Operands(whole).step(kept, choice.sets)

    return Layer(usual, works, step, _dense_linear(whole))


def _share(count: int, each: int, enough: int) -> int:
    """How many of `count` parts of that size are enough."""
    return max(1, min(count, enough // max(1, each)))


def _near(usual: int, most: int) -> list[int]:
    """The numbers of blocks that are tried beside the usual one."""
    return sorted({min(most, n) for n in (1, max(1, usual // 2), usual, 2 * usual)})


@dataclass(frozen=True)
class _Call:
    """A call of a kernel with these arguments, of which it gets tensors by address and none as 0."""

    kernel: Callable[..., None]
    arguments: tuple[int | Tensor | None, ...]

    def bound(self) -> Work:
        passed = [a.data_ptr() if isinstance(a, Tensor) else 0 if a is None else a for a in self.arguments]
        return lambda: self.kernel(*passed)  # refers to self, and so keeps the tensors


class _Operands:
    """Operands of a Linear layer's products in their padded layout, [S, features, width], as a training has them."""

    def __init__(self, shape: Shape) -> None:
        self.shape, self.width = shape, products.padded(shape.batch, 4)
        self.x, self.y = (_draw(shape.stack, n, self.width, seed=0) for n in (shape.columns, shape.rows))
        self.by_x, self.by_y = torch.empty_like(self.x), _draw(*self.y.shape, seed=1)
        self.bias, self.by_bias = (_draw(shape.stack, shape.rows, seed=2) for _ in range(2))

    def calls(self, one: Structure, values: Tensor | None = None) -> dict[str, Work]:
        """The three products for a stack of networks that all have the structure `one`, each with what surrounds it.

        These are bare calls, without what Python adds. For a small layer that is about as much as the conversions
        between layouts that it needs if it alone is dense among sparse ones; neither is counted.
        """
        s, width, capacity = self.shape, self.width, one.capacity
        indices = (one.start, one.place, one.by_column, one.row_of, one.order)
        start, place, by_column, row_of, order = (torch.cat([index] * s.stack) for index in indices)
        weights = _draw(s.stack, capacity, seed=3) if values is None else values
        self.by_weights = torch.zeros_like(weights)
        across, down, kernels = one.start.shape[1], one.by_column.shape[1], require()
        of_x, of_y = (s.columns * width, width), (s.rows * width, width)
        forward = (
            False, s.threads, s.stack, s.rows, across, s.columns, capacity, start, place, 0, s.batch, width, weights,
            capacity, self.x, *of_x, self.y, *of_y, self.bias, True, 0, 0, 0,
        )  # fmt: skip
        by_input = (
            False, s.threads, s.stack, s.columns, down, s.rows, capacity, by_column, row_of, order, s.batch, width,
            weights, capacity, self.by_y, *of_y, self.by_x, *of_x, 0, False, self.x, *of_x,
        )  # fmt: skip
        by_weight = (
            False, s.threads, s.stack, s.rows, across, s.columns, capacity, start, place, s.batch, width, self.by_y,
            *of_y, self.x, *of_x, self.by_weights, self.by_bias,
        )  # fmt: skip
        return {
            "forward": _Call(kernels.sum, forward).bound(),
            "by_input": _Call(kernels.sum, by_input).bound(),
            "by_weight": _Call(kernels.dot, by_weight).bound(),
        }

    def step(self, one: Structure, sets: Mapping[str, str]) -> Work:
        values, attempt = _draw(self.shape.stack, one.capacity, seed=3), require().attempt
        calls = self.calls(one, values)

        def gradient() -> Tensor:
            self.by_weights.zero_()  # to which the kernel adds
            for product in ("forward", "by_input", "by_weight"):
                attempt(sets[product])
                calls[product]()
            return self.by_weights

        return _with_adam(values, gradient)


def _dense_linear(shape: Shape) -> list[Work]:
    """The dense ways to compute the layer, of which a training uses the faster one."""
    x = _draw(shape.stack, shape.batch, shape.columns, seed=0)
    grad = _draw(shape.stack, shape.batch, shape.rows, seed=1)
    weight = _draw(shape.stack, shape.rows, shape.columns, seed=2)
    bias, mask = _draw(shape.stack, 1, shape.rows, seed=3), torch.ones_like(weight)
    copy = weight.to(torch.bfloat16) if shape.half else None
    read, (x, grad, bias) = weight if copy is None else copy, _in_precision(shape, x, grad, bias)
    # A training's allocator has these at hand; a new one's would ask the system for pages at every call.
    by_x, by_weight = torch.empty_like(x), torch.empty_like(read)
    factors = shape.half and multiplies()  # then the update computes the gradient

    def step(product: Callable[[], Tensor]) -> Work:
        def gradient() -> Gradient:
            y = torch.relu(torch.add(bias, product()))
            before = torch.ops.aten.threshold_backward(grad, y, 0)
            torch.bmm(before, read, out=by_x)
            before.sum(1)
            if factors:
                return Factors(before, x)
            return torch.bmm(before.mT, x, out=by_weight)

        return _with_adam(weight, gradient, keep=mask, copy=copy)

    return [step(lambda: torch.bmm(x, read.mT)), step(lambda: torch.bmm(read, x.mT).mT)]


def _in_precision(shape: Shape, *tensors: Tensor) -> list[Tensor]:
    """Operands of a dense layer of this shape."""
    return [t.to(torch.bfloat16) if shape.half else t for t in tensors]


def _convolution(shape: Shape, window: Window) -> Layer:
    """One network's convolution: those of a stack run one after another, so one is enough to time."""
    one = windows.fitting(window, shape.batch, *shape.size, rows=shape.rows, bytes_each=4)
    each = shape.rows * shape.columns * one.images * one.shape[0] * one.shape[1]
    images = min(shape.batch, one.images * _share(-(-shape.batch // one.images), each, ENOUGH))

    def works(density: float) -> dict[str, dict[int, Work]]:
        computed = _convolved(replace(shape, batch=images), window, density)[1]
        return {product: {1: work} for product, work in computed.items()}

    def step(choice: Choice) -> Work:
        values, computed = _convolved(shape, window, choice.density)
        attempt = require().attempt

        def gradient() -> Tensor:
            attempt(choice.sets["convolution"])
            computed["convolution"]()
            attempt(choice.sets["convolution_back"])
            return computed["convolution_back"]()

        return _with_adam(values, gradient)

    return Layer(lambda _: (1, 1), works, step, _dense_convolution(shape, window))


def _convolved(
    shape: Shape, window: Window, density: float
) -> tuple[Tensor, dict[str, Callable[[], Tensor]]]:
    """The kept weights of a convolution and its products, in which ReLU and bias are included."""
    x = _draw(shape.batch, window.channels, *shape.size, seed=0)
    grad = _draw(shape.batch, shape.rows, *window.result(*shape.size), seed=1)
    keep = _kept(shape, density).view(1, shape.rows, window.channels, *window.kernel)
    kept = structure(keep, columns_in=window.numbered())
    values, bias = kept.pack(_draw(*keep.shape, seed=2))[0], _draw(shape.rows, seed=3)
    rows = (kept.start[0], kept.place[0])
    columns = [t[0] for t in (kept.by_column, kept.row_of, kept.order, kept.column_of)]

    def back() -> Tensor:
        before = torch.ops.aten.threshold_backward(grad, grad, 0)
        return windows.conv2d_backward(before, x, values, rows, columns, window=window)[1]

    def forward() -> Tensor:
        return windows.conv2d(x, values, bias, *rows, window=window, relu=True)

    return values, {"convolution": forward, "convolution_back": back}


def _dense_convolution(shape: Shape, window: Window) -> list[Work]:
    return [
        _dense_convolution_in(shape, window, memory=memory)
        for memory in (torch.contiguous_format, torch.channels_last)
    ]


def _dense_convolution_in(shape: Shape, window: Window, *, memory: torch.memory_format) -> Work:
    x = _draw(shape.batch, window.channels, *shape.size, seed=0).contiguous(memory_format=memory)
    grad = _draw(shape.batch, shape.rows, *window.result(*shape.size), seed=1)
    grad = grad.contiguous(memory_format=memory)
    weight, bias = _draw(shape.rows, window.channels, *window.kernel, seed=2), _draw(shape.rows, seed=3)
    mask, copy = torch.ones_like(weight), weight.to(torch.bfloat16) if shape.half else None
    read, (x, grad, bias) = weight if copy is None else copy, _in_precision(shape, x, grad, bias)
    pairs = (list(window.stride), list(window.padding), [1, 1])

    def gradient() -> Tensor:
        y = torch.relu(torch.conv2d(x, read, bias, window.stride, window.padding))
        before = torch.ops.aten.threshold_backward(grad, y, 0)
        backward = torch.ops.aten.convolution_backward
        _, by_weight, _ = backward(before, x, read, [shape.rows], *pairs, False, [0, 0], 1, [True] * 3)
        contiguous: Tensor = by_weight.contiguous()
        return contiguous

    return _with_adam(weight, gradient, keep=mask, copy=copy)
