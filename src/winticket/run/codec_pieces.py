"""A value taken apart: a JSON tree, and the tensors that the tree names."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import struct
from collections.abc import Mapping
from typing import cast

import numpy as np
import torch
from torch import Tensor

from winticket.bits import octets, pack_bits
from winticket.run.codec_records import storable_path
from winticket.run.keys import Json

_NATIVE = frozenset(  # kept under their safetensors type; other dtypes are kept as bytes
    getattr(torch, name)
    for name in "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8".split()  # noqa: SIM905
)
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
MINUS_ZERO = {1: 0x80, 2: -(1 << 15), 4: -(1 << 31), 8: -(1 << 63)}


class Pieces:
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
            path = storable_path(value, where)
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
        if tensor.dtype.is_floating_point and tensor.element_size() in BITS and tensor.numel():
            # In numpy, whose calls on small arrays cost a fraction of torch's.
            cells = tensor.reshape(-1).view(BITS[tensor.element_size()]).numpy()
            minus = cells == MINUS_ZERO[tensor.element_size()]
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
