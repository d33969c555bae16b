"""Align: which hidden units of one network are which of another's, since their numbering says nothing."""

from winticket.align.matching import Axis, Group, Permutations, Symmetry, match, permuted
from winticket.align.symmetry import symmetry
from winticket.align.width import resized

__all__ = ["Axis", "Group", "Permutations", "Symmetry", "match", "permuted", "resized", "symmetry"]
