"""Compiled inference: every kernel of every instruction set computes what the interpreter does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inferring import agree, captured, examples, weight
from winticket.ship import KINDS as EVERY
from winticket.ship import (
    CompactFileError,
    Network,
    Operation,
    Preprocessing,
    SparseModel,
    Weight,
    engine,
    load,
    run,
    save,
)
from winticket.ship.kinds import Shape
from winticket.ship.native import instruction_sets, missing

pytestmark = pytest.mark.skipif(bool(missing), reason=f"no compiled inference: {missing}")
SETS = instruction_sets()
BATCHES = (1, 2, 7, 64, 65)


@pytest.fixture
def widest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of 16 examples and more are computed in the widest tiles, whatever was measured."""
    monkeypatch.setattr(engine, "_split", lambda tiles: [0] + [len(tiles) - 1] * tiles[-1].width)


def single(kind: str, shape: Shape, options: Mapping[str, Any] | None = None, **tensors: Weight) -> Network:
    return Network(shape, (Operation(kind, ("input",), "1", options or {}, tensors),))


W33 = weight("w", 6, 4, 3, 2, density=0.5)
S4 = {"scale": weight("s", 4), "shift": weight("sh", 4)}
PAIRS = {"kernel": [2, 2], "stride": [2, 2]}
KINDS = [
    single("linear", (7,), weight=weight("fc", 5, 7, density=0.3), bias=weight("b", 5)),
    single("linear", (70,), weight=weight("fc", 37, 70, density=0.6)),
    single("linear", (70,), weight=weight("fc", 37, 70)),
    single("linear", (3, 7), weight=weight("fc", 5, 7, density=0.3), bias=weight("b", 5)),
    single("linear", (2, 3, 7), weight=weight("fc", 5, 7)),
    single("conv1d", (4, 40), {"stride": [2], "padding": [[2, 2]], "dilation": [2]},
           weight=weight("w", 6, 4, 3, density=0.5), bias=weight("b", 6)),
    single("conv1d", (4, 60), {"padding": [[3, 0]]}, weight=weight("w", 6, 4, 5, density=0.2)),
    single("conv2d", (4, 9, 8), {"stride": [2, 1], "padding": [[1, 1], [1, 1]]}, weight=W33, bias=weight("b", 6)),
    single("conv2d", (4, 9, 8), {"stride": [3, 2], "padding": [[0, 2], [1, 0]], "dilation": [2, 3]}, weight=W33),
    single("conv2d", (4, 6, 6), {"padding": [[0, 1], [2, 0]], "groups": 2}, weight=weight("g", 6, 2, 3, 3)),
    single("conv2d", (8, 20, 20), {"padding": [[1, 1], [1, 1]], "groups": 8}, weight=weight("g", 8, 1, 3, 3)),
    single("conv2d", (3, 17, 17), {"padding": [[4, 4], [4, 4]]}, weight=weight("w", 5, 3, 3, 3)),
    single("conv2d", (2, 5, 5), weight=weight("w", 7, 2, 5, 5, density=0.4)),
    single("conv2d", (12, 2, 2), {"padding": [[1, 1], [1, 1]]}, weight=weight("w", 7, 12, 3, 3, density=0.1)),
    single("conv2d", (12, 9, 9), {"stride": [2, 2]}, weight=weight("w", 7, 12, 1, 1, density=0.5)),
    single("scale_shift", (4, 3, 3), None, **S4),
    single("relu", (5, 9)),
    single("leaky_relu", (37,), {"slope": 0.2}),
    single("hardtanh", (37,), {"low": 0, "high": 1}),
    single("gelu", (37,)),
    single("gelu", (37,), {"tanh": True}),
    single("silu", (37,)),
    single("sigmoid", (37,)),
    single("tanh", (37,)),
    single("max_pool1d", (2, 9), {"kernel": [3], "stride": [2], "padding": [[1, 1]], "dilation": [2]}),
    single("max_pool2d", (2, 7, 6), {"kernel": [2, 3], "stride": [2, 2]}),
    single("max_pool2d", (3, 40, 37), PAIRS),
    single("max_pool2d", (3, 9, 9), {"kernel": [3, 3], "stride": [1, 3], "padding": [[1, 1], [0, 2]]}),
    single("avg_pool1d", (2, 9), {"kernel": [3], "stride": [2], "padding": [[1, 1]]}),
    single("avg_pool2d", (3, 40, 37), PAIRS),
    single("avg_pool2d", (2, 7, 7), {"kernel": [3, 3], "stride": [2, 2], "padding": [[1, 1], [1, 0]],
                                     "count_padding": False}),
    single("adaptive_avg_pool1d", (2, 7), {"size": [3]}),
    single("adaptive_avg_pool2d", (2, 7, 5), {"size": [3, 2]}),
    single("mean", (4, 30, 50), {"axes": [1, 2]}),
    single("mean", (4, 3, 5), {"axes": [0, 2]}),
    single("mean", (4, 3), {"axes": [1], "keep_axes": True}),
    single("mean", (4, 3), {"axes": [0]}),
    single("mean", (4, 3), {"axes": [0, 1]}),
    single("reshape", (4, 3, 5), {"shape": [60]}),
    single("softmax", (4, 3), {"axis": 0}),
    single("log_softmax", (4, 3), {"axis": 1}),
]  # fmt: skip


@pytest.mark.parametrize("instructions", SETS)
@pytest.mark.parametrize("network", KINDS, ids=lambda network: network.operations[0].kind)
def test_every_kind_in_every_instruction_set(network: Network, instructions: str, widest: None) -> None:
    model = SparseModel(network, instructions=instructions)
    x = 2 * examples(65, network.input_shape)
    expected = run(network, x, dtype=np.float64)
    for batch in (1, 2, 16, 17, 65):
        agree(model, x[:batch], expected=expected[:batch])


def test_every_kind_is_tested() -> None:
    assert {network.operations[0].kind for network in KINDS} | {"add", "concat"} == EVERY.keys()


def dense_layer(density: float) -> Network:
    fc = {"weight": weight("fc", 70, 200, density=density), "bias": weight("b", 70)}
    return single("linear", (200,), None, **fc)


@pytest.mark.parametrize("instructions", SETS)
@pytest.mark.parametrize("kernel", ["rows", "rows gathered", "columns", "dense columns"])
@pytest.mark.parametrize("zeros", [0.0, 0.7, 1.0])
def test_kernels_of_single_examples(kernel: str, instructions: str, zeros: float) -> None:
    if instructions == "plain" and kernel == "rows gathered":
        pytest.skip("gathers are instructions of other sets")
    model = SparseModel(dense_layer(0.3), kernel=kernel, instructions=instructions)
    for x in examples(5, (200,), zeros=zeros):
        agree(model, x[None])
    assert model.plan().column("kernel")[0] == kernel
    assert set(model.plan().column("instructions")) == {instructions}


RUNS = ["runs", "runs, wide", "runs, widest", "runs of 2 rows", "runs of 4 rows", "blocks"]


@pytest.mark.parametrize("instructions", SETS)
@pytest.mark.parametrize("kernel", RUNS)
@pytest.mark.parametrize("layer", ["linear", "conv2d"])
def test_kernels_of_runs(
    layer: str, kernel: str, instructions: str, widest: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if layer == "linear" and kernel == "runs, widest":
        pytest.skip("a tile of 64 examples is no longer than the run that other kernels compute at once")
    monkeypatch.setattr("winticket.ship.packing.CACHE", 5 << 10)
    monkeypatch.setattr("winticket.ship.packing.FULL", 1)
    network, batches = (dense_layer(0.3), (5, 64, 65)) if layer == "linear" else (convolution(), (1, 5, 17))
    every = kernels(network)
    chosen = [name for name in every if name.endswith("blocks")] if kernel == "blocks" else [kernel]
    assert chosen
    for name in chosen:
        model = SparseModel(network, kernel=name, instructions=instructions)
        used = set()
        for batch in batches:
            agree(model, examples(batch, network.input_shape))
            used |= set(model.plan(batch).column("kernel"))
        assert name in used


def convolution() -> Network:
    """A layer whose image, gaps included, is one run, and whose rows and planes are no multiples of anything."""
    three = {"weight": weight("w", 7, 40, 3, 3, density=0.4), "bias": weight("b", 7)}
    operations = (
        Operation("conv2d", ("input",), "1", {"padding": [[1, 1], [1, 1]]}, three),
        Operation("tanh", ("1",), "2"),
    )
    return Network((40, 12, 11), operations)


def kernels(network: Network) -> list[str]:
    """The names of all kernels that a network's operations have."""
    with pytest.raises(ValueError, match="has the kernel 'none'") as refused:
        SparseModel(network, kernel="none")
    return str(refused.value).rpartition("there are ")[2].split("; ")


@pytest.mark.parametrize("padding", [[[0, 0], [0, 2]], [[0, 2], [0, 0]], [[0, 1], [0, 1]]])
def test_a_border_on_one_side_stays_zero(padding: list[list[int]]) -> None:
    one, two = ({"weight": weight(name, 4, 4, 3, 3, density=0.5)} for name in ("w1", "w2"))
    operations = (
        Operation("conv2d", ("input",), "1", {"padding": [[1, 1], [1, 1]]}, one),
        Operation("conv2d", ("1",), "2", {"padding": padding}, two),
    )
    agree(SparseModel(Network((4, 6, 7), operations)), examples(7, (4, 6, 7)))


def relu_of(name: str, output: str) -> Operation:
    return Operation("relu", (name,), output)


def test_sums_and_activations_are_merged_only_if_nothing_else_reads_what_is_between() -> None:
    fc = {"weight": weight("fc", 8, 8, density=0.5)}
    operations = (
        Operation("linear", ("input",), "a", tensors=fc),
        relu_of("a", "b"),
        Operation("linear", ("b",), "c", tensors=fc),
        Operation("add", ("c", "b"), "d"),
        relu_of("d", "e"),
        Operation("linear", ("e",), "f", tensors=fc),
        relu_of("f", "g"),
        Operation("add", ("f", "g", "input", "e"), "h"),
        Operation("add", ("h", "h"), "i"),
        Operation("concat", ("i", "input", "f"), "j", {"axis": 0}),
        Operation("hardtanh", ("j",), "k", {"low": -0.5, "high": 0.25}),
    )
    network = Network((8,), operations)
    for instructions in SETS:
        model = SparseModel(network, instructions=instructions)
        for batch in BATCHES:
            agree(model, examples(batch, (8,)))
    names = [name for name in dict.fromkeys(model.plan().column("operation")) if name != "inputs and outputs"]
    assert names == [
        "linear+relu b", "linear+add+relu e", "linear f", "relu g", "add h", "add i", "concat j", "hardtanh k",
    ]  # fmt: skip


def test_values_may_have_any_names() -> None:
    names = ["input copy", "3 part 1", "input copy for 2", "preprocessed", "preprocessing.scale"]
    w = Weight.of(names[4], weight("w", 2, 2, 3, 3).dense())
    fc = Weight.of("bias of raw data", weight("fc", 6, 6).dense())
    operations = (
        Operation("conv2d", ("input",), names[0], {"padding": [[1, 1], [1, 1]]}, {"weight": w}),
        Operation("linear", (names[0],), names[2], tensors={"weight": fc}),
        Operation("add", ("input", names[0], names[2]), names[1]),
        Operation("conv2d", (names[1],), names[3], {"padding": [[1, 1], [1, 1]]}, {"weight": w}),
    )
    ready = Preprocessing(2.0, (0.5, 0.25), (0.5, 1.0))
    network = Network((2, 4, 6), operations, ready)
    x = examples(3, (2, 4, 6))
    agree(SparseModel(network), x)
    expected = run(network, ready.apply(x), dtype=np.float64)
    np.testing.assert_allclose(SparseModel(network, raw=True)(x), expected, rtol=1e-4, atol=1e-4)


CLASSIFIERS = [
    ("lenet-30-20", (1, 8, 8)),
    ("lenet-300-100", (1, 28, 28)),
    ("mlp1d", (40,)),
    ("conv-2", (3, 16, 16)),
    ("conv-4", (1, 12, 12)),
    ("conv-6", (1, 8, 8)),
    ("vgg-11-8", (3, 32, 32)),
    ("vgg-16-4", (3, 32, 32)),
    ("resnet-8-4", (3, 12, 12)),
    ("resnet-20", (3, 9, 8)),
]


@pytest.mark.parametrize("density", [0.05, 0.5])
@pytest.mark.parametrize(("name", "shape"), CLASSIFIERS)
def test_every_image_classifier_of_ours(name: str, shape: Shape, density: float, widest: None) -> None:
    network = captured(name, shape, density)
    x = examples(max(BATCHES), shape, zeros=0.5)
    expected = run(network, x, dtype=np.float64)
    for instructions in SETS:
        model = SparseModel(network, instructions=instructions)
        for batch in BATCHES:
            agree(model, x[:batch], expected=expected[:batch])


def signals() -> Network:
    """Conv1d, batch norm kept apart, pooling, a residual sum, a mean: as an engineer's network for sensors."""
    w = {"weight": weight("c1", 8, 3, 5, density=0.4), "bias": weight("b1", 8)}
    operations = (
        Operation("conv1d", ("input",), "1", {"padding": [[2, 2]]}, w),
        Operation("scale_shift", ("1",), "2", tensors={"scale": weight("s", 8), "shift": weight("t", 8)}),
        Operation("leaky_relu", ("2",), "3", {"slope": 0.1}),
        Operation("conv1d", ("3",), "4", {"padding": [[1, 1]]}, {"weight": weight("c2", 8, 8, 3, density=0.3)}),
        Operation("add", ("3", "4"), "5"),
        Operation("gelu", ("5",), "6"),
        Operation("max_pool1d", ("6",), "7", {"kernel": [2], "stride": [2]}),
        Operation("conv1d", ("7",), "8", {"groups": 2}, {"weight": weight("c3", 6, 4, 4, density=0.6)}),
        Operation("adaptive_avg_pool1d", ("8",), "9", {"size": [3]}),
        Operation("reshape", ("9",), "10", {"shape": [18]}),
        Operation("linear", ("10",), "11", tensors={"weight": weight("fc", 5, 18, density=0.5)}),
        Operation("log_softmax", ("11",), "12", {"axis": 0}),
    )  # fmt: skip
    return Network((3, 61), operations)


@pytest.mark.parametrize("instructions", SETS)
def test_a_network_for_signals(instructions: str, widest: None) -> None:
    model = SparseModel(signals(), instructions=instructions)
    for batch in BATCHES:
        agree(model, examples(batch, (3, 61)))


def test_a_compact_file_is_loaded_and_computed_without_torch_and_it_says_what_it_chose(
    tmp_path: Path,
) -> None:
    network = captured("lenet-30-20", (1, 8, 8), 0.2)
    path = tmp_path / "small.safetensors"
    save(network, path)
    x = examples(20, (1, 8, 8))
    np.save(tmp_path / "x.npy", x)
    code = f"""
import sys
import numpy
import winticket
model = winticket.ship.SparseModel.load({str(path)!r})
assert str(model).endswith("kernels are chosen when the first inputs are computed")
numpy.save({str(tmp_path / "y.npy")!r}, model(numpy.load({str(tmp_path / "x.npy")!r})))
print(model)
assert "torch" not in sys.modules and "scipy" not in sys.modules and "safetensors" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=100, capture_output=True, text=True
    )
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), run(network, x), rtol=1e-4, atol=1e-5)
    first, head, *rows = done.stdout.splitlines()
    assert first == f"SparseModel({load(path)!r})"
    assert head.split() == ["examples", "operation", "kernel", "instructions", "microseconds"]
    said = [row.split() for row in rows]
    assert {row[0] for row in said} == {"1", "16", "64"}  # 20 examples are enough to try tiles of 64
    assert {row[-2] for row in said} <= {*SETS}
    assert all(float(row[-1]) >= 0 for row in said)
    assert sum("linear" in row[1] for row in said) == 3 * 3


def test_load_takes_the_choices_and_refuses_what_is_no_compact_file(tmp_path: Path) -> None:
    network = captured("lenet-30-20", (1, 8, 8), 0.2)
    save(network, tmp_path / "small.safetensors")
    x = examples(3, (1, 8, 8))
    model = SparseModel.load(tmp_path / "small.safetensors", threads=2, example=x, instructions=SETS[-1])
    agree(model, x)
    assert set(model.plan().column("instructions")) == {SETS[-1]}
    with pytest.raises(ValueError, match="does not say how raw data are preprocessed"):
        SparseModel.load(tmp_path / "small.safetensors", raw=True)
    (tmp_path / "other").write_bytes(b"no")
    with pytest.raises(CompactFileError, match="not a safetensors file"):
        SparseModel.load(tmp_path / "other")
