"""The layout of the compact file of a language model, as docs/language-models.md describes it."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Annotated

import msgspec

from winticket.lm.compact.masks import MaskEntry
from winticket.lm.compact.planes import WIDTHS
from winticket.outside import Stored, Unreadable, header_size, read_header

VERSION = 1
NAME = "winticket language model"
FORMAT, CHECKSUM = "format", "crc32"
"""The entries of the safetensors metadata: `NAME` and the version; the CRC-32 of the tensor `document`."""
DOCUMENT, FILE, TENSOR = "document", "file/", "tensor/"
"""The tensors of the file: the document; what a file of the folder holds beside tensors; each coded tensor."""
MASK = "mask/"
"""What the masks' names begin with in a ticket file, before the names of their weights."""
LONGEST = 16 << 20
"""Most bytes of the document, and of the header of a safetensors file in it, once they are inflated."""
LARGEST = 256 << 20
"""Most bytes of a file that holds no tensors."""
DENSEST, SMALLEST_SHARE = 256 << 20, 1100
"""A pruned tensor of more bytes than the first takes at least a share of 1 / the second of them coded.

So a small file makes nobody allocate a large tensor; a density of .001 and more fits.
"""
MOST_FILES = 10_000
MOST_ELEMENTS = 1 << 32
"""Most elements of a tensor."""
_Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 50)]
_Checksum = Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]
_Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class CompactModelError(ValueError):
    """The file is no readable compact file of a language model; the message says why."""


class FileEntry(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A file of the folder. tensors: whether it is a safetensors file, of which only the header is stored as such."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    bytes: _Count
    sha256: _Digest
    crc32: _Checksum
    tensors: bool = False


class TensorEntry(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A coded tensor: its mask if it has one, which of its pruned elements are -0.0 if any are, then its values."""

    crc32: _Checksum
    mask: MaskEntry | None = None
    negative: MaskEntry | None = None


class Document(msgspec.Struct, forbid_unknown_fields=True):
    """The JSON document, deflated in the tensor `document`."""

    files: Annotated[list[FileEntry], msgspec.Meta(max_length=MOST_FILES)]
    tensors: dict[str, TensorEntry]


class TensorFile:
    """A safetensors file whose tensors are read one by one; of the file itself, only the header is in memory.

    Raises Unreadable, with the reason, if it is none; OSError if it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as stream:
            self.size = os.fstat(stream.fileno()).st_size
            start = stream.read(8)
            self.start = header_size(start)
            self.header = start + stream.read(self.start - 8)
        self.tensors, self.metadata = read_header(self.header, whole=False)
        end = self.start + max((one.end for one in self.tensors.values()), default=0)
        if end != self.size:
            lack = "truncated" if self.size < end else "damaged"
            raise Unreadable(f"{lack}: its header and tensors need {end} bytes, but it has {self.size}")

    def in_order(self) -> list[tuple[str, Stored]]:
        """The tensors in the order in which the file has them."""
        return ordered(self.tensors)


def ordered(tensors: dict[str, Stored]) -> list[tuple[str, Stored]]:
    """Tensors in the order of their file; among those without elements, the order does not matter."""
    return sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end))


def width_of(name: str, stored: Stored) -> tuple[int, int]:
    """(Elements, bytes of each) of a tensor. Raises Unreadable for more elements than MOST_ELEMENTS."""
    count = math.prod(stored.shape)
    if count > MOST_ELEMENTS:
        raise Unreadable(f"tensor {name!r} has {count} elements, and {MOST_ELEMENTS} is most")
    width = (stored.end - stored.start) // count if count else 1
    if width not in WIDTHS:  # pragma: no cover - no safetensors type has another
        raise Unreadable(f"tensor {name!r} is a {stored.dtype}, whose elements have {width} bytes")
    return count, width
