"""Layers that compute with their kept weights alone: compiled kernels, the operators over them, the break-even."""

from __future__ import annotations

from winticket.sparse.breakeven import Shape, break_even
from winticket.sparse.convert import Converted, candidates, convert
from winticket.sparse.fuse import fuse
from winticket.sparse.layers import SparseConv2d, window_of
from winticket.sparse.native import instruction_sets, missing
from winticket.sparse.operators import cross_entropy, judged, sparse_linear
from winticket.sparse.products import batch_last
from winticket.sparse.structure import Structure, structure

__all__ = [
    "Converted",
    "Shape",
    "SparseConv2d",
    "Structure",
    "batch_last",
    "break_even",
    "candidates",
    "convert",
    "cross_entropy",
    "fuse",
    "instruction_sets",
    "judged",
    "missing",
    "sparse_linear",
    "structure",
    "window_of",
]
