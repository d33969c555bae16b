"""A value put together from its JSON tree and its tensors."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from winticket.bits import unpack_bits
from winticket.run.codec_pieces import BITS, MINUS_ZERO
from winticket.run.codec_records import storable

_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in vars(torch).values()
    if isinstance(dtype, torch.dtype)
}
_LARGEST = 1 << 48  # elements; no tensor has more


class Reader:
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
        kind = storable(tree["record"]) if self.records else dict
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
            cell = BITS[dtype.itemsize]
            whole = torch.zeros(count, dtype=cell)
            whole[unpack_bits(self.tensors[tree["at"]], count)] = data.view(cell)
            if "minus" in tree:
                whole[unpack_bits(self.tensors[tree["minus"]], count)] = MINUS_ZERO[dtype.itemsize]
            return whole.view(dtype).reshape(shape)
        copy = data.clone()
        return copy.reshape(shape) if copy.dtype == dtype else copy.view(dtype).reshape(shape)

    def _check_sizes(self, tree: dict[str, Any], count: int) -> None:
        """ValueError unless the packed pieces have as many bytes as the shape takes, before anything is allocated."""
        for name in ("bits", "at", "minus"):
            if name in tree and self.tensors[tree[name]].nbytes != -(-count // 8):
                raise ValueError(f"{count} elements in {self.tensors[tree[name]].nbytes} bytes of flags")
