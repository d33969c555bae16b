"""A value as one safetensors file: tensors, and a JSON tree in the header that puts them together.

Never pickle. A class is built only if it declares `__storable__ = True` and is either one of winticket's records, by
its stored name, or in a module that is already imported. The coding is exact to the bit: bool tensors are bit-packed,
float tensors that are mostly zeros (of either sign) become packed positions and values, and equal tensors are kept
once.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import math
import struct
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any, cast

import msgspec
import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from winticket.bits import octets, pack_bits, unpack_bits
from winticket.outside import Unreadable, read_json
from winticket.outside import header_size as whole_header
from winticket.outside import read_header as file_header
from winticket.run.errors import Damaged, StoreError
from winticket.run.keys import Json, canonical_text
from winticket.run.names import RECORDS, home, is_winticket, stored_name

FORMAT = 1
_HEADER = "winticket"  # the one entry of the file's metadata
_NATIVE = frozenset(  # kept under their safetensors type; other dtypes are kept as bytes
    getattr(torch, name)
    for name in "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8".split()  # noqa: SIM905
)
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_MINUS_ZERO = {1: 0x80, 2: -(1 << 15), 4: -(1 << 31), 8: -(1 << 63)}
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in vars(torch).values()
    if isinstance(dtype, torch.dtype)
}
_LARGEST = 1 << 48  # elements; no tensor has more


class _Header(msgspec.Struct):
    """The one entry of a file's metadata, with its types."""

    format: int
    tree: Any
    digest: str
    about: dict[str, Any]
    about_digest: str


def encode(value: object, about: Mapping[str, Json] | None = None) -> bytes:
    """The file's bytes; `about` are notes beside the value, not part of its digest.

    Values: None, bool, int, float, str, bytes, list, tuple, dict with str or int keys, torch.Tensor, and
    frozen dataclasses of these that declare `__storable__ = True`.
    Raises TypeError for any other value, and names its position in the whole.
    """
    pieces = _Pieces()
    tree = pieces.put(value, "")
    digest = _digest(tree, pieces.tensors)
    note = dict(about or {})
    header: dict[str, Json] = {
        "format": FORMAT,
        "tree": tree,
        "digest": digest,
        "about": note,
        "about_digest": hashlib.sha256(canonical_text(note).encode()).hexdigest(),
    }
    return safetensors.torch.save(pieces.tensors, {_HEADER: json.dumps(header, allow_nan=False)})


def decode(data: bytes, *, check: bool = True, key: str | None = None) -> object:
    """The value of a file's bytes; with `check`, digests are compared. Raises StoreError with the reason.

    If `key` is given, the file's notes have to name it, so that a file under another's name is noticed.
    """
    tree, tensors = _load(data, check=check, key=key)
    return _rebuilt(_Reader(tensors), tree)


def verify(data: bytes, *, key: str | None = None) -> None:
    """Check every byte, and that the value could be built, without building its records.

    Raises StoreError with the reason, as `decode` would; only the classes of records are not looked up.
    """
    tree, tensors = _load(data, check=True, key=key)
    _rebuilt(_Reader(tensors, records=False), tree)


def _rebuilt(reader: _Reader, tree: object) -> object:
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
    if check and _digest(header["tree"], tensors) != header["digest"]:
        raise Damaged("damaged: the content does not match its digest")
    return header["tree"], tensors


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
        header = read_json(metadata.get(_HEADER, ""), _Header)
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


def _digest(tree: Json, tensors: Mapping[str, Tensor]) -> str:
    try:
        whole = hashlib.sha256(canonical_text(tree).encode())
    except (ValueError, RecursionError) as error:
        raise Damaged(f"damaged: {type(error).__name__} in its tree") from error
    for name in sorted(tensors):
        t = tensors[name]
        whole.update(f"\n{name} {t.dtype} {tuple(t.shape)}\n".encode())
        whole.update(octets(t).numpy().data)
    return whole.hexdigest()


class _Pieces:
    """Takes a value apart; of equal pieces (dtype, shape, bytes) one is kept."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._names: dict[tuple[torch.dtype, tuple[int, ...], bytes], str] = {}

    def keep(self, tensor: Tensor, where: str) -> str:
        piece = tensor.contiguous()
        if piece.untyped_storage().nbytes() != piece.nbytes or piece.dtype not in _NATIVE:
            piece = (piece if piece.dtype in _NATIVE else octets(piece)).clone()
        same = (piece.dtype, tuple(piece.shape), hashlib.sha256(octets(piece).numpy().data).digest())
        if same not in self._names:
            name = f"{len(self.tensors):05d}{where}".encode("ascii", "backslashreplace").decode()
            # A clone, since safetensors refuses two tensors over one memory.
            self.tensors[name] = piece.clone()
            self._names[same] = name
        return self._names[same]

    def put(self, value: object, where: str) -> Json:
        if value is None or type(value) in (bool, int):
            return cast("Json", value)
        if type(value) is str:
            # JSON cannot hold half of a surrogate pair, which an undecodable file name or message may contain.
            return value if _is_text(value) else {"text": value.encode("utf-8", "surrogatepass").hex()}
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else {"float": struct.pack(">d", value).hex()}
        if isinstance(value, Tensor):
            return self.put_tensor(value, where)
        if type(value) is list:
            return [self.put(item, f"{where}/{i}") for i, item in enumerate(value)]
        if type(value) is tuple:
            return {"tuple": [self.put(item, f"{where}/{i}") for i, item in enumerate(value)]}
        if isinstance(value, Mapping):
            return {
                "dict": [[self.put_name(k, where), self.put(v, f"{where}/{k}")] for k, v in value.items()]
            }
        if type(value) is bytes:
            octets = torch.frombuffer(bytearray(value), dtype=torch.uint8) if value else torch.empty(0).byte()
            return {"bytes": self.keep(octets, where)}
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            path = _storable_path(value, where)
            fields = [f.name for f in dataclasses.fields(value) if f.init]
            return {
                "record": path,
                "fields": {n: self.put(getattr(value, n), f"{where}/{n}") for n in fields},
            }
        raise TypeError(
            f"value{where} is a {type(value).__module__}.{type(value).__qualname__}, which is not stored; "
            "possible: None, bool, int, float, str, bytes, list, tuple, dict, torch.Tensor and frozen "
            "dataclasses of these"
        )

    def put_name(self, name: object, where: str) -> str | int:
        if type(name) is int or (type(name) is str and _is_text(name)):
            return name
        raise TypeError(f"value{where} has the dict key {name!r}; only str and int keys are stored")

    def put_tensor(self, value: Tensor, where: str) -> Json:
        if value.layout != torch.strided or value.is_quantized or value.device.type == "meta":
            raise TypeError(
                f"value{where} is a {value.layout} tensor on {value.device}; only dense tensors are stored"
            )
        tensor = value.detach().cpu().resolve_conj().resolve_neg().contiguous()
        described: dict[str, Json] = {
            "tensor": str(tensor.dtype).removeprefix("torch."),
            "shape": list(tensor.shape),
        }
        if tensor.dtype == torch.bool:
            return described | {"bits": self.keep(pack_bits(tensor), where)}
        if tensor.dtype.is_floating_point and tensor.element_size() in _BITS and tensor.numel():
            # In numpy, whose calls on small arrays cost a fraction of torch's.
            cells = tensor.reshape(-1).view(_BITS[tensor.element_size()]).numpy()
            minus = cells == _MINUS_ZERO[tensor.element_size()]
            zeros = cells.size - np.count_nonzero(cells) + np.count_nonzero(minus)
            if 2 * zeros > cells.size:
                alive = (cells != 0) & ~minus
                values = torch.from_numpy(cells[alive]).view(tensor.dtype)
                if minus.any():  # a negative weight times its mask
                    described["minus"] = self.keep(pack_bits(torch.from_numpy(minus)), where + ":minus")
                return described | {
                    "at": self.keep(pack_bits(torch.from_numpy(alive)), where + ":at"),
                    "data": self.keep(values, where),
                }
        return described | {"data": self.keep(tensor, where)}


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _storable_path(value: object, where: str) -> str:
    kind = type(value)
    path = f"{kind.__module__}:{kind.__qualname__}"
    if not kind.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise TypeError(f"value{where}: dataclass {path} is not frozen, so it is not stored")
    if not _declared(kind):
        raise TypeError(
            f"value{where}: dataclass {path} is not stored unless it declares __storable__ = True"
        )
    if "<locals>" in path:
        raise TypeError(
            f"value{where}: dataclass {path} is local to a function, so later runs could not import it"
        )
    return stored_name(*path.split(":")) or path


def _declared(kind: type) -> bool:
    """True if the class itself, not a class that it inherits from, declares that it may be stored."""
    return vars(kind).get("__storable__") is True


class _Reader:
    """Puts a value together; every tensor gets separate memory, aligned as torch allocates it."""

    def __init__(self, tensors: Mapping[str, Tensor], *, records: bool = True) -> None:
        self.tensors, self.records = tensors, records

    def get(self, tree: Any) -> object:
        if isinstance(tree, list):
            return [self.get(item) for item in tree]
        if not isinstance(tree, dict):
            return tree
        if "tensor" in tree:
            return self.get_tensor(tree)
        if "tuple" in tree:
            return tuple(self.get(item) for item in tree["tuple"])
        if "dict" in tree:
            return {name: self.get(item) for name, item in tree["dict"]}
        if "float" in tree:
            return struct.unpack(">d", bytes.fromhex(tree["float"]))[0]
        if "text" in tree:
            return bytes.fromhex(tree["text"]).decode("utf-8", "surrogatepass")
        if "bytes" in tree:
            return self.tensors[tree["bytes"]].numpy().tobytes()
        kind = _storable(tree["record"]) if self.records else dict
        return kind(**{name: self.get(item) for name, item in tree["fields"].items()})

    def get_tensor(self, tree: dict[str, Any]) -> Tensor:
        dtype, shape = _DTYPES[tree["tensor"]], tuple(tree["shape"])
        count = math.prod(shape)
        if not 0 <= count <= _LARGEST or min(shape, default=0) < 0:
            raise ValueError(f"no tensor is a {tree['tensor']} of shape {shape}")
        self._check_sizes(tree, count)
        if "bits" in tree:
            return unpack_bits(self.tensors[tree["bits"]], count).reshape(shape).clone()
        data = self.tensors[tree["data"]]
        if "at" in tree:
            cell = _BITS[dtype.itemsize]
            whole = torch.zeros(count, dtype=cell)
            whole[unpack_bits(self.tensors[tree["at"]], count)] = data.view(cell)
            if "minus" in tree:
                whole[unpack_bits(self.tensors[tree["minus"]], count)] = _MINUS_ZERO[dtype.itemsize]
            return whole.view(dtype).reshape(shape)
        copy = data.clone()
        return copy.reshape(shape) if copy.dtype == dtype else copy.view(dtype).reshape(shape)

    def _check_sizes(self, tree: dict[str, Any], count: int) -> None:
        """ValueError unless the packed pieces have as many bytes as the shape takes, before anything is allocated."""
        for name in ("bits", "at", "minus"):
            if name in tree and self.tensors[tree[name]].nbytes != -(-count // 8):
                raise ValueError(f"{count} elements in {self.tensors[tree[name]].nbytes} bytes of flags")


def _storable(name: str) -> Any:
    """The class of a record in a file. Only the few modules of winticket's records are imported for it.

    The class has to be a frozen dataclass that declares itself storable, in the module that defines it. So a file can
    neither run a function, nor build a class that is not meant to come from files, nor reach a class through another
    module.
    """
    known = home(name) if name in RECORDS else None
    if known:
        importlib.import_module(known[0])
    module, _, inside = (known[0], ":", known[1]) if known else name.partition(":")
    if known is None and (not inside or is_winticket(module)):
        raise StoreError(f"holds a {name}, which is not a record of this version")
    if module not in sys.modules:
        raise StoreError(
            f"holds a {name}; modules named in a file are not imported unless they are winticket's: "
            f"import {module} first"
        )
    kind: Any = sys.modules[module]
    for part in inside.split("."):
        kind = vars(kind).get(part) if isinstance(kind, (type, ModuleType)) else None
    defined = isinstance(kind, type) and (kind.__module__, kind.__qualname__) == (module, inside)
    parameters = vars(kind).get("__dataclass_params__") if defined else None
    if parameters is None or not parameters.frozen or not _declared(kind):
        raise StoreError(
            f"holds a {name}, which is not a dataclass that may be stored: it has to be frozen and declare "
            "__storable__ = True, in the module that defines it"
        )
    return kind
