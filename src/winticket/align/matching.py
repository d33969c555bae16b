"""Weight matching: how to renumber one network's hidden units so that its weights are closest to another's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from winticket.ticket import Weights

SWEEPS = 100  # far more than ever happen, because each must improve the match


@dataclass(frozen=True)
class Axis:
    """A dimension of a weight or buffer, by name, in which each unit has `block` consecutive positions.

    >>> from winticket.align import Axis
    >>> Axis("fc1.weight", 0)  # one row per unit
    Axis(name='fc1.weight', dim=0, block=1)
    """

    name: str
    dim: int
    block: int = 1


@dataclass(frozen=True)
class Group:
    """`size` hidden units that share one numbering, and every dimension of a weight or buffer that follows it.

    >>> from winticket.align import Axis, Group
    >>> Group(2, (Axis("fc1.weight", 0), Axis("fc1.bias", 0), Axis("fc2.weight", 1))).size
    2
    """

    size: int
    axes: tuple[Axis, ...]


Symmetry = tuple[Group, ...]
Permutations = tuple[Tensor, ...]
"""One per group, int64 [size]: unit i of the result is unit order[i] of the argument."""


def permuted(tensors: Mapping[str, Tensor], groups: Symmetry, orders: Permutations) -> dict[str, Tensor]:
    """Weights, buffers or masks [unchanged shapes] with each group's units in a new order; the rest stays as it is.

    >>> import torch
    >>> from winticket.align import Axis, Group, permuted
    >>> groups = (Group(2, (Axis("fc1.weight", 0),)),)
    >>> permuted({"fc1.weight": torch.tensor([[1.0], [2.0]])}, groups, (torch.tensor([1, 0]),))["fc1.weight"].tolist()
    [[2.0], [1.0]]
    """
    return {name: _reordered(name, value, groups, orders) for name, value in tensors.items()}


def match(fixed: Weights, other: Weights, groups: Symmetry) -> Permutations:
    """The orders of `other`'s units that make Σ ⟨fixed, permuted(other)⟩ over all weights locally largest.

    fixed, other: weights of two networks of the same shapes. Ainsworth, Hayase & Srinivasa 2023 (Git Re-Basin),
    algorithm 1: linear assignment of one group at a time with the others held, until a sweep over all groups improves
    nothing. We sweep from input to output instead of in random order. The first sweep skips weights to units that are
    not matched yet, so a network that is a renumbered copy of another is recovered exactly. Sums are in float64.

    >>> import torch
    >>> from winticket.align import Axis, Group, match
    >>> groups = (Group(2, (Axis("fc1.weight", 0),)),)
    >>> fixed, other = ({"fc1.weight": torch.tensor(rows)} for rows in ([[1.0], [5.0]], [[5.0], [1.0]]))
    >>> match(fixed, other, groups)
    (tensor([1, 0]),)
    """
    a = {axis.name: fixed[axis.name].double() for g in groups for axis in g.axes if axis.name in fixed}
    b = {name: other[name].double() for name in a}
    orders = [torch.arange(g.size) for g in groups]
    for number in range(len(groups)):
        orders[number] = _assigned(_gain(a, b, groups, orders, number, matched=number))
    total = _total(a, b, groups, orders)
    scale = sum(float(w.square().sum()) for w in (*a.values(), *b.values()))
    for _ in range(SWEEPS):
        before = total
        for number in range(len(groups)):
            tried = [*orders]
            tried[number] = _assigned(_gain(a, b, groups, orders, number, matched=len(groups)))
            # If one weight has the group in both dimensions, the assignment is only that of a linearised sum.
            if (improved := _total(a, b, groups, tried)) > total + 1e-12 * scale:
                orders, total = tried, improved
        if total == before:
            break
    return tuple(orders)


def _gain(
    a: Weights, b: Weights, groups: Symmetry, orders: list[Tensor], number: int, *, matched: int
) -> Tensor:
    """[size, size]: what fixed unit i adds to the sum if other unit j is matched with it, all other groups held.

    Weights whose other dimension belongs to a group numbered `matched` or later are skipped, unless no other is left.
    """
    group = groups[number]
    late = {axis for later in groups[matched:] for axis in later.axes}
    axes = [axis for axis in group.axes if axis.name in a]
    sure = [axis for axis in axes if not any(o != axis and o.name == axis.name for o in late)]
    gain = torch.zeros(group.size, group.size, dtype=torch.float64)
    for axis in sure or axes:
        held = _reordered(axis.name, b[axis.name], groups, tuple(orders), without=axis)
        gain += _rows(a[axis.name], axis, group.size) @ _rows(held, axis, group.size).T
    return gain


def _rows(value: Tensor, axis: Axis, size: int) -> Tensor:
    """[size, rest]: everything that belongs to each unit."""
    return value.movedim(axis.dim, 0).reshape(size, -1)


def _assigned(gain: Tensor) -> Tensor:
    from scipy.optimize import linear_sum_assignment  # takes half a second to import and is rarely needed

    _, columns = linear_sum_assignment(gain.numpy(), maximize=True)
    return torch.from_numpy(columns.astype(np.int64))


def _total(a: Weights, b: Weights, groups: Symmetry, orders: list[Tensor]) -> float:
    moved = permuted(b, groups, tuple(orders))
    return sum(float((a[name] * moved[name]).sum()) for name in a)


def _reordered(
    name: str, value: Tensor, groups: Symmetry, orders: Permutations, *, without: Axis | None = None
) -> Tensor:
    for group, order in zip(groups, orders, strict=True):
        for axis in group.axes:
            if axis.name == name and axis != without:
                positions = (order[:, None] * axis.block + torch.arange(axis.block)).reshape(-1)
                value = value.index_select(axis.dim, positions.to(value.device))
    return value
