"""Masks for a network of the same kind with more or fewer hidden units."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from winticket.align.matching import Axis, Symmetry


def resized(tensors: Mapping[str, Tensor], there: Symmetry, here: Symmetry) -> dict[str, Tensor]:
    """Masks (or weights) of a network with the units of `there`, as one with those of `here` has them.

    Unit i of a group takes the connections of unit i mod n, where the group had n: in a wider network units repeat, of
    a narrower one the first are taken, which are as good as any, since numbering says nothing. Chen et al. 2021 (The
    Elastic Lottery Ticket Hypothesis) repeat and drop layers so; here it is units. Dimensions that no group holds
    (inputs, classes, a filter's size) stay as they are.

    Raises ValueError where the networks' groups do not correspond.
    """
    if [g.axes for g in there] != [g.axes for g in here]:
        raise ValueError(
            f"the hidden units of the two networks do not correspond: {_told(there)} there, {_told(here)} here"
        )
    found = dict(tensors)
    for old, new in zip(there, here, strict=True):
        if old.size != new.size:
            units = torch.arange(new.size) % old.size
            for axis in old.axes:
                if axis.name in found:
                    found[axis.name] = _taken(found[axis.name], axis, units)
    return found


def _taken(value: Tensor, axis: Axis, units: Tensor) -> Tensor:
    places = units[:, None] * axis.block + torch.arange(axis.block)
    return value.index_select(axis.dim, places.reshape(-1).to(value.device))


def _told(groups: Symmetry) -> str:
    """The layers that make each group's units."""
    return ", ".join(f"{g.axes[0].name.rpartition('.')[0]} ({g.size})" for g in groups)
