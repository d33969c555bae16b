"""Pools and means as operators of TFLite."""

from __future__ import annotations

import math

from winticket.ship.adaptive import alike, means
from winticket.ship.network import Operation
from winticket.ship.tflite_graph import NONE, Graph, Value, image_shape
from winticket.ship.tflite_windows import Windows


def max_pool(graph: Graph, operation: Operation, _: int) -> Value:
    """The largest value of each window."""
    windows = Windows.of(graph, operation)
    return Value(image=windows.largest(graph))


def avg_pool(graph: Graph, operation: Operation, _: int) -> Value:
    """The mean of each window."""
    windows = Windows.of(graph, operation)
    return Value(image=windows.mean(graph, count_padding=operation.options["count_padding"]))


def adaptive_avg_pool(graph: Graph, operation: Operation, _: int) -> Value:
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


def mean(graph: Graph, operation: Operation, _: int) -> Value:
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
