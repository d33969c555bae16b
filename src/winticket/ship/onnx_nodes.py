"""The nodes of ONNX for preprocessing and for every kind of operation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from winticket.ship.network import INPUT, NetworkError, Operation, Preprocessing
from winticket.ship.onnx_graph import Graph
from winticket.ship.onnx_layers import conv, linear, scale_shift
from winticket.ship.onnx_pools import adaptive_avg_pool, avg_pool, max_pool, mean


def prepared(graph: Graph, ready: Preprocessing, axes: int) -> str:
    """(x / scale - mean) / deviation, and the name of the result."""
    with np.errstate(over="ignore"):
        scale = np.asarray(ready.scale, np.float32)
        mean, deviation = (
            np.asarray(values, np.float32).reshape(-1, *(1,) * (axes - 1))
            for values in (ready.mean, ready.deviation)
        )
    if not all(np.isfinite(array).all() for array in (scale, mean, deviation)):
        raise NetworkError(f"float32 does not hold every number of {ready}")
    x = graph.node("Div", [INPUT, graph.constant("scale", "scale", lambda: scale)])
    x = graph.node("Sub", [x, graph.constant("mean", "mean", lambda: mean)])
    return graph.node(
        "Div", [x, graph.constant("deviation", "deviation", lambda: deviation)], graph.name("prepared")
    )


Nodes: TypeAlias = Callable[[Graph, Operation, list[str], str], object]


def _plain(kind: str) -> Nodes:
    return lambda graph, _, inputs, output: graph.node(kind, inputs, output)


def _leaky_relu(graph: Graph, operation: Operation, inputs: list[str], output: str) -> None:
    graph.node("LeakyRelu", inputs, output, alpha=operation.options["slope"])


def _hardtanh(graph: Graph, operation: Operation, inputs: list[str], output: str) -> None:
    ends = [graph.number(operation.options[end]) for end in ("low", "high")]
    graph.node("Clip", [*inputs, *ends], output)


def _gelu(graph: Graph, operation: Operation, inputs: list[str], output: str) -> None:
    """x Φ(x), or its approximation by tanh; a node for GELU came only with opset 20."""
    (x,) = inputs
    if operation.options["tanh"]:
        cube = graph.node("Mul", [graph.node("Mul", [x, x]), x])
        inner = graph.node("Add", [x, graph.node("Mul", [cube, graph.number(0.044715)])])
        curve = graph.node("Tanh", [graph.node("Mul", [inner, graph.number(math.sqrt(2 / math.pi))])])
    else:
        curve = graph.node("Erf", [graph.node("Mul", [x, graph.number(math.sqrt(0.5))])])
    half = graph.node("Mul", [x, graph.number(0.5)])
    graph.node("Mul", [half, graph.node("Add", [curve, graph.number(1.0)])], output)


def _silu(graph: Graph, _: Operation, inputs: list[str], output: str) -> None:
    graph.node("Mul", [*inputs, graph.node("Sigmoid", inputs)], output)


def _reshape(graph: Graph, operation: Operation, inputs: list[str], output: str) -> None:
    shape = (-1, *operation.options["shape"])
    to = graph.constant(("shape", shape), "shape", lambda: np.array(shape, np.int64))
    graph.node("Reshape", [*inputs, to], output)


def _axis(kind: str) -> Nodes:
    return lambda graph, operation, inputs, output: graph.node(
        kind, inputs, output, axis=operation.options["axis"] + 1
    )


NODES: dict[str, Nodes] = {
    "linear": linear,
    "conv1d": conv,
    "conv2d": conv,
    "scale_shift": scale_shift,
    "relu": _plain("Relu"),
    "leaky_relu": _leaky_relu,
    "hardtanh": _hardtanh,
    "gelu": _gelu,
    "silu": _silu,
    "sigmoid": _plain("Sigmoid"),
    "tanh": _plain("Tanh"),
    "max_pool1d": max_pool,
    "max_pool2d": max_pool,
    "avg_pool1d": avg_pool,
    "avg_pool2d": avg_pool,
    "adaptive_avg_pool1d": adaptive_avg_pool,
    "adaptive_avg_pool2d": adaptive_avg_pool,
    "mean": mean,
    "reshape": _reshape,
    "add": _plain("Sum"),
    "concat": _axis("Concat"),
    "softmax": _axis("Softmax"),
    "log_softmax": _axis("LogSoftmax"),
}
"""Every kind of winticket.ship.kinds.KINDS."""
