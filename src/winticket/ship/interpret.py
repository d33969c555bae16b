"""A plain interpreter of networks in numpy: slow, short, and the second opinion on everything faster."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from winticket.ship.adaptive import ends
from winticket.ship.network import INPUT, Network, Operation

Array: TypeAlias = npt.NDArray[np.floating[Any]]
_ERF = np.frompyfunc(math.erf, 1, 1)


def run(
    network: Network, x: npt.ArrayLike, *, rows: int = 32, dtype: type[np.floating[Any]] = np.float32
) -> Array:
    """The logits [N, *outputs] for inputs [N, *input_shape], computed in `dtype`, `rows` examples at a time.

    Inputs are preprocessed already; `network.preprocessing.apply(pixels)` does that. Raises ValueError for inputs of
    another shape.

    >>> from winticket.ship import Network, Operation, Weight, run
    >>> weight = Weight.of("fc.weight", [[1.0, 2.0], [3.0, 4.0]])
    >>> network = Network((2,), (Operation("linear", ("input",), "1", tensors={"weight": weight}),))
    >>> run(network, [[1, 1]]).tolist()
    [[3.0, 7.0]]
    """
    inputs = np.asarray(x, dtype)
    if inputs.shape[1:] != network.input_shape:
        raise ValueError(
            f"the network takes inputs [N, {', '.join(map(str, network.input_shape))}], not {list(inputs.shape)}"
        )
    tensors = {name: weight.dense().astype(dtype) for name, weight in network.weights().items()}
    parts = [_run(network, inputs[at : at + rows], tensors) for at in range(0, len(inputs), rows)]
    return np.concatenate(parts) if parts else np.empty((0, *network.shapes[network.output]), dtype)


def _run(network: Network, x: Array, tensors: Mapping[str, Array]) -> Array:
    values: dict[str, Array] = {INPUT: x}
    left = _readers(network)
    for operation in network.operations:
        used = {role: tensors[weight.name] for role, weight in operation.tensors.items()}
        inputs = [values[name] for name in operation.inputs]
        options = operation.typed_options()
        with np.errstate(over="ignore"):  # a sigmoid of a large number is 1, whatever exp says
            values[operation.output] = _RUN[operation.kind](options, inputs, used)
        for name in set(operation.inputs):
            left[name].remove(operation)
            if not left[name]:
                del values[name]
    return values[network.output]


def _readers(network: Network) -> dict[str, list[Operation]]:
    """By value, the operations that still read it."""
    readers: dict[str, list[Operation]] = {name: [] for name in network.shapes}
    for operation in network.operations:
        for name in set(operation.inputs):
            readers[name].append(operation)
    return readers


Inputs: TypeAlias = Sequence[Array]
Tensors: TypeAlias = Mapping[str, Array]


def _linear(_: Any, inputs: Inputs, tensors: Tensors) -> Array:
    product: Array = inputs[0] @ tensors["weight"].T
    return product + tensors["bias"] if "bias" in tensors else product


def _windows(x: Array, kernel: Sequence[int], options: Any, *, fill: float, dilation: Sequence[int]) -> Array:
    """Every window of x [N, C, *positions]: [N, C, *positions of windows, *kernel]."""
    count = len(kernel)
    padded = np.pad(x, ((0, 0), (0, 0), *options.padding), constant_values=fill)
    spans = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
    view = sliding_window_view(padded, spans, axis=tuple(range(2, 2 + count)))
    strides = tuple(slice(None, None, s) for s in options.stride)
    taps = tuple(slice(None, None, d) for d in dilation)
    return view[(slice(None), slice(None), *strides, *taps)]


def _conv(options: Any, inputs: Inputs, tensors: Tensors) -> Array:
    """The sum over the taps of the kernel; each multiplies the channels at its own offset."""
    weight = tensors["weight"]
    view = _windows(inputs[0], weight.shape[2:], options, fill=0.0, dilation=options.dilation)
    count, positions = len(view), view.shape[2 : weight.ndim]
    units, channels = weight.shape[0] // options.groups, weight.shape[1]
    filters = weight.reshape(options.groups, units, *weight.shape[1:])
    summed = np.zeros((count, options.groups, units, math.prod(positions)), view.dtype)
    for tap in np.ndindex(*weight.shape[2:]):
        read = view[(..., *tap)].reshape(count, options.groups, channels, -1)
        summed += filters[(..., *tap)] @ read
    out = summed.reshape(count, -1, *positions)
    return out + _by_channel(tensors["bias"], out.ndim) if "bias" in tensors else out


def _by_channel(vector: Array, ndim: int) -> Array:
    return vector.reshape(1, -1, *(1,) * (ndim - 2))


def _scale_shift(_: Any, inputs: Inputs, tensors: Tensors) -> Array:
    (x,) = inputs
    scaled: Array = x * _by_channel(tensors["scale"], x.ndim) + _by_channel(tensors["shift"], x.ndim)
    return scaled


def _max_pool(options: Any, inputs: Inputs, _: Tensors) -> Array:
    view = _windows(inputs[0], options.kernel, options, fill=-np.inf, dilation=options.dilation)
    highest: Array = view.max(_last(len(options.kernel)))
    return highest


def _avg_pool(options: Any, inputs: Inputs, _: Tensors) -> Array:
    (x,), count = inputs, len(options.kernel)
    ones = (1,) * count
    sums = _windows(x, options.kernel, options, fill=0.0, dilation=ones).sum(_last(count))
    if options.count_padding:
        means: Array = sums / x.dtype.type(math.prod(options.kernel))
        return means
    inside = np.ones((1, 1, *x.shape[2:]), x.dtype)
    counts = _windows(inside, options.kernel, options, fill=0.0, dilation=ones).sum(_last(count))
    averages: Array = sums / counts
    return averages


def _last(count: int) -> tuple[int, ...]:
    return tuple(range(-count, 0))


def _adaptive_avg_pool(options: Any, inputs: Inputs, _: Tensors) -> Array:
    (x,) = inputs
    for axis, size in enumerate(options.size, 2):
        means = np.empty((*x.shape[:axis], size, *x.shape[axis + 1 :]), x.dtype)
        for at, (low, high) in enumerate(zip(*ends(x.shape[axis], size), strict=True)):
            part: Array = np.moveaxis(x, axis, 0)[low:high]
            np.moveaxis(means, axis, 0)[at] = part.mean(0)
        x = means
    return x


def _mean(options: Any, inputs: Inputs, _: Tensors) -> Array:
    mean: Array = inputs[0].mean(tuple(axis + 1 for axis in options.axes), keepdims=options.keep_axes)
    return mean


def _softmax(options: Any, inputs: Inputs, tensors: Tensors) -> Array:
    shares: Array = np.exp(_log_softmax(options, inputs, tensors))
    return shares


def _log_softmax(options: Any, inputs: Inputs, _: Tensors) -> Array:
    axis = options.axis + 1
    shifted = inputs[0] - inputs[0].max(axis, keepdims=True)
    normed: Array = shifted - np.log(np.exp(shifted).sum(axis, keepdims=True))
    return normed


def _gelu(options: Any, inputs: Inputs, _: Tensors) -> Array:
    (x,) = inputs
    half = x.dtype.type(0.5)
    if options.tanh:
        inner = x.dtype.type(math.sqrt(2 / math.pi)) * (x + x.dtype.type(0.044715) * x**3)
        curved: Array = half * x * (1 + np.tanh(inner))
        return curved
    erf = np.asarray(_ERF(x * x.dtype.type(math.sqrt(0.5))), x.dtype)
    exact: Array = half * x * (1 + erf)
    return exact


def _sigmoid(_: Any, inputs: Inputs, __: Tensors) -> Array:
    curve: Array = 1 / (1 + np.exp(-inputs[0]))
    return curve


_RUN: dict[str, Callable[[Any, Inputs, Tensors], Array]] = {
    "linear": _linear,
    "conv1d": _conv,
    "conv2d": _conv,
    "scale_shift": _scale_shift,
    "relu": lambda _, inputs, __: np.maximum(inputs[0], 0),
    "leaky_relu": lambda options, inputs, _: np.where(
        inputs[0] > 0, inputs[0], inputs[0] * inputs[0].dtype.type(options.slope)
    ),
    "hardtanh": lambda options, inputs, _: np.clip(inputs[0], options.low, options.high),
    "gelu": _gelu,
    "silu": lambda _, inputs, tensors: inputs[0] * _sigmoid(_, inputs, tensors),
    "sigmoid": _sigmoid,
    "tanh": lambda _, inputs, __: np.tanh(inputs[0]),
    "max_pool1d": _max_pool,
    "max_pool2d": _max_pool,
    "avg_pool1d": _avg_pool,
    "avg_pool2d": _avg_pool,
    "adaptive_avg_pool1d": _adaptive_avg_pool,
    "adaptive_avg_pool2d": _adaptive_avg_pool,
    "mean": _mean,
    "reshape": lambda options, inputs, _: inputs[0].reshape(len(inputs[0]), *options.shape),
    "add": lambda _, inputs, __: sum(inputs[1:], start=inputs[0]),
    "concat": lambda options, inputs, _: np.concatenate(inputs, options.axis + 1),
    "softmax": _softmax,
    "log_softmax": _log_softmax,
}
"""Every kind of winticket.ship.kinds.KINDS: (options, inputs, tensors by role) -> output."""
