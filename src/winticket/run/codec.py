"""A value as one safetensors file: tensors, and a JSON tree in the header that puts them together.

Never pickle. A class is built only if it declares `__storable__ = True` and is either one of winticket's records, by
its stored name, or in a module that is already imported. The coding is exact to the bit: bool tensors are bit-packed,
float tensors that are mostly zeros (of either sign) become packed positions and values, and equal tensors are kept
once.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from winticket.run.codec_header import FORMAT, HEADER, digest_of, read_header
from winticket.run.codec_pieces import Pieces
from winticket.run.codec_reader import Reader
from winticket.run.errors import Damaged
from winticket.run.keys import Json, canonical_text


def encode(value: object, about: Mapping[str, Json] | None = None) -> bytes:
    """The file's bytes; `about` are notes beside the value, not part of its digest.

    Values: None, bool, int, float, str, bytes, list, tuple, dict with str or int keys, torch.Tensor, and
    frozen dataclasses of these that declare `__storable__ = True`.
    Raises TypeError for any other value, and names its position in the whole.
    """
    pieces = Pieces()
    tree = pieces.put(value, "")
    digest = digest_of(tree, pieces.tensors)
    note = dict(about or {})
    header: dict[str, Json] = {
        "format": FORMAT,
        "tree": tree,
        "digest": digest,
        "about": note,
        "about_digest": hashlib.sha256(canonical_text(note).encode()).hexdigest(),
    }
    return safetensors.torch.save(pieces.tensors, {HEADER: json.dumps(header, allow_nan=False)})


def decode(data: bytes, *, check: bool = True, key: str | None = None) -> object:
    """The value of a file's bytes; with `check`, digests are compared. Raises StoreError with the reason.

    If `key` is given, the file's notes have to name it, so that a file under another's name is noticed.
    """
    tree, tensors = _load(data, check=check, key=key)
    return _rebuilt(Reader(tensors), tree)


def verify(data: bytes, *, key: str | None = None) -> None:
    """Check every byte, and that the value could be built, without building its records.

    Raises StoreError with the reason, as `decode` would; only the classes of records are not looked up.
    """
    tree, tensors = _load(data, check=True, key=key)
    _rebuilt(Reader(tensors, records=False), tree)


def _rebuilt(reader: Reader, tree: object) -> object:
    try:
        return reader.get(tree)
    except (
        KeyError,
        IndexError,
        TypeError,
        ValueError,
        RuntimeError,
        AttributeError,
        OverflowError,
    ) as error:
        raise Damaged(f"the content cannot be rebuilt: {type(error).__name__}: {error}") from error
    except (RecursionError, MemoryError, struct.error) as error:
        raise Damaged(f"the content cannot be rebuilt: {type(error).__name__}") from error


def _load(data: bytes, *, check: bool, key: str | None) -> tuple[Any, dict[str, Tensor]]:
    header = read_header(data, key=key, whole=True)
    try:
        tensors = safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError, RuntimeError, KeyError) as error:
        raise Damaged(f"truncated or damaged: {error}") from error
    if check and digest_of(header["tree"], tensors) != header["digest"]:
        raise Damaged("damaged: the content does not match its digest")
    return header["tree"], tensors
