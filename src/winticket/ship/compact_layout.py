"""The layout of the compact file, as docs/compact-file.md describes it: its tensors, their types, its document."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from winticket.ship.coding import Values
from winticket.ship.network import MOST_OPERATIONS, MOST_POSITIONS

VERSION = 1
FORMAT, CHECKSUM = "format", "crc32"
"""The entries of the safetensors metadata: `NAME` and the version; the CRC-32 of all bytes behind the header."""
NAME = "winticket compact"
LONGEST = 4 << 20
"""Most bytes of the document once it is inflated; the objects that it becomes may take thirty times as many."""
KINDS_OF_VALUES: dict[str, Values] = {"F32": "fp32", "F16": "fp16", "BF16": "bf16", "I8": "int8"}
ARRAYS = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "I8": "i1", "U8": "u1"}
"""numpy's types of the tensors; it has none for bfloat16."""
PARTS = {"values": {"F32", "F16", "BF16", "I8"}, "floats": {"F32"}, "masks": {"U8"}, "network": {"U8"}}
"""The tensors of the file, and the types that each may have."""
_Size = Annotated[int, msgspec.Meta(ge=1, le=MOST_POSITIONS)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=MOST_POSITIONS)]


class TensorEntry(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A tensor of an operation. Only the name: the tensor of that name, which came before."""

    name: str
    shape: Annotated[list[_Size], msgspec.Meta(max_length=8)] | None = None
    kept: _Count | None = None
    rice: _Count | None = None
    bytes: _Count | None = None


class PreprocessingEntry(msgspec.Struct, forbid_unknown_fields=True):
    """What turns raw data into inputs; see `winticket.ship.Preprocessing`."""

    scale: float
    mean: list[float]
    deviation: list[float]


class Document(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The JSON document, deflated in the tensor `network`."""

    input: Annotated[list[_Size], msgspec.Meta(max_length=8)]
    operations: Annotated[list[dict[str, Any]], msgspec.Meta(max_length=MOST_OPERATIONS)]
    preprocessing: PreprocessingEntry | None = None
    classes: list[str] = []
    about: dict[str, Any] = {}
