"""The operators of TFLite for every kind of operation."""

from __future__ import annotations

import math
from collections.abc import Sequence

from winticket.ship.network import Operation
from winticket.ship.tflite_elementwise import Nodes, gelu, hardtanh, leaky_relu, pointwise, silu
from winticket.ship.tflite_graph import Graph, Value, image_shape
from winticket.ship.tflite_layers import conv, linear, scale_shift
from winticket.ship.tflite_pools import adaptive_avg_pool, avg_pool, max_pool, mean


def _reshape(graph: Graph, operation: Operation, _: int) -> Value:
    (name,) = operation.inputs
    value, shape = graph.values[name], graph.network.shapes[name]
    flat = math.prod(shape[1:]) == 1 or shape[0] == 1 if shape else False
    # Where channels or positions are one, an image's elements are in the network's order already.
    x = value.image if value.plain is None and flat and value.image is not None else graph.plain(name)
    return Value(graph.reshaped(x, graph.network.shapes[operation.output]))


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


NODES: dict[str, Nodes] = {
    "linear": linear,
    "conv1d": conv,
    "conv2d": conv,
    "scale_shift": scale_shift,
    "relu": pointwise("RELU"),
    "leaky_relu": leaky_relu,
    "hardtanh": hardtanh,
    "gelu": gelu,
    "silu": silu,
    "sigmoid": pointwise("LOGISTIC"),
    "tanh": pointwise("TANH"),
    "max_pool1d": max_pool,
    "max_pool2d": max_pool,
    "avg_pool1d": avg_pool,
    "avg_pool2d": avg_pool,
    "adaptive_avg_pool1d": adaptive_avg_pool,
    "adaptive_avg_pool2d": adaptive_avg_pool,
    "mean": mean,
    "reshape": _reshape,
    "add": _add,
    "concat": _concat,
    "softmax": _softmax("SOFTMAX", "SoftmaxOptions", beta=1.0),
    "log_softmax": _softmax("LOG_SOFTMAX", "LogSoftmaxOptions"),
}
"""Every kind of winticket.ship.kinds.KINDS."""
