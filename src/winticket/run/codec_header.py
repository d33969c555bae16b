"""The header of a stored file: its format, the notes beside the value, and the digests of both."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec
from torch import Tensor

from winticket.bits import octets
from winticket.outside import Unreadable, read_json
from winticket.outside import header_size as whole_header
from winticket.outside import read_header as file_header
from winticket.run.errors import Damaged, StoreError
from winticket.run.keys import Json, canonical_text

FORMAT = 1
HEADER = "winticket"  # the one entry of the file's metadata


class _Header(msgspec.Struct):
    """The one entry of a file's metadata, with its types."""

    format: int
    tree: Any
    digest: str
    about: dict[str, Any]
    about_digest: str


def header_size(start: bytes) -> int:
    """How many bytes from the file's start `read_header` needs; `start` are the first eight bytes or more."""
    try:
        return whole_header(start)
    except Unreadable as error:
        raise Damaged(str(error)) from error


def read_header(data: bytes, *, key: str | None = None, whole: bool = False) -> dict[str, Any]:
    """format, tree, digest and about, from the file's first `header_size` bytes or more.

    With `whole`, `data` is the whole file, and its tensors have to fill the rest. Raises StoreError as `decode` does.
    """
    try:
        _, metadata = file_header(data, whole=whole)
        header = read_json(metadata.get(HEADER, ""), _Header)
    except Unreadable as error:
        raise Damaged(f"truncated or damaged, or not written by winticket: {error}") from error
    if header.format < 1:
        raise Damaged(f"damaged: format {header.format!r}")
    if header.format > FORMAT:
        raise StoreError(
            f"written in format {header.format} by a newer winticket; this one reads up to {FORMAT}: upgrade"
        )
    try:
        sound = hashlib.sha256(canonical_text(header.about).encode()).hexdigest() == header.about_digest
    except (ValueError, RecursionError):
        sound = False
    if not sound:
        raise Damaged("damaged: the notes do not match their digest")
    if key is not None and header.about.get("key") != key:
        other = str(header.about.get("key"))[:12]
        raise Damaged(f"damaged: it is the file of task {other}, not of this task")
    return msgspec.structs.asdict(header)


def digest_of(tree: Json, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 (hexadecimal) of a JSON tree and of its tensors. Raises Damaged for a tree that is no JSON."""
    try:
        whole = hashlib.sha256(canonical_text(tree).encode())
    except (ValueError, RecursionError) as error:
        raise Damaged(f"damaged: {type(error).__name__} in its tree") from error
    for name in sorted(tensors):
        t = tensors[name]
        whole.update(f"\n{name} {t.dtype} {tuple(t.shape)}\n".encode())
        whole.update(octets(t).numpy().data)
    return whole.hexdigest()
