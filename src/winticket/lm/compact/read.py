"""Read the compact file of a language model back into its folder: tensor after tensor, checked, or refused."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from winticket.atomic import filling
from winticket.lm.compact import masks, planes
from winticket.lm.compact.layout import (
    CHECKSUM,
    DENSEST,
    DOCUMENT,
    FILE,
    FORMAT,
    LARGEST,
    LONGEST,
    MASK,
    NAME,
    SMALLEST_SHARE,
    TENSOR,
    VERSION,
    CompactModelError,
    Document,
    FileEntry,
    TensorFile,
    ordered,
    width_of,
)
from winticket.lm.progress import Say
from winticket.outside import Unreadable, read_header, read_json
from winticket.ship.coding import CodingError


class PackedModel:
    """A compact file of a language model, with its header and document read and checked, and nothing else.

    Raises CompactModelError, with the reason, if there is no such file, or if it is damaged or another kind of file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.sizes: dict[str, int] = {}
        try:
            self.file = TensorFile(self.path)
            _check_format(self.file.metadata)
            self.stream = self.path.open("rb")
        except FileNotFoundError:
            raise CompactModelError(f"there is no file at {path}; check the path") from None
        except OSError as error:
            raise CompactModelError(f"the file {path} cannot be read: {error.strerror}") from error
        except Unreadable as error:
            raise CompactModelError(f"{path} is {error}") from error
        try:
            self.document = self._document()
        except (Unreadable, CompactModelError) as error:
            self.close()
            raise CompactModelError(f"{path} is damaged: {error}") from error

    def __enter__(self) -> PackedModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self.stream.close()

    def _document(self) -> Document:
        try:
            checksum = int(self.file.metadata.get(CHECKSUM, ""), 16)
        except ValueError:
            raise Unreadable("its metadata have no checksum") from None
        document = read_json(_inflated(self.bytes_of(DOCUMENT, checksum), LONGEST), Document)
        names = {
            DOCUMENT,
            *(FILE + one.name for one in document.files),
            *(TENSOR + t for t in document.tensors),
        }
        if names != self.file.tensors.keys() or len({one.name for one in document.files}) < len(
            document.files
        ):
            raise Unreadable("its document lists other tensors than its header")
        for one in document.files:
            if one.name != Path(one.name).name or one.name.startswith(".") or set(one.name) & set("/\\:\0"):
                raise Unreadable(f"it names a file {one.name!r}, which is no plain name")
        return document

    def bytes_of(self, name: str, checksum: int) -> bytes:
        """The bytes of a stored tensor. Unreadable if there is none or its CRC-32 is another."""
        stored = self.file.tensors.get(name)
        if stored is None:
            raise Unreadable(f"it lacks {name!r}")
        self.stream.seek(self.file.start + stored.start)
        content = self.stream.read(stored.end - stored.start)
        if zlib.crc32(content) != checksum:
            raise Unreadable(f"the checksum of {name!r} does not match; copy or pack it again")
        return content

    def parts(self, file: FileEntry) -> Iterator[bytes]:
        """The bytes of a file of the folder, part by part. Unreadable or CodingError if they are damaged."""
        most = LONGEST if file.tensors else LARGEST
        begin = _inflated(self.bytes_of(FILE + file.name, file.crc32), most)
        yield begin
        if not file.tensors:
            return
        for name, stored in ordered(read_header(begin, whole=False)[0]):
            count, width = width_of(name, stored)
            if name in self.document.tensors:
                self.sizes[name] = count
                yield from self.values(name, count, width)
            else:
                yield self.packed_mask(name)

    def packed_mask(self, name: str) -> bytes:
        """The mask of a weight as ticket files have it, a bit for each element; the weight came before."""
        weight = name.removeprefix(MASK)
        entry = self.document.tensors.get(weight)
        if not name.startswith(MASK) or entry is None or entry.mask is None or weight not in self.sizes:
            raise Unreadable(f"it lacks the tensor {name!r}")
        content = self.bytes_of(TENSOR + weight, entry.crc32)
        return np.packbits(_mask(content, 0, self.sizes[weight], entry.mask)).tobytes()

    def values(self, name: str, count: int, width: int) -> Iterator[bytes]:
        """The bytes of a coded tensor."""
        entry = self.document.tensors[name]
        content = self.bytes_of(TENSOR + name, entry.crc32)
        if entry.mask is None:
            for block in planes.decode(memoryview(content), count, width):
                yield block.tobytes()
            return
        if count * width > max(DENSEST, SMALLEST_SHARE * len(content)):
            raise Unreadable(f"{len(content)} bytes of {name!r} cannot be {count} elements")
        keep = _mask(content, 0, count, entry.mask)
        dense, at = np.zeros(count, f"<u{width}"), entry.mask.bytes
        if entry.negative is not None:
            rest = np.zeros(count - entry.mask.kept, dense.dtype)
            rest[_mask(content, at, len(rest), entry.negative)] = 1 << (8 * width - 1)
            dense[~keep] = rest
            at += entry.negative.bytes
        blocks = list(planes.decode(memoryview(content)[at:], entry.mask.kept, width))
        dense[keep] = np.concatenate(blocks) if blocks else np.empty(0, dense.dtype)
        yield dense.tobytes()


def read(model: PackedModel, folder: Path | None, say: Say) -> int:
    """Restore all files into an empty folder, or only check that they can be, if it is None; their bytes.

    Raises CompactModelError if the file is damaged: each file of the folder has a SHA-256 that it must have again.
    """
    total, done, began = sum(one.bytes for one in model.document.files), 0, time.monotonic()
    model.sizes.clear()
    for file in model.document.files:
        digest, size = hashlib.sha256(), 0
        try:
            with (folder / file.name if folder else Path(os.devnull)).open("wb") as stream:
                for part in model.parts(file):
                    size += len(part)
                    if size > file.bytes:
                        raise Unreadable(
                            f"{file.name} has more than the {file.bytes} bytes that it is to have"
                        )
                    digest.update(part)
                    stream.write(part)
                    passed = time.monotonic() - began
                    left = passed * (total - done - size) / (done + size) if done + size else None
                    say(f"{'Unpacking' if folder else 'Checking'} {file.name}", left)
        except (Unreadable, CodingError) as error:
            raise CompactModelError(f"{model.path} is damaged: {file.name}: {error}") from error
        if digest.hexdigest() != file.sha256:
            raise CompactModelError(f"{model.path} is damaged: {file.name} comes out with another SHA-256")
        done += size
    return done


def restore(model: PackedModel, out: Path, say: Say) -> int:
    """Write the folder of a packed model, whole or not at all; the bytes of its files.

    Raises CompactModelError if the file is damaged, ValueError if the disk has no room for the folder.
    """
    needed = sum(one.bytes for one in model.document.files)
    out.parent.mkdir(parents=True, exist_ok=True)
    if needed > (free := shutil.disk_usage(out if out.is_dir() else out.parent).free):
        raise ValueError(f"{out} takes {needed} bytes, and the disk has {free} left; choose another --out")
    with filling(out) as new:
        return read(model, new, say)


def is_packed(path: Path) -> bool:
    """Whether a path is a compact file of a language model, perhaps a damaged one.

    >>> is_packed(Path("no-such.safetensors"))
    False
    """
    if path.suffix != ".safetensors" or not path.is_file():
        return False
    with path.open("rb") as stream:
        return f'"{NAME} '.encode() in stream.read(4096)


def _mask(content: bytes, at: int, count: int, entry: masks.MaskEntry) -> masks.Flags:
    """A mask of `count` elements whose code begins at a byte of a tensor's content."""
    return masks.decode(np.frombuffer(content, np.uint8)[at : at + entry.bytes], count, entry)


def _check_format(metadata: Mapping[str, str]) -> None:
    name, _, version = metadata.get(FORMAT, "").rpartition(" ")
    if name != NAME or len(version) > 9 or not version.isdecimal():
        raise Unreadable(
            "no compact file of a language model, which winticket ship FOLDER --to compact writes"
        )
    if int(version) > VERSION:
        raise Unreadable(
            f"a compact file of version {version}, and this winticket reads up to {VERSION}: upgrade it"
        )


def _inflated(deflated: bytes, most: int) -> bytes:
    """Bytes in zlib's format, within bounds."""
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(deflated, most)
    except zlib.error as error:
        raise Unreadable(f"it cannot be inflated ({error})") from error
    if not stream.eof or stream.unused_data:
        raise Unreadable(f"it is cut off, has more than {most} bytes, or is followed by something else")
    return content
