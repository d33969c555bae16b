"""Layers with weights as operators of TFLite."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from winticket.ship.network import Operation, Weight
from winticket.ship.tflite_graph import Graph, Value, image_shape
from winticket.ship.tflite_windows import Windows

SPARSE = 0.08
"""Fully connected layers of at most this density are faster by LiteRT's sparse kernel than by its dense one."""


def linear(graph: Graph, operation: Operation, activation: int) -> Value:
    """A FULLY_CONNECTED."""
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


def conv(graph: Graph, operation: Operation, activation: int) -> Value:
    """A CONV_2D, or a DEPTHWISE_CONV_2D if every filter reads one channel."""
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


def scale_shift(graph: Graph, operation: Operation, _: int) -> Value:
    """A product and a sum by channel."""
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
