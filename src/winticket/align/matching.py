"""Weight matching: the numbering of one network's hidden units that brings its weights closest to another's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from winticket.ticket import Weights

SWEEPS = 100  # far more than are ever taken; every one that is improves the match


@dataclass(frozen=True)
class Axis:
    """A dimension of a weight or buffer, by name, in which each unit has `block` places that follow one another."""

    name: str
    dim: int
    block: int = 1


@dataclass(frozen=True)
class Group:
    """`size` hidden units that are numbered together, and every dimension that this numbering runs through."""

    size: int
    axes: tuple[Axis, ...]


Symmetry = tuple[Group, ...]
Permutations = tuple[Tensor, ...]
"""One per group, int64 [size]: unit i of the result is unit p[i] of what was given."""


def permuted(tensors: Mapping[str, Tensor], groups: Symmetry, orders: Permutations) -> dict[str, Tensor]:
    """Weights, buffers or masks with the units of every group put in a new order; others are as they were."""
    return {name: _reordered(name, value, groups, orders) for name, value in tensors.items()}


def match(own: Weights, other: Weights, groups: Symmetry) -> Permutations:
    """The orders of `other`'s units under which Σ ⟨own, permuted(other)⟩ over all weights is largest nearby.

    Ainsworth, Hayase & Srinivasa 2023 (Git Re-Basin), algorithm 1: one group at a time by linear assignment, the others
    held, until a sweep over all of them improves nothing. We sweep from input to output and not at random, and the
    first sweep leaves out weights to units that have not been matched yet: a network that is another one with its
    units renumbered is then recovered exactly. Sums are in float64.
    """
    a = {axis.name: own[axis.name].double() for g in groups for axis in g.axes if axis.name in own}
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
            # Where one weight has the group in both dimensions, the assignment is of a linearised sum only.
            if (found := _total(a, b, groups, tried)) > total + 1e-12 * scale:
                orders, total = tried, found
        if total == before:
            break
    return tuple(orders)


def _gain(
    a: Weights, b: Weights, groups: Symmetry, orders: list[Tensor], number: int, *, matched: int
) -> Tensor:
    """[size, size]: what the sum has from own unit i when other unit j takes its place, all other groups held.

    Weights whose other dimension belongs to a group numbered `matched` or later are left out, unless that leaves none.
    """
    group = groups[number]
    late = {axis for later in groups[matched:] for axis in later.axes}
    axes = [axis for axis in group.axes if axis.name in a]
    sure = [axis for axis in axes if not any(o != axis and o.name == axis.name for o in late)]
    gain = torch.zeros(group.size, group.size, dtype=torch.float64)
    for axis in sure or axes:
        held = _reordered(axis.name, b[axis.name], groups, tuple(orders), but=axis)
        gain += _rows(a[axis.name], axis, group.size) @ _rows(held, axis, group.size).T
    return gain


def _rows(value: Tensor, axis: Axis, size: int) -> Tensor:
    """[size, rest]: all that belongs to each unit."""
    return value.movedim(axis.dim, 0).reshape(size, -1)


def _assigned(gain: Tensor) -> Tensor:
    from scipy.optimize import linear_sum_assignment  # takes half a second to import, and is rarely wanted

    _, columns = linear_sum_assignment(gain.numpy(), maximize=True)
    return torch.from_numpy(columns.astype(np.int64))


def _total(a: Weights, b: Weights, groups: Symmetry, orders: list[Tensor]) -> float:
    moved = permuted(b, groups, tuple(orders))
    return sum(float((a[name] * moved[name]).sum()) for name in a)


def _reordered(
    name: str, value: Tensor, groups: Symmetry, orders: Permutations, *, but: Axis | None = None
) -> Tensor:
    for group, order in zip(groups, orders, strict=True):
        for axis in group.axes:
            if axis.name == name and axis != but:
                places = (order[:, None] * axis.block + torch.arange(axis.block)).reshape(-1)
                value = value.index_select(axis.dim, places.to(value.device))
    return value
