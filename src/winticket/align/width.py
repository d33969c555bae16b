"""Masks for a network of the same kind with more or fewer hidden units."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from winticket.align.matching import Axis, Symmetry


def resized(tensors: Mapping[str, Tensor], old: Symmetry, new: Symmetry) -> dict[str, Tensor]:
    """Masks (or weights) of a network with the groups `old`, in the shapes of one with the groups `new`.

    Unit i of a group gets the connections of unit i mod n of the old group, which has n units. So a wider network
    repeats units, and a narrower one keeps the first of them, which are as good as any others because the numbering is
    arbitrary. Chen et al. 2021 (The Elastic Lottery Ticket Hypothesis) repeat and drop layers in this way; here it is
    units. Dimensions that belong to no group (inputs, classes, a filter's size) stay as they are.

    Raises ValueError if the groups of the two networks do not correspond.

    >>> import torch
    >>> from winticket.align import Axis, Group, resized
    >>> two, three = (Group(size, (Axis("fc1.weight", 0),)) for size in (2, 3))
    >>> resized({"fc1.weight": torch.tensor([[True], [False]])}, (two,), (three,))["fc1.weight"].tolist()
    [[True], [False], [True]]
    """
    if [g.axes for g in old] != [g.axes for g in new]:
        raise ValueError(
            f"the hidden units of the two networks do not correspond: one has {_layers(old)}, the other {_layers(new)}"
        )
    result = dict(tensors)
    for before, after in zip(old, new, strict=True):
        if before.size != after.size:
            units = torch.arange(after.size) % before.size
            for axis in before.axes:
                if axis.name in result:
                    result[axis.name] = _selected(result[axis.name], axis, units)
    return result


def _selected(value: Tensor, axis: Axis, units: Tensor) -> Tensor:
    positions = units[:, None] * axis.block + torch.arange(axis.block)
    return value.index_select(axis.dim, positions.reshape(-1).to(value.device))


def _layers(groups: Symmetry) -> str:
    """The layers whose outputs are the units of each group, with their number."""
    return ", ".join(f"{g.axes[0].name.rpartition('.')[0]} ({g.size})" for g in groups)
