"""Bad data of a user's own: the real command says what was given and what to do, before it computes anything."""
# ruff: noqa: E501 - a table reads best a row to a line

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from winticket.cli import app

ROWS = [f"{n},{n % 3},{'ab'[n % 2]},{'xy'[n % 2]},{n // 5}" for n in range(40)]
HEAD = "size,step,kind,state,batch_id"


def csv(*rows: str, head: str = HEAD) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "t.csv").write_text("\n".join([head, *(rows or ROWS)]) + "\n")
        return folder / "t.csv"

    return write


def raw(content: bytes, name: str = "t.csv") -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


def npz(**arrays: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        np.savez(folder / "t.npz", allow_pickle=True, **arrays)
        return folder / "t.npz"

    return write


def parquet(**columns: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        pq.write_table(pa.table(columns), folder / "t.parquet")
        return folder / "t.parquet"

    return write


def pictures(folder: Path) -> Path:
    for number, side in enumerate((8, 8, 9, 8)):
        file = folder / "photos" / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((side, 8), number * 9, np.uint8)).save(file)
    return folder / "photos"


def bomb(folder: Path) -> Path:
    """An npy array that announces far more values than it has."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)})
    np.save(folder / "y.npy", np.arange(4))
    return raw(buffer.getvalue() + bytes(64), "x.npy")(folder)


def wide_header(folder: Path) -> Path:
    kind = np.dtype([(f"f{number}", "<f4") for number in range(1500)])
    np.save(folder / "y.npy", np.arange(4))
    np.save(folder / "x.npy", np.zeros(4, kind))
    return folder / "x.npy"


X, Y = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2
NAN = np.where(np.arange(120).reshape(40, 3) == 5, np.nan, X)
STATE = "--label state "
TINY = np.zeros((40, 2, 8)) + np.arange(8)

CASES: dict[str, tuple[Callable[[Path], Path], str, str]] = {
    "no label named": (csv(), "", r"which column of .* is the label\?.*--label batch_id.*size, step, kind"),
    "unknown label": (csv(), "--label stat", r"'stat', which .* does not have \(did you mean 'state'\?\); it has size"),
    "unknown column to ignore": (csv(), STATE + "--ignore batchid", r"--ignore names column 'batchid'.*'batch_id'"),
    "a column for two purposes": (csv(), STATE + "--ignore state", "named by both --label and --ignore"),
    "a label twice": (csv(), STATE + STATE, "names column 'state' twice"),
    "nothing but a label": (csv("1", "2", head="state"), STATE, "no column left for features"),
    "unequal rows": (csv(*ROWS, "1,2,a"), STATE, r"cannot be read as a table \(.*Expected 5 columns, got 3"),
    "an empty file": (raw(b""), STATE, "is empty"),
    "blank lines": (raw(b"\n \n"), STATE, "is empty; write a line with the columns"),
    "a header alone": (raw(HEAD.encode() + b"\n"), STATE, "has a header but no rows"),
    "no header": (csv("1,2", "3,4", head="5,6.5"), "--label 5", "holds numbers .*must hold the names"),
    "doubled columns": (csv(head="size,size,kind,state,step"), STATE, "several columns of the same name: size"),
    "UTF-16": (raw(f"{HEAD}\n".encode("utf-16")), STATE, "is not UTF-8 text .*save it as UTF-8"),
    "Latin-1": (raw(f"{HEAD}\n1,2,\xe9,x,1\n".encode("latin-1")), STATE, "is not UTF-8 text"),
    "Latin-1 names": (raw("gr\xf6\xdfe,state\n1,2\n3,4\n".encode("latin-1")), STATE, "is not UTF-8 text"),
    "a binary file": (raw(b"\0\1\2" * 99), STATE, "is not UTF-8 text"),
    "a huge header": (csv("1", head=",".join(f"c{n}" for n in range(20_001))), STATE, "cannot be read as a table"),
    "too many columns": (
        csv(",".join("1" * 20_001), head=",".join(f"c{n}" for n in range(20_001))),
        STATE,
        "has 20001 columns, and at most 20000",
    ),
    "text among numbers": (csv(*ROWS, "oops,1,a,x,9"), STATE, r"'size' .* text such as 'oops' \(row 41 of train\)"),
    "decimal commas": (
        csv(*(f"{n},5;{'xy'[n % 2]}" for n in range(40)), head="size;state"),
        STATE,
        "decimal comma, such as '0,5'",
    ),
    "names of rows": (csv(*(f"row{n},{n % 2},{n}" for n in range(40)), head="id,state,v"), STATE, "--ignore id"),
    "a constant column": (csv(*(f"1,{n},{n % 2}" for n in range(40)), head="c,v,state"), STATE, "--ignore c"),
    "missing numbers": (csv(*ROWS, ",1,a,x,9", ",,a,x,9"), STATE, r"missing values in 2 columns: size \(2\), step \(1\)"),
    "missing numbers as categories": (csv(*ROWS, ",1,a,x,9"), STATE + "--missing category", r"size \(1\).*--missing mean"),
    "missing labels": (csv(*ROWS, "1,1,a,,9"), STATE, r"rows without a label: state \(1\)"),
    "an unknown way with missing values": (csv(), STATE + "--missing men", "did you mean 'mean'"),
    "infinity": (csv(*ROWS, "inf,1,a,x,9"), STATE, "'size' .* holds infinity in 1 row;"),
    "a class with one example": (csv(*ROWS, "1,1,a,z,9"), STATE, "label 'state' .* has classes with one example: 'z'"),
    "a constant label": (csv(*(f"{n},x" for n in range(40)), head="v,state"), STATE, "is 'x' in all training rows"),
    "a label that names rows": (csv(*(f"{n},r{n}" for n in range(40)), head="v,state"), STATE, "40 different values in 40"),
    "several labels of text": (csv(), "--label kind --label state", "must all be numbers, but kind, state"),
    "several labels for classes": (csv(), "--label kind --label state --task classification", "names kind, state"),
    "text for regression": (csv(), STATE + "--task regression", "regression needs numbers, but state"),
    "no zeros and ones": (csv(), "--label step --task multi-label", "needs 0 and 1, but label 'step' .* holds 2"),
    "fractions as classes": (csv("1,.5", "2,1", head="v,state"), STATE + "--task classification", "not whole, such as 0.5"),
    "segmentation of a table": (csv(), STATE + "--task segmentation", "segmentation needs a class for each position"),
    "an unknown task": (csv(), STATE + "--task clasification", "did you mean 'classification'"),
    "few examples": (csv(*ROWS[:20]), STATE, "batch 60 is larger than the"),
    "more rows than there are": (csv(), STATE + "--rows 50", "asks for more than the 40 training rows"),
    "no rows": (csv(), STATE + "--rows 0", "rows is 0; give at least 1"),
    "unknown group": (csv(), STATE + "--split-by-group batch", r"--split-by-group names column 'batch'"),
    "few groups": (csv(), STATE + "--split-by-group kind", "has 2 groups, but training, validation and test need one"),
    "large groups": (csv(), STATE + "--split-by-group step --test 30", "none would remain for training"),
    "group and time": (csv(), STATE + "--split-by-group step --split-by-time size", "by group or by time, not by both"),
    "text as time": (csv(), STATE + "--split-by-time kind", "has no order in time"),
    "own splits of groups": (csv(), STATE + "--split-by-group batch_id --split own", "one split for all replicates"),
    "a date as feature": (parquet(d=pa.array(range(40), pa.timestamp("s")), label=Y), "", "--split-by-time, or ignore"),
    "lists as feature": (parquet(v=[[1]] * 40, label=Y), "", "neither a number nor a category"),
    "nothing in a column": (parquet(v=pa.nulls(40), label=Y), "", "has no value in any row"),
    "size of a table": (csv(), STATE + "--size 8", "--size has no meaning for a table"),
    "images of several sizes": (pictures, "", "differ in size: .* 8×9 pixels.* 8×8 pixels.*--size 8x8"),
    "a size that is none": (pictures, "--size big", "size is 'big'; give the side in pixels"),
    "labels for folders": (pictures, "--label y", "--label has no meaning for a folder"),
    "objects": (npz(x=np.array([{}, []] * 20, object), y=Y), "", "holds Python objects, which are not read"),
    "unequal lengths": (npz(x=X, y=Y[:30]), "", "x of .* has 40 examples for train, but y has 30 labels"),
    "no x": (npz(a=X, y=Y), "", "has no array x; it has a, y"),
    "no y": (npz(x=X, b=Y), "", "has no array y; it has x, b"),
    "an unknown array": (npz(x=X, kind=Y), "--label knd", "has no array 'knd' .*'kind'"),
    "half a split": (npz(x_train=X, y_train=Y, x_test=X), "", "do not pair up: x_train, x_test, y_train"),
    "NaN in an array": (npz(x=NAN, y=Y), "", r"missing values in 1 column: x\[2\] \(1\)"),
    "infinity in an array": (npz(x=np.where(np.isnan(NAN), np.inf, NAN), y=Y), "", "feature 2 of x .* holds infinity"),
    "NaN in signals": (npz(x=np.where(TINY == 3, np.nan, TINY), y=Y), "", "NaN or infinity in 80 places"),
    "a constant channel": (npz(x=np.zeros((40, 2, 8)), y=Y), "", r"same value 0 everywhere.*2 channels; .*x\[:, None\]"),
    "channels last": (npz(x=np.zeros((40, 8, 8, 3), np.uint8), y=Y), "", r"x.transpose\(0, 3, 1, 2\)"),
    "five axes": (npz(x=np.zeros((40, 1, 2, 2, 2)), y=Y), "", r"has shape \[40, 1, 2, 2, 2\]; examples are tables"),
    "complex numbers": (npz(x=X.astype(complex), y=Y), "", "holds complex128, which are not read"),
    "NaN as label": (npz(x=X, y=np.where(Y, np.nan, 1.0)), "", r"y of .* lacks 20 values \(NaN\)"),
    "a class per position": (npz(x=np.ones((40, 1, 4, 4)) * TINY[:, :1, :4, None], y=np.ones((40, 3, 4), int) * Y[:, None, None]), "", "of the same size"),
    "no archive": (raw(b"not a zip", "t.npz"), "", "is not a readable npz file"),
    "no array": (raw(b"not an array", "x.npy"), "--label x.npy", "is not a readable npy array"),
    "no labels beside": (raw(b"", "x.npy"), "", "has no labels beside it; write them to .*y.npy"),
    "an array cut off": (bomb, "", "announces 8000000000000 bytes of values but has 64"),
    "a header of many fields": (wide_header, "", "is not a readable npy array"),
    "no arrow file": (raw(b"ARROW1 no", "t.arrow"), "--label y", "is not a readable arrow file"),
    "options of tables for digits": (lambda _: Path("digits"), "--label y", "--label has no meaning for digits"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_bad_data_are_refused_before_any_compute(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, options, message = CASES[name]
    monkeypatch.chdir(tmp_path)
    data = str(write(tmp_path))
    answer = CliRunner().invoke(app, ["find", data, *options.split(), "--workers", "1", "--quiet"])
    said = " ".join((answer.stderr or answer.output).split())
    assert (answer.exit_code, said[:7]) == (2, "Error: "), f"{answer.exit_code} {said} {answer.exception!r}"
    assert re.search(message, said), said
    assert not (tmp_path / "runs").exists()
