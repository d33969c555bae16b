"""Align: which hidden units of one network correspond to which of another, since their numbering is arbitrary."""

from __future__ import annotations

from winticket.align.matching import Axis, Group, Permutations, Symmetry, match, permuted
from winticket.align.symmetry import symmetry
from winticket.align.width import resized

REVISION = 1
"""Raised when the results of these functions change."""

__all__ = [
    "REVISION",
    "Axis",
    "Group",
    "Permutations",
    "Symmetry",
    "match",
    "permuted",
    "resized",
    "symmetry",
]
