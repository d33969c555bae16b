"""Read the compact file of a network: within bounds, checked, or refused with a clear message."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt

from winticket.outside import Stored, Unreadable, converted, header_size, read_header, read_json
from winticket.ship import coding
from winticket.ship.coding import CodingError
from winticket.ship.compact_layout import (
    ARRAYS,
    CHECKSUM,
    FORMAT,
    KINDS_OF_VALUES,
    LONGEST,
    NAME,
    PARTS,
    VERSION,
    Document,
    TensorEntry,
)
from winticket.ship.kinds import KINDS
from winticket.ship.network import (
    INPUT,
    MOST_INPUTS,
    MOST_POSITIONS,
    Network,
    NetworkError,
    Operation,
    Preprocessing,
    Weight,
)

Array = npt.NDArray[Any]
_Inputs = Annotated[tuple[str, ...], msgspec.Meta(max_length=MOST_INPUTS)]


def decode(content: bytes) -> Network:
    """The network in the bytes of a compact file. Raises Unreadable, with the reason."""
    header, metadata = read_header(content)
    _check_format(metadata)
    data = memoryview(content)[header_size(content) :]
    if metadata.get(CHECKSUM) != f"{zlib.crc32(data):08x}":
        raise Unreadable("damaged: its checksum does not match; copy or save it again")
    parts = _parts(header, data)
    try:
        document = read_json(_inflated(parts.pop("network", np.empty(0, np.uint8))), Document)
    except Unreadable as error:
        raise Unreadable(f"damaged: its description: {error}") from error
    # Only int8 files have `floats`; a network without any weight of two axes has nothing else.
    reader = _Reader(
        parts, header["values"].dtype if "values" in parts else "I8" if "floats" in parts else "F32"
    )
    try:
        network = _network(document, reader)
    except (NetworkError, CodingError) as error:
        raise Unreadable(f"damaged: {error}") from error
    reader.check_finished()
    return network


def _check_format(metadata: Mapping[str, str]) -> None:
    name, _, version = metadata.get(FORMAT, "").rpartition(" ")
    if name == NAME and len(version) < 10 and version.isdecimal() and int(version) > VERSION:
        raise Unreadable(
            f"a compact file of version {version}, and this winticket reads up to {VERSION}: upgrade it"
        )
    if name == NAME and version == str(VERSION):
        return
    if "winticket" in metadata:
        raise Unreadable(
            "a ticket, a mask and the start of a training, and no compact file: use winticket.Ticket.load"
        )
    if name == "winticket language model":
        raise Unreadable(
            "the compact file of a language model and not of a network: winticket ship FILE --to hub makes its folder"
        )
    entries = ", ".join(metadata) or "none"
    raise Unreadable(
        f"a safetensors file but no compact file: its metadata lack {FORMAT!r} of {NAME!r} (entries: {entries})"
    )


def _inflated(deflated: Array) -> bytes:
    """The document's bytes, within bounds."""
    stream = zlib.decompressobj()
    try:
        text = stream.decompress(deflated.tobytes(), LONGEST)
    except zlib.error as error:
        raise Unreadable(f"it cannot be inflated ({error})") from error
    if not stream.eof or stream.unused_data:
        raise Unreadable(f"it is cut off, has more than {LONGEST} bytes, or is followed by something else")
    return text


def _parts(header: Mapping[str, Stored], data: memoryview) -> dict[str, Array]:
    for name, one in header.items():
        if name not in PARTS or one.dtype not in PARTS[name] or len(one.shape) != 1:
            raise Unreadable(
                f"damaged: it has a tensor {name!r}, {one.dtype} of shape {list(one.shape)}; a compact file has "
                f"{', '.join(PARTS)} of one axis"
            )
    return {name: np.frombuffer(data[one.start : one.end], ARRAYS[one.dtype]) for name, one in header.items()}


def _network(document: Document, reader: _Reader) -> Network:
    ready = document.preprocessing
    return Network(
        tuple(document.input),
        tuple(reader.operation(entry, number) for number, entry in enumerate(document.operations, 1)),
        None if ready is None else Preprocessing(ready.scale, tuple(ready.mean), tuple(ready.deviation)),
        tuple(document.classes),
        document.about,
    )


class _Reader:
    """Takes the arrays of the file apart, in the order in which `_Writer` put them together."""

    def __init__(self, parts: Mapping[str, Array], dtype: str) -> None:
        self.parts, self.kind = parts, KINDS_OF_VALUES[dtype]
        self.at = dict.fromkeys(PARTS, 0)
        self.known: dict[str, Weight] = {}

    def take(self, part: str, count: int, name: str) -> Array:
        array, at = self.parts.get(part, np.empty(0, np.uint8)), self.at[part]
        if count > len(array) - at:
            raise Unreadable(
                f"damaged: tensor {name!r} needs {count} more {part}, but {len(array) - at} are left"
            )
        self.at[part] = at + count
        return array[at : at + count]

    def check_finished(self) -> None:
        for part, array in self.parts.items():
            if self.at[part] != len(array):
                raise Unreadable(
                    f"damaged: {len(array) - self.at[part]} of its {part} belong to no operation"
                )

    def operation(self, entry: Mapping[str, Any], number: int) -> Operation:
        what = f"operation {number}"
        kind = entry.get("kind")
        if not isinstance(kind, str) or kind not in KINDS:
            raise Unreadable(
                f"damaged: {what} is of the kind {str(kind)[:40]!r}; there are {', '.join(KINDS)}"
            )
        roles = (*KINDS[kind].required, *KINDS[kind].optional)
        before = INPUT if number == 1 else str(number - 1)
        options = {
            name: value for name, value in entry.items() if name not in ("kind", "inputs", "output", *roles)
        }
        try:
            inputs = converted(entry.get("inputs", [before]), _Inputs)
            output = converted(entry.get("output", str(number)), str)
            # In the order of the document, which is the order of the file: other writers may name a bias first.
            tensors = {role: converted(value, TensorEntry) for role, value in entry.items() if role in roles}
        except Unreadable as error:
            raise Unreadable(f"damaged: {what} ({kind}): {error}") from error
        weights = {role: self.tensor(tensor) for role, tensor in tensors.items()}
        return Operation(kind, inputs, output, options, weights)

    def tensor(self, entry: TensorEntry) -> Weight:
        if entry.shape is None:
            if entry.name not in self.known:
                raise Unreadable(
                    f"damaged: tensor {entry.name!r} has no shape, and no such tensor came before"
                )
            return self.known[entry.name]
        shape = tuple(entry.shape)
        size = math.prod(shape)
        if entry.name in self.known or size > MOST_POSITIONS:
            why = (
                "there twice"
                if entry.name in self.known
                else f"of {size} elements, and {MOST_POSITIONS} is most"
            )
            raise Unreadable(f"damaged: tensor {entry.name!r} is {why}")
        positions = self.positions(entry, size)
        values, scales = self.values(entry.name, shape, positions)
        weight = self.known[entry.name] = Weight(entry.name, shape, values, positions, scales)
        return weight

    def positions(self, entry: TensorEntry, size: int) -> coding.Integers | None:
        if entry.kept is None or (entry.rice is None) != (entry.bytes is None):
            if entry.kept is not None or entry.rice is not None or entry.bytes is not None:
                raise Unreadable(
                    f"damaged: tensor {entry.name!r} needs kept, or kept, rice and bytes, or none of them"
                )
            return None
        try:
            if entry.rice is None or entry.bytes is None:
                stream = self.take("masks", -(-size // 8), entry.name)
                return coding.positions_of_bits(stream, size, entry.kept)
            stream = self.take("masks", entry.bytes, entry.name)
            return coding.positions_of_rice(stream, size, entry.kept, entry.rice)
        except CodingError as error:
            raise Unreadable(f"damaged: tensor {entry.name!r}: {error}") from error

    def values(
        self, name: str, shape: tuple[int, ...], positions: coding.Integers | None
    ) -> tuple[coding.Floats, coding.Floats | None]:
        """(Values, scales of int8 values or None) of the kept elements."""
        count = math.prod(shape) if positions is None else len(positions)
        if self.kind != "int8":
            return coding.restored(self.take("values", count, name), self.kind), None
        if len(shape) < 2:
            return self.take("floats", count, name).astype(np.float32), None
        whole = self.take("values", count, name)
        if (whole < -coding.LEVELS).any():
            raise Unreadable(f"damaged: tensor {name!r} has an int8 value of -128; values are -127 to 127")
        scales = self.take("floats", shape[0], name).astype(np.float32)
        with np.errstate(over="ignore"):  # Weight refuses what is not finite
            return whole.astype(np.float32) * scales[coding.units_of(positions, shape)], scales
