"""Write the compact file of a network."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import msgspec
import numpy as np
import numpy.typing as npt

from winticket.ship import coding
from winticket.ship.coding import BITS, Values
from winticket.ship.compact_layout import (
    CHECKSUM,
    FORMAT,
    KINDS_OF_VALUES,
    LONGEST,
    NAME,
    PARTS,
    VERSION,
    Document,
    PreprocessingEntry,
    TensorEntry,
)
from winticket.ship.kinds import KINDS
from winticket.ship.network import INPUT, Network, Operation, Weight

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Sizes:
    """What a compact file consists of, in bytes.

    file         all of it
    description  header: the operations, names and shapes
    masks, values  the coded masks; the kept values, biases and scales
    information  what masks and values hold at least: the entropy of each mask, and the bits of the values
    """

    file: int
    description: int
    masks: int
    values: int
    information: float


def encode(network: Network, *, values: str = "fp32") -> tuple[bytes, Sizes]:
    """The bytes of a compact file, and what they are. Errors as for `save`."""
    writer = _Writer(coding.check_values(values))
    operations = [
        writer.operation(operation, number) for number, operation in enumerate(network.operations, 1)
    ]
    ready = network.preprocessing
    document = Document(
        input=list(network.input_shape),
        operations=operations,
        preprocessing=None
        if ready is None
        else PreprocessingEntry(ready.scale, list(ready.mean), list(ready.deviation)),
        classes=list(network.classes),
        about=dict(network.about),
    )
    text = json.dumps(
        msgspec.to_builtins(document), separators=(",", ":"), allow_nan=False, ensure_ascii=False
    )
    if len(text.encode()) > LONGEST:
        raise ValueError(
            f"the description of the network has {len(text.encode())} bytes, and {LONGEST} is most: shorten `about` "
            "or the names of tensors and classes"
        )
    parts = {name: np.concatenate(arrays) for name, arrays in writer.parts.items() if arrays}
    parts["network"] = np.frombuffer(zlib.compress(text.encode(), 9), np.uint8)
    content = _safetensors(parts, writer.dtypes())
    sizes = {name: array.nbytes for name, array in parts.items()}
    held = sizes.get("values", 0) + sizes.get("floats", 0)
    description = len(content) - held - sizes.get("masks", 0)
    return content, Sizes(len(content), description, sizes.get("masks", 0), held, writer.information / 8)


def _safetensors(parts: Mapping[str, Array], dtypes: Mapping[str, str]) -> bytes:
    """A safetensors file, wide types first so that all are aligned."""
    order = sorted(parts, key=lambda name: (-parts[name].itemsize, name))
    data = b"".join(parts[name].tobytes() for name in order)
    about = {FORMAT: f"{NAME} {VERSION}", CHECKSUM: f"{zlib.crc32(data):08x}"}
    header: dict[str, Any] = {"__metadata__": about}
    at = 0
    for name in order:
        end = at + parts[name].nbytes
        header[name] = {"dtype": dtypes[name], "shape": [len(parts[name])], "data_offsets": [at, end]}
        at = end
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    return len(encoded).to_bytes(8, "little") + encoded + data


class _Writer:
    """Collects the arrays of the file, tensor after tensor, and counts their information in bits."""

    def __init__(self, values: Values) -> None:
        self.values: Values = values
        self.parts: dict[str, list[Array]] = {name: [] for name in PARTS}
        self.known: set[str] = set()
        self.information = 0.0

    def dtypes(self) -> dict[str, str]:
        of = {kind: dtype for dtype, kind in KINDS_OF_VALUES.items()}
        return {"values": of[self.values], "floats": "F32", "masks": "U8", "network": "U8"}

    def operation(self, operation: Operation, number: int) -> dict[str, Any]:
        """An operation as the document holds it: what follows from its position or is a default is left out."""
        defaults = {f.name: f.default for f in msgspec.structs.fields(KINDS[operation.kind].options)}
        before = INPUT if number == 1 else str(number - 1)
        entry: dict[str, Any] = {"kind": operation.kind}
        if operation.inputs != (before,):
            entry["inputs"] = list(operation.inputs)
        if operation.output != str(number):
            entry["output"] = operation.output
        entry |= {name: value for name, value in operation.options.items() if value != defaults[name]}
        return entry | {role: self.tensor(weight) for role, weight in operation.tensors.items()}

    def tensor(self, weight: Weight) -> dict[str, Any]:
        entry = TensorEntry(weight.name)
        if weight.name not in self.known:
            self.known.add(weight.name)
            entry.shape = list(weight.shape)
            if weight.positions is not None:
                self.mask(entry, weight, weight.positions)
            self.put(weight)
        return cast("dict[str, Any]", msgspec.to_builtins(entry))

    def mask(self, entry: TensorEntry, weight: Weight, positions: coding.Integers) -> None:
        """The mask by the shorter of the two codes; bits win a tie."""
        entry.kept = len(positions)
        low, count = coding.best_rice(positions)
        if count < -(-weight.size // 8):
            entry.rice, entry.bytes = low, count
            self.parts["masks"].append(coding.rice_of(positions, low))
        else:
            self.parts["masks"].append(coding.bits_of(positions, weight.size))
        self.information += coding.information(weight.size, len(positions))

    def put(self, weight: Weight) -> None:
        """The kept values. In an int8 file, scales and tensors of one axis are float32, in a tensor of their own."""
        if self.values != "int8":
            self.parts["values"].append(coding.stored(weight.name, weight.values, self.values))
            self.information += len(weight.values) * BITS[self.values]
            return
        floats = weight.values
        if len(weight.shape) > 1:
            whole, floats = _whole(weight)
            self.parts["values"].append(whole)
            self.information += len(whole) * BITS["int8"]
        self.parts["floats"].append(floats.astype("<f4"))
        self.information += len(floats) * BITS["fp32"]


def _whole(weight: Weight) -> tuple[Array, coding.Floats]:
    """(int8 values, scales). Those of a weight that came from such a file go back unchanged."""
    units = coding.units_of(weight.positions, weight.shape)
    if weight.scales is not None:
        whole = coding.multiples(weight.values, weight.scales[units])
        if whole is not None:
            return whole, weight.scales
    return coding.quantised(weight.values, units, weight.shape[0])
