"""How far kept weights moved, and which signs they kept."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from winticket.ticket import Mask

REVISION = 2


def displacement(start: Mapping[str, Tensor], end: Mapping[str, Tensor], mask: Mask) -> float:
    """The distance that the kept weights moved, relative to their length at the start: |end - start| / |start|.

    start, end: weights by name. ValueError if all kept weights are 0 at the start.

    >>> from winticket import Mask
    >>> mask = Mask({"w": torch.tensor([True, True, False])})
    >>> displacement({"w": torch.tensor([3.0, 4.0, 9.0])}, {"w": torch.tensor([3.0, 9.0, 0.0])}, mask)
    1.0
    """
    moved = sum(float((end[n] - start[n])[k].double().square().sum()) for n, k in mask.keep.items())
    length = sum(float(start[n][k].double().square().sum()) for n, k in mask.keep.items())
    if length == 0:
        raise ValueError(
            "all kept weights are 0 at the start, so there is no length to compare the movement with"
        )
    return float((moved / length) ** 0.5)


def sign_agreement(start: Mapping[str, Tensor], end: Mapping[str, Tensor], mask: Mask) -> float:
    """The share of the kept weights whose sign at the end is that at the start.

    Weights that are 0 in either are left out; nan if none is left. Gadhikar & Burkholz 2024 (Masks, Signs, and Learning
    Rate Rewinding) count the complement, sign flips.

    >>> from winticket import Mask
    >>> mask = Mask({"w": torch.tensor([True, True, True])})
    >>> sign_agreement({"w": torch.tensor([1.0, -1.0, 0.0])}, {"w": torch.tensor([2.0, 3.0, 1.0])}, mask)
    0.5
    """
    same, all_of_them = 0, 0
    for name, keep in mask.keep.items():
        signs = torch.sign(start[name][keep]) * torch.sign(end[name][keep])
        same, all_of_them = same + int((signs > 0).sum()), all_of_them + int((signs != 0).sum())
    return same / all_of_them if all_of_them else float("nan")
