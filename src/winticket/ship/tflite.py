"""A network as a TFLite file. The package ai-edge-litert is needed: pip install 'winticket[ship]'."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from winticket.ship.about import recorded_accuracy
from winticket.ship.adaptive import alike, means, means_bytes
from winticket.ship.network import Network, Operation, Weight
from winticket.ship.tflite_graph import NONE, Graph, Value, image_shape, package
from winticket.ship.tflite_windows import Windows
from winticket.version import __version__

SPARSE = 0.08
"""Fully connected layers of at most this density are faster by LiteRT's sparse kernel than by its dense one."""
MOST_BYTES = (1 << 31) - (1 << 24)
"""Most bytes of tensors: a flatbuffer has less than 2 GiB."""
_FUSED = {(0.0, math.inf): 1, (-1.0, 1.0): 2, (0.0, 6.0): 3}
"""Bounds -> the activation of TFLite that cuts to them within the operator before."""


def to_tflite(network: Network, *, sparse_kernels: bool = False) -> bytes:
    """The network as a TFLite model: `input` [1, *input_shape] -> `output` [1, *output_shape], float32.

    Pruned weights are stored in TFLite's sparse format if that is smaller: kept values, and their columns by row in 8,
    16 or 32 bits. Once the model is loaded, LiteRT makes them dense, and computes as fast as with the dense network.
    int8 weights are multiplied out. Other batches come by resizing the input. Signals and images go from
    [channels, *positions] to TFLite's layout inside.

    sparse_kernels: fully connected layers of a density up to .08 are computed with their kept weights alone, by
    LiteRT's sparse kernel. An interpreter must then be made without default delegates: with
    experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES. The XNNPACK delegate, which
    interpreters have by default, takes sparse weights for dense ones (seen in ai-edge-litert 2.3) and gives nonsense.

    Raises ModuleNotFoundError without the package ai-edge-litert; ValueError for tensors of more than 2 GiB.

    >>> from winticket.ship import Network, Operation, Weight
    >>> weight = Weight.of("fc.weight", [[1.0, 2.0], [3.0, 4.0]])
    >>> data = to_tflite(Network((2,), (Operation("linear", ("input",), "1", tensors={"weight": weight}),)))
    >>> data[4:8]
    b'TFL3'
    """
    package()
    size = 4 * sum(weight.size for weight in network.weights().values()) + means_bytes(network)
    if size > MOST_BYTES:
        raise ValueError(
            f"the network has {size} bytes of dense tensors, but a TFLite file holds less than 2 GiB"
        )
    graph, fused = Graph(network, sparse_kernels=sparse_kernels), _fused(network)
    for operation in network.operations:
        if operation.output in fused and operation.kind in ("relu", "hardtanh"):
            graph.values[operation.output] = graph.values[operation.inputs[0]]
        else:
            made = _NODES[operation.kind](graph, operation, fused.get(operation.output, 0))
            graph.values[operation.output] = made
    return graph.packed(graph.plain(network.output), _description(network, sparse_kernels=sparse_kernels))


def _description(network: Network, *, sparse_kernels: bool) -> str:
    kept, size = network.kept()
    accuracy = recorded_accuracy(network)
    known = "" if accuracy is None else f", test accuracy {accuracy:.4f}"
    warning = (
        "; for interpreters without default delegates, others give wrong answers" if sparse_kernels else ""
    )
    return f"winticket {__version__}: {kept} of {size} weights kept{known}{warning}"


def _fused(network: Network) -> dict[str, int]:
    """By value: the activation that is computed with it. Activations that are become aliases of what they read."""
    readers = Counter(name for operation in network.operations for name in operation.inputs)
    readers[network.output] += 1
    makers = {operation.output: operation.kind for operation in network.operations}
    fused: dict[str, int] = {}
    for operation in network.operations:
        before = operation.inputs[0]
        bounds = (
            (0.0, math.inf)
            if operation.kind == "relu"
            else (operation.options.get("low"), operation.options.get("high"))
        )
        if operation.kind not in ("relu", "hardtanh") or bounds not in _FUSED:
            continue
        if makers.get(before) in ("linear", "conv1d", "conv2d", "add") and readers[before] == 1:
            fused[before] = fused[operation.output] = _FUSED[bounds]
    return fused


Nodes: TypeAlias = Callable[[Graph, Operation, int], Value]


def _linear(graph: Graph, operation: Operation, activation: int) -> Value:
    weight, bias = operation.tensors["weight"], operation.tensors.get("bias")
    shape = graph.network.shapes[operation.output]
    x, ends = graph.plain(operation.inputs[0]), weight.shape[::-1]
    direct = graph.sparse_kernels and 0 < weight.density() <= SPARSE
    matrix = graph.weights(weight, np.ascontiguousarray, direct=direct)
    if len(shape) > 1:
        x = graph.reshaped(x, ends[:1])
    y = graph.node(
        "FULLY_CONNECTED", [x, matrix, graph.vector(bias)], ends[1:],
        options="FullyConnectedOptions", fusedActivationFunction=activation,
    )  # fmt: skip
    return Value(graph.reshaped(y, shape) if len(shape) > 1 else y)


def _conv(graph: Graph, operation: Operation, activation: int) -> Value:
    windows, tensors = Windows.of(graph, operation), operation.tensors
    weight = tensors["weight"]
    units, inputs = weight.shape[:2]
    groups = operation.options["groups"]
    deep = inputs == 1 and groups > 1

    def arranged(whole: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """[units, rows, columns, inputs]; for a filter on each channel [1, rows, columns, units]."""
        axes = (1, 2, 3, 0) if deep else (0, 2, 3, 1)
        return np.ascontiguousarray(whole.reshape(units, inputs, *windows.kernel).transpose(axes))

    filters = graph.weights(weight, arranged)
    x, padding = windows.padded(graph, 0.0)
    options = {
        "padding": padding, "fusedActivationFunction": activation,
        "strideH": windows.stride[0], "strideW": windows.stride[1],
        "dilationHFactor": windows.dilation[0], "dilationWFactor": windows.dilation[1],
    }  # fmt: skip
    kind, table = ("CONV_2D", "Conv2DOptions")
    if deep:
        kind, table = "DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions"
        options["depthMultiplier"] = units // groups
    bias = graph.vector(tensors.get("bias") or Weight.of(f"{operation.output}.bias", np.zeros(units)))
    return Value(image=graph.node(kind, [x, filters, bias], (*windows.out, units), options=table, **options))


def _max_pool(graph: Graph, operation: Operation, _: int) -> Value:
    windows = Windows.of(graph, operation)
    return Value(image=windows.largest(graph))


def _avg_pool(graph: Graph, operation: Operation, _: int) -> Value:
    windows = Windows.of(graph, operation)
    return Value(image=windows.mean(graph, count_padding=operation.options["count_padding"]))


def _adaptive_avg_pool(graph: Graph, operation: Operation, _: int) -> Value:
    """A pool if all windows are alike; else the product with a matrix of means along each axis."""
    (name,) = operation.inputs
    (channels, *positions), sizes = graph.network.shapes[name], operation.options["size"]
    if alike(positions, sizes):
        return Value(image=Windows.alike(graph, operation).mean(graph, count_padding=True))
    x, shape = graph.plain(name), [channels, *positions]
    for axis, (n, m) in reversed([*enumerate(zip(positions, sizes, strict=True), 1)]):
        matrix = graph.constant(("means", n, m), "means", lambda n=n, m=m: means(n, m))  # type: ignore[misc]
        rest = math.prod(shape[axis + 1 :])
        x = graph.reshaped(x, (n, rest))
        x = graph.reshaped(graph.turned(x, (0, 2, 1), (rest, n)), (n,))
        x = graph.node("FULLY_CONNECTED", [x, matrix, NONE], (m,), options="FullyConnectedOptions")
        shape[axis] = m
        x = graph.turned(graph.reshaped(x, (rest, m)), (0, 2, 1), (m, rest))
    return Value(graph.reshaped(x, tuple(shape)))


def _mean(graph: Graph, operation: Operation, _: int) -> Value:
    """Over the axes one after the other, last ones first, each as the middle axis of three."""
    (name,) = operation.inputs
    before, shape = list(graph.network.shapes[name]), graph.network.shapes[operation.output]
    axes = sorted(operation.options["axes"])
    if graph.values[name].image is not None and axes == [1, 2]:
        whole = {"options": "ReducerOptions", "keepDims": operation.options["keep_axes"]}
        inputs = [graph.image(name), graph.integers([1, 2])]
        if operation.options["keep_axes"]:
            return Value(image=graph.node("MEAN", inputs, image_shape(shape), **whole))
        return Value(graph.node("MEAN", inputs, shape, **whole))
    x = graph.plain(name)
    for axis in reversed(axes):
        parts = math.prod(before[:axis]), before[axis], math.prod(before[axis + 1 :])
        x = graph.node("MEAN", [graph.reshaped(x, parts), graph.integers([2])], (parts[0], parts[2]),
                       options="ReducerOptions", keepDims=False)  # fmt: skip
        before[axis] = 1
    return Value(graph.reshaped(x, shape))


def _reshape(graph: Graph, operation: Operation, _: int) -> Value:
    (name,) = operation.inputs
    value, shape = graph.values[name], graph.network.shapes[name]
    flat = math.prod(shape[1:]) == 1 or shape[0] == 1 if shape else False
    # Where channels or positions are one, an image's elements are in the network's order already.
    x = value.image if value.plain is None and flat and value.image is not None else graph.plain(name)
    return Value(graph.reshaped(x, graph.network.shapes[operation.output]))


def _pointwise(kind: str, options: str = "", **fixed: object) -> Nodes:
    def node(graph: Graph, operation: Operation, _: int) -> Value:
        return _mapped(
            graph, operation, lambda x, shape: graph.node(kind, [x], shape, options=options, **fixed)
        )

    return node


def _mapped(graph: Graph, operation: Operation, function: Callable[[int, tuple[int, ...]], int]) -> Value:
    """function(tensor, its shape), in the layout that the operation's input has."""
    (name,) = operation.inputs
    value, shape = graph.values[name], graph.network.shapes[name]
    if value.image is not None:
        return Value(image=function(value.image, image_shape(shape)))
    return Value(function(graph.plain(name), shape))


def _leaky_relu(graph: Graph, operation: Operation, _: int) -> Value:
    slope = operation.options["slope"]
    return _mapped(
        graph,
        operation,
        lambda x, shape: graph.node("LEAKY_RELU", [x], shape, options="LeakyReluOptions", alpha=slope),
    )


def _hardtanh(graph: Graph, operation: Operation, _: int) -> Value:
    low, high = (graph.number(operation.options[end]) for end in ("low", "high"))

    def cut(x: int, shape: tuple[int, ...]) -> int:
        above = graph.node("MAXIMUM", [x, low], shape, options="MaximumMinimumOptions")
        return graph.node("MINIMUM", [above, high], shape, options="MaximumMinimumOptions")

    return _flat(graph, operation, cut)


def _flat(graph: Graph, operation: Operation, function: Callable[[int, tuple[int, ...]], int]) -> Value:
    """As `_mapped`, but values of many axes are flat meanwhile: operators with two inputs take up to four axes."""

    def flat(x: int, shape: tuple[int, ...]) -> int:
        if len(shape) < 4:
            return function(x, shape)
        size = math.prod(shape)
        return graph.reshaped(function(graph.reshaped(x, (size,)), (size,)), shape)

    return _mapped(graph, operation, flat)


def _gelu(graph: Graph, operation: Operation, _: int) -> Value:
    tanh = operation.options["tanh"]
    return _mapped(
        graph,
        operation,
        lambda x, shape: graph.node("GELU", [x], shape, options="GeluOptions", approximate=tanh),
    )


def _silu(graph: Graph, operation: Operation, _: int) -> Value:
    def silu(x: int, shape: tuple[int, ...]) -> int:
        return graph.node("MUL", [x, graph.node("LOGISTIC", [x], shape)], shape, options="MulOptions")

    return _flat(graph, operation, silu)


def _scale_shift(graph: Graph, operation: Operation, _: int) -> Value:
    (name,) = operation.inputs
    shape, last = graph.network.shapes[name], graph.values[name].image
    channels, rest = shape[0], math.prod(shape[1:])
    broad = (channels,) if last is not None or len(shape) == 1 else (channels, 1)
    now = image_shape(shape) if last is not None else (channels, rest) if len(shape) > 1 else shape
    x = last if last is not None else graph.plain(name)
    x = graph.reshaped(x, now) if last is None and len(shape) > 2 else x
    for kind, role, options in (("MUL", "scale", "MulOptions"), ("ADD", "shift", "AddOptions")):
        x = graph.node(kind, [x, graph.vector(operation.tensors[role], broad)], now, options=options)
    if last is not None:
        return Value(image=x)
    return Value(graph.reshaped(x, shape) if len(shape) > 2 else x)


def _add(graph: Graph, operation: Operation, activation: int) -> Value:
    shape = graph.network.shapes[operation.output]
    image = all(graph.values[name].image is not None for name in operation.inputs)
    x, *rest = (graph.image(name) if image else graph.plain(name) for name in operation.inputs)
    now = image_shape(shape) if image else shape if len(shape) < 4 else (math.prod(shape),)
    if not image and now != shape:
        x, *rest = (graph.reshaped(y, now) for y in (x, *rest))
    for at, y in enumerate(rest, 1):
        cut = activation if at == len(rest) else 0
        x = graph.node("ADD", [x, y], now, options="AddOptions", fusedActivationFunction=cut)
    if image:
        return Value(image=x)
    return Value(x if now == shape else graph.reshaped(x, shape))


def _concat(graph: Graph, operation: Operation, _: int) -> Value:
    axis, shapes = operation.options["axis"], [graph.network.shapes[name] for name in operation.inputs]
    shape = graph.network.shapes[operation.output]
    if axis == 0 and all(graph.values[name].image is not None for name in operation.inputs):
        parts = [graph.image(name) for name in operation.inputs]
        return Value(image=_joined(graph, parts, 3, image_shape(shape)))
    parts = [
        graph.reshaped(graph.plain(name), (math.prod(one[:axis]), math.prod(one[axis:])))
        for name, one in zip(operation.inputs, shapes, strict=True)
    ]
    flat = math.prod(shape[:axis]), math.prod(shape[axis:])
    return Value(graph.reshaped(_joined(graph, parts, 2, flat), shape))


def _joined(graph: Graph, parts: Sequence[int], axis: int, shape: tuple[int, ...]) -> int:
    return graph.node("CONCATENATION", parts, shape, options="ConcatenationOptions", axis=axis)


def _softmax(kind: str, options: str, **fixed: object) -> Nodes:
    def node(graph: Graph, operation: Operation, _: int) -> Value:
        (name,), axis = operation.inputs, operation.options["axis"]
        shape = graph.network.shapes[name]
        x, size, rest = graph.plain(name), shape[axis], math.prod(shape[axis + 1 :])
        if rest > 1:
            x = graph.turned(graph.reshaped(x, (size, rest)), (0, 2, 1), (rest, size))
        x = graph.node(kind, [graph.reshaped(x, (size,))], (size,), options=options, **fixed)
        if rest > 1:
            x = graph.turned(graph.reshaped(x, (rest, size)), (0, 2, 1), (size, rest))
        return Value(graph.reshaped(x, shape))

    return node


_NODES: dict[str, Nodes] = {
    "linear": _linear,
    "conv1d": _conv,
    "conv2d": _conv,
    "scale_shift": _scale_shift,
    "relu": _pointwise("RELU"),
    "leaky_relu": _leaky_relu,
    "hardtanh": _hardtanh,
    "gelu": _gelu,
    "silu": _silu,
    "sigmoid": _pointwise("LOGISTIC"),
    "tanh": _pointwise("TANH"),
    "max_pool1d": _max_pool,
    "max_pool2d": _max_pool,
    "avg_pool1d": _avg_pool,
    "avg_pool2d": _avg_pool,
    "adaptive_avg_pool1d": _adaptive_avg_pool,
    "adaptive_avg_pool2d": _adaptive_avg_pool,
    "mean": _mean,
    "reshape": _reshape,
    "add": _add,
    "concat": _concat,
    "softmax": _softmax("SOFTMAX", "SoftmaxOptions", beta=1.0),
    "log_softmax": _softmax("LOG_SOFTMAX", "LogSoftmaxOptions"),
}
"""Every kind of winticket.ship.kinds.KINDS."""
