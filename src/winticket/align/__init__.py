"""Align: which hidden units of one network are which of another's, since their numbering says nothing."""

from __future__ import annotations

from winticket.align.matching import Axis, Group, Permutations, Symmetry, match, permuted
from winticket.align.symmetry import symmetry
from winticket.align.width import resized

REVISION = 1
"""Raised when what these functions give changes."""

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
