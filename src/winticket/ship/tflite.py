"""A network as a TFLite file. The package ai-edge-litert is needed: pip install 'winticket[ship]'."""

from __future__ import annotations

import math
from collections import Counter

from winticket.ship.about import recorded_accuracy
from winticket.ship.adaptive import means_bytes
from winticket.ship.network import Network
from winticket.ship.tflite_graph import Graph, package
from winticket.ship.tflite_nodes import NODES
from winticket.version import __version__

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
            made = NODES[operation.kind](graph, operation, fused.get(operation.output, 0))
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
