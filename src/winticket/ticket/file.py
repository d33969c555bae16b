"""The ticket file: one safetensors file that any program can read.

Tensors, by group:
    mask/<name>       uint8 [ceil(n / 8)]: the layer's n mask bits in row-major order, first bit highest
                      (numpy.packbits), 1 = alive; the last byte is padded with zeros
    weights/<name>    all parameters at the start step, eligible or not, exactly as the state held them
                      (a pruned weight may have any value, so multiply by the mask)
    buffers/<name>    buffers at the start step
    optimizer/<name>  optimiser state at the start step, if any

The safetensors metadata has one entry, "winticket", a JSON object:
    version         of this layout, an integer; a reader refuses a newer one
    origin, step, seeds {root, replicate}, about (model, recipe, data fingerprint, ...)
    tensors         {group: [names]} in the order of the model
    density         kept / eligible;  model_density: the same over all parameters
    layers          {name: {kept, total, shape}} of the eligible layers, with `layout` if it is not the usual one
    excluded        names of the parameters that are not eligible
    written_by      versions of winticket, torch, numpy, python
    sha256          over this object without "sha256" (JSON, sorted keys, no spaces, ASCII) and then, sorted
                    by name, each tensor's name, dtype as safetensors calls it, shape as JSON (each of the
                    three followed by a line feed) and bytes
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from winticket.atomic import replace_file
from winticket.bits import pack_bits, unpack_bits
from winticket.outside import Stored, Unreadable, converted, header_size, read_file, read_header, read_json
from winticket.units import Layout
from winticket.version import __version__

FORMAT_VERSION = 1
GROUPS = ("mask", "weights", "buffers", "optimizer")
_KEY = "winticket"
_Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class _Layer(msgspec.Struct):
    kept: _Count
    total: _Count
    shape: list[_Count]
    layout: Layout | None = None


class _Seeds(msgspec.Struct):
    root: int
    replicate: int
    noise: int = 0


class _Version(msgspec.Struct):
    version: int


class _Document(msgspec.Struct):
    """The types of the metadata's entry, as the module's docstring specifies."""

    version: int
    origin: str
    step: _Count
    seeds: _Seeds
    about: dict[str, Any]
    tensors: dict[str, list[str]]
    density: float
    layers: dict[str, _Layer]
    excluded: list[str]
    sha256: str


class TicketFileError(ValueError):
    """The file is not a readable ticket; the message says why and what to do.

    >>> from winticket.ticket import Ticket, TicketFileError
    >>> try:
    ...     Ticket.load("no-such.safetensors")
    ... except TicketFileError as error:
    ...     print(error)
    there is no ticket file at no-such.safetensors; check the path
    """


def write(path: Path, *, tensors: Mapping[str, Mapping[str, Tensor]], document: Mapping[str, Any]) -> None:
    """Write the groups of tensors and the JSON document to `path`, whole or not at all.

    `tensors` maps each of GROUPS to its tensors; the tensors of "mask" are bool and are packed. Raises OSError if the
    file cannot be written; then nothing is left behind.
    """
    flat = {
        f"{group}/{name}": pack_bits(tensor)
        if group == "mask"
        else tensor.detach().cpu().contiguous().clone()
        for group in GROUPS
        for name, tensor in tensors[group].items()
    }
    signed = {
        **document,
        "version": FORMAT_VERSION,
        "tensors": {group: list(tensors[group]) for group in GROUPS},
        "written_by": {
            "winticket": __version__,
            "torch": str(torch.__version__),
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }
    header, data = _split(save_safetensors(flat))
    signed["sha256"] = _checksum(signed, header, data)
    # A single metadata key, because safetensors orders several at random and equal tickets should be equal files.
    replace_file(path, save_safetensors(flat, metadata={_KEY: json.dumps(signed)}))


def read(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """The groups of tensors and the document that `write` put into `path`.

    Raises TicketFileError if the file is absent, not safetensors, truncated, not a ticket, of a newer format, or
    damaged.
    """
    try:
        content = read_file(path)
        header, metadata = read_header(content)
    except FileNotFoundError:
        raise TicketFileError(f"there is no ticket file at {path}; check the path") from None
    except OSError as error:
        raise TicketFileError(f"the ticket file {path} cannot be read: {error.strerror}") from error
    except Unreadable as error:
        raise TicketFileError(f"{path} is {error}; copy or save it again") from error
    document, layers = _trusted_document(path, metadata, header, content)
    try:
        flat = load_safetensors(content)
        groups = {
            group: {name: flat[f"{group}/{name}"] for name in document["tensors"][group]} for group in GROUPS
        }
        groups["mask"] = {
            name: unpack_bits(bits, math.prod(layers[name].shape)).reshape(layers[name].shape)
            for name, bits in groups["mask"].items()
        }
        for name, keep in groups["mask"].items():
            if (int(keep.sum()), keep.numel()) != (layers[name].kept, layers[name].total):
                raise ValueError(
                    f"the mask of layer {name!r} keeps {int(keep.sum())} of {keep.numel()} weights, but the metadata "
                    f"say {layers[name].kept} of {layers[name].total}"
                )
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise TicketFileError(f"{path} is damaged: its parts do not fit together ({error})") from error
    return groups, document


def _split(content: bytes) -> tuple[dict[str, Any], bytes]:
    """The header (JSON object) and tensor bytes of safetensors content that is known to be valid."""
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), content[end:]


def _trusted_document(
    path: Path, metadata: Mapping[str, str], header: Mapping[str, Stored], content: bytes
) -> tuple[dict[str, Any], dict[str, _Layer]]:
    """The "winticket" object of the header. Raises TicketFileError if it is absent, newer, or fails its checksum."""
    if metadata.get("format", "").startswith("winticket compact "):
        raise TicketFileError(
            f"{path} is a compact file, which `winticket ship` wrote, and not a ticket: winticket.ship.load reads it, "
            "and winticket.ship.to_c, to_onnx and to_tflite write other formats of it"
        )
    if _KEY not in metadata:
        raise TicketFileError(
            f"{path} is a safetensors file but not a ticket: its metadata has no {_KEY!r} entry "
            f"(entries: {', '.join(metadata) or 'none'}); Ticket.save writes tickets"
        )
    try:
        version = read_json(metadata[_KEY], _Version).version
        if version > FORMAT_VERSION:
            raise TicketFileError(
                f"{path} has format version {version}; winticket {__version__} reads up to {FORMAT_VERSION}: "
                "upgrade winticket"
            )
        document = read_json(metadata[_KEY], dict[str, Any])
        layers = converted(document, _Document).layers
    except Unreadable as error:
        raise TicketFileError(f"{path} is damaged: its {_KEY!r} metadata cannot be read ({error})") from error
    entries = {
        name: {"dtype": one.dtype, "shape": list(one.shape), "data_offsets": [one.start, one.end]}
        for name, one in header.items()
    }
    data = content[header_size(content) :]
    try:
        sound = document["sha256"] == _checksum(document, entries, data)
    except (TypeError, KeyError, ValueError, RecursionError):
        sound = False
    if not sound:
        raise TicketFileError(f"{path} is damaged: its checksum does not match; copy or save it again")
    return document, layers


def _checksum(document: Mapping[str, Any], header: Mapping[str, Any], data: bytes) -> str:
    """SHA-256, in hex, as the module's docstring specifies."""
    unsigned = {key: value for key, value in document.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps(unsigned, sort_keys=True, separators=(",", ":")).encode())
    for name in sorted(name for name in header if name != "__metadata__"):
        entry = header[name]
        shape = json.dumps(entry["shape"], separators=(",", ":"))
        digest.update(f"{name}\n{entry['dtype']}\n{shape}\n".encode())
        digest.update(data[slice(*entry["data_offsets"])])
    return digest.hexdigest()
