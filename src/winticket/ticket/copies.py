"""Copies for functions that might write into their arguments."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from torch import Tensor

T = TypeVar("T")


def apart(value: T) -> T:
    """The same value with every tensor copied, in mappings, lists, tuples and dataclasses of any depth.

    Networks, generators and functions are passed through without a copy.

    >>> import torch
    >>> from winticket.ticket import apart
    >>> weights = {"w": torch.ones(2)}
    >>> apart(weights)["w"].zero_()
    tensor([0., 0.])
    >>> weights["w"]
    tensor([1., 1.])
    """
    original: Any = value
    copied = original
    if isinstance(original, Tensor):
        copied = original.detach().clone()
    elif isinstance(original, Mapping):
        copied = {name: apart(item) for name, item in original.items()}
    elif type(original) in (list, tuple):
        copied = type(original)(apart(item) for item in original)
    elif dataclasses.is_dataclass(original) and not isinstance(original, type):
        fields = {f.name: apart(getattr(original, f.name)) for f in dataclasses.fields(original) if f.init}
        copied = dataclasses.replace(original, **fields)
    return cast("T", copied)
