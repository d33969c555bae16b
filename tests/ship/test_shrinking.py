"""Networks without what their masks cut off, by hand and at random; their index maps, and the way back."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import shipped
from drawn import Seeded, drawn
from winticket.outside import Unreadable
from winticket.ship import Network, NetworkError, Operation, Weight, expand_network, load_maps, run, to_onnx
from winticket.ship.index_maps import IndexMaps, rebuilt, save_maps
from winticket.ship.shrinking import Shrunk, shrink_network


def linear(name: str, values: object, keep: object = None, bias: object = None) -> dict[str, Weight]:
    kept = None if keep is None else np.asarray(keep, bool)
    made = {"weight": Weight.of(f"{name}.weight", np.asarray(values, np.float32), kept)}
    return made if bias is None else {**made, "bias": Weight.of(f"{name}.bias", np.asarray(bias))}


def outputs(network: Network, seed: int = 1, count: int = 5) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((count, *network.input_shape))
    with np.errstate(all="ignore"):
        return run(network, x, dtype=np.float64)


def agree(network: Network, made: Shrunk) -> None:
    """The shrunk network and its expansion compute what the network does, and the expansion has its shapes."""
    right = outputs(network)
    scale = max(float(np.abs(right).max()), 1e-30)
    assert np.abs(outputs(made.network) - right).max() <= 1e-6 * scale
    whole = expand_network(made.network, made.maps)
    assert np.abs(outputs(whole) - right).max() <= 1e-6 * scale
    assert whole.shapes == network.shapes
    for name, weight in network.weights().items():
        again = whole.weights()[name]
        assert again.shape == weight.shape
        assert (
            len(again.shape) == 1 or not (again.keep() & ~weight.keep()).any() or "carr" in name or made.notes
        )


def test_by_hand_units_go_and_a_constant_becomes_a_bias() -> None:
    """Unit 1 of `a` has no weight, so it is relu(.5) = .5, which `b` multiplies by 4; nothing reads unit 3."""
    a = linear("a", np.arange(8).reshape(4, 2) + 1, [[1, 0], [0, 0], [1, 1], [1, 1]], [0, 0.5, 1, 1])
    b = linear("b", [[1.0, 4, 2, 9]], [[1, 1, 1, 0]])
    network = Network(
        (2,),
        (
            Operation("linear", ("input",), "1", tensors=a),
            Operation("relu", ("1",), "2"),
            Operation("linear", ("2",), "3", tensors=b),
        ),
    )
    made = shrink_network(network)
    weights = made.network.weights()
    assert weights["a.weight"].dense().tolist() == [[1, 0], [5, 6]]
    assert weights["a.weight"].keep().tolist() == [[True, False], [True, True]]
    assert weights["a.bias"].values.tolist() == [0, 1]
    assert weights["b.weight"].dense().tolist() == [[1, 2]]
    assert weights["b.bias"].values.tolist() == [2]
    assert {name: map_.tolist() for name, map_ in made.maps.positions.items()} == {
        "a.units": [0, 2], "a.inputs": [0, 1], "b.units": [0], "b.inputs": [0, 2],
    }  # fmt: skip
    assert made.maps.sizes == {"a.units": 4, "a.inputs": 2, "b.units": 1, "b.inputs": 4}
    assert [(one.units, one.units_before, one.inputs, one.inputs_before) for one in made.layers] == [
        (2, 4, 2, 2), (1, 1, 2, 4),
    ]  # fmt: skip
    whole = expand_network(made.network, made.maps).weights()
    assert whole["b.weight"].dense().tolist() == [[1, 0, 2, 0]]
    assert whole["a.weight"].dense().tolist() == [[1, 0], [0, 0], [5, 6], [0, 0]]
    agree(network, made)


def test_inputs_that_nothing_reads_are_no_kept_weights_and_a_gather_in_onnx() -> None:
    onnx = pytest.importorskip("onnx")
    rng = np.random.default_rng(0)
    keep = np.zeros((3, 8), bool)
    keep[:, [1, 4, 6]] = True
    layers = (
        Operation("reshape", ("input",), "flat", {"shape": [8]}),
        Operation("linear", ("flat",), "1", tensors=linear("a", rng.standard_normal((3, 8)), keep)),
    )
    network = Network((2, 4), layers)
    made = shrink_network(network)
    assert {name: read.tolist() for name, read in made.inputs().items()} == {"a.weight": [1, 4, 6]}
    assert made.network.input_shape == (2, 4)
    assert made.network.weights()["a.weight"].shape == (3, 8)
    agree(network, made)
    model = onnx.load_model_from_string(to_onnx(made.network, inputs=made.inputs()))
    assert [node.op_type for node in model.graph.node] == ["Reshape", "Gather", "Gemm"]
    shapes = {one.name: tuple(one.dims) for one in model.graph.initializer}
    assert shapes["a.weight"] == (3, 3)
    with pytest.raises(ValueError, match=r"'a\.weight' has kept weights of inputs that would be left out"):
        to_onnx(made.network, inputs={"a.weight": np.array([1, 4])})


@pytest.mark.parametrize("axes", [1, 2])
def test_onnx_reads_selected_inputs_of_convolutions_and_of_lines(axes: int) -> None:
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    rng = np.random.default_rng(0)
    if axes == 1:
        keep = np.ones((3, 5), bool)
        keep[:, 2] = False
        layer = Operation(
            "linear", ("input",), "1", tensors=linear("a", rng.standard_normal((3, 5)), keep, [1, 2, 3])
        )
        network = Network((4, 5), (layer,))
    else:
        keep = np.ones((2, 4, 3, 3), bool)
        keep[:, [0, 3]] = False
        tensors = linear("a", rng.standard_normal((2, 4, 3, 3)), keep)
        network = Network((4, 6, 6), (Operation("conv2d", ("input",), "1", {}, tensors),))
    made = shrink_network(network)
    assert list(made.inputs()) == ["a.weight"]
    session = runtime.InferenceSession(
        to_onnx(made.network, inputs=made.inputs()), providers=["CPUExecutionProvider"]
    )
    x = rng.standard_normal((3, *network.input_shape)).astype(np.float32)
    np.testing.assert_allclose(session.run(None, {"input": x})[0], run(network, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("int8", [False, True], ids=["fp32", "int8"])
@pytest.mark.parametrize("name", list(shipped.NETWORKS))
def test_networks_of_ours(name: str, int8: bool) -> None:
    network = shipped.network(name, int8=int8)
    made = shrink_network(network)
    agree(network, made)
    assert made.difference <= 1e-6
    assert made.network.about == network.about
    assert made.network.preprocessing == network.preprocessing
    named = {layer.name for layer in made.layers}
    assert len(named) == sum("weight" in one.tensors for one in network.operations)
    assert all(set(note.split()[0:1]) & {*named, "Units"} for note in made.notes)
    if name == "lenet-300-100":
        assert [one.units < one.units_before for one in made.layers] == [True, True, False]
        scaled = [weight.scales is not None for weight in made.network.weights().values()]
        assert scaled == [int8, False] * 3


def test_a_scale_of_its_own_is_followed() -> None:
    """Two units of a convolution are constants behind a BatchNorm that could not be folded, since a sum reads both."""
    rng = np.random.default_rng(0)
    keep = rng.random((6, 3, 1, 1)) < 0.6
    keep[[1, 4]] = False
    scale = {role: Weight.of(f"norm.{role}", rng.standard_normal(6)) for role in ("scale", "shift")}
    layers = (
        Operation("conv2d", ("input",), "1", {}, linear("conv", rng.standard_normal((6, 3, 1, 1)), keep)),
        Operation("scale_shift", ("1",), "2", {}, scale),
        Operation("add", ("1", "2"), "3"),
        Operation("adaptive_avg_pool2d", ("3",), "4", {"size": [1, 1]}),
        Operation("reshape", ("4",), "5", {"shape": [6]}),
        Operation("linear", ("5",), "6", {}, linear("fc", rng.standard_normal((2, 6)))),
    )
    network = Network((3, 4, 4), layers)
    made = shrink_network(network)
    assert made.maps.positions["conv.units"].tolist() == [0, 2, 3, 5]
    assert made.maps.positions["norm.units"].tolist() == [0, 2, 3, 5]
    assert made.network.shapes["5"] == (4,)
    agree(network, made)


REFUSED = "no path|not finite|no Linear layer"


def _cut(network: Network, rng: np.random.Generator) -> Network:
    """The network with about a third of the units and of the inputs of each layer pruned."""

    def tensors(operation: Operation) -> dict[str, Weight]:
        if "weight" not in operation.tensors:
            return {}
        weight = operation.tensors["weight"]
        keep = weight.keep() & (rng.random((weight.shape[0], *(1,) * (len(weight.shape) - 1))) < 0.7)
        keep &= rng.random((1, weight.shape[1], *(1,) * (len(weight.shape) - 2))) < 0.7
        made = Weight.of(weight.name, weight.dense(), keep)
        return {**operation.tensors, "weight": replace(made, scales=weight.scales)}

    return rebuilt(network, tensors)


def _shrunk_or_refused(network: Network) -> Shrunk | None:
    try:
        return shrink_network(network)
    except ValueError as error:
        if not re.search(REFUSED, str(error)):
            raise
        return None


def _agree_closely(network: Network, made: Shrunk, seed: int) -> None:
    """Constants are rounded to float32 when they become biases, which later layers may enlarge."""
    right = outputs(network)
    scale = np.abs(right).max() + 1e-9
    assert np.abs(outputs(made.network) - right).max() <= 3e-6 * scale, seed
    whole = expand_network(made.network, made.maps)
    assert np.abs(outputs(whole) - right).max() <= 3e-6 * scale, seed
    assert whole.shapes == network.shapes, seed


class Chain:
    """A network of convolutions with what usually lies between them, and two Linear layers, drawn by a seed."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.operations: list[Operation] = []
        self.last, self.channels = "input", 3

    def add(self, kind: str, *more: str, tensors: dict[str, Weight] | None = None, **options: object) -> str:
        name = str(len(self.operations) + 1)
        self.operations.append(Operation(kind, (self.last, *more), name, options, tensors or {}))
        self.last = name
        return name

    def conv(self, units: int, *, depthwise: bool = False) -> None:
        groups = self.channels if depthwise else 1
        shape = units, self.channels // groups, 3, 3
        bias = self.rng.standard_normal(units) if self.rng.random() < 0.5 else None
        name = f"conv{len(self.operations)}"
        padding = [[1, 1], [1, 1]] if self.rng.random() < 0.7 else [[0, 2], [1, 1]]
        self.add(
            "conv2d",
            tensors=linear(name, self.rng.standard_normal(shape) / 3, bias=bias),
            padding=padding,
            groups=groups,
        )
        self.channels = units

    def between(self) -> None:
        if self.rng.random() < 0.4:
            name = f"norm{len(self.operations)}"
            values = {role: self.rng.standard_normal(self.channels) for role in ("scale", "shift")}
            self.add(
                "scale_shift",
                tensors={role: Weight.of(f"{name}.{role}", one) for role, one in values.items()},
            )
        self.add(str(self.rng.choice(["relu", "silu", "leaky_relu", "sigmoid"])))

    def network(self) -> Network:
        for _ in range(int(self.rng.integers(1, 4))):
            before = self.last
            self.conv(int(self.rng.integers(4, 9)))
            self.between()
            way = self.rng.random()
            if way < 0.3:
                kept, units = self.last, self.channels
                self.conv(units)
                self.add("add", kept)
            elif way < 0.5:
                self.conv(2 * self.channels, depthwise=True)
            elif way < 0.7 and before != "input":
                self.conv(4)
                self.between()
            elif way < 0.85:
                kept, units = self.last, self.channels
                self.conv(5)
                self.add("concat", kept)
                self.channels += units
        self.add("max_pool2d", kernel=[2, 2], stride=[2, 2])
        self.add("reshape", shape=[self.channels * 9])
        for at, units in enumerate((10, 4)):
            inputs = self.channels * 9 if at == 0 else 10
            self.add("linear", tensors=linear(f"fc{at}", self.rng.standard_normal((units, inputs)) / 5))
            if at == 0:
                self.add("relu")
        return _cut(Network((3, 6, 6), tuple(self.operations)), self.rng)


def test_networks_with_sums_and_depthwise_convolutions_lose_units() -> None:
    narrow = depthwise = tied = 0
    for seed in range(60):
        network = Chain(seed).network()
        made = _shrunk_or_refused(network)
        if made is None:
            continue
        _agree_closely(network, made, seed)
        fewer = [one for one in made.layers if one.units < one.units_before]
        narrow += bool(fewer)
        depthwise += any(one.inputs is None for one in fewer)
        tied += any(one.kind == "add" for one in network.operations)
    assert narrow > 40
    assert depthwise > 10
    assert tied > 10


def test_channels_that_are_kept_by_a_reshape_are_followed() -> None:
    rng = np.random.default_rng(0)
    keep = np.ones((5, 2, 1, 1), bool)
    keep[[0, 3]] = False
    layers = (
        Operation("conv2d", ("input",), "1", {}, linear("conv", rng.standard_normal((5, 2, 1, 1)), keep)),
        Operation("reshape", ("1",), "2", {"shape": [5, 12]}),
        Operation("conv1d", ("2",), "3", {}, linear("last", rng.standard_normal((2, 5, 3)))),
    )
    network = Network((2, 3, 4), layers)
    made = shrink_network(network)
    assert (made.network.shapes["1"], made.network.shapes["2"]) == ((3, 3, 4), (3, 12))
    agree(network, made)


def test_networks_drawn_at_random_are_shrunk_or_refused_by_name() -> None:
    shrunk = 0
    for seed in range(120):
        network = _cut(drawn(Seeded(seed)), np.random.default_rng(seed))
        made = _shrunk_or_refused(network)
        if made is None:
            continue
        shrunk += 1
        _agree_closely(network, made, seed)
    assert shrunk > 30


def test_what_cannot_be_shrunk_is_refused_by_name() -> None:
    shared = linear("a", np.eye(3))
    twice = tuple(
        Operation("linear", (before,), str(n), tensors=shared) for n, before in enumerate(("input", "1"), 1)
    )
    with pytest.raises(ValueError, match=r"tensor 'a\.weight' belongs to 2 operations"):
        shrink_network(Network((3,), twice))
    with pytest.raises(ValueError, match="no Linear layer or convolution"):
        shrink_network(Network((3,), (Operation("relu", ("input",), "1"),)))
    cut = linear("a", np.eye(3), np.zeros((3, 3)))
    with pytest.raises(ValueError, match="leaves no path from the inputs to the outputs"):
        shrink_network(Network((3,), (Operation("linear", ("input",), "1", tensors=cut),)))
    other = {"weight": Weight.of("a.v", np.eye(3))}
    layers = (twice[0], Operation("linear", ("1",), "2", tensors=other))
    with pytest.raises(ValueError, match="two layers are called 'a'"):
        shrink_network(Network((3,), layers))


def test_index_maps_come_back_from_their_file(tmp_path: Path) -> None:
    made = shrink_network(shipped.network("lenet-300-100"))
    save_maps(made.maps, tmp_path / "maps.safetensors")
    maps = load_maps(tmp_path / "maps.safetensors")
    assert maps.sizes == made.maps.sizes
    assert all(np.array_equal(maps.positions[name], made.maps.positions[name]) for name in maps.sizes)
    load_file = pytest.importorskip("safetensors.numpy").load_file
    assert load_file(tmp_path / "maps.safetensors")["fc1.units"].dtype == np.int64
    agree(shipped.network("lenet-300-100"), replace(made, maps=maps))


def test_maps_of_another_network_are_refused() -> None:
    made = shrink_network(shipped.network("lenet-300-100"))
    fewer = {**made.maps.positions, "fc2.units": made.maps.positions["fc2.units"][:-1]}
    with pytest.raises(
        NetworkError, match=r"tensor 'fc2\.weight' has \d+ units, but its index map has \d+ of 100"
    ):
        expand_network(made.network, IndexMaps(fewer, made.maps.sizes))
    sizes = {**made.maps.sizes, "fc1.units": 1 << 31}
    with pytest.raises(NetworkError, match="would have more than"):
        expand_network(made.network, IndexMaps(made.maps.positions, sizes))


def _file(header: object, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


ABOUT = {"format": "winticket index maps 1", "sizes": '{"a.units": 4}'}
ENTRY = {"dtype": "I64", "shape": [2], "data_offsets": [0, 16]}
GOOD = np.array([1, 3], "<i8").tobytes()
WRAPPED = np.array([0, 2**63 - 1, -2, 2], "<i8").tobytes()
"""Each difference is above 0 in int64, which wraps around."""
FOUR = {"dtype": "I64", "shape": [4], "data_offsets": [0, 32]}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"PK\x03\x04 and so on", "zip archive"),
        (_file({"__metadata__": {"format": "pt"}}), "no file of index maps"),
        (_file({"__metadata__": ABOUT, "a.units": {**ENTRY, "dtype": "F64"}}, GOOD), "is F64 of shape"),
        (_file({"__metadata__": ABOUT, "a.units": {**ENTRY, "shape": [1, 2]}}, GOOD), "not a list of I64"),
        (_file({"__metadata__": ABOUT, "a.units": ENTRY}, GOOD[:8]), "not to be read"),
        (_file({"__metadata__": ABOUT, "b.units": ENTRY}, GOOD), "a size for each list"),
        (_file({"__metadata__": {**ABOUT, "sizes": "[]"}, "a.units": ENTRY}, GOOD), "Expected"),
        (_file({"__metadata__": {**ABOUT, "sizes": '{"a.units": 3}'}, "a.units": ENTRY}, GOOD), "within 3 numbers"),
        (_file({"__metadata__": ABOUT, "a.units": ENTRY}, GOOD[::-1]), "does not rise"),
        (_file({"__metadata__": ABOUT, "a.units": ENTRY}, np.array([-1, 2], "<i8").tobytes()), "does not rise"),
        (_file({"__metadata__": ABOUT, "a.units": ENTRY}, np.array([3, 3], "<i8").tobytes()), "does not rise"),
        (_file({"__metadata__": ABOUT, "a.units": FOUR}, WRAPPED), "does not rise"),
    ],
)  # fmt: skip
def test_a_file_that_holds_no_index_maps_is_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "maps.safetensors"
    path.write_bytes(content)
    with pytest.raises(Unreadable, match=reason) as refused:
        load_maps(path)
    assert str(path) in str(refused.value)
    with pytest.raises(FileNotFoundError):
        load_maps(tmp_path / "nowhere")
    path.write_bytes(_file({"__metadata__": ABOUT, "a.units": ENTRY}, GOOD))
    assert load_maps(path).positions["a.units"].tolist() == [1, 3]


def test_changed_files_of_index_maps_are_read_or_refused_by_name(tmp_path: Path) -> None:
    path, rng = tmp_path / "maps.safetensors", np.random.default_rng(0)
    save_maps(shrink_network(shipped.network("lenet-300-100")).maps, path)
    whole, refused = path.read_bytes(), 0
    for _ in range(300):
        changed = bytearray(whole)
        if rng.random() < 0.3:
            changed = changed[: int(rng.integers(len(changed)))]
        for at in rng.integers(len(changed), size=3) if changed else ():
            changed[at] = int(rng.integers(256))
        path.write_bytes(changed)
        try:
            maps = load_maps(path)
        except Unreadable:
            refused += 1
            continue
        assert all((np.diff(one) > 0).all() for one in maps.positions.values())
        assert all(one[-1] < maps.sizes[name] for name, one in maps.positions.items())
    assert refused > 150
