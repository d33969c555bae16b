"""Networks as ONNX: valid models that give the interpreter's answers for any batch."""

from __future__ import annotations

import builtins
import json
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import winticket
from evaluated import evaluator
from ship.test_network import ROWS, single
from shipped import NETWORKS, examples, network
from winticket.ship import Network, NetworkError, Operation, Preprocessing, Weight, run, to_onnx
from winticket.ship.onnx import IR_VERSION, OPSET

RELU = (Operation("relu", ("input",), "1"),)
onnx: Any = pytest.importorskip("onnx", reason="ONNX files are written with the package onnx")


def agree(one: Network, raw: npt.NDArray[np.float32], *, preprocessing: bool = False) -> None:
    evaluate = evaluator(to_onnx(one, preprocessing=preprocessing))
    ready = one.preprocessing.apply(raw) if one.preprocessing else raw
    for count in (1, 7):
        got = evaluate({"input": raw[:count] if preprocessing else ready[:count]})
        expected = run(one, ready[:count])
        assert got.shape == expected.shape
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * max(1, abs(expected).max()))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("int8", [False, True])
def test_networks_give_the_same_answers(name: str, int8: bool) -> None:
    one = network(name, int8=int8)
    agree(one, examples(one, 7))
    agree(one, examples(one, 7), preprocessing=True)


@pytest.mark.parametrize("name", NETWORKS)
def test_onnx_runtime_gives_the_same_answers_for_any_batch(name: str) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    one = network(name)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(to_onnx(one), options, providers=["CPUExecutionProvider"])
    for count in (1, 7):
        x = examples(one, count)
        (got,) = session.run(None, {"input": x})
        expected = run(one, x, dtype=np.float64)
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * max(1, abs(expected).max()))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_every_kind_gives_the_same_answers(row: Any) -> None:
    kind, shape, options, tensors, _ = row
    x = np.random.default_rng(0).standard_normal((7, *shape)).astype(np.float32)
    agree(single(kind, shape, options, **tensors), x)


def test_kinds_with_several_inputs() -> None:
    tanh = Operation("tanh", ("input",), "1")
    x = np.random.default_rng(0).standard_normal((7, 2, 3)).astype(np.float32)
    agree(Network((2, 3), (tanh, Operation("add", ("1", "input", "1"), "2"))), x)
    agree(Network((2, 3), (tanh, Operation("concat", ("input", "1"), "2", {"axis": 1}))), x)


# By hand: x = (1, 2) gives (1·1 + 2·2, 3·1 + 4·2) = (5, 11).
def test_by_hand() -> None:
    layer = Operation("linear", ("input",), "1", tensors={"weight": Weight.of("w", [[1.0, 2.0], [3.0, 4.0]])})
    evaluate = evaluator(to_onnx(Network((2,), (layer,))))
    assert evaluate({"input": np.array([[1, 2], [0, 0]], np.float32)}).tolist() == [[5, 11], [0, 0]]


def test_the_model_says_what_it_is() -> None:
    one = replace(network("lenet-300-100"), classes=tuple("abcdef\udc80"))
    model = onnx.load_model_from_string(to_onnx(one))
    assert (model.ir_version, model.opset_import[0].version, len(model.opset_import)) == (
        IR_VERSION,
        OPSET,
        1,
    )
    assert (model.producer_name, model.producer_version) == ("winticket", winticket.__version__)
    kept, size = one.kept()
    assert {p.key: p.value for p in model.metadata_props} == {
        "winticket_version": winticket.__version__,
        "weights": str(size),
        "kept": str(kept),
        "density": repr(kept / size),
        "test_accuracy": "0.875",
        "classes": json.dumps(one.classes),
        "preprocessing_included": "false",
        "preprocessing": json.dumps({"scale": 255.0, "mean": [0.0], "deviation": [0.25]}),
    }
    ends = [*model.graph.input, *model.graph.output]
    shapes = [[d.dim_param or d.dim_value for d in end.type.tensor_type.shape.dim] for end in ends]
    assert [end.name for end in ends] == ["input", "output"]
    assert shapes == [["batch", 1, 28, 28], ["batch", 7]]
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    for name, weight in one.weights().items():
        assert np.array_equal(tensors[name], weight.dense())  # under their own names, dense


def test_what_is_not_known_is_not_named() -> None:
    one = Network((2,), RELU, about={"test_accuracy": "high", "density": 3})
    model = onnx.load_model_from_string(to_onnx(one))
    assert {p.key for p in model.metadata_props} == {
        "winticket_version",
        "weights",
        "kept",
        "preprocessing_included",
    }


HOSTILE = (
    "input",
    "output",
    "linear",
    "\ud800",
    "a\nb\x1b[31m",
    "",
    "a\\nb\\x1b[31m",
    "input#2",
    "../../etc/passwd",
)


def test_names_from_outside_are_names_alone() -> None:
    """Tensors that are called like a value, or alike once they are made visible, stay apart."""
    rng = np.random.default_rng(0)
    layers = [
        Operation(
            "linear",
            ("input" if not n else str(n),),
            str(n + 1),
            tensors={"weight": Weight.of(name, rng.standard_normal((3, 3)))},
        )
        for n, name in enumerate(HOSTILE)
    ]
    agree(Network((3,), tuple(layers)), rng.standard_normal((7, 3)).astype(np.float32))


def test_a_weight_that_two_layers_share_is_there_once() -> None:
    shared = {"weight": Weight.of("w", np.ones((4, 4)))}
    layers = [Operation("linear", (name,), out, tensors=shared) for name, out in (("input", "1"), ("1", "2"))]
    assert len(onnx.load_model_from_string(to_onnx(Network((4,), tuple(layers)))).graph.initializer) == 1


def test_what_cannot_be_written_is_refused() -> None:
    with pytest.raises(ValueError, match="the network has no preprocessing; leave out preprocessing=True"):
        to_onnx(Network((2,), RELU), preprocessing=True)
    none = np.empty(0, np.float32), np.empty(0, np.int64)
    layer = Operation("linear", ("input",), "1", tensors={"weight": Weight("w", (2, 1 << 28), *none)})
    with pytest.raises(
        ValueError, match="has 2147483648 bytes of dense tensors, but an ONNX file holds less"
    ):
        to_onnx(Network((1 << 28,), (layer,)))
    pool = Operation("adaptive_avg_pool1d", ("input",), "1", {"size": [1 << 27]})
    with pytest.raises(ValueError, match="less than 2 GiB"):
        to_onnx(Network((1, (1 << 27) + 1), (pool,)))
    with pytest.raises(NetworkError, match="float32 does not hold every number of Preprocessing"):
        to_onnx(Network((2, 1), RELU, Preprocessing(1.0, (1e39, 0.0), (1.0, 1.0))), preprocessing=True)


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "onnx":
            raise ModuleNotFoundError("No module named 'onnx'", name="onnx")
        return usual(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ModuleNotFoundError, match=r"onnx is not installed: pip install 'winticket\[ship\]'"):
        to_onnx(Network((2,), RELU))
