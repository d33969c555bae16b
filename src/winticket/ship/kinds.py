"""The kinds of operations that a shipped network consists of: their options, their tensors, and the shape they give.

Shapes are those of one example, without the batch: [channels, *positions] for images and signals.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

import msgspec

Shape: TypeAlias = tuple[int, ...]

LARGEST = 1 << 28
"""Most elements of a value between two operations, per example; a file that asks for more is refused."""
MOST_TAPS = 1 << 20
"""Most positions of a convolution's window."""
_MOST = (1 << 31) - 1
_One = Annotated[int, msgspec.Meta(ge=1, le=_MOST)]
_Zero = Annotated[int, msgspec.Meta(ge=0, le=_MOST)]
_Finite = Annotated[float, msgspec.Meta(ge=-1e30, le=1e30)]
_Pair = tuple[_Zero, _Zero]
_Axes = Annotated[tuple[_Zero, ...], msgspec.Meta(max_length=8)]


class _Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No options."""


class _Conv1d(_Options, frozen=True):
    stride: tuple[_One] = (1,)
    padding: tuple[_Pair] = ((0, 0),)
    dilation: tuple[_One] = (1,)
    groups: _One = 1


class _Conv2d(_Options, frozen=True):
    stride: tuple[_One, _One] = (1, 1)
    padding: tuple[_Pair, _Pair] = ((0, 0), (0, 0))
    dilation: tuple[_One, _One] = (1, 1)
    groups: _One = 1


class _MaxPool1d(_Options, frozen=True):
    kernel: tuple[_One]
    stride: tuple[_One]
    padding: tuple[_Pair] = ((0, 0),)
    dilation: tuple[_One] = (1,)


class _MaxPool2d(_Options, frozen=True):
    kernel: tuple[_One, _One]
    stride: tuple[_One, _One]
    padding: tuple[_Pair, _Pair] = ((0, 0), (0, 0))
    dilation: tuple[_One, _One] = (1, 1)


class _AvgPool1d(_Options, frozen=True):
    kernel: tuple[_One]
    stride: tuple[_One]
    padding: tuple[_Pair] = ((0, 0),)
    count_padding: bool = True


class _AvgPool2d(_Options, frozen=True):
    kernel: tuple[_One, _One]
    stride: tuple[_One, _One]
    padding: tuple[_Pair, _Pair] = ((0, 0), (0, 0))
    count_padding: bool = True


class _Size1d(_Options, frozen=True):
    size: tuple[_One]


class _Size2d(_Options, frozen=True):
    size: tuple[_One, _One]


class _Slope(_Options, frozen=True):
    slope: _Finite = 0.01


class _Range(_Options, frozen=True):
    low: _Finite = -1.0
    high: _Finite = 1.0


class _Gelu(_Options, frozen=True):
    tanh: bool = False


class _Mean(_Options, frozen=True):
    axes: _Axes
    keep_axes: bool = False


class _Reshape(_Options, frozen=True):
    shape: _Axes


class _Axis(_Options, frozen=True):
    axis: _Zero = 0


Rule: TypeAlias = Callable[[Any, Sequence[Shape], Mapping[str, Shape]], Shape]
"""(options, shapes of the inputs, shapes of the tensors by role) -> shape of the output, or ValueError."""


@dataclass(frozen=True)
class Kind:
    """What an operation of one kind needs.

    options   the type of its options
    shape     gives the shape of its output; ValueError if inputs and tensors do not fit together
    required, optional  the roles of its tensors
    several   whether it takes two inputs or more; else it takes one
    """

    options: type[_Options]
    shape: Rule
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    several: bool = False


def windows(size: int, kernel: int, *, stride: int, padding: tuple[int, int], dilation: int) -> int:
    """The number of positions of a window of `kernel` taps over `size` inputs. ValueError if none fits.

    >>> windows(28, 3, stride=1, padding=(1, 1), dilation=1)
    28
    """
    count = (size + sum(padding) - dilation * (kernel - 1) - 1) // stride + 1
    if count < 1:
        raise ValueError(f"a window of {kernel} taps does not fit into {size} inputs with padding {padding}")
    return count


def _bounded(shape: Shape) -> Shape:
    if math.prod(shape) > LARGEST:
        raise ValueError(
            f"a value of shape {shape} is too large: at most {LARGEST} elements per example are computed"
        )
    return shape


def _linear(_: Any, inputs: Sequence[Shape], tensors: Mapping[str, Shape]) -> Shape:
    (x,), weight = inputs, tensors["weight"]
    if len(weight) != 2 or not x or x[-1] != weight[1]:
        raise ValueError(f"a weight of shape {weight} cannot multiply an input of shape {x}")
    _one_per_unit("bias", tensors, weight[0])
    return (*x[:-1], weight[0])


def _one_per_unit(role: str, tensors: Mapping[str, Shape], units: int) -> None:
    if role in tensors and tensors[role] != (units,):
        raise ValueError(f"its {role} has shape {tensors[role]}, but there are {units} units")


def _conv(positions: int) -> Rule:
    def rule(options: Any, inputs: Sequence[Shape], tensors: Mapping[str, Shape]) -> Shape:
        (x,), weight = inputs, tensors["weight"]
        if len(x) != 1 + positions or len(weight) != 2 + positions:
            raise ValueError(f"a weight of shape {weight} cannot be convolved with an input of shape {x}")
        if x[0] != weight[1] * options.groups or weight[0] % options.groups:
            raise ValueError(
                f"a weight of shape {weight} in {options.groups} groups does not fit {x[0]} channels"
            )
        _one_per_unit("bias", tensors, weight[0])
        if math.prod(weight[2:]) > MOST_TAPS:
            raise ValueError(f"a window of {math.prod(weight[2:])} taps is too large: {MOST_TAPS} is most")
        return (weight[0], *_slid(x, weight[2:], options, options.dilation))

    return rule


def _slid(x: Shape, kernel: Shape, options: Any, dilation: Shape) -> Shape:
    """The positions of a window over [channels, *positions], for every axis; also bounds the padded input."""
    channels, *positions = x
    _bounded((channels, *(size + sum(p) for size, p in zip(positions, options.padding, strict=True))))
    every = zip(positions, kernel, options.stride, options.padding, dilation, strict=True)
    return tuple(windows(n, k, stride=s, padding=p, dilation=d) for n, k, s, p, d in every)


def _pool(positions: int) -> Rule:
    def rule(options: Any, inputs: Sequence[Shape], _: Mapping[str, Shape]) -> Shape:
        (x,) = inputs
        _positions(x, positions)
        for kernel, padding in zip(options.kernel, options.padding, strict=True):
            if max(padding) >= kernel:  # else a window could hold nothing but padding
                raise ValueError(
                    f"padding {padding} is not smaller than the window, which has {kernel} inputs"
                )
        dilation = getattr(options, "dilation", (1,) * positions)
        return (x[0], *_slid(x, options.kernel, options, dilation))

    return rule


def _positions(x: Shape, count: int) -> None:
    if len(x) != 1 + count:
        raise ValueError(
            f"it takes [channels and {count} axes of positions], but its input has shape {list(x)}"
        )


def _adaptive(positions: int) -> Rule:
    def rule(options: Any, inputs: Sequence[Shape], _: Mapping[str, Shape]) -> Shape:
        (x,) = inputs
        _positions(x, positions)
        return (x[0], *options.size)

    return rule


def _same(_: Any, inputs: Sequence[Shape], __: Mapping[str, Shape]) -> Shape:
    return inputs[0]


def _scaled(_: Any, inputs: Sequence[Shape], tensors: Mapping[str, Shape]) -> Shape:
    (x,) = inputs
    if not x:
        raise ValueError("its input has no channels")
    for role in tensors:
        _one_per_unit(role, tensors, x[0])
    return x


def _ranged(options: Any, inputs: Sequence[Shape], __: Mapping[str, Shape]) -> Shape:
    if not options.low <= options.high:
        raise ValueError(f"its low end {options.low} is above its high end {options.high}")
    return inputs[0]


def _mean(options: Any, inputs: Sequence[Shape], _: Mapping[str, Shape]) -> Shape:
    (x,), axes = inputs, options.axes
    if not axes or len(set(axes)) < len(axes) or max(axes) >= len(x):
        raise ValueError(f"axes {list(axes)} are not axes of a value of shape {list(x)}")
    if options.keep_axes:
        return tuple(1 if axis in axes else size for axis, size in enumerate(x))
    return tuple(size for axis, size in enumerate(x) if axis not in axes)


def _reshape(options: Any, inputs: Sequence[Shape], _: Mapping[str, Shape]) -> Shape:
    (x,), shape = inputs, tuple(options.shape)
    if math.prod(shape) != math.prod(x):
        raise ValueError(f"a value of shape {list(x)} cannot take the shape {list(shape)}")
    return shape


def _add(_: Any, inputs: Sequence[Shape], __: Mapping[str, Shape]) -> Shape:
    if len(set(inputs)) > 1:
        raise ValueError(f"its inputs have different shapes: {' and '.join(map(str, inputs))}")
    return inputs[0]


def _concat(options: Any, inputs: Sequence[Shape], _: Mapping[str, Shape]) -> Shape:
    axis, first = options.axis, inputs[0]
    if axis >= len(first):
        raise ValueError(f"axis {axis} is not an axis of a value of shape {list(first)}")
    rests = {(*x[:axis], *x[axis + 1 :]) for x in inputs}
    if len(rests) > 1 or len({len(x) for x in inputs}) > 1:
        raise ValueError(f"inputs of shapes {' and '.join(map(str, inputs))} differ in more than axis {axis}")
    return (*first[:axis], sum(x[axis] for x in inputs), *first[axis + 1 :])


def _along(options: Any, inputs: Sequence[Shape], _: Mapping[str, Shape]) -> Shape:
    (x,) = inputs
    if options.axis >= len(x):
        raise ValueError(f"axis {options.axis} is not an axis of a value of shape {list(x)}")
    return x


KINDS: dict[str, Kind] = {
    "linear": Kind(_Options, _linear, ("weight",), ("bias",)),
    "conv1d": Kind(_Conv1d, _conv(1), ("weight",), ("bias",)),
    "conv2d": Kind(_Conv2d, _conv(2), ("weight",), ("bias",)),
    "scale_shift": Kind(_Options, _scaled, ("scale", "shift")),
    "relu": Kind(_Options, _same),
    "leaky_relu": Kind(_Slope, _same),
    "hardtanh": Kind(_Range, _ranged),
    "gelu": Kind(_Gelu, _same),
    "silu": Kind(_Options, _same),
    "sigmoid": Kind(_Options, _same),
    "tanh": Kind(_Options, _same),
    "max_pool1d": Kind(_MaxPool1d, _pool(1)),
    "max_pool2d": Kind(_MaxPool2d, _pool(2)),
    "avg_pool1d": Kind(_AvgPool1d, _pool(1)),
    "avg_pool2d": Kind(_AvgPool2d, _pool(2)),
    "adaptive_avg_pool1d": Kind(_Size1d, _adaptive(1)),
    "adaptive_avg_pool2d": Kind(_Size2d, _adaptive(2)),
    "mean": Kind(_Mean, _mean),
    "reshape": Kind(_Reshape, _reshape),
    "add": Kind(_Options, _add, several=True),
    "concat": Kind(_Axis, _concat, several=True),
    "softmax": Kind(_Axis, _along),
    "log_softmax": Kind(_Axis, _along),
}
"""Every kind by its name."""


def checked_shape(shape: Shape) -> Shape:
    """The shape, if it is one that is computed. ValueError for an axis without elements, or for too many elements."""
    if min(shape, default=1) < 1:
        raise ValueError(f"a value of shape {shape} has no elements")
    return _bounded(shape)
