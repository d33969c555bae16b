"""Comparing tensors bit for bit."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def same_bits(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """True if both have the same names, and under each name the same dtype, shape and bytes.

    This is stricter than ==, since 0.0 and -0.0 differ, and also looser, since a nan equals itself.

    >>> import torch
    >>> from winticket.ticket import same_bits
    >>> same_bits({"w": torch.tensor([0.0])}, {"w": torch.tensor([-0.0])})
    False
    """
    return a.keys() == b.keys() and all(
        a[name].dtype == b[name].dtype
        and a[name].shape == b[name].shape
        and torch.equal(_bytes(a[name]), _bytes(b[name]))
        for name in a
    )


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
