"""Networks as C99: no warnings, the interpreter's answers, and the memory that the header says."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from compiled import Program, compile_c, needs_cc
from ship.test_network import ROWS, single, weight
from shipped import NETWORKS, examples, network
from winticket.ship import CSource, Network, Operation, Preprocessing, Weight, run, to_c
from winticket.ship.c_arrays import SKIP, Rows, coded, literal, string
from winticket.text import visible

Array = npt.NDArray[np.float32]
RELU = (Operation("relu", ("input",), "1"),)
BYTES = {"float": 4, "int8_t": 1, "uint8_t": 1, "uint16_t": 2}


def agree(
    networks: Sequence[Network], raw: Sequence[Array], folder: Path, *, flags: Sequence[str] = ()
) -> list[CSource]:
    """Compiles the networks into one program and compares its outputs with the interpreter's in double precision."""
    sources = [to_c(one, name=f"n{number}") for number, one in enumerate(networks)]
    outputs = Program(sources, folder, flags=flags).outputs(raw)
    for one, x, got in zip(networks, raw, outputs, strict=True):
        ready = one.preprocessing.apply(x) if one.preprocessing else x
        expected = run(one, ready, dtype=np.float64).reshape(len(x), -1)
        # Float32 sums of up to some thousand terms, one after the other, in up to some twenty layers.
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5 * abs(expected).max())
    return sources


def normal(*shape: int) -> Array:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@needs_cc
@pytest.mark.parametrize("int8", [False, True])
def test_networks_give_the_same_answers(int8: bool, tmp_path: Path) -> None:
    networks = [network(name, int8=int8) for name in NETWORKS]
    for source in agree(networks, [examples(one, 3) for one in networks], tmp_path, flags=["-O1"]):
        assert ("static const int8_t" in source.source) == int8


def test_the_networks_show_errors() -> None:
    """Their outputs depend on the example by more than a hundred times what the comparisons let pass."""
    for name in NETWORKS:
        outputs = run(network(name), network(name).preprocessing.apply(examples(network(name), 7)))  # type: ignore[union-attr]
        assert outputs.std(0).max() > 1e-2 * abs(outputs).max()


@needs_cc
def test_every_kind_gives_the_same_answers(tmp_path: Path) -> None:
    networks = [single(kind, shape, options, **tensors) for kind, shape, options, tensors, _ in ROWS]
    tanh = Operation("tanh", ("input",), "1")
    networks.append(Network((2, 3), (tanh, Operation("add", ("1", "input", "1"), "2"))))
    networks.append(Network((2, 3), (tanh, Operation("concat", ("input", "1"), "2", {"axis": 1}))))
    agree(networks, [normal(3, *one.input_shape) for one in networks], tmp_path)


# By hand: x = (1, 2); the first layer gives (1·1 + 2·2, 3·1 + 4·2) = (5, 11), the second 5 − 11 + 0.5 = −5.5.
@needs_cc
def test_by_hand(tmp_path: Path) -> None:
    one, two = Weight.of("one", [[1.0, 2.0], [3.0, 4.0]]), Weight.of("two", [[1.0, -1.0]])
    layers = (
        Operation("linear", ("input",), "1", tensors={"weight": one}),
        Operation("linear", ("1",), "2", tensors={"weight": two, "bias": Weight.of("bias", [0.5])}),
    )
    source = to_c(Network((2,), layers), name="hand")
    (got,) = Program([source], tmp_path).outputs([np.array([[1, 2]], np.float32)])
    assert got.tolist() == [[-5.5]]
    assert (source.flash, source.scratch, source.maths) == (4 * (4 + 2 + 1), 4 * 2, False)


def decoded(rows: Rows, shape: tuple[int, ...]) -> Array:
    """The dense weight, read back as the C functions read it."""
    width = math.prod(shape[1:])
    values = rows.values.astype(np.float32).tolist()
    if rows.coding == "dense":
        return np.array(values, np.float32).reshape(shape)
    assert rows.counts is not None
    assert rows.places is not None
    dense, places = np.zeros((shape[0], width), np.float32), iter(rows.places.tolist())
    for unit, count in enumerate(rows.counts.tolist()):
        column = 0
        for _ in range(count):
            place = next(places)
            if rows.coding == "columns":
                column = place
            else:
                while place == SKIP:
                    column, place = column + SKIP, next(places)
                column += place
            dense[unit, column] = values.pop(0)
            column += 1
    assert not values
    assert next(places, None) is None
    return dense.reshape(shape)


# Bytes of one weight with one unit: its values, a place for each and one count. Gaps of up to 254 take a byte.
@pytest.mark.parametrize(
    ("width", "kept", "coding", "size"),
    [
        (10, [0, 9], "gaps", 2 * 4 + 2),
        (10, [0, 1, 2, 3, 4, 5, 6, 7, 8], "dense", 10 * 4),
        (256, [254], "gaps", 4 + 1),
        (256, [255], "gaps", 4 + 2),
        (4000, [3999], "columns", 4 + 2),
        (70000, [0, 69999], "gaps", 2 * 4 + 1 + 275),
        (10, [], "gaps", 4 + 1),
    ],
)
def test_the_smallest_coding_is_chosen(width: int, kept: list[int], coding: str, size: int) -> None:
    keep = np.zeros((1, width), np.bool_)
    keep[0, kept] = True
    w = Weight.of("w", normal(1, width), keep)
    rows = coded(w)
    assert (rows.coding, rows.bytes) == (coding, size)
    assert np.array_equal(decoded(rows, w.shape), w.dense())
    source = to_c(Network((width,), (Operation("linear", ("input",), "1", tensors={"weight": w}),)))
    assert source.flash == size + (coding != "dense")


@needs_cc
def test_gaps_and_strides_at_their_limits(tmp_path: Path) -> None:
    """Gaps of 253 to 256 and of twice that; a stride that is never taken, as large as a file may name it."""
    kept = np.cumsum([1, 254, 255, 256, 257, 509, 510, 511, 512])
    keep = np.isin(np.arange(3200), kept - 1)
    w = Weight.of("w", normal(1, 3200), keep[None])
    assert coded(w).coding == "gaps"
    networks = [Network((3200,), (Operation("linear", ("input",), "1", tensors={"weight": w}),))]
    limits = {"stride": [2**31 - 1] * 2, "padding": [[3, 3], [3, 3]], "dilation": [2**31 - 1, 2]}
    wide = {"weight": Weight.of("w", normal(2, 2, 1, 4))}
    networks.append(Network((2, 1, 1), (Operation("conv2d", ("input",), "1", limits, wide),)))
    agree(networks, [normal(3, *one.input_shape) for one in networks], tmp_path)


@pytest.mark.parametrize("density", [0.0, 0.003, 0.05, 0.5, 0.99, 1.0])
@pytest.mark.parametrize("shape", [(5, 700), (3, 4, 5), (1, 1), (7, 2, 3, 3)])
def test_coded_weights_are_read_back(shape: tuple[int, ...], density: float) -> None:
    w = weight("w", *shape, density=density)
    assert np.array_equal(decoded(coded(w), shape), w.dense())


# Half of the 600 columns are kept in one row and none in another, so counts take 16 bits; few of 3000 take columns.
@needs_cc
def test_wide_and_empty_rows(tmp_path: Path) -> None:
    networks = []
    for width, density in ((600, 0.5), (3000, 0.001), (3000, 0.0)):
        keep = np.random.default_rng(1).random((4, width)) < density
        keep[2] = False
        keep[0, -1] = density > 0
        layer = Operation(
            "linear", ("input",), "1", tensors={"weight": Weight.of("w", normal(4, width), keep)}
        )
        conv_weight = Weight.of("w", normal(4, width // 6, 2, 3), keep.reshape(4, -1, 2, 3))
        conv = Operation("conv2d", ("input",), "1", {"padding": [[0, 1], [1, 1]]}, {"weight": conv_weight})
        networks += [Network((width,), (layer,)), Network((width // 6, 3, 4), (conv,))]
    sources = agree(networks, [normal(3, *one.input_shape) for one in networks], tmp_path)
    codings = [re.findall(r"linear_(\w+)_float\(|conv_(\w+)_float\(", source.source)[0] for source in sources]
    assert ["".join(names) for names in codings] == ["gaps"] * 2 + ["columns"] * 2 + ["gaps"] * 2
    assert [source.source.count("uint16_t n") for source in sources[:2]] == [1, 1]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("int8", [False, True])
def test_flash_is_the_size_of_the_constants(name: str, int8: bool) -> None:
    one = network(name, int8=int8)
    source = to_c(one)
    (width,) = re.findall(r"typedef (\w+) ticket_count;", source.source)
    arrays = re.findall(r"^static const (\w+) \w+\[(\d+)\]", source.source, re.M)
    windows = re.findall(r"^static const ticket_window ", source.source, re.M)
    sizes = sum(BYTES[width if kind == "ticket_count" else kind] * int(count) for kind, count in arrays)
    assert source.flash == sizes + 12 * 4 * len(windows)
    assert f"flash     {source.flash} bytes" in source.header
    classes = ("böse", *"abcdefg"[: math.prod(one.shapes[one.output]) - 1])
    # Each takes a pointer of 32 bits, its bytes in UTF-8 and a 0 at its end.
    assert to_c(replace(one, classes=classes)).flash == source.flash + (4 + 5 + 1) + 6 * (len(classes) - 1)


def test_a_sparse_file_is_as_small_as_it_says() -> None:
    """Of LeNet-300-100, 266 200 weights, 5 % take 5 bytes each: a value and a gap. Counts and biases come on top."""
    one = network("lenet-300-100")
    kept, _ = one.kept()
    source = to_c(one)
    units = 300 + 100 + 7
    escapes = source.flash - 5 * kept - units - 4 * units - 8  # the last is for the preprocessing
    assert 0 <= escapes < 0.001 * kept
    small = to_c(network("lenet-300-100", int8=True))
    assert source.flash - small.flash == 3 * kept - 4 * units


def test_the_header_says_what_it_is() -> None:
    source = to_c(network("lenet-300-100"), name="digits")
    kept, size = network("lenet-300-100").kept()
    for line in (
        "input     784 floats, [1, 28, 28] in row-major order",
        "output    7 floats, [7]",
        f"weights   {kept} kept of {size}",
        f"RAM       {4 * 400} bytes of scratch; input and output are extra",
        "accuracy  0.8750 on test data",
    ):
        assert f"\n * {line}\n" in source.header
    for line in ("INPUTS 784", "OUTPUTS 7", "SCRATCH 400 /* floats */"):
        assert f"\n#define DIGITS_{line}\n" in source.header
    assert list(source.files) == ["digits.c", "digits.h"]
    assert source.files == to_c(network("lenet-300-100"), name="digits").files


@pytest.mark.parametrize("value", [None, True, "*/ evil();", 1.5, -1, float("nan"), [0.5]])
def test_an_accuracy_that_is_none_is_not_named(value: object) -> None:
    source = to_c(Network((2,), RELU, about={"test_accuracy": value}))
    assert "accuracy" not in source.header
    assert "evil" not in source.header


# All bits of a float32 are some number or other: 9 digits read back to it.
def test_numbers_read_back_exactly(tmp_path: Path) -> None:
    bits = np.random.default_rng(0).integers(0, 2**32, 5000, np.uint64).astype(np.uint32).view(np.float32)
    extreme = np.array([0.0, -0.0, 1e-45, 1.1754944e-38, 3.4028235e38, 1.0, 16777217], np.float32)
    values = np.concatenate([extreme, -extreme, bits[np.isfinite(bits)]])
    with np.errstate(over="ignore"):
        read = np.array([literal(value).removesuffix("f") for value in values.tolist()], np.float32)
    assert read.tobytes() == values.tobytes()
    if shutil.which("cc"):
        scale = Weight.of("scale", np.zeros(len(values)))
        shift = Operation(
            "scale_shift", ("input",), "1", tensors={"scale": scale, "shift": Weight.of("w", values)}
        )
        source = to_c(Network((len(values),), (shift,)))
        (got,) = Program([source], tmp_path).outputs([np.zeros((1, len(values)), np.float32)])
        assert np.array_equal(got[0], values)


HOSTILE = (
    "*/ int evil; /*",
    'a"b\\',
    "??/",
    "line\nbreak\r\x00\x1b[31m",
    "NAME_UPPER_ %s NAME_.h",
    "Füße ✓\u202e",
    "",
    "\ud800",
    "\\",
    "x" * 4095,
)
_PRINT = """\
#include <stdio.h>
#include "hostile.h"
int main(void)
{
    int i;
    for (i = 0; i < HOSTILE_OUTPUTS; i++) {
        fputs(hostile_classes[i], stdout);
        fputc(0, stdout);
    }
    return 0;
}
"""


@needs_cc
def test_names_from_outside_are_no_code(tmp_path: Path) -> None:
    operations = [
        Operation("linear", ("input",), "1", tensors={"weight": Weight.of(HOSTILE[0], normal(10, 2))}),
        *(
            Operation("linear", (str(n),), str(n + 1), tensors={"weight": Weight.of(name, normal(10, 10))})
            for n, name in enumerate(HOSTILE[1:], 1)
        ),
    ]
    source = to_c(Network((2,), tuple(operations), classes=HOSTILE), name="hostile")
    for name, text in {**source.files, "main.c": _PRINT}.items():
        (tmp_path / name).write_text(text)
        assert text.isascii()
    compile_c(["main.c", "hostile.c", "-o", "program"], tmp_path)
    printed = subprocess.run([tmp_path / "program"], capture_output=True, check=True, timeout=60).stdout
    assert printed.split(b"\0")[:-1] == [visible(name).encode() for name in HOSTILE]


@pytest.mark.parametrize(
    "name", ["", "1st", "a-b", "a b", "é", "_x", "a" * 41, "x;", "math", "stdint", "a\n"]
)
def test_a_name_that_no_function_can_have_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a C file and its functions"):
        to_c(Network((2,), RELU), name=name)


def test_what_c_cannot_hold_is_refused_before_it_is_made() -> None:
    none = Weight("w", (1 << 27, 2), np.empty(0, np.float32), np.empty(0, np.int64))
    dense = Weight("w", (1, 17 << 20), np.zeros(17 << 20, np.float32))
    for huge in (none, dense):
        layer = Operation("linear", ("input",), "1", tensors={"weight": huge})
        with pytest.raises(ValueError, match="more than 64 MiB, which is too much for a C file"):
            to_c(Network(huge.shape[1:], (layer,)))
    with pytest.raises(ValueError, match="has 4096 bytes; in C99 a string has at most 4095"):
        to_c(Network((1,), RELU, classes=("y" * 4096,)))
    assert string("y" * 4095).startswith('"yy')
    for ready in (Preprocessing(1e300, (0.0,), (1.0,)), Preprocessing(1.0, (-1e39,), (1.0,))):
        with pytest.raises(ValueError, match="is larger than what float32 holds"):
            to_c(Network((1,), RELU, ready))


def test_values_that_are_no_multiples_of_their_scale_stay_floats() -> None:
    values, scales = np.array([1.0, 0.5, 3.0], np.float32), np.array([0.5], np.float32)
    assert coded(Weight("w", (1, 3), values, None, scales)).values.dtype == np.int8
    for other in (0.75, 64.0):
        rows = coded(Weight("w", (1, 3), np.array([1.0, 0.5, other], np.float32), None, scales))
        assert rows.values.dtype == np.float32
        assert rows.scales is None


def test_a_weight_that_two_layers_share_is_there_once() -> None:
    shared = {"weight": Weight.of("w", normal(4, 4)), "bias": Weight.of("b", normal(4))}
    layers = [Operation("linear", (name,), out, tensors=shared) for name, out in (("input", "1"), ("1", "2"))]
    source = to_c(Network((4,), tuple(layers)))
    assert source.flash == 4 * (16 + 4)
    assert source.source.count("t1_values[16]") == 1


@needs_cc
def test_the_static_buffer_can_be_left_out_and_cpp_reads_the_header(tmp_path: Path) -> None:
    source = to_c(network("lenet-300-100"), name="net")
    main = "int main(void) {{ float x[784] = {{0}}, y[7]; {} return 0; }}\n"
    with_scratch = "static float s[NET_SCRATCH]; net_prepare(x, x); net_run_with(x, y, s);"
    for name, text in {
        **source.files,
        "main.c": '#include "net.h"\n' + main.format(with_scratch),
        "static.c": '#include "net.h"\n' + main.format("net_run(x, y);"),
    }.items():
        (tmp_path / name).write_text(text)
    for flags in ([], ["-DNET_WITHOUT_RUN"]):
        compile_c([*flags, "main.c", "net.c", "-o", "program"], tmp_path)
    compile_c(["static.c", "net.c", "-o", "program"], tmp_path)
    with pytest.raises(AssertionError, match="net_run"):
        compile_c(["-DNET_WITHOUT_RUN", "static.c", "net.c", "-o", "program"], tmp_path)
    if shutil.which("c++"):
        (tmp_path / "main.cpp").write_text((tmp_path / "main.c").read_text())
        compile_c(["-c", "net.c"], tmp_path)
        subprocess.run(
            ["c++", "-Wall", "-Werror", "main.cpp", "net.o", "-o", "cpp"], cwd=tmp_path, check=True
        )
        subprocess.run([tmp_path / "cpp"], check=True, timeout=60)


@needs_cc
def test_the_programs_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("onnx", "ai_edge_litert"):
        pytest.importorskip(package, reason="the page writes ONNX and TFLite files too")
    page = (Path(__file__).parents[2] / "docs" / "ship-c-onnx.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    known: dict[str, Any] = {"x": np.random.default_rng(0).random((1, 1, 8, 8), np.float32)}
    (main,) = re.findall(r"^```c\n(.*?)^```$", page, re.M | re.S)
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng(devices=[]):
        for block in blocks:
            exec(block, known)
    np.testing.assert_allclose(known["logits"], run(known["network"], known["x"]), atol=1e-5)
    (tmp_path / "main.c").write_text(main)
    compile_c(["main.c", "digits.c", "-o", "program"], tmp_path)
    printed = subprocess.run([tmp_path / "program"], capture_output=True, text=True, check=True, timeout=60)
    assert re.fullmatch(r"digit \d\n", printed.stdout)
    assert (tmp_path / "digits.onnx").stat().st_size > 4 * (64 * 300 + 300 * 10)
