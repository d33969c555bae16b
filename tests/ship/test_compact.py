"""The compact file: exact or within its rounding, as small as it says, readable by others, closed to nonsense."""

from __future__ import annotations

import json
import math
import pickle
import re
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file as load_numpy
from safetensors.torch import load_file as load_torch

import winticket
from shipped import small_whole_numbers, turned
from winticket import models
from winticket.ship import (
    VALUES,
    CompactFileError,
    Network,
    Operation,
    Preprocessing,
    Weight,
    capture,
    coding,
    load,
    run,
    save,
)
from winticket.ship.choices import HOLDS
from winticket.ship.compact_write import encode
from winticket.ship.formats import FORMATS
from winticket.ticket import Ticket, TicketFileError

PAGE = Path(__file__).parents[2] / "docs" / "compact-file.md"


def network(density: float = 0.1, *, seed: int = 0) -> Network:
    """A small convolutional network with a residual sum, a shared layer, a whole layer and an empty one."""
    rng = np.random.default_rng(seed)

    def weight(name: str, *shape: int, of: float = density) -> Weight:
        return Weight.of(name, rng.standard_normal(shape), rng.random(shape) < of if of < 1 else None)

    shared = weight("shared.weight", 6, 6, 3, 3)
    operations = (
        Operation("conv2d", ("input",), "1", {"padding": [[1, 1], [1, 1]]},
                  {"weight": weight("first.weight", 6, 2, 3, 3, of=0.5), "bias": weight("first.bias", 6, of=1)}),
        Operation("relu", ("1",), "2"),
        Operation("conv2d", ("2",), "3", {"padding": [[1, 1], [1, 1]]}, {"weight": shared}),
        Operation("conv2d", ("3",), "4", {"padding": [[1, 1], [1, 1]]}, {"weight": shared}),
        Operation("add", ("4", "2"), "sum"),
        Operation("mean", ("sum",), "6", {"axes": [1, 2]}),
        Operation("linear", ("6",), "7", tensors={"weight": weight("whole.weight", 8, 6, of=1)}),
        Operation("linear", ("7",), "8",
                  tensors={"weight": weight("empty.weight", 4, 8, of=0), "bias": weight("empty.bias", 4, of=1)}),
    )  # fmt: skip
    ready = Preprocessing(255.0, (0.4, 0.5), (0.25, 1 / 3))
    return Network(
        (2, 7, 5), operations, ready, ("a", "b", "c", "ß"), {"test_accuracy": 0.97, "data": "none"}
    )


def described(n: Network) -> tuple[Any, ...]:
    return (
        n.input_shape,
        [
            (o.kind, o.inputs, o.output, o.options, {role: w.name for role, w in o.tensors.items()})
            for o in n.operations
        ],
        n.preprocessing,
        n.classes,
        n.about,
    )


def saved(n: Network, folder: Path, values: str = "fp32") -> Path:
    save(n, folder / "n.safetensors", values=values)
    return folder / "n.safetensors"


@pytest.mark.parametrize("density", [0.0, 0.001, 0.05, 0.19, 0.5, 0.97, 1.0])
def test_fp32_comes_back_bit_for_bit(density: float, tmp_path: Path) -> None:
    right = network(density)
    read = load(saved(right, tmp_path))
    assert described(read) == described(right)
    assert read.weights().keys() == right.weights().keys()
    for name, weight in right.weights().items():
        again = read.weights()[name]
        assert again.dense().tobytes() == weight.dense().tobytes()
        assert np.array_equal(again.keep(), weight.keep())
        assert (again.positions is None) == (weight.positions is None)
    assert read.operations[2].tensors["weight"] is read.operations[3].tensors["weight"]
    x = np.random.default_rng(1).standard_normal((3, 2, 7, 5))
    assert run(read, x).tobytes() == run(right, x).tobytes()


def test_the_same_network_makes_the_same_file(tmp_path: Path) -> None:
    once = saved(network(), tmp_path).read_bytes()
    assert saved(network(), tmp_path).read_bytes() == once
    assert saved(load(tmp_path / "n.safetensors"), tmp_path).read_bytes() == once


@pytest.mark.parametrize("values", ["fp16", "bf16", "int8"])
def test_shorter_values_are_rounded_as_torch_rounds_them_and_come_back_unchanged(
    values: str, tmp_path: Path
) -> None:
    right = network(0.3)
    read = load(saved(right, tmp_path, values))
    for name, weight in right.weights().items():
        exact, got = torch.from_numpy(weight.dense()), torch.from_numpy(read.weights()[name].dense())
        if values == "int8" and exact.ndim > 1:
            # By unit, to the nearest of 255 multiples of its largest magnitude / 127.
            largest = exact.flatten(1).abs().amax(1)
            expected = torch.round(exact.flatten(1) / (largest[:, None] / 127)).nan_to_num(0)
            np.testing.assert_allclose(got.flatten(1), expected * (largest[:, None] / 127), rtol=3e-7, atol=0)
            scales = read.weights()[name].scales
            assert scales is not None
            np.testing.assert_allclose(scales * 127, largest, rtol=2e-7)
        else:
            half = {"fp16": torch.float16, "bf16": torch.bfloat16, "int8": torch.float32}[values]
            assert torch.equal(got, exact.to(half).float())
    once = (tmp_path / "n.safetensors").read_bytes()
    assert saved(read, tmp_path, values).read_bytes() == once  # rounding a second time changes nothing


@pytest.mark.parametrize(
    "values", [[[127.0, 1.0], [3.0, 63.25]], [[400.0, 1.0], [3.0, 4.0]], [[3e38, 1.0], [3.0, 4.0]]]
)
def test_int8_values_that_are_no_multiples_of_their_scales_are_rounded_anew(
    values: list[list[float]], tmp_path: Path
) -> None:
    """Somebody may have changed the values and kept the scales; to trust these would cut the values off at 127 x."""
    dense = np.array(values, np.float32)
    stale = Weight("w", (2, 2), dense.reshape(-1), None, np.array([1.0, 1e-30], np.float32))
    fresh = Weight("w", (2, 2), dense.reshape(-1))
    one, other = (
        load(
            saved(
                Network((2,), (Operation("linear", ("input",), "1", tensors={"weight": w}),)),
                tmp_path,
                "int8",
            )
        )
        for w in (stale, fresh)
    )
    got = one.weights()["w"].dense()
    assert got.tobytes() == other.weights()["w"].dense().tobytes()
    assert (np.abs(got - dense) <= np.abs(dense).max(1, keepdims=True) / 127).all()


def test_values_that_do_not_fit_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    weight = Weight.of("fc.weight", [[1e5, 3.4e38]])
    large = Network((2,), (Operation("linear", ("input",), "1", tensors={"weight": weight}),))
    with pytest.raises(
        ValueError, match=r"tensor 'fc\.weight' has values up to 3\.4e\+38, and fp16 ends at 65504"
    ):
        save(large, tmp_path / "n", values="fp16")
    with pytest.raises(ValueError, match=r"tensor 'fc\.weight' has values too large for bf16"):
        save(large, tmp_path / "n", values="bf16")
    with pytest.raises(ValueError, match="values is 'fp8'; possible: fp32, fp16, bf16, int8"):
        save(large, tmp_path / "n", values="fp8")
    assert list(tmp_path.iterdir()) == []
    assert load(saved(large, tmp_path, "int8")).weights()["fc.weight"].dense()[0, 1] == pytest.approx(3.4e38)


def test_int8_keeps_zeros_and_units_without_weights(tmp_path: Path) -> None:
    tiny = np.float32(1e-45)  # divided by 127 it is no longer a number above 0
    dense = np.array([[0, 3, -1], [0, 0, 0], [tiny, 0, 0]], np.float32)
    keep = np.array([[True, True, True], [False] * 3, [True, False, False]])
    right = Network(
        (3,), (Operation("linear", ("input",), "1", tensors={"weight": Weight.of("w", dense, keep)}),)
    )
    weight = load(saved(right, tmp_path, "int8")).weights()["w"]
    assert np.array_equal(weight.keep(), keep)
    assert weight.dense().tolist() == [[0, 3, pytest.approx(-1, abs=3 / 254)], [0, 0, 0], [0, 0, 0]]


def by_bits(stream: np.ndarray[Any, Any], kept: int, low: int) -> list[int]:
    """Positions from a Golomb-Rice code, read bit by bit as the page describes it."""
    bits = "".join(f"{byte:08b}" for byte in stream)
    at, quotients = 0, []
    for _ in range(kept):
        end = bits.index("1", at)
        quotients.append(end - at)
        at = end + 1
    at = -(-at // 8) * 8
    positions, before = [], -1
    for quotient in quotients:
        gap = (quotient << low) + (int(bits[at : at + low], 2) if low else 0)
        at += low
        before += gap + 1
        positions.append(before)
    assert set(bits[at:]) <= {"0"}
    assert len(bits) - at < 8
    return positions


@pytest.mark.parametrize("low", [0, 1, 4, 9, 24])
@pytest.mark.parametrize("kept", [0, 1, 2, 7, 100])
def test_codes_are_what_the_page_says(kept: int, low: int) -> None:
    rng = np.random.default_rng(kept)
    positions = np.sort(rng.choice(3000, kept, replace=False)).astype(np.int64)
    stream = coding.rice_of(positions, low)
    assert by_bits(stream, kept, low) == positions.tolist()
    assert len(stream) == coding.rice_bytes(np.diff(positions, prepend=-1) - 1, low)
    assert np.array_equal(coding.positions_of_rice(stream, 3000, kept, low), positions)
    assert np.array_equal(coding.positions_of_bits(coding.bits_of(positions, 3000), 3000, kept), positions)


def test_the_best_rice_parameter_is_the_best() -> None:
    positions = np.flatnonzero(np.random.default_rng(0).random(20_000) < 0.03).astype(np.int64)
    lengths = [len(coding.rice_of(positions, low)) for low in range(25)]
    assert coding.best_rice(positions) == (int(np.argmin(lengths)), min(lengths))


@pytest.mark.parametrize(("density", "bits"), [(0.02, 7.15), (0.05, 5.8), (0.1, 4.8)])
def test_masks_take_no_more_than_one_and_a_half_percent_above_their_entropy(
    density: float, bits: float
) -> None:
    """At .05 the entropy is 5.727 bits for each kept weight, and the best code of this kind takes 5.786."""
    size = 300_000
    positions = np.sort(np.random.default_rng(0).choice(size, int(size * density), replace=False)).astype(
        np.int64
    )
    each = 8 * coding.best_rice(positions)[1] / len(positions)
    least = coding.information(size, len(positions)) / len(positions)
    assert least == pytest.approx(
        (-density * math.log2(density) - (1 - density) * math.log2(1 - density)) / density
    )
    assert least <= each <= min(1.015 * least, bits)


def test_bits_take_over_where_they_are_shorter() -> None:
    def codes(density: float) -> Any:
        rng = np.random.default_rng(0)
        weight = Weight.of("w", rng.standard_normal((100, 100)), rng.random((100, 100)) < density)
        n = Network((100,), (Operation("linear", ("input",), "1", tensors={"weight": weight}),))
        content, sizes = encode(n)
        entry = document_of(content)["operations"][0]["weight"]
        assert sizes.masks == entry.get("bytes", 1250)
        return "rice" in entry

    # With no low bits, a code is as long as its bits; one low bit pays below a density of .382, by the golden ratio.
    assert [codes(d) for d in (0.05, 0.2, 0.36, 0.41, 0.5)] == [True, True, True, False, False]


def document_of(content: bytes) -> Any:
    start = 8 + int.from_bytes(content[:8], "little")
    begin, end = json.loads(content[8:start])["network"]["data_offsets"]
    return json.loads(zlib.decompress(content[start + begin : start + end]))


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize(
    ("model", "shape", "density"),
    [
        ("lenet-300-100", (1, 8, 8), 0.1),
        ("lenet-300-100", (1, 8, 8), 0.05),
        ("lenet-300-100", (1, 28, 28), 0.05),
        ("resnet-20", (3, 32, 32), 0.05),
    ],
)
def test_the_file_is_within_a_tenth_of_its_information(
    model: str, shape: tuple[int, ...], density: float, values: str, tmp_path: Path
) -> None:
    module = models.build(model, input_shape=shape, classes=10, generator_seed=0)
    n = capture(module, winticket.prune(module, density), example=torch.zeros(1, *shape))
    sizes = save(n, tmp_path / "n", values=values)
    assert sizes.file == (tmp_path / "n").stat().st_size == sizes.description + sizes.masks + sizes.values
    assert sizes.information <= sizes.file <= 1.1 * sizes.information
    assert sizes.masks + sizes.values <= 1.005 * sizes.information
    parameters = sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())
    # Digits at .05: biases, which are not pruned, are a ninth of the values.
    least = {"fp32": 8 if density == 0.1 else 14}.get(values, 14)
    assert parameters >= least * sizes.file


@pytest.mark.parametrize("values", VALUES)
def test_any_safetensors_library_opens_it(values: str, tmp_path: Path) -> None:
    path = saved(network(), tmp_path, values)
    assert load_torch(path).keys() == {"values", "masks", "network"} | (
        {"floats"} if values == "int8" else set()
    )
    if values != "bf16":  # which numpy does not have
        assert load_numpy(path)["masks"].dtype == np.uint8


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("density", [0.02, 0.4])
def test_the_pages_reader_reads_what_winticket_writes(values: str, density: float, tmp_path: Path) -> None:
    right = load(saved(network(density), tmp_path, values))
    document, tensors = pages_reader()(tmp_path / "n.safetensors")
    assert document["about"] == right.about
    assert tensors.keys() == right.weights().keys()
    for name, weight in right.weights().items():
        np.testing.assert_array_equal(tensors[name], weight.dense())


def pages_reader() -> Callable[[Path], tuple[Any, dict[str, Any]]]:
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    page: dict[str, Any] = {}
    exec(compile(code, "compact-file.md", "exec"), page)
    return page["read_compact"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("bias_first", [False, True])
def test_tensors_are_read_in_the_order_in_which_the_file_names_them(
    bias_first: bool, values: str, tmp_path: Path
) -> None:
    """Another writer may name the bias before the weight, and the shift before the scale."""
    right, path = small_whole_numbers(), tmp_path / "n.safetensors"
    path.write_bytes(encode(turned(right) if bias_first else right, values=values)[0])
    names = [entry["name"] for operation in document_of(path.read_bytes())["operations"]
             for entry in operation.values() if isinstance(entry, dict)]  # fmt: skip
    assert names == (["t", "s", "b", "w"] if bias_first else ["s", "t", "w", "b"])
    tensors = pages_reader()(path)[1]
    for name, weight in load(path).weights().items():
        np.testing.assert_array_equal(weight.dense(), right.weights()[name].dense())
        np.testing.assert_array_equal(tensors[name], weight.dense())


@pytest.mark.parametrize("values", VALUES)
def test_a_network_without_weights_of_two_axes_is_read(values: str, tmp_path: Path) -> None:
    scaling = small_whole_numbers().operations[0]
    path = saved(Network((3,), (scaling,)), tmp_path, values)
    assert {name: w.dense().tolist() for name, w in load(path).weights().items()} == {
        "s": [1.0, 2.0, 4.0],
        "t": [8.0, 16.0, 32.0],
    }
    assert pages_reader()(path)[1]["t"].tolist() == [8.0, 16.0, 32.0]


def test_operations_keep_their_tensors_in_one_order() -> None:
    """Whichever comes first in the caller's dictionary, so that equal networks make equal files."""
    linear = small_whole_numbers().operations[1]
    other = Operation("linear", ("1",), "2", tensors=dict(reversed([*linear.tensors.items()])))
    assert [*other.tensors] == [*linear.tensors] == ["weight", "bias"]


def test_a_description_that_no_reader_takes_is_not_written() -> None:
    chatty = Network((3,), small_whole_numbers().operations, about={"notes": "x" * (4 << 20)})
    with pytest.raises(ValueError, match="bytes, and 4194304 is most: shorten `about`"):
        encode(chatty)


def test_every_format_that_may_be_asked_for_is_one() -> None:
    assert FORMATS.keys() == HOLDS.keys()


def test_reading_and_running_take_no_torch(tmp_path: Path) -> None:
    path = saved(network(), tmp_path)
    code = (
        f"import sys, numpy; from winticket import ship; n = ship.load({str(path)!r}); "
        "y = ship.run(n, numpy.ones((1, 2, 7, 5))); assert y.shape == (1, 4); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def forged(content: bytes, change: Callable[[Any, dict[str, Any]], object]) -> bytes:
    """The file after `change(document, parts)`, with right lengths and checksum; parts are name -> (type, bytes)."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    about = header.pop("__metadata__")
    parts = {
        name: (one["dtype"], content[start + one["data_offsets"][0] : start + one["data_offsets"][1]])
        for name, one in header.items()
    }
    document = json.loads(zlib.decompress(parts["network"][1]))
    before = json.dumps(document)
    change(document, parts)
    if json.dumps(document) != before:
        parts["network"] = ("U8", zlib.compress(json.dumps(document).encode()))
    sizes, entries, at, data = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8}, {}, 0, b""
    for name, (dtype, raw) in parts.items():
        shape = [len(raw) // sizes.get(dtype, 1)]
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(raw)]}
        at, data = at + len(raw), data + raw
    about = {"format": about["format"], "crc32": f"{zlib.crc32(data):08x}"}
    text = json.dumps({"__metadata__": about, **entries}).encode()
    return len(text).to_bytes(8, "little") + text + data


def put(*path: Any, to: Any) -> Callable[[Any, Any], None]:
    """A change of one entry of the document."""

    def change(document: Any, _: Any) -> None:
        for step in path[:-1]:
            document = document[step]
        document[path[-1]] = to

    return change


def part(name: str, dtype: str, raw: Callable[[bytes], bytes]) -> Callable[[Any, Any], None]:
    """A change of one tensor of the file."""

    def change(_: Any, parts: dict[str, Any]) -> None:
        parts[name] = (dtype, raw(parts[name][1] if name in parts else b""))

    return change


SHARED = ("operations", 2, "weight")
FIRST = ("operations", 0, "weight")
FORGED: list[tuple[Callable[[Any, Any], object], str]] = [
    (put("input", to=[2**40]), "its description: Expected `int` <= 2147483648"),
    (put("input", to=[2, 7]), r"operation '1' \(conv2d\): a weight of shape \(6, 2, 3, 3\) cannot be convolved"),
    (put("operations", to=[]), "has 1 to 10000 operations, but this one has 0"),
    (put("operations", to=[{"kind": "relu"}] * 10_001), "its description: Expected `array` of length <= 10000"),
    (put("operations", 1, "kind", to="exec"), "operation 2 is of the kind 'exec'; there are linear"),
    (put("operations", 1, "kind", to=["relu"]), "operation 2 is of the kind"),
    (put("operations", 1, "slope", to=2), "options of operation '2' .relu.*slope"),
    (put("operations", 1, "inputs", to=["9"]), "reads '9', which no operation before it gives"),
    (put("operations", 1, "output", to=3), r"operation 2 \(relu\): Expected `str`"),
    (put("operations", 0, "padding", to=[[1, 1], [1, 2**31 - 1]]), "too large"),
    (put("operations", 4, "inputs", to=["2"] * 20_001), "Expected `array` of length <= 20000"),
    (put("operations", 4, "inputs", to=["2"] * 20_000), "inputs, and 20000 is most"),
    (lambda document, _: document["operations"][0].update(stride=[1, 2**20], padding=[[1, 1], [1, 2**24]]),
     "too large"),
    (put("preprocessing", "scale", to=-1), "scale and deviations are positive"),
    (put("classes", to=["a"]), "1 classes, but the output"),
    (put("extra", to=1), "its description: .*extra"),
    (put(*SHARED, "shape", to=[2**31, 2**31]), "and 2147483648 is most"),
    (put(*SHARED, "shape", to=[6, 6, 3, 4]), ""),
    (put(*SHARED, "shape", to=[6, 6, 3]), "leads beyond its 108 elements|cannot be convolved"),
    (put(*SHARED, "shape", to=[2**30]), "shape .1073741824,., but|cannot be convolved"),
    (put(*SHARED, "kept", to=2**31), "its mask keeps|do not fit into"),
    (put(*SHARED, "kept", to=31), "its mask keeps|bits behind its end|do not fit"),
    (put(*SHARED, "rice", to=60), "remainders of 60 bits do not fit"),
    (put(*SHARED, "rice", to=2), "its mask"),
    (put(*SHARED, "bytes", to=10**6), "needs 1000000 more masks, but"),
    (put(*SHARED, "kept", to=None), "needs kept, or kept, rice and bytes, or none of them"),
    (put(*FIRST, "kept", to=100), "its mask keeps"),
    (put(*FIRST, "name", to="first.bias"), "tensor 'first.bias' is there twice"),
    (put(*FIRST, "shape", to=None), "tensor 'first.weight' has no shape, and no such tensor came before"),
    (put("operations", 3, "weight", "name", to="other"), "tensor 'other' has no shape"),
    (put("operations", 6, "bias", to={"name": "b", "shape": [8]}), "needs 8 more values, but|damaged"),
    (lambda document, _: (document["operations"].pop(), document.pop("classes")),
     "of its values belong to no operation"),
    (part("masks", "U8", lambda raw: raw[:-1]), "more masks, but"),
    (part("masks", "U8", lambda raw: bytes(len(raw))), "its mask keeps 0 elements"),
    (part("masks", "U8", lambda raw: b"\xff" * len(raw)), "its mask keeps"),
    (part("values", "F32", lambda raw: b"\x00\x00\xc0\x7f" + raw[4:]), "has a value that is not finite"),
    (part("values", "F32", lambda raw: raw[:-4]), "more values, but"),
    (part("values", "F32", lambda raw: raw + bytes(4)), "1 of its values belong to no operation"),
    (part("values", "F64", lambda raw: raw + raw), "a tensor 'values', F64"),
    (part("values", "I8", lambda raw: raw[: len(raw) // 4]), "more floats, but 0 are left"),
    (part("more", "U8", lambda raw: bytes(4)), "a tensor 'more', U8"),
    (part("network", "U8", lambda raw: raw[:-3]), "is cut off"),
    (part("network", "U8", lambda raw: raw + b"x"), "followed by something else"),
    (part("network", "U8", lambda raw: b"no zlib"), "cannot be inflated"),
    (part("network", "U8", lambda raw: zlib.compress(bytes(1 << 25))), "has more than 4194304 bytes"),
    (part("network", "U8", lambda raw: zlib.compress(b"[" * 100_000)), "nested too deeply|Expected `object`"),
    (part("network", "U8", lambda raw: zlib.compress(b'{"input": NaN}')), "its description: JSON is malformed"),
    (lambda _, parts: parts.pop("network"), "is cut off"),
    (lambda _, parts: parts.pop("values"), "more values, but 0 are left"),
    (lambda _, parts: parts.pop("masks"), "more masks, but 0 are left"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), FORGED, ids=range(len(FORGED)))
def test_nonsense_with_a_right_checksum_is_refused_by_name(
    change: Callable[[Any, Any], object], message: str, tmp_path: Path
) -> None:
    path = saved(network(0.05), tmp_path)
    path.write_bytes(forged(path.read_bytes(), change))
    with pytest.raises(CompactFileError, match=f"^{re.escape(str(path))} is damaged: .*({message})"):
        load(path)


def test_the_forging_itself_changes_nothing(tmp_path: Path) -> None:
    path = saved(network(0.05), tmp_path)
    path.write_bytes(forged(path.read_bytes(), lambda *_: None))
    assert described(load(path)) == described(network(0.05))


def test_int8_values_and_scales_that_no_writer_makes_are_refused(tmp_path: Path) -> None:
    path = saved(network(0.05), tmp_path, "int8")
    content = path.read_bytes()
    path.write_bytes(forged(content, part("values", "I8", lambda raw: b"\x80" + raw[1:])))
    with pytest.raises(CompactFileError, match="has an int8 value of -128"):
        load(path)
    path.write_bytes(forged(content, part("floats", "F32", lambda raw: b"\x00\x00\x80\xbf" + raw[4:])))
    with pytest.raises(CompactFileError, match=r"one scale for each .* not negative"):
        load(path)


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    path = saved(network(), tmp_path)
    with pytest.raises(
        TicketFileError,
        match=r"is a compact file, which `winticket ship` wrote, and not a ticket: winticket\.ship\.load",
    ):
        Ticket.load(path)
    content = path.read_bytes()
    model = torch.nn.Linear(4, 2)
    winticket.prune(model, 0.5).save(tmp_path / "ticket")
    torch.save(model.state_dict(), tmp_path / "zipped")
    torch.save(model.state_dict(), tmp_path / "older", _use_new_zipfile_serialization=False)
    (tmp_path / "pickled").write_bytes(pickle.dumps({"w": [1.0] * 50}))
    (tmp_path / "plain").write_bytes(content.replace(b"winticket compact 1", b"somebody's compact1"))
    (tmp_path / "newer").write_bytes(content.replace(b"winticket compact 1", b"winticket compact 9"))
    (tmp_path / "long").write_bytes(content[:8] + content[8:].replace(b"compact 1", b"compact " + b"9", 1))
    (tmp_path / "short").write_bytes(content[:-1])
    (tmp_path / "flipped").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    for name, message in {
        "absent": "there is no file at",
        ".": "a folder without model.safetensors",
        "ticket": "is a ticket, a mask and the start of a training, and no compact file",
        "zipped": "a zip archive, as torch.save writes, with a pickle; winticket opens none",
        "older": "not a safetensors file but a pickle; winticket opens none",
        "pickled": "not a safetensors file but a pickle; winticket opens none",
        "plain": "no compact file: its metadata lack 'format'",
        "newer": "version 9, and this winticket reads up to 1: upgrade it",
        "short": "truncated",
        "flipped": "its checksum does not match",
    }.items():
        with pytest.raises(CompactFileError, match=message):
            load(tmp_path / name)
