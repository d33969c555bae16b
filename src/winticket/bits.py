"""Tensors to the bit: compared, hashed, and flags packed eight to a byte."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor


def same_bits(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """True if both have the same names, and under each name the same dtype, shape and bytes.

    This is stricter than ==, since 0.0 and -0.0 differ, and also looser, since a nan equals itself.

    >>> same_bits({"w": torch.tensor([0.0])}, {"w": torch.tensor([-0.0])})
    False
    """
    return a.keys() == b.keys() and all(
        a[name].dtype == b[name].dtype
        and a[name].shape == b[name].shape
        and torch.equal(octets(a[name]), octets(b[name]))
        for name in a
    )


def octets(tensor: Tensor) -> Tensor:
    """The bytes of a tensor, on the CPU: uint8 [n]. A view of its storage if that is possible."""
    if not tensor.numel():  # numpy may have given it strides that torch cannot view as bytes
        return torch.empty(0, dtype=torch.uint8)
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)


def digest(*groups: Mapping[str, Tensor]) -> bytes:
    """SHA-256 over the names, dtypes, shapes and bytes of the tensors, in their order."""
    hashed = hashlib.sha256()
    for tensors in groups:
        for name, tensor in tensors.items():
            hashed.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
            hashed.update(octets(tensor).numpy().data)
    return hashed.digest()


def pack_bits(flags: Tensor) -> Tensor:
    """Bool tensor of n elements -> uint8 [ceil(n / 8)], the first flag in the highest bit; padded with zeros.

    >>> import torch
    >>> from winticket.bits import pack_bits
    >>> pack_bits(torch.tensor([True, False, True])).tolist()
    [160]
    """
    return torch.from_numpy(np.packbits(flags.detach().cpu().reshape(-1).numpy()))


def unpack_bits(packed: Tensor, count: int) -> Tensor:
    """The inverse of `pack_bits`: bool [count]. ValueError if the number of bytes does not fit."""
    if packed.numel() != -(-count // 8):
        raise ValueError(f"{count} flags cannot be packed in {packed.numel()} bytes")
    return torch.from_numpy(np.unpackbits(packed.numpy(), count=count)).bool()
