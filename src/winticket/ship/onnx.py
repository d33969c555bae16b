"""A network as an ONNX file. The package `onnx` is needed: pip install 'winticket[ship]'."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from winticket.ship.about import recorded_accuracy
from winticket.ship.adaptive import alike, means, means_bytes
from winticket.ship.network import (
    INPUT,
    Floats,
    Network,
    NetworkError,
    Operation,
    Positions,
    Preprocessing,
    Weight,
)
from winticket.text import visible
from winticket.version import __version__

OPSET = 17
"""Version of ONNX's operators (2022): old enough for most runtimes, and LayerNorm and the like are not needed."""
IR_VERSION = 8
"""Version of the file format that came with it."""
OUTPUT = "output"
BATCH = "batch"
MOST_BYTES = (1 << 31) - (1 << 24)
"""Most bytes of tensors: a protobuf message has less than 2 GiB."""


def to_onnx(
    network: Network, *, preprocessing: bool = False, inputs: Mapping[str, Positions] | None = None
) -> bytes:
    """The network as an ONNX model: `input` [batch, *input_shape] -> `output` [batch, *output_shape], float32.

    Weights are dense float32, with 0 for pruned ones, since no common runtime of ONNX computes with sparse ones; so the
    file is as large and as fast as the dense network's. int8 weights are multiplied out. Operators are of opset 17.
    With `preprocessing`, the model takes raw data and begins with the network's preprocessing.

    inputs: by name of a weight, the inputs of its layer that are read, int64, rising. The others, which have no kept
    weight, are left out by a Gather in front of the layer.

    The metadata name winticket's version, the density, the kept weights, and, as far as they are known, the test
    accuracy, the classes and the preprocessing (the last two as JSON).

    Raises ModuleNotFoundError without the package onnx; ValueError if the network has no preprocessing to begin with,
    if a weight is kept that `inputs` leaves out, or if tensors take more than 2 GiB; NetworkError for preprocessing
    that float32 cannot hold.

    >>> from winticket.ship import Network, Operation, Weight
    >>> weight = Weight.of("fc.weight", [[1.0, 2.0], [3.0, 4.0]])
    >>> data = to_onnx(Network((2,), (Operation("linear", ("input",), "1", tensors={"weight": weight}),)))
    >>> import onnx
    >>> [node.op_type for node in onnx.load_model_from_string(data).graph.node]
    ['Gemm']
    """
    onnx = _package()
    if preprocessing and network.preprocessing is None:
        raise ValueError("the network has no preprocessing; leave out preprocessing=True")
    _check_size(network)
    graph = _Graph(network, inputs or {})
    if preprocessing and network.preprocessing:
        graph.values[INPUT] = _prepared(graph, network.preprocessing, len(network.input_shape))
    for operation in network.operations:
        sources = [graph.values[name] for name in operation.inputs]
        name = OUTPUT if operation.output == network.output else graph.name(operation.kind)
        graph.values[operation.output] = name
        _NODES[operation.kind](graph, operation, sources, name)
    helper = onnx.helper
    ends = [(INPUT, network.input_shape), (OUTPUT, network.shapes[network.output])]
    described = [
        helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [BATCH, *shape]) for n, shape in ends
    ]
    model = helper.make_model(
        helper.make_graph(graph.nodes, "network", described[:1], described[1:], graph.tensors),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="winticket",
        producer_version=__version__,
    )
    helper.set_model_props(model, _metadata(network, preprocessing=preprocessing))
    return bytes(model.SerializeToString())


def _package() -> Any:
    try:
        import onnx
        import onnx.helper
        import onnx.numpy_helper
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"ONNX files are written with the package onnx, and {error.name} is not installed: "
            "pip install 'winticket[ship]'",
            name=error.name,
        ) from error
    return onnx


def _metadata(network: Network, *, preprocessing: bool) -> dict[str, str]:
    kept, size = network.kept()
    accuracy, ready, classes = recorded_accuracy(network), network.preprocessing, network.classes
    numbers = ready and {"scale": ready.scale, "mean": ready.mean, "deviation": ready.deviation}
    known: dict[str, str | None] = {
        "winticket_version": __version__,
        "weights": str(size),
        "kept": str(kept),
        "density": repr(kept / size) if size else None,
        "test_accuracy": None if accuracy is None else repr(accuracy),
        "classes": json.dumps(classes) if classes else None,
        "preprocessing_included": str(preprocessing).lower(),
        "preprocessing": json.dumps(numbers) if numbers else None,
    }
    return {key: value for key, value in known.items() if value is not None}


def _check_size(network: Network) -> None:
    size = 4 * sum(weight.size for weight in network.weights().values()) + means_bytes(network)
    if size > MOST_BYTES:
        raise ValueError(
            f"the network has {size} bytes of dense tensors, but an ONNX file holds less than 2 GiB"
        )


class _Graph:
    """Collects nodes and tensors.

    values  by value of the network, its name in the graph
    read    by name of a weight, the inputs that are read
    """

    def __init__(self, network: Network, read: Mapping[str, Positions]) -> None:
        self.network, self.read = network, read
        self.values = {INPUT: INPUT}
        self.nodes: list[Any] = []
        self.tensors: list[Any] = []
        self._onnx = _package()
        self._names = {INPUT, OUTPUT}
        self._made: dict[object, str] = {}

    def name(self, wanted: str) -> str:
        """The name, or a similar one if it is taken or empty; tensors and values share their names."""
        wanted = wanted or "tensor"
        name, number = wanted, 1
        while name in self._names:
            number += 1
            name = f"{wanted}#{number}"
        self._names.add(name)
        return name

    def node(self, kind: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        """Adds a node; its output, which gets a name if it has none."""
        output = output or self.name(kind.lower())
        self.nodes.append(self._onnx.helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def constant(self, key: object, name: str, make: Callable[[], npt.NDArray[Any]]) -> str:
        """The name of a tensor, which is made if none has that key yet."""
        if key not in self._made:
            self._made[key] = self.name(name)
            self.tensors.append(
                self._onnx.numpy_helper.from_array(np.asarray(make(), order="C"), self._made[key])
            )
        return self._made[key]

    def number(self, value: float) -> str:
        """The name of a float32 constant."""
        return self.constant(("number", value), "number", lambda: np.asarray(value, np.float32))

    def weight(self, weight: Weight, shape: Sequence[int] | None = None) -> str:
        """The name of a dense tensor, reshaped if a shape is named."""
        key = ("weight", id(weight), shape)
        return self.constant(key, visible(weight.name), lambda: self.dense(weight, shape))

    def dense(self, weight: Weight, shape: Sequence[int] | None = None) -> Floats:
        """A dense tensor, without the inputs that are not read."""
        whole = weight.dense().reshape(shape or weight.shape)
        if (read := self.read.get(weight.name)) is None:
            return whole
        narrow = whole[:, read]
        if weight.keep().sum() > weight.keep()[:, read].sum():
            raise ValueError(f"tensor {weight.name!r} has kept weights of inputs that would be left out")
        return narrow

    def gathered(self, weight: Weight, source: str, axis: int) -> str:
        """The value that a layer of that weight takes: the source, or the inputs of it that are read."""
        if (read := self.read.get(weight.name)) is None:
            return source
        index = self.constant(("read", weight.name), "read", lambda: read.astype(np.int64))
        return self.node("Gather", [source, index], axis=axis)

    def shape(self, operation: Operation) -> tuple[int, ...]:
        """The shape of an operation's first input, per example."""
        return self.network.shapes[operation.inputs[0]]


def _prepared(graph: _Graph, ready: Preprocessing, axes: int) -> str:
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


Nodes: TypeAlias = Callable[[_Graph, Operation, list[str], str], object]


def _linear(graph: _Graph, operation: Operation, inputs: list[str], output: str) -> None:
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


def _pads(operation: Operation) -> list[int]:
    """Padding as ONNX lists it: before each axis, then after each."""
    padding = operation.options["padding"]
    return [pair[0] for pair in padding] + [pair[1] for pair in padding]


def _conv(graph: _Graph, operation: Operation, inputs: list[str], output: str) -> None:
    options, tensors = operation.options, operation.tensors
    source = graph.gathered(tensors["weight"], inputs[0], 1)
    graph.node(
        "Conv",
        [source, *(graph.weight(tensors[role]) for role in ("weight", "bias") if role in tensors)],
        output,
        kernel_shape=tensors["weight"].shape[2:],
        strides=options["stride"],
        pads=_pads(operation),
        dilations=options["dilation"],
        group=options["groups"],
    )


def _scale_shift(graph: _Graph, operation: Operation, inputs: list[str], output: str) -> None:
    shape = (-1, *(1,) * (len(graph.shape(operation)) - 1))
    scale, shift = (graph.weight(operation.tensors[role], shape) for role in ("scale", "shift"))
    graph.node("Add", [graph.node("Mul", [*inputs, scale]), shift], output)


def _plain(kind: str) -> Nodes:
    return lambda graph, _, inputs, output: graph.node(kind, inputs, output)


def _leaky_relu(graph: _Graph, operation: Operation, inputs: list[str], output: str) -> None:
    graph.node("LeakyRelu", inputs, output, alpha=operation.options["slope"])


def _hardtanh(graph: _Graph, operation: Operation, inputs: list[str], output: str) -> None:
    ends = [graph.number(operation.options[end]) for end in ("low", "high")]
    graph.node("Clip", [*inputs, *ends], output)


def _gelu(graph: _Graph, operation: Operation, inputs: list[str], output: str) -> None:
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


def _silu(graph: _Graph, _: Operation, inputs: list[str], output: str) -> None:
    graph.node("Mul", [*inputs, graph.node("Sigmoid", inputs)], output)


def _max_pool(graph: _Graph, operation: Operation, inputs: list[str], output: str) -> None:
    options = operation.options
    graph.node(
        "MaxPool",
        inputs,
        output,
        kernel_shape=options["kernel"],
        strides=options["stride"],
        pads=_pads(operation),
        dilations=options["dilation"],
    )


def _avg_pool(graph: _Graph, operation: Operation, inputs: list[str], output: str) -> None:
    options = operation.options
    graph.node(
        "AveragePool",
        inputs,
        output,
        kernel_shape=options["kernel"],
        strides=options["stride"],
        pads=_pads(operation),
        count_include_pad=int(options["count_padding"]),
    )


def _adaptive_avg_pool(graph: _Graph, operation: Operation, inputs: list[str], output: str) -> None:
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


def _means(graph: _Graph, length: int, size: int, *, turned: bool) -> str:
    """The matrix that takes the mean of each window along an axis; turned: for the last axis."""
    key = ("means", length, size, turned)
    return graph.constant(key, "means", lambda: means(length, size).T if turned else means(length, size))


def _mean(graph: _Graph, operation: Operation, inputs: list[str], output: str) -> None:
    axes, keep = [axis + 1 for axis in operation.options["axes"]], operation.options["keep_axes"]
    graph.node("ReduceMean", inputs, output, axes=axes, keepdims=int(keep))


def _reshape(graph: _Graph, operation: Operation, inputs: list[str], output: str) -> None:
    shape = (-1, *operation.options["shape"])
    to = graph.constant(("shape", shape), "shape", lambda: np.array(shape, np.int64))
    graph.node("Reshape", [*inputs, to], output)


def _axis(kind: str) -> Nodes:
    return lambda graph, operation, inputs, output: graph.node(
        kind, inputs, output, axis=operation.options["axis"] + 1
    )


_NODES: dict[str, Nodes] = {
    "linear": _linear,
    "conv1d": _conv,
    "conv2d": _conv,
    "scale_shift": _scale_shift,
    "relu": _plain("Relu"),
    "leaky_relu": _leaky_relu,
    "hardtanh": _hardtanh,
    "gelu": _gelu,
    "silu": _silu,
    "sigmoid": _plain("Sigmoid"),
    "tanh": _plain("Tanh"),
    "max_pool1d": _max_pool,
    "max_pool2d": _max_pool,
    "avg_pool1d": _avg_pool,
    "avg_pool2d": _avg_pool,
    "adaptive_avg_pool1d": _adaptive_avg_pool,
    "adaptive_avg_pool2d": _adaptive_avg_pool,
    "mean": _mean,
    "reshape": _reshape,
    "add": _plain("Sum"),
    "concat": _axis("Concat"),
    "softmax": _axis("Softmax"),
    "log_softmax": _axis("LogSoftmax"),
}
"""Every kind of winticket.ship.kinds.KINDS."""
