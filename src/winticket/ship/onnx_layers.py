"""Layers with weights as nodes of ONNX."""

from __future__ import annotations

from winticket.ship.network import Operation
from winticket.ship.onnx_graph import Graph
from winticket.text import visible


def linear(graph: Graph, operation: Operation, inputs: list[str], output: str) -> None:
    """A Gemm; for inputs with further axes, a product and a sum."""
    weight, bias = operation.tensors["weight"], operation.tensors.get("bias")
    inputs = [graph.gathered(weight, inputs[0], len(graph.shape(operation)))]
    added = [] if bias is None else [graph.weight(bias)]
    if len(graph.shape(operation)) == 1:
        graph.node("Gemm", [*inputs, graph.weight(weight), *added], output, transB=1)
        return
    turned = graph.constant(("turned", id(weight)), visible(weight.name), lambda: graph.dense(weight).T)
    product = graph.node("MatMul", [*inputs, turned], "" if added else output)
    if added:
        graph.node("Add", [product, *added], output)


def pads(operation: Operation) -> list[int]:
    """Padding as ONNX lists it: before each axis, then after each."""
    padding = operation.options["padding"]
    return [pair[0] for pair in padding] + [pair[1] for pair in padding]


def conv(graph: Graph, operation: Operation, inputs: list[str], output: str) -> None:
    """A Conv of signals or images."""
    options, tensors = operation.options, operation.tensors
    source = graph.gathered(tensors["weight"], inputs[0], 1)
    graph.node(
        "Conv",
        [source, *(graph.weight(tensors[role]) for role in ("weight", "bias") if role in tensors)],
        output,
        kernel_shape=tensors["weight"].shape[2:],
        strides=options["stride"],
        pads=pads(operation),
        dilations=options["dilation"],
        group=options["groups"],
    )


def scale_shift(graph: Graph, operation: Operation, inputs: list[str], output: str) -> None:
    """A product and a sum by channel."""
    shape = (-1, *(1,) * (len(graph.shape(operation)) - 1))
    scale, shift = (graph.weight(operation.tensors[role], shape) for role in ("scale", "shift"))
    graph.node("Add", [graph.node("Mul", [*inputs, scale]), shift], output)
