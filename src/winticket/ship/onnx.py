"""A network as an ONNX file. The package `onnx` is needed: pip install 'winticket[ship]'."""

from __future__ import annotations

import json
from collections.abc import Mapping

from winticket.ship.about import recorded_accuracy
from winticket.ship.adaptive import means_bytes
from winticket.ship.network import INPUT, Network, Positions
from winticket.ship.onnx_graph import OUTPUT, Graph, package
from winticket.ship.onnx_nodes import NODES, prepared
from winticket.version import __version__

OPSET = 17
"""Version of ONNX's operators (2022): old enough for most runtimes, and LayerNorm and the like are not needed."""
IR_VERSION = 8
"""Version of the file format that came with it."""
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
    onnx = package()
    if preprocessing and network.preprocessing is None:
        raise ValueError("the network has no preprocessing; leave out preprocessing=True")
    _check_size(network)
    graph = Graph(network, inputs or {})
    if preprocessing and network.preprocessing:
        graph.values[INPUT] = prepared(graph, network.preprocessing, len(network.input_shape))
    for operation in network.operations:
        sources = [graph.values[name] for name in operation.inputs]
        name = OUTPUT if operation.output == network.output else graph.name(operation.kind)
        graph.values[operation.output] = name
        NODES[operation.kind](graph, operation, sources, name)
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
