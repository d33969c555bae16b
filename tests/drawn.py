"""Random networks of all kinds of operations: small ones for hypothesis, and of any size by a seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from hypothesis import strategies as st

from winticket.ship import KINDS, Network, Operation, Preprocessing, Weight

Shape: TypeAlias = tuple[int, ...]
Drawn: TypeAlias = tuple[dict[str, Any], dict[str, Weight]]


class Draw:
    """Draws the parts of one network: numbers and choices by hypothesis, weights from a drawn seed."""

    most_elements = 400
    """Larger values are not read any further."""
    ranks: tuple[int, ...] = (3, 2, 3, 2, 1, 0)
    sizes = 7, 7
    """The largest first axis of an input, and the largest of the others."""
    channels = 3
    """The most outputs of a convolution for each of its groups; a Linear layer has three times as many."""
    operations = 7

    def __init__(self, draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
        self.draw = draw
        self.rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        self.tensors = 0

    def integer(self, low: int, high: int) -> int:
        return int(self.draw(st.integers(low, high)))

    def choice(self, options: Sequence[Any]) -> Any:
        return self.draw(st.sampled_from(options))

    def axes(self, count: int) -> list[int]:
        return list(self.draw(st.lists(st.integers(0, count - 1), min_size=1, unique=True)))

    def vector(self, size: int) -> Weight:
        self.tensors += 1
        return Weight.of(f"tensor {self.tensors}", self.rng.standard_normal(size))

    def matrix(self, shape: Shape) -> Weight:
        """A weight with about unit gain: dense or at some density, in float32 or in int8."""
        self.tensors += 1
        name, fan_in = f"tensor {self.tensors}", math.prod(shape[1:])
        density = self.choice((1.0, 0.6, 0.3, 0.05, 0.0))
        keep = self.rng.random(shape) < density if density < 1 else None
        if self.choice((True, True, False)):
            return Weight.of(name, self.rng.standard_normal(shape) / math.sqrt(fan_in), keep)
        scales = (self.rng.random(shape[0]) / 127 / math.sqrt(fan_in)).astype(np.float32)
        scales[self.rng.random(shape[0]) < 0.1] = 0
        whole = self.rng.integers(-127, 128, shape).astype(np.float32)
        plain = Weight.of(name, whole * scales.reshape(-1, *(1,) * (len(shape) - 1)), keep)
        return Weight(name, shape, plain.values, plain.positions, scales)


def _linear(d: Draw, x: Shape) -> Drawn:
    return {}, _biased(d, (d.integer(1, 3 * d.channels), x[-1]))


def _biased(d: Draw, shape: Shape) -> dict[str, Weight]:
    tensors = {"weight": d.matrix(shape)}
    return {**tensors, "bias": d.vector(shape[0])} if d.choice((True, False)) else tensors


def _conv(d: Draw, x: Shape) -> Drawn:
    positions = x[1:]
    groups = d.choice([g for g in range(1, x[0] + 1) if x[0] % g == 0])
    padding = [[d.integer(0, 3), d.integer(0, 3)] for _ in positions]
    dilation = [d.integer(1, 2) for _ in positions]
    kernel = _kernel(d, positions, padding, dilation)
    options = {"padding": padding, "dilation": dilation, "stride": _strides(d, positions), "groups": groups}
    return options, _biased(d, (groups * d.integer(1, d.channels), x[0] // groups, *kernel))


def _kernel(
    d: Draw, positions: Shape, padding: Sequence[Sequence[int]], dilation: Sequence[int]
) -> list[int]:
    every = zip(positions, padding, dilation, strict=True)
    return [d.integer(1, min(4, 1 + (size + sum(pair) - 1) // spread)) for size, pair, spread in every]


def _strides(d: Draw, positions: Shape) -> list[int]:
    return [d.choice((1, 1, 2, 3, 2**31 - 1)) for _ in positions]


def _pool(*, largest: bool) -> Callable[[Draw, Shape], Drawn]:
    def pool(d: Draw, x: Shape) -> Drawn:
        positions = x[1:]
        dilation = [d.integer(1, 2) if largest else 1 for _ in positions]
        kernel = _kernel(d, positions, [(0, 0)] * len(positions), dilation)
        # With dilation, a window might see nothing but padding; the largest of nothing is not comparable.
        padding = [
            [d.integer(0, k - 1), d.integer(0, k - 1)] if spread == 1 else [0, 0]
            for k, spread in zip(kernel, dilation, strict=True)
        ]
        options: dict[str, Any] = {"kernel": kernel, "stride": _strides(d, positions), "padding": padding}
        options |= {"dilation": dilation} if largest else {"count_padding": d.choice((True, False))}
        return options, {}

    return pool


def _adaptive(d: Draw, x: Shape) -> Drawn:
    return {"size": [d.integer(1, 5) for _ in x[1:]]}, {}


def _scale_shift(d: Draw, x: Shape) -> Drawn:
    return {}, {"scale": d.vector(x[0]), "shift": d.vector(x[0])}


def _mean(d: Draw, x: Shape) -> Drawn:
    return {"axes": d.axes(len(x)), "keep_axes": d.choice((True, False))}, {}


def _reshape(d: Draw, x: Shape) -> Drawn:
    size = math.prod(x)
    first = d.choice([n for n in range(1, size + 1) if size % n == 0])
    shapes = [[size], [first, size // first], [1, first, size // first], [first, 1, size // first]]
    return {"shape": d.choice([*shapes, []] if size == 1 else shapes)}, {}


def _along(d: Draw, x: Shape) -> Drawn:
    return {"axis": d.integer(0, len(x) - 1)}, {}


def _range(d: Draw, x: Shape) -> Drawn:
    low = d.choice((-1.0, -0.1, 0.0))
    return {"low": low, "high": d.choice((low, 0.3, 6.0))}, {}


def _plain(d: Draw, x: Shape) -> Drawn:
    return {}, {}


ONE_INPUT: dict[str, Callable[[Draw, Shape], Drawn]] = {
    "linear": _linear,
    "conv1d": _conv,
    "conv2d": _conv,
    "scale_shift": _scale_shift,
    **dict.fromkeys(("relu", "silu", "sigmoid", "tanh"), _plain),
    "leaky_relu": lambda d, x: ({"slope": d.choice((0.1, 0.0, -0.5))}, {}),
    "hardtanh": _range,
    "gelu": lambda d, x: ({"tanh": d.choice((True, False))}, {}),
    "max_pool1d": _pool(largest=True),
    "max_pool2d": _pool(largest=True),
    "avg_pool1d": _pool(largest=False),
    "avg_pool2d": _pool(largest=False),
    "adaptive_avg_pool1d": _adaptive,
    "adaptive_avg_pool2d": _adaptive,
    "mean": _mean,
    "reshape": _reshape,
    "softmax": _along,
    "log_softmax": _along,
}
"""By kind: draws options and tensors for an input of that shape."""
assert {*ONE_INPUT, "add", "concat"} == {*KINDS}


class Seeded(Draw):
    """Draws everything from a seed: networks with values of up to some ten thousand elements."""

    most_elements = 12000
    ranks = (3, 2, 3, 3, 1)
    sizes = 9, 36
    channels = 20
    operations = 9

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.tensors = 0
        if self.rng.random() < 0.5:
            self.sizes = 9, 9

    def integer(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def choice(self, options: Sequence[Any]) -> Any:
        return options[self.integer(0, len(options) - 1)]

    def axes(self, count: int) -> list[int]:
        return [int(axis) for axis in self.rng.permutation(count)[: self.integer(1, count)]]


@st.composite
def networks(draw: Callable[[st.SearchStrategy[Any]], Any]) -> Network:
    """A network of up to some ten operations, whose values are read once or several times."""
    return drawn(Draw(draw))


def drawn(d: Draw) -> Network:
    """The network that these draws make."""
    rank = d.choice(d.ranks)
    shapes = {"input": tuple(d.integer(1, d.sizes[min(axis, 1)]) for axis in range(rank))}
    operations: list[Operation] = []

    def add(kind: str, inputs: Sequence[str], options: dict[str, Any], tensors: dict[str, Weight]) -> None:
        output = str(len(operations) + 1)
        operations.append(Operation(kind, tuple(inputs), output, options, tensors))
        sizes = [shapes[name] for name in inputs]
        roles = {role: tensor.shape for role, tensor in tensors.items()}
        shapes[output] = KINDS[kind].shape(operations[-1].typed_options(), sizes, roles)

    for _ in range(d.integer(1, d.operations)):
        small = [name for name, shape in shapes.items() if math.prod(shape) <= d.most_elements]
        last = small[-1]
        name = last if d.choice((True, True, False)) else d.choice(small)
        if d.choice((*(False,) * 7, True)):
            alike = [other for other in small if shapes[other] == shapes[name]]
            add("add", [d.choice(alike) for _ in range(d.integer(1, 3))] + [name], {}, {})
            continue
        kind = d.choice([kind for kind in ONE_INPUT if _takes(kind, shapes[name])])
        add(kind, [name], *ONE_INPUT[kind](d, shapes[name]))
    _join(d, shapes, operations, add)
    ready = _preprocessing(d, shapes["input"][0]) if rank and d.choice((True, False)) else None
    return Network(shapes["input"], tuple(operations), ready)


def _preprocessing(d: Draw, channels: int) -> Preprocessing:
    mean, deviation = d.rng.standard_normal(channels), 0.5 + d.rng.random(channels)
    return Preprocessing(d.choice((1.0, 0.3, 255.0)), tuple(mean.tolist()), tuple(deviation.tolist()))


def _takes(kind: str, shape: Shape) -> bool:
    """Whether the kind takes an input of that shape."""
    if kind.endswith(("1d", "2d")):
        return len(shape) == 1 + int(kind[-2])
    return bool(shape) or kind not in ("linear", "scale_shift", "mean", "softmax", "log_softmax")


def _join(d: Draw, shapes: dict[str, Shape], operations: list[Operation], add: Callable[..., None]) -> None:
    """Joins every value that nothing reads yet, flat or along an axis in which alone they differ."""
    read = {name for operation in operations for name in operation.inputs}
    loose = [name for name in shapes if name not in read]
    if len(loose) < 2:
        return
    rests = {shapes[name][:-1] for name in loose}
    if len(rests) == 1 and all(shapes[name] for name in loose):
        add("concat", loose, {"axis": len(shapes[loose[0]]) - 1}, {})
        return
    flat = []
    for name in loose:
        add("reshape", [name], {"shape": [math.prod(shapes[name])]}, {})
        flat.append(str(len(operations)))
    add("concat", flat, {"axis": 0}, {})
