"""Whether tensors are the same to the bit."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def same_bits(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """True where both have the same names, and under each name the same dtype, shape and bytes.

    Stricter than ==: 0.0 and -0.0 differ; and looser: a nan is the same as itself.
    """
    return a.keys() == b.keys() and all(
        a[name].dtype == b[name].dtype
        and a[name].shape == b[name].shape
        and torch.equal(_bytes(a[name]), _bytes(b[name]))
        for name in a
    )


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
