"""A layer's kept weights in the orders in which the kernels read them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from winticket.ship.native import require
from winticket.ship.network import Floats, Positions, Weight

SPAN = 1 << 16
"""Positions that a 16-bit place can tell apart."""
CACHE = 32 * 1024
"""Bytes of a block of an input: the size of a first-level cache on nearly every processor, or less."""
FULL = 20
"""Kept weights for each row in a block. With fewer, a block costs more than its cache hits save."""
TOGETHER = (2, 4)
"""Rows whose weights share the loads of their inputs, if the layer is dense enough."""
GROUPED = 0.25
"""Density from which rows are tried together: below, hardly an input is read by two of four rows."""
DENSE_COLUMNS = (0.02, 1 << 22)
"""Least density and most weights of a layer for which all columns are tried, zeros among them."""


@dataclass(frozen=True, eq=False)
class Packed:
    """A layer's kept weights: row, place in the input (a position) and value of each; rows rise, and places in a row.

    rows   of the result
    width  places that a row could read: kept or pruned
    """

    rows: int
    width: int
    row: Positions
    place: Positions
    value: Floats

    @property
    def density(self) -> float:
        return len(self.value) / (self.rows * self.width)

    @cached_property
    def columns(self) -> Any:
        """By columns; None if 16 bits are not enough for a row. Places are columns here."""
        if self.rows > SPAN:
            return None
        order = np.argsort(self.place, kind="stable")
        start = np.searchsorted(self.place[order], np.arange(self.width + 1)).astype(np.int32)
        rows = self.row[order].astype(np.uint16)
        return require().columns(self.rows, start, rows, self.value[order])

    def dense_columns(self, instructions: str) -> Any:
        """All weights by columns, for an instruction set; None if the layer is too sparse or too large for it."""
        least, most = DENSE_COLUMNS
        if self.rows * self.width > most or self.density < least:
            return None
        return require().dense_columns(self.rows, self.width, self.matrix.reshape(-1), instructions)

    @cached_property
    def matrix(self) -> Floats:
        """float32 [rows, width], if places are columns."""
        dense = np.zeros((self.rows, self.width), np.float32)
        dense[self.row, self.place] = self.value
        return dense

    def entries(self, *, group: int = 1, bounds: Positions | None = None, multiple: int = 1) -> Any:
        """By rows, `group` at a time.

        bounds    first position of each block; default: as few blocks as 16 bits allow
        multiple  pad the entries of each row and block with zeros to a multiple
        """
        base = _bounds(bounds, int(self.place.max(initial=0)))
        blocks, groups = len(base), -(-self.rows // group)
        block = np.searchsorted(base, self.place, "right") - 1
        bucket = block * groups + self.row // group
        bucket, place, weight = _grouped(bucket, self.place, self.value, self.row % group, group)
        counts = np.bincount(bucket, minlength=blocks * groups)
        padded = -(-counts // multiple) * multiple
        ends = np.concatenate([[0], np.cumsum(padded)])
        at = (
            np.arange(len(bucket))
            - np.repeat(np.cumsum(counts) - counts, counts)
            + np.repeat(ends[:-1], counts)
        )
        places, weights = np.zeros(ends[-1], np.uint16), np.zeros((ends[-1], group), np.float32)
        places[at], weights[at] = place - base[bucket // groups], weight
        first = np.arange(blocks)[:, None] * groups + np.arange(groups + 1)
        start = ends[first].astype(np.int32).reshape(-1)
        return require().entries(self.rows, group, base.tolist(), start, places, weights.reshape(-1))


def _bounds(bounds: Positions | None, last: int) -> Positions:
    """The first positions of the blocks, none of which is too long for 16 bits."""
    wanted = {0} if bounds is None else {int(bound) for bound in bounds if bound <= last}
    return np.array(sorted(wanted | set(range(0, last + 1, SPAN))))


def _grouped(
    bucket: Positions, place: Positions, value: Floats, member: Positions, group: int
) -> tuple[Positions, Positions, npt.NDArray[np.float32]]:
    """The entries in the order of buckets and places; those of one group at the same place become one."""
    if group == 1:
        order = np.argsort(bucket, kind="stable")
        return bucket[order], place[order], value[order, None]
    span = int(place.max(initial=0)) + 1
    keys = bucket * span + place
    order = np.argsort(keys, kind="stable")
    new = np.diff(keys[order], prepend=-1) > 0
    weight = np.zeros((int(new.sum()), group), np.float32)
    weight[np.cumsum(new) - 1, member[order]] = value[order]
    keys = keys[order][new]
    return keys // span, keys % span, weight


def packed(weight: Weight, places: Positions, rows: int) -> Packed:
    """The kept weights that are not 0; `places` [units, columns] or [columns] is the position that each reads."""
    columns = weight.size // rows
    position = np.arange(weight.size) if weight.positions is None else weight.positions
    used = np.flatnonzero(weight.values)
    position, value = position[used], weight.values[used]
    row, column = position // columns, position % columns
    place = places[column] if places.ndim == 1 else places[row, column]
    order = np.lexsort((place, row)) if places.ndim > 1 or (np.diff(places) < 0).any() else slice(None)
    return Packed(rows, columns, row[order], place[order], value[order])


def cache_bounds(planes: int, plane: int, bytes_each: int, density: float) -> Positions:
    """The first position of each block of planes, of which `bytes_each` bytes are read at a time.

    density: kept weights of a row for each plane.

    >>> cache_bounds(784, 1, 256, 0.1).tolist()
    [0, 196, 392, 588]
    """
    fit = max(CACHE / max(bytes_each, 1), FULL / max(density, 1e-9))
    blocks = max(1, min(planes, round(planes / fit)))
    return np.arange(blocks) * planes // blocks * plane


def groups_of(density: float) -> tuple[int, ...]:
    """The numbers of rows that are worth trying together."""
    return (1, *TOGETHER) if density >= GROUPED else (1,)


def kept_per_plane(packed: Packed, planes: int) -> float:
    """Mean number of kept weights that a row has for each plane of the input."""
    return len(packed.value) / max(1, packed.rows * planes)


def exact(value: float) -> float:
    """An end of a range as the kernels take it: float32, with infinities as they are."""
    return float(np.float32(value)) if math.isfinite(value) else value
