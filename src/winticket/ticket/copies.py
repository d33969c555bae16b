"""Copies to hand to functions that might write into what they are given."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from torch import Tensor

T = TypeVar("T")


def apart(value: T) -> T:
    """The same value, of tensors in memory of their own: in mappings, lists, tuples and dataclasses, however deep.

    Networks, generators and functions are handed on as they are.

    >>> import torch
    >>> from winticket.ticket import apart
    >>> weights = {"w": torch.ones(2)}
    >>> apart(weights)["w"].zero_()
    tensor([0., 0.])
    >>> weights["w"]
    tensor([1., 1.])
    """
    given: Any = value
    copied = given
    if isinstance(given, Tensor):
        copied = given.detach().clone()
    elif isinstance(given, Mapping):
        copied = {name: apart(item) for name, item in given.items()}
    elif type(given) in (list, tuple):
        copied = type(given)(apart(item) for item in given)
    elif dataclasses.is_dataclass(given) and not isinstance(given, type):
        fields = {f.name: apart(getattr(given, f.name)) for f in dataclasses.fields(given) if f.init}
        copied = dataclasses.replace(given, **fields)
    return cast("T", copied)
