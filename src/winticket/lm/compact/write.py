"""Write the compact file of a pruned language model, tensor after tensor."""

from __future__ import annotations

import hashlib
import json
import math
import time
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np

from winticket.atomic import replacing
from winticket.lm.compact import masks, planes
from winticket.lm.compact.layout import (
    CHECKSUM,
    DOCUMENT,
    FILE,
    FORMAT,
    LARGEST,
    LONGEST,
    MASK,
    NAME,
    TENSOR,
    VERSION,
    Document,
    FileEntry,
    TensorEntry,
    TensorFile,
    width_of,
)
from winticket.lm.compact.masks import Flags
from winticket.lm.compact.planes import Numbers
from winticket.lm.files import MASKS
from winticket.lm.progress import Say
from winticket.lm.state import KINDS, state_file
from winticket.outside import Stored, Unreadable, read_file, read_json
from winticket.ship.coding import information

FLOATS = {"F8_E5M2", "F8_E4M3", "F16", "BF16", "F32", "F64"}
"""Types of weights that may be pruned: those whose highest bit is a sign, and in which 0 has no other bit."""


@dataclass(frozen=True)
class Folder:
    """A pruned model's folder, as it is packed. layers: (weights kept, `columns` of `masks.encode`) of each mask."""

    path: Path
    tensors: Mapping[str, TensorFile]
    others: Mapping[str, bytes]
    layers: Mapping[str, tuple[int, int]]
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class Sizes:
    """What a compact file of a language model consists of, in bytes.

    original           the files of the folder
    file               the compact file
    masks, values      coded masks; coded values of weights that have masks
    whole              coded tensors without masks: embeddings, norms, biases
    description        all other files of the folder, names, shapes and checksums
    information        bytes that the masks hold at least if their density is all that is known of each: its entropy
    kept, weights      weights that masks keep, and all weights that have masks
    """

    original: int
    file: int
    masks: int
    values: int
    whole: int
    description: int
    information: float
    kept: int
    weights: int


def open_folder(path: Path) -> Folder:
    """A folder that `winticket lm prune` or `tune` wrote, with only headers and small files read.

    Raises ValueError, with what is possible, if it is none, is not finished, has masks that do not fit its weights, or
    files that are no part of a model.
    """
    if any(state_file(path, kind).is_file() for kind in KINDS):
        raise ValueError(f"{path} is not finished; give the command that began it once more")
    for name in ("config.json", MASKS):
        if not (path / name).is_file():
            raise ValueError(f"{path} has no {name}; winticket lm prune and tune write folders that have one")
    tensors: dict[str, TensorFile] = {}
    others: dict[str, bytes] = {}
    left_out = []
    for file in sorted(path.iterdir()):
        if file.name.startswith(".") or not file.is_file():
            left_out.append(file.name)
            continue
        try:
            if file.suffix == ".safetensors":
                tensors[file.name] = TensorFile(file)
                if len(tensors[file.name].header) > LONGEST:
                    raise Unreadable(f"too large: its header has more than {LONGEST} bytes")
            else:
                others[file.name] = read_file(file, limit=LARGEST)
        except Unreadable as error:
            raise ValueError(f"{file} is {error}") from error
    return Folder(path, tensors, others, _layers(path, tensors), tuple(left_out))


def _layers(path: Path, tensors: Mapping[str, TensorFile]) -> dict[str, tuple[int, int]]:
    """Weight with a mask -> (weights kept, `columns`). ValueError if a mask fits no weight of the folder."""
    try:
        document = read_json(tensors[MASKS].metadata.get("winticket", ""), dict[str, Any])
        layers = {name: dict(one) for name, one in document["layers"].items()}
    except (Unreadable, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path / MASKS} is no file of masks, or damaged: {error}") from error
    found: dict[str, Stored] = {}
    for file in tensors.values():
        for name, stored in file.tensors.items():
            if name in found:
                raise ValueError(f"{path} has the tensor {name} in two files")
            found[name] = stored
    masked = {}
    for name in tensors[MASKS].tensors:
        weight = found.get(name.removeprefix(MASK))
        layer = layers.get(name.removeprefix(MASK), {})
        if not name.startswith(MASK) or weight is None or weight.dtype not in FLOATS:
            raise ValueError(f"{path / MASKS} has {name}, and there is no such weight in the other files")
        bits = found[name].end - found[name].start
        if list(weight.shape) != layer.get("shape") or bits != -(-math.prod(weight.shape) // 8):
            raise ValueError(f"{path / MASKS} does not fit {name.removeprefix(MASK)}, {list(weight.shape)}")
        units_consecutive = (layer.get("layout") or {}).get("inputs_first", False)
        columns = weight.shape[1] if units_consecutive else 0
        masked[name.removeprefix(MASK)] = (int(layer.get("kept", -1)), columns)
    return masked


def write(folder: Folder, path: Path, say: Say) -> Sizes:
    """Write the compact file, whole or not at all; what its bytes are. Errors as for `pack`."""
    with replacing(path) as new, new.open("x+b") as stream:
        writer = _Writer(folder, stream, say)
        for name, content in folder.others.items():
            writer.file(name, hashlib.sha256(content).hexdigest(), len(content), content)
        for name, file in sorted(folder.tensors.items(), key=lambda item: item[0] == MASKS):
            digest = hashlib.sha256(file.header)
            with file.path.open("rb") as source:
                source.seek(file.start)
                for tensor, stored in file.in_order():
                    writer.tensor(tensor, stored, source, digest)
            writer.file(name, digest.hexdigest(), file.size, file.header, tensors=True)
        return writer.finish()


class _Writer:
    """Writes coded tensors behind a header that is filled in at the end."""

    def __init__(self, folder: Folder, stream: IO[bytes], say: Say) -> None:
        self.folder, self.stream, self.say = folder, stream, say
        self.keep = folder.tensors[MASKS]
        self.document = Document([], {})
        self.entries: dict[str, tuple[int, int]] = {}
        self.at = self.masks = self.values = self.whole = self.kept = self.weights = 0
        self.information = 0.0
        self.began, self.done = time.monotonic(), 0
        self.original = sum(map(len, folder.others.values())) + sum(f.size for f in folder.tensors.values())
        names = [DOCUMENT, *(FILE + name for name in (*folder.others, *folder.tensors))]
        names += [TENSOR + name for file in folder.tensors.values() for name in file.tensors]
        self.room = len(_header(dict.fromkeys(names, (10**15, 2 * 10**15)), 0)) + 8
        stream.write(bytes(self.room))

    def put(self, name: str, parts: Iterable[bytes]) -> tuple[int, int]:
        """Write a tensor of bytes in parts; (its CRC-32, its length)."""
        start, checksum = self.at, 0
        for part in parts:
            checksum = zlib.crc32(part, checksum)
            self.stream.write(part)
            self.at += len(part)
        self.entries[name] = (start, self.at)
        return checksum, self.at - start

    def file(self, name: str, digest: str, size: int, content: bytes, *, tensors: bool = False) -> None:
        checksum, _ = self.put(FILE + name, [zlib.compress(content, 6)])
        self.document.files.append(FileEntry(name, size, digest, checksum, tensors))

    def tensor(self, name: str, stored: Stored, source: IO[bytes], digest: Any) -> None:
        """Write the tensor that comes next in its file, unless it is the mask of one that is written already."""
        count, width = width_of(name, stored)
        raw = source.read(stored.end - stored.start)
        digest.update(raw)
        self.done += len(raw)
        passed = time.monotonic() - self.began
        self.say(f"Packing {name}", passed * (self.original - self.done) / self.done if self.done else None)
        if name.startswith(MASK) and name.removeprefix(MASK) in self.document.tensors:
            return
        values = np.frombuffer(raw, f"<u{width}")
        if name in self.folder.layers:
            self.pruned(name, values, self.flags(name, count))
            return
        checksum, length = self.put(TENSOR + name, planes.encode(values))
        self.document.tensors[name] = TensorEntry(checksum)
        self.whole += length

    def flags(self, name: str, count: int) -> Flags:
        """The mask of a weight, from the file of masks."""
        stored = self.keep.tensors[MASK + name]
        with self.keep.path.open("rb") as source:
            source.seek(self.keep.start + stored.start)
            packed = np.frombuffer(source.read(stored.end - stored.start), np.uint8)
        return np.unpackbits(packed, count=count).view(np.bool_)

    def pruned(self, name: str, values: Numbers, keep: Flags) -> None:
        """Write a weight under its mask. Pruned elements are 0, or -0.0, which a product with a mask leaves."""
        kept, columns = self.folder.layers[name]
        mask, coded = masks.encode(keep, columns)
        if mask.kept != kept:
            raise ValueError(
                f"{MASKS} is damaged: it keeps {mask.kept} weights of {name}, and it says {kept}"
            )
        rest = values[~keep]
        negative, signs = None, b""
        if rest.any():
            if not ((rest == 0) | (rest == 1 << (8 * values.itemsize - 1))).all():
                lost = int(np.count_nonzero(rest << np.array(1, rest.dtype)))
                raise ValueError(
                    f"{lost} weights of {name} are not 0, and {MASKS} prunes them; the model was changed after "
                    "pruning. winticket lm tune changes it under its mask"
                )
            negative, stream = masks.encode(rest != 0)
            signs = stream.tobytes()
        before = coded.nbytes + len(signs)
        checksum, length = self.put(
            TENSOR + name, _joined(coded.tobytes(), signs, planes.encode(values[keep]))
        )
        self.document.tensors[name] = TensorEntry(checksum, mask, negative)
        self.masks, self.values = self.masks + before, self.values + length - before
        self.kept, self.weights = self.kept + mask.kept, self.weights + len(keep)
        self.information += information(len(keep), mask.kept) / 8

    def finish(self) -> Sizes:
        text = msgspec.json.encode(self.document)
        if len(text) > LONGEST:
            raise ValueError(f"the names of the tensors take {len(text)} bytes, and {LONGEST} is most")
        checksum, _ = self.put(DOCUMENT, [zlib.compress(text, 9)])
        header = _header(self.entries, checksum)
        self.stream.seek(0)
        self.stream.write((self.room - 8).to_bytes(8, "little") + header.ljust(self.room - 8))
        size = self.room + self.at
        description = size - self.masks - self.values - self.whole
        return Sizes(
            self.original, size, self.masks, self.values, self.whole, description,
            self.information, self.kept, self.weights,
        )  # fmt: skip


def _joined(mask: bytes, signs: bytes, values: Iterable[bytes]) -> Iterable[bytes]:
    yield from (part for part in (mask, signs) if part)
    yield from values


def _header(entries: Mapping[str, tuple[int, int]], checksum: int) -> bytes:
    about = {FORMAT: f"{NAME} {VERSION}", CHECKSUM: f"{checksum:08x}"}
    listed = {
        name: {"dtype": "U8", "shape": [end - start], "data_offsets": [start, end]}
        for name, (start, end) in entries.items()
    }
    return json.dumps({"__metadata__": about, **listed}, separators=(",", ":")).encode()
