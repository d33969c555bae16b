"""What comes from outside is read whole, bounded and checked, or refused in words."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import msgspec
import pytest
import torch
from safetensors.torch import save

from winticket.outside import Stored, Unreadable, converted, header_size, read_file, read_header, read_json


class Point(msgspec.Struct):
    x: int
    y: float = 0.0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"x": "1"}', r"Expected `int`, got `str` - at `\$\.x`"),
        ('{"x": 1e999}', "out of range"),
        ('{"x": NaN}', "malformed"),
        ("{}", "missing required field `x`"),
        ("[" * 100_000, "Expected `object`|nested"),
        (b"\xff\xfe", "malformed|UTF-8"),
        ('{"x": 1} trailing', "malformed"),
        ("", "truncated"),
    ],
)
def test_json_that_is_not_what_it_should_be_is_refused_with_the_place(text: str | bytes, says: str) -> None:
    with pytest.raises(Unreadable, match=says):
        read_json(text, Point)


def test_deep_json_of_any_type_is_refused_and_not_a_crash() -> None:
    with pytest.raises(Unreadable, match="nested"):
        read_json("[" * 1_000_000 + "]" * 1_000_000, object)


def test_json_within_bounds_is_read() -> None:
    assert read_json('{"x": 3, "y": 0.5, "more": []}', Point) == Point(3, 0.5)
    assert read_json('{"x": 123456789012345678901234567890}', Point).x == 123456789012345678901234567890
    assert converted({"x": 2}, Point) == Point(2)
    with pytest.raises(Unreadable, match="at most 4"):
        read_json("[1, 2]", list[int], limit=4)


def test_pipes_devices_folders_and_large_files_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"12345")
    assert read_file(tmp_path / "file", limit=5) == b"12345"
    for name, says in (("pipe", "a pipe, not a data file"), ("file", "at most 4")):
        with pytest.raises(Unreadable, match=says):
            read_file(tmp_path / name, limit=4)
    with pytest.raises(Unreadable, match="device"):
        read_file("/dev/zero", limit=4)
    with pytest.raises((Unreadable, IsADirectoryError)):
        read_file(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "none")


def crafted(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def test_the_header_of_a_sound_file_is_read() -> None:
    content = save(
        {"a": torch.zeros(2, 3), "b": torch.zeros(0), "c": torch.ones(5, dtype=torch.bool)}, {"k": "v"}
    )
    tensors, metadata = read_header(content)
    assert tensors["a"].shape == (2, 3)
    assert tensors["b"].shape == (0,)
    assert metadata == {"k": "v"}
    assert read_header(content[: header_size(content)], whole=False)[0] == tensors
    assert read_header(crafted(b'{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}', bytes(4)))[0] == {
        "a": Stored("F32", (), 0, 4)
    }


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (b'{"__metadata__": true}', "Expected `object`"),
        (b'{"__metadata__": {"winticket": 3}}', "Expected `str`"),
        (b'{"a": 3}', "'a': Expected `object`"),
        (b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}', "shape"),
        (b'{"a": {"dtype": "F32", "shape": [1e99], "data_offsets": [0, 4]}}', "int"),
        (b'{"a": {"dtype": "F33", "shape": [1], "data_offsets": [0, 4]}}', "F33"),
        (b'{"a": {"dtype": "F32", "shape": [4294967296, 4294967296], "data_offsets": [0, 4]}}', "in 4 bytes"),
        (b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}', "does not begin where"),
        (b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}', "truncated"),
        (b"{}", "damaged: its tensors need 0 bytes, but it has 4"),
        (b"not json", "not a safetensors file"),
        (b"{not json}", "damaged: its header: JSON is malformed"),
    ],
)
def test_headers_that_lie_are_refused(header: bytes, says: str) -> None:
    with pytest.raises(Unreadable, match=says):
        read_header(crafted(header, bytes(4)))


@pytest.mark.parametrize(
    "content", [b"", b"1234567", struct.pack("<Q", 1 << 60) + b"{}", struct.pack("<Q", 99)]
)
def test_what_is_no_safetensors_file_is_refused(content: bytes) -> None:
    with pytest.raises(Unreadable):
        read_header(content)
