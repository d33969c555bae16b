"""TFLite: LiteRT computes what the network does, with and without its delegates, of single examples and of batches."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import shipped
from drawn import networks
from inferring import captured, examples, weight
from lite import interpreter
from winticket.ship import KINDS, Network, Operation, Weight, run, to_tflite
from winticket.ship.kinds import Shape

litert = pytest.importorskip(
    "ai_edge_litert", reason="TFLite files are written with the package ai-edge-litert"
)
TOLERANCE = 1e-5
"""What outputs may differ by, relative to the largest if that is above 1: float32 in up to some twenty layers."""


def agree(network: Network, *, batches: tuple[int, ...] = (1, 3), **choices: Any) -> bytes:
    """The file, which computes what the interpreter does in float64."""
    data = to_tflite(network, **choices)
    for delegates in (False,) if choices.get("sparse_kernels") else (True, False):
        compute = interpreter(data, delegates=delegates)
        for batch in batches:
            x = examples(batch, network.input_shape)
            expected = run(network, x, dtype=np.float64)
            got = compute(x)
            assert got.shape == expected.shape
            scale = max(1.0, float(np.abs(expected).max(initial=0)))
            np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE * scale)
    return data


def single(kind: str, shape: Shape, options: Mapping[str, Any] | None = None, **tensors: Weight) -> Network:
    return Network(shape, (Operation(kind, ("input",), "1", options or {}, tensors),))


W = weight("w", 6, 4, 3, 2, density=0.5)
SINGLE = [
    single("linear", (7,), weight=weight("fc", 5, 7, density=0.3), bias=weight("b", 5)),
    single("linear", (3, 7), weight=weight("fc", 5, 7, density=0.3), bias=weight("b", 5)),
    single("linear", (2, 3, 7), weight=weight("fc", 5, 7)),
    single("linear", (7,), weight=Weight.of("none", np.ones((5, 7)), np.zeros((5, 7), bool))),
    single("conv1d", (4, 40), {"stride": [2], "padding": [[2, 2]], "dilation": [2]},
           weight=weight("w", 6, 4, 3, density=0.5), bias=weight("b", 6)),
    single("conv1d", (4, 60), {"padding": [[3, 0]]}, weight=weight("w", 6, 4, 5, density=0.2)),
    single("conv2d", (4, 9, 8), {"stride": [2, 1], "padding": [[1, 1], [1, 1]]}, weight=W, bias=weight("b", 6)),
    single("conv2d", (4, 9, 8), {"padding": [[1, 1], [0, 1]]}, weight=W, bias=weight("b", 6)),
    single("conv2d", (4, 9, 8), {"stride": [3, 2], "padding": [[0, 2], [1, 0]], "dilation": [2, 3]}, weight=W),
    single("conv2d", (4, 6, 6), {"padding": [[0, 1], [2, 0]], "groups": 2}, weight=weight("g", 6, 2, 3, 3)),
    single("conv2d", (8, 20, 20), {"padding": [[1, 1], [1, 1]], "groups": 8}, weight=weight("g", 16, 1, 3, 3)),
    single("scale_shift", (4, 3, 3), None, scale=weight("s", 4), shift=weight("sh", 4)),
    single("scale_shift", (4,), None, scale=weight("s", 4), shift=weight("sh", 4)),
    single("relu", (5, 9)),
    single("leaky_relu", (37,), {"slope": 0.2}),
    single("hardtanh", (37,), {"low": -0.5, "high": 1}),
    single("gelu", (37,)),
    single("gelu", (37,), {"tanh": True}),
    single("silu", (37,)),
    single("sigmoid", (37,)),
    single("tanh", (37,)),
    single("max_pool1d", (3, 11), {"kernel": [3], "stride": [2], "padding": [[1, 1]], "dilation": [2]}),
    single("max_pool2d", (3, 11, 8), {"kernel": [3, 2], "stride": [2, 2], "padding": [[1, 1], [0, 1]]}),
    single("max_pool2d", (3, 11, 9), {"kernel": [3, 3], "stride": [1, 2], "padding": [[2, 2], [2, 2]],
                                      "dilation": [2, 2]}),
    single("avg_pool2d", (3, 7, 8), {"kernel": [3, 3], "stride": [2, 1], "padding": [[1, 1], [1, 1]]}),
    single("avg_pool2d", (3, 7, 8), {"kernel": [3, 3], "stride": [2, 1], "padding": [[1, 1], [1, 1]],
                                     "count_padding": False}),
    single("avg_pool2d", (3, 7, 8), {"kernel": [3, 4], "stride": [2, 3], "padding": [[2, 0], [1, 3]],
                                     "count_padding": False}),
    single("adaptive_avg_pool1d", (3, 10), {"size": [4]}),
    single("adaptive_avg_pool2d", (3, 6, 8), {"size": [3, 2]}),
    single("adaptive_avg_pool2d", (3, 7, 9), {"size": [4, 2]}),
    single("mean", (3, 7, 9), {"axes": [0, 2], "keep_axes": True}),
    single("softmax", (3, 4, 5), {"axis": 1}),
    single("log_softmax", (9,)),
    single("reshape", (4, 5), {"shape": [2, 10]}),
]  # fmt: skip


@pytest.mark.parametrize("network", SINGLE, ids=lambda n: f"{n.operations[0].kind} {n.input_shape}")
def test_every_kind_of_operation(network: Network) -> None:
    agree(network)


def test_every_kind_is_here() -> None:
    kinds = {network.operations[0].kind for network in SINGLE}
    assert {*KINDS} - kinds <= {"avg_pool1d", "add", "concat"}  # which random networks have


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(networks())
def test_random_networks(network: Network) -> None:
    agree(network, batches=(2,))


@pytest.mark.parametrize(("shape", "other"), [((2,), [2]), ((4,), [2, 2]), ((2, 3), [6]), ((2, 3), [3, 2])])
def test_a_value_that_is_reshaped_and_read_elsewhere_stays_as_it_is(shape: Shape, other: list[int]) -> None:
    """LiteRT without delegates computed the other reader from what had been written over it."""

    def shifted(read: str, output: str, units: int) -> Operation:
        tensors = {"scale": weight(f"s{output}", units), "shift": weight(f"h{output}", units)}
        return Operation("scale_shift", (read,), output, tensors=tensors)

    flat = {"shape": [int(np.prod(shape))]}
    operations = (
        shifted("input", "a", shape[0]),
        Operation("reshape", ("a",), "b", {"shape": other}),
        shifted("b", "c", other[0]),
        shifted("a", "d", shape[0]),
        Operation("reshape", ("c",), "e", flat),
        Operation("reshape", ("d",), "f", flat),
        Operation("concat", ("e", "f"), "g", {"axis": 0}),
    )
    agree(Network(shape, operations))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("lenet-300-100", (1, 28, 28)),
        ("conv-2", (3, 16, 16)),
        ("resnet-20", (3, 16, 16)),
        ("vgg-11", (3, 32, 32)),
    ],
)
def test_networks_of_ours(name: str, shape: Shape) -> None:
    network = captured(name, shape, 0.05)
    data = agree(network, batches=(1, 4))
    kept, size = network.kept()
    assert kept / size == pytest.approx(0.05, abs=0.01)
    assert len(data) < 0.2 * 4 * size  # kept weights alone are stored


@pytest.mark.parametrize("int8", [False, True])
def test_a_network_for_signals_and_int8_weights(int8: bool) -> None:
    agree(shipped.network("signal", int8=int8), batches=(1, 7))


def opened(data: bytes) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    return schema.ModelT.InitFromPackedBuf(data, 0)


def kinds_in(data: bytes) -> list[str]:
    from ai_edge_litert import schema_py_generated as schema

    names = {number: name for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}
    model = opened(data)
    return [names[model.operatorCodes[o.opcodeIndex].builtinCode] for o in model.subgraphs[0].operators]


def small(density: float = 0.05) -> Network:
    """Linear, ReLU, Linear."""
    operations = (
        Operation("linear", ("input",), "1", tensors={"weight": weight("a", 40, 30, density=density)}),
        Operation("relu", ("1",), "2"),
        Operation(
            "linear", ("2",), "3", tensors={"weight": weight("b", 4, 40, density=0.5), "bias": weight("c", 4)}
        ),
    )
    return Network((30,), operations, classes=tuple("abcd"), about={"test_accuracy": 0.5})


def test_pruned_weights_are_not_in_the_file_and_are_made_dense_when_it_is_loaded() -> None:
    data = agree(small())
    assert kinds_in(data) == ["DENSIFY", "FULLY_CONNECTED", "DENSIFY", "FULLY_CONNECTED"]
    model = opened(data)
    first = next(t for t in model.subgraphs[0].tensors if t.sparsity)
    a = small().weights()["a"]
    assert a.positions is not None
    assert model.buffers[first.buffer].data.view(np.float32).tolist() == a.values.tolist()
    rows, columns = first.sparsity.dimMetadata
    assert (rows.denseSize, columns.arrayIndices.values.tolist()) == (40, np.mod(a.positions, 30).tolist())
    assert np.diff(columns.arraySegments.values).tolist() == a.keep().sum(1).tolist()
    assert kinds_in(to_tflite(small(0.95))) == ["FULLY_CONNECTED", "DENSIFY", "FULLY_CONNECTED"]


def test_sparse_kernels_take_the_kept_weights_of_sparse_layers_alone() -> None:
    data = agree(small(), sparse_kernels=True)
    assert kinds_in(data) == ["FULLY_CONNECTED", "DENSIFY", "FULLY_CONNECTED"]
    agree(captured("lenet-300-100", (1, 28, 28), 0.05), sparse_kernels=True, batches=(1, 64))
    agree(captured("conv-2", (3, 16, 16), 0.05), sparse_kernels=True)


def test_the_file_says_what_it_is() -> None:
    model = opened(to_tflite(small()))
    kept, size = small().kept()
    assert f"{kept} of {size} weights kept, test accuracy 0.5000" in model.description.decode()
    assert "others give wrong answers" in opened(to_tflite(small(), sparse_kernels=True)).description.decode()
    assert [tensor.shapeSignature.tolist() for tensor in model.subgraphs[0].tensors[:1]] == [[-1, 30]]
    assert model.signatureDefs[0].signatureKey == b"serving_default"
    data = to_tflite(small())
    offsets = [data.find(b.data.tobytes()) for b in model.buffers if b.data is not None and len(b.data) > 16]
    assert offsets
    assert all(offset % 16 == 0 for offset in offsets)


def test_activations_are_computed_with_the_operator_before_if_nothing_else_reads_that() -> None:
    fc = {"weight": weight("fc", 4, 4)}
    operations = (
        Operation("linear", ("input",), "1", tensors=fc),
        Operation("hardtanh", ("1",), "2", {"low": 0, "high": 6}),
        Operation("linear", ("2",), "3", tensors={"weight": weight("gc", 4, 4)}),
        Operation("relu", ("3",), "4"),
        Operation("add", ("3", "4", "2"), "5"),
        Operation("hardtanh", ("5",), "6", {"low": -1, "high": 1}),
    )
    data = agree(Network((4,), operations))
    assert kinds_in(data) == ["FULLY_CONNECTED", "FULLY_CONNECTED", "RELU", "ADD", "ADD"]


def test_what_a_file_cannot_hold_is_refused_before_it_is_made() -> None:
    pool = Operation("adaptive_avg_pool1d", ("input",), "1", {"size": [1 << 20]})
    with pytest.raises(
        ValueError, match=r"has 4398050705408 bytes of dense tensors, but a TFLite file holds less"
    ):
        to_tflite(Network((1, (1 << 20) + 1), (pool,)))
    options = {"kernel": [65, 64], "stride": [1, 1], "dilation": [2, 1]}
    with pytest.raises(
        ValueError, match="a window of 4160 taps is too large to be taken apart: 4096 is most"
    ):
        to_tflite(Network((1, 200, 200), (Operation("max_pool2d", ("input",), "1", options),)))


def test_without_the_package_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'winticket\[ship\]'"):
        to_tflite(small())
