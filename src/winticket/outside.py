"""Files from outside: read completely but within bounds, checked against a type, or refused with a clear message.

winticket reads every JSON document and every safetensors header with these functions. So a damaged or hostile file
raises an `Unreadable`, which says where and why, before anything is built or allocated from it.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar, cast

import msgspec

T = TypeVar("T")

LONGEST_JSON = 256 << 20  # bytes of a JSON document
LONGEST_HEADER = 100_000_000  # bytes of a safetensors header: that library's own limit
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32,
    "U64": 64, "I64": 64, "F64": 64, "C64": 64,
}  # fmt: skip


class Unreadable(ValueError):  # noqa: N818 - reads as what it says of the file
    """A file's content is not what it should be; the message says where in the file and why, but not which file."""


def read_file(path: str | os.PathLike[str], *, limit: int | None = None) -> bytes:
    """The bytes of a regular file; pipes, devices and folders are refused at once.

    Raises the system's OSError, and Unreadable if it is not a regular file or has more than `limit` bytes.

    >>> from winticket.outside import read_file
    >>> len(read_file(__file__, limit=1 << 20)) > 0
    True
    """
    # Without O_NONBLOCK, opening a pipe would wait until somebody writes to it.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(descriptor, "rb") as stream:
        about = os.fstat(stream.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise Unreadable(f"a {_kind(about.st_mode)}, not a data file")
        if limit is not None and about.st_size > limit:
            raise Unreadable(f"too large: {about.st_size} bytes, but at most {limit} are read")
        try:
            data = stream.read() if limit is None else stream.read(limit + 1)
        except MemoryError:
            raise Unreadable(f"too large for this machine's memory: {about.st_size} bytes") from None
    if limit is not None and len(data) > limit:
        raise Unreadable(f"too large: more than the {limit} bytes that are read")
    return data


def _kind(mode: int) -> str:
    for test, name in (
        (stat.S_ISDIR, "folder"),
        (stat.S_ISFIFO, "pipe"),
        (stat.S_ISSOCK, "socket"),
        (stat.S_ISCHR, "device"),
        (stat.S_ISBLK, "device"),
    ):
        if test(mode):
            return name
    return "special file"


def read_json(data: bytes | str, kind: type[T], *, limit: int = LONGEST_JSON) -> T:
    """A JSON document as a value of `kind` (any type that msgspec supports: Struct, TypedDict, dict[str, int], ...).

    It is strict: text for a number, NaN, a number out of range or a missing field raises Unreadable, with the position
    inside the document.

    >>> from winticket.outside import Unreadable, read_json
    >>> read_json('{"steps": 3}', dict[str, int])
    {'steps': 3}
    >>> try:
    ...     read_json('{"steps": "3"}', dict[str, int])
    ... except Unreadable as error:
    ...     print(error)
    Expected `int`, got `str` - at `$[...]`
    """
    if len(data) > limit:
        raise Unreadable(f"the document has {len(data)} bytes, but at most {limit} are read")
    try:
        value: T = _decoder(cast("Any", kind)).decode(data)
    except RecursionError:
        raise Unreadable("the document is nested too deeply") from None
    except (msgspec.MsgspecError, UnicodeError, OverflowError, MemoryError) as error:
        raise Unreadable(str(error) or type(error).__name__) from error
    return value


@lru_cache(maxsize=64)
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    """The decoder of a type; to make one takes longer than to read a short document."""
    return msgspec.json.Decoder(kind)


def converted(value: object, kind: type[T]) -> T:
    """A value from JSON (dicts, lists, numbers, text) as one of `kind`. Raises Unreadable, with the position.

    >>> converted([1, 2], tuple[int, int])
    (1, 2)
    """
    try:
        return msgspec.convert(value, type=kind)
    except RecursionError:
        raise Unreadable("it is nested too deeply") from None
    except (msgspec.MsgspecError, OverflowError) as error:
        raise Unreadable(str(error) or type(error).__name__) from error


@dataclass(frozen=True)
class Stored:
    """The position of a tensor in a safetensors file; `start` and `end` are bytes, counted from the header's end."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


class _Entry(msgspec.Struct):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


def header_size(start: bytes) -> int:
    """The bytes that the header of a safetensors file takes, with its length field; `start` has eight bytes or more.

    Raises Unreadable for fewer bytes, or for a length that no header has.

    >>> header_size((100).to_bytes(8, "little"))
    108
    """
    if len(start) < 8:
        raise Unreadable("not a safetensors file, or one cut off within its first bytes")
    size = int.from_bytes(start[:8], "little")
    if not 2 <= size <= LONGEST_HEADER:
        raise Unreadable(_other_file(start) or "not a safetensors file: its header would be impossibly long")
    return 8 + size


def _other_file(start: bytes) -> str:
    """What a file is that begins so and is no safetensors file, if it is a pickle."""
    if start.startswith(b"PK"):
        return "not a safetensors file but a zip archive, as torch.save writes, with a pickle; winticket opens none"
    if start[:1] == b"\x80" and start[1:2] <= b"\x05":
        return "not a safetensors file but a pickle; winticket opens none"
    return ""


def read_header(data: bytes, *, whole: bool = True) -> tuple[dict[str, Stored], Mapping[str, str]]:
    """The tensors and the metadata that the header of a safetensors file lists.

    `whole` says that `data` is the whole file; the tensors must then fill the rest of it exactly, without gaps. Raises
    Unreadable for a file that is cut off, or whose tensors overlap, leave gaps, or have sizes that contradict their
    shapes.

    >>> import torch
    >>> from safetensors.torch import save
    >>> read_header(save({"w": torch.zeros(2, 3)}))[0]
    {'w': Stored(dtype='F32', shape=(2, 3), start=0, end=24)}
    """
    end = header_size(data)
    if len(data) < end:
        raise Unreadable(f"truncated: it has {len(data)} bytes and its header alone needs {end}")
    if data[8:9] != b"{":
        raise Unreadable(_other_file(data) or "not a safetensors file: it does not begin with a JSON object")
    try:
        header: dict[str, Any] = read_json(data[8:end], dict[str, Any], limit=LONGEST_HEADER)
        metadata = converted(header.pop("__metadata__", {}), dict[str, str])
    except Unreadable as error:
        raise Unreadable(f"damaged: its header: {error}") from error
    tensors = {name: _stored(name, entry) for name, entry in header.items()}
    at = 0
    for name, one in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if one.start != at:
            raise Unreadable(f"damaged: tensor {name!r} does not begin where the tensor before it ends")
        at = one.end
    if whole and len(data) - end != at:
        lack = "truncated" if len(data) - end < at else "damaged"
        raise Unreadable(f"{lack}: its tensors need {at} bytes, but it has {len(data) - end}")
    return tensors, metadata


def _stored(name: str, entry: object) -> Stored:
    try:
        one = converted(entry, _Entry)
    except Unreadable as error:
        raise Unreadable(f"damaged: tensor {name!r}: {error}") from error
    start, end = one.data_offsets
    if min(one.shape, default=0) < 0 or one.dtype not in _BITS:
        raise Unreadable(f"damaged: tensor {name!r} is a {one.dtype} of shape {one.shape}")
    if start < 0 or 8 * (end - start) != _BITS[one.dtype] * math.prod(one.shape):
        raise Unreadable(
            f"damaged: tensor {name!r} is a {one.dtype} of shape {one.shape} in {end - start} bytes"
        )
    return Stored(one.dtype, tuple(one.shape), start, end)
