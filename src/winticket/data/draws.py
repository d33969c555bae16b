"""Random numbers as pure functions of their purpose."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def bits(count: int, *purpose: str | int) -> NDArray[np.uint64]:
    """`count` random 64-bit words of the stream that `purpose` names; different purposes have different streams.

    Philox4x64 (Salmon et al. 2011) keyed by 128 bits of SHA-256. NumPy guarantees these raw words for all its
    versions. PyTorch's generator would use only 32 bits of a seed, few enough for two streams to coincide.
    """
    text = "\0".join(f"{type(part).__name__}:{part}" for part in purpose)
    key = int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")
    return np.random.Philox(key=key).random_raw(count).astype(np.uint64, copy=False)


def order(count: int, *purpose: str | int) -> Tensor:
    """A uniformly random order of 0..count-1, int64 [count]: the sorting order of `count` random words."""
    return torch.from_numpy(np.argsort(bits(count, *purpose)).astype(np.int64, copy=False))


def kept_rows(count: int, rows: int) -> Tensor:
    """`rows` of the numbers 0..count-1, drawn without replacement and always the same ones, rising: int64 [rows].

    Raises ValueError if there are fewer.
    """
    if rows > count:
        raise ValueError(f"--rows {rows} asks for more than the {count} training rows; give at most {count}")
    return order(count, "kept rows", 0)[:rows].sort().values
