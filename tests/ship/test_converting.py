"""Compact files as other formats, without a run: what is written, what the card says, what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

import shipped
from winticket.cli import app
from winticket.models import build
from winticket.ship import (
    CompactFileError,
    Network,
    Operation,
    Preprocessing,
    Weight,
    as_c,
    convert,
    converting,
    expand_network,
    load,
    load_maps,
    run,
    save,
    shipping,
)
from winticket.ship.choices import HOLDS, NEEDS
from winticket.ship.converting import is_compact
from winticket.ship.format import ShipmentError
from winticket.ship.formats import FORMATS

ABOUT = {"data": "letters", "model": "lenet-300-100", "arm": "ticket", "replicate": 2, "test_accuracy": 0.875}


@pytest.fixture
def network() -> Network:
    made = shipped.network("conv-2")
    # A page takes small inputs of one channel or more; these are images of three, for which it needs examples.
    return replace(made, about=ABOUT)


@pytest.fixture
def letters() -> Network:
    """A network for images of one channel, with names of classes."""
    rng = np.random.default_rng(0)
    keep = rng.random((12, 64)) < 0.2
    keep[3] = False
    first = {
        "weight": Weight.of("fc1.weight", rng.standard_normal((12, 64)), keep),
        "bias": Weight.of("fc1.bias", rng.random(12)),
    }
    last = {"weight": Weight.of("fc2.weight", rng.standard_normal((3, 12)))}
    layers = (
        Operation("reshape", ("input",), "1", {"shape": [64]}),
        Operation("linear", ("1",), "2", tensors=first),
        Operation("relu", ("2",), "3"),
        Operation("linear", ("3",), "4", tensors=last),
    )
    return Network((1, 8, 8), layers, Preprocessing(16.0, (0.5,), (0.25,)), ("a", "b", "c"), ABOUT)


def skip_without(to: str) -> None:
    if to in NEEDS:
        pytest.importorskip(NEEDS[to][0])


@pytest.mark.parametrize("to", [to for to in HOLDS if to != "safetensors"])
def test_every_format_is_made_of_a_compact_file_alone(to: str, letters: Network, tmp_path: Path) -> None:
    skip_without(to)
    save(letters, tmp_path / "small-fp32.safetensors")
    made = convert(tmp_path / "small-fp32.safetensors", to=to)
    path = Path(made["file"])
    assert path == tmp_path / FORMATS[to].named("small", "fp32")
    assert (made["origin"], made["read_back"], made["shrunk"]) == (None, None, None)
    assert made["claims"] == {"file": str(tmp_path / "small-fp32.safetensors"), "said": ABOUT}
    assert made["kept"] == letters.kept()[0]
    assert str(made["not_evaluated"]).startswith("a compact file has no test data with it")
    if made["noise_difference"] is not None:  # what computes it is here
        assert made["noise_difference"] <= 1e-5
    elif to not in ("c", "onnx"):
        pytest.fail("it was not compared")
    card = Path(made["card"]).read_text("utf-8")
    for line in (
        "It was made of the compact file `small-fp32.safetensors` alone, without a run.",
        "Nobody has checked this here: neither its run nor its data came with it.",
        "| data | letters |",
        "| as the compact file says, unchecked | 87.50 % |",
        "The file was not evaluated: a compact file has no test data with it",
        "(x / 16 - mean) / deviation, with mean 0.5 and deviation 0.25",
        "Outputs: logits of 3 classes: a, b, c.",
    ):
        assert line in card, line
    assert "verdict" not in card
    assert "seeds" not in card


def test_what_formats_compute_is_the_network(letters: Network, tmp_path: Path) -> None:
    save(letters, tmp_path / "small.safetensors")
    x = np.random.default_rng(1).standard_normal((5, 1, 8, 8)).astype(np.float32)
    right = run(letters, x)
    onnx = pytest.importorskip("onnxruntime")
    session = onnx.InferenceSession(convert(tmp_path / "small.safetensors", to="onnx")["file"])
    np.testing.assert_allclose(session.run(None, {"input": x})[0], right, rtol=1e-5, atol=1e-5)
    load_file = pytest.importorskip("safetensors.torch").load_file
    model = build("lenet-12", input_shape=(1, 8, 8), classes=3, generator_seed=0)
    tensors = load_file(convert(tmp_path / "small.safetensors", to="torch")["file"])
    assert list(tensors) == ["fc1.bias", "fc1.weight", "fc2.weight"]
    with torch.no_grad():
        model.get_parameter("fc2.bias").zero_()
    model.load_state_dict(tensors, strict=False)
    with torch.no_grad():
        np.testing.assert_allclose(model.eval()(torch.from_numpy(x)).numpy(), right, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("held", ["fp32", "fp16", "bf16", "int8"])
def test_values_stay_as_the_file_holds_them_where_the_format_can(
    held: str, letters: Network, tmp_path: Path
) -> None:
    save(letters, tmp_path / f"small-{held}.safetensors", values=held)
    read = load(tmp_path / f"small-{held}.safetensors")
    hub = convert(tmp_path / f"small-{held}.safetensors", to="hub")
    assert hub["values"] == held
    assert Path(hub["file"]).parent.name == f"small-{held}"
    again = load(Path(hub["file"]).parent)
    assert all(np.array_equal(w.dense(), again.weights()[n].dense()) for n, w in read.weights().items())
    c = convert(tmp_path / f"small-{held}.safetensors", to="c")
    assert c["values"] == ("int8" if held == "int8" else "fp32")
    other = convert(tmp_path / f"small-{held}.safetensors", to="safetensors", values="int8", name="other")
    assert Path(other["file"]).name == "other-int8.safetensors"
    assert is_compact(Path(other["file"]))
    # A folder for the Hub is a compact file, too.
    from_folder = convert(Path(hub["file"]).parent, tmp_path / "of", to="c")
    assert Path(from_folder["file"]).parent == tmp_path / "of"
    assert Path(from_folder["file"]).name == ("small_int8.c" if held == "int8" else "small.c")


@pytest.mark.parametrize("to", list(HOLDS))
def test_a_compact_file_is_shrunk(to: str, letters: Network, tmp_path: Path) -> None:
    skip_without(to)
    save(letters, tmp_path / "small.safetensors")
    made = convert(tmp_path / "small.safetensors", to=to, shrink=True)
    removed = made["shrunk"]
    assert removed is not None
    assert (removed["units"], removed["units_before"]) == (11 + 3, 12 + 3)
    assert made["noise_difference"] is None or made["noise_difference"] <= 1e-5
    maps = load_maps(removed["maps"])
    assert maps.positions["fc1.units"].tolist() == [0, 1, 2, *range(4, 12)]
    if to == "safetensors":
        assert expand_network(load(made["file"]), maps).shapes == letters.shapes
        assert Path(made["file"]).name == "small-shrunk-fp32.safetensors"
    if to == "torch":
        tensors = pytest.importorskip("safetensors.torch").load_file(made["file"])
        read = len(maps.positions["fc1.inputs"])
        assert read < 64
        assert tuple(tensors["fc1.weight"].shape) == (11, read)
    assert "## What was removed" in Path(made["card"]).read_text("utf-8")


def test_what_is_not_possible_is_refused_before_anything_is_written(network: Network, tmp_path: Path) -> None:
    file = tmp_path / "net-fp32.safetensors"
    save(network, file)
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"to": "onnxx"}, ValueError, "there is no format 'onnxx' .did you mean 'onnx'"),
        ({"to": "torch", "values": "fp16"}, ValueError, "format torch holds values in fp32, not in fp16"),
        ({"to": "c", "name": "../net"}, ValueError, "it names a file, so it has no folder in it"),
        ({"to": "safetensors"}, ValueError, "is the file itself; give another name with --name"),
        ({"to": "web"}, ValueError, "so the page needs examples of the test data"),
    ]
    before = sorted(tmp_path.rglob("*"))
    for options, kind, message in cases:
        with pytest.raises(kind, match=message):
            convert(file, **options)
    for wrong, message in (
        (tmp_path / "nowhere.safetensors", "there is no file at"),
        (tmp_path, "a folder without model.safetensors"),
    ):
        with pytest.raises(CompactFileError, match=message):
            convert(wrong, to="c")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_that_would_be_huge_is_refused_by_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few hundred bytes can claim two thousand million weights."""
    none = np.empty(0, np.int64)
    weight = Weight("fc.weight", (1 << 16, 1 << 14), np.empty(0, np.float32), none)
    network = Network((1 << 14,), (Operation("linear", ("input",), "1", tensors={"weight": weight}),))
    save(network, tmp_path / "huge.safetensors")
    assert (tmp_path / "huge.safetensors").stat().st_size < 1000
    for to in HOLDS:
        skip_without(to)
        with pytest.raises(
            CompactFileError, match="takes 4294967296 bytes with all its weights, and one of up to"
        ):
            convert(tmp_path / "huge.safetensors", to=to)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_network_that_takes_long_is_written_and_not_computed(
    letters: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(letters, tmp_path / "small.safetensors")
    monkeypatch.setattr(shipping, "MOST_PRODUCTS", 100)
    made = convert(tmp_path / "small.safetensors", to="torch")
    assert made["noise_difference"] is None
    assert made["not_evaluated"] == f"{converting.NO_DATA}; the network is too large to be computed on noise"
    with pytest.raises(ValueError, match=r"cannot be shrunk, since its outputs are compared: .* too large"):
        convert(tmp_path / "small.safetensors", to="torch", shrink=True)


def test_outputs_that_overflow_are_not_compared(letters: Network, tmp_path: Path) -> None:
    large = {n: replace(w, values=w.values * np.float32(1e30)) for n, w in letters.weights().items()}
    layers = tuple(
        replace(one, tensors={role: large[w.name] for role, w in one.tensors.items()})
        for one in letters.operations
    )
    save(replace(letters, operations=layers), tmp_path / "large.safetensors")
    made = convert(tmp_path / "large.safetensors", to="torch")
    assert made["noise_difference"] is None
    assert "outputs on noise are not finite" in str(made["not_evaluated"])


def test_a_file_that_computes_something_else_is_an_error(
    letters: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(letters, tmp_path / "small.safetensors")
    right = FORMATS["torch"]
    wrong = replace(right, logits=lambda source, path, x: right.logits(source, path, x) + np.arange(3))
    monkeypatch.setitem(FORMATS, "torch", wrong)
    with pytest.raises(ShipmentError, match=r"does not compute what .*: on noise logits differ by up to"):
        convert(tmp_path / "small.safetensors", to="torch")
    assert not list(tmp_path.glob("*.md"))


ODD = {
    "data": "a|b\n# c <script>x</script>",
    "model": "\x1b[31mred\x1b[0m\u202e",
    "test_accuracy": 7,
    "nested": {"a": [1]},
    "long": "y" * 10_000,
    **{f"more {number}": number for number in range(100)},
}


def test_what_strangers_say_of_their_file_stays_text(letters: Network, tmp_path: Path) -> None:
    save(replace(letters, about=ODD, classes=("<b>", "\x1b[2J", "c")), tmp_path / "odd.safetensors")
    made = convert(tmp_path / "odd.safetensors", to="hub")
    assert made["claims"] is not None
    said = made["claims"]["said"]
    assert len(said) == converting.MOST_CLAIMS
    assert len(str(said["long"])) == converting.LONGEST_CLAIM
    assert "nested" not in said
    card = Path(made["card"]).read_text("utf-8")
    assert "a\\|b \\# c \\<script\\>x\\</script\\>" in card
    assert "\x1b" not in card
    assert "\u202e" not in card
    assert "as the compact file says" not in card  # 7 is no accuracy
    header = yaml.safe_load(card.split("---\n")[1])
    assert header["library_name"] == "winticket"
    assert "model-index" not in header
    answer = CliRunner().invoke(app, ["ship", str(tmp_path / "odd.safetensors"), "--to", "torch"])
    assert answer.exit_code == 0, answer.output
    assert "\x1b[31m" not in answer.output
    assert "\u202e" not in answer.output


def test_a_file_that_says_nothing(letters: Network, tmp_path: Path) -> None:
    bare = Network(letters.input_shape, letters.operations)
    save(bare, tmp_path / "bare.safetensors")
    card = Path(convert(tmp_path / "bare.safetensors", to="torch")["card"]).read_text()
    assert "It says nothing of where it comes from." in card
    assert "Preprocessing" not in card
    assert "Outputs: logits of 3 classes." in card


def test_is_compact(letters: Network, tmp_path: Path) -> None:
    save(letters, tmp_path / "small.safetensors")
    assert is_compact(tmp_path / "small.safetensors") is True
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "small.safetensors").read_bytes()[:40])
    assert is_compact(tmp_path / "cut.safetensors") is None
    convert(tmp_path / "small.safetensors", to="torch")
    assert is_compact(tmp_path / "small-torch.safetensors") is False
    assert is_compact(tmp_path) is False


def test_the_command(letters: Network, tmp_path: Path) -> None:
    file = tmp_path / "small-fp32.safetensors"
    save(letters, file)

    def invoke(*words: str) -> Any:
        return CliRunner().invoke(app, ["ship", *words])

    answer = invoke(str(file), "--to", "torch", "--shrink", "--name", "net")
    assert answer.exit_code == 0, answer.output
    flat = " ".join(answer.stdout.split())
    assert (
        "The compact file says of itself, unchecked: data letters; model lenet-300-100; arm ticket;" in flat
    )
    assert "The file was not evaluated: a compact file has no test data with it. On noise, its logits" in flat
    assert "14 of 15 units are left, and fc1 reads " in flat
    assert (tmp_path / "net-torch.safetensors").is_file()
    answer = invoke(str(file), "--to", "torch", "--json")
    assert json.loads(answer.stdout)["claims"]["said"]["data"] == "letters"
    folder = tmp_path / "hub"
    folder.mkdir()
    shutil.copy(file, folder / "model.safetensors")
    assert invoke(str(folder), "--to", "torch", "--out", str(tmp_path / "x")).exit_code == 0
    assert (tmp_path / "x" / "hub-torch.safetensors").is_file()
    for words, message in (
        (["--density", "0.1"], "is one network; --arm, --level, --density and --replicate choose from a run"),
        (["--arm", "dense"], "is one network"),
        (["--store", "runs"], "which has no run; --store and --trust are for runs"),
        (["--trust", "mylab"], "--store and --trust are for runs"),
        (["--values", "fp61"], "values is 'fp61' (did you mean 'fp16'?)"),
    ):
        answer = invoke(str(file), "--to", "c", *words)
        assert answer.exit_code == 2
        assert message in " ".join(answer.stderr.split())
    damaged = bytearray(file.read_bytes())
    damaged[-1] ^= 1
    (tmp_path / "damaged.safetensors").write_bytes(damaged)
    answer = invoke(str(tmp_path / "damaged.safetensors"), "--to", "c")
    assert answer.exit_code == 2
    assert "damaged: its checksum does not match" in " ".join(answer.stderr.split())


def test_without_a_compiler_c_is_written_and_not_compared(
    letters: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(letters, tmp_path / "small.safetensors")
    monkeypatch.setattr(as_c, "COMPILERS", ("no-such-compiler",))
    made = convert(tmp_path / "small.safetensors", to="c")
    assert made["noise_difference"] is None
    assert made["not_evaluated"] == f"{converting.NO_DATA}; there is no C compiler here (no-such-compiler)"
