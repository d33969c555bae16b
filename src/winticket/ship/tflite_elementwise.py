"""Functions of every single element as operators of TFLite."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

from winticket.ship.network import Operation
from winticket.ship.tflite_graph import Graph, Value, image_shape

Nodes: TypeAlias = Callable[[Graph, Operation, int], Value]


def pointwise(kind: str, options: str = "", **fixed: object) -> Nodes:
    """A function that adds an operator with one input and these options."""

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


def leaky_relu(graph: Graph, operation: Operation, _: int) -> Value:
    """A LEAKY_RELU."""
    slope = operation.options["slope"]
    return _mapped(
        graph,
        operation,
        lambda x, shape: graph.node("LEAKY_RELU", [x], shape, options="LeakyReluOptions", alpha=slope),
    )


def hardtanh(graph: Graph, operation: Operation, _: int) -> Value:
    """A MAXIMUM and a MINIMUM with the two bounds."""
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


def gelu(graph: Graph, operation: Operation, _: int) -> Value:
    """A GELU, exact or approximated by tanh."""
    tanh = operation.options["tanh"]
    return _mapped(
        graph,
        operation,
        lambda x, shape: graph.node("GELU", [x], shape, options="GeluOptions", approximate=tanh),
    )


def silu(graph: Graph, operation: Operation, _: int) -> Value:
    """The product with the logistic function."""

    def silu(x: int, shape: tuple[int, ...]) -> int:
        return graph.node("MUL", [x, graph.node("LOGISTIC", [x], shape)], shape, options="MulOptions")

    return _flat(graph, operation, silu)
