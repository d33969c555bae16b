"""Pools and means as nodes of ONNX."""

from __future__ import annotations

from winticket.ship.adaptive import alike, means
from winticket.ship.network import Operation
from winticket.ship.onnx_graph import Graph
from winticket.ship.onnx_layers import pads


def max_pool(graph: Graph, operation: Operation, inputs: list[str], output: str) -> None:
    """A MaxPool of signals or images."""
    options = operation.options
    graph.node(
        "MaxPool",
        inputs,
        output,
        kernel_shape=options["kernel"],
        strides=options["stride"],
        pads=pads(operation),
        dilations=options["dilation"],
    )


def avg_pool(graph: Graph, operation: Operation, inputs: list[str], output: str) -> None:
    """An AveragePool of signals or images."""
    options = operation.options
    graph.node(
        "AveragePool",
        inputs,
        output,
        kernel_shape=options["kernel"],
        strides=options["stride"],
        pads=pads(operation),
        count_include_pad=int(options["count_padding"]),
    )


def adaptive_avg_pool(graph: Graph, operation: Operation, inputs: list[str], output: str) -> None:
    """A pool if all windows are alike; else the product with a matrix of means along each axis."""
    positions, sizes = graph.shape(operation)[1:], operation.options["size"]
    if alike(positions, sizes):
        kernel = [n // m for n, m in zip(positions, sizes, strict=True)]
        graph.node("AveragePool", inputs, output, kernel_shape=kernel, strides=kernel)
        return
    *before, last = zip(positions, sizes, strict=True)
    x = graph.node("MatMul", [*inputs, _means(graph, *last, turned=True)], "" if before else output)
    if before:
        graph.node("MatMul", [_means(graph, *before[0], turned=False), x], output)


def _means(graph: Graph, length: int, size: int, *, turned: bool) -> str:
    """The matrix that takes the mean of each window along an axis; turned: for the last axis."""
    key = ("means", length, size, turned)
    return graph.constant(key, "means", lambda: means(length, size).T if turned else means(length, size))


def mean(graph: Graph, operation: Operation, inputs: list[str], output: str) -> None:
    """A ReduceMean over the axes of an example."""
    axes, keep = [axis + 1 for axis in operation.options["axes"]], operation.options["keep_axes"]
    graph.node("ReduceMean", inputs, output, axes=axes, keepdims=int(keep))
