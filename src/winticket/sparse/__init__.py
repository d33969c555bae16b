"""Layers that compute with their kept weights alone: compiled kernels, their operators, the break-even density."""

from __future__ import annotations

from winticket.sparse.breakeven import break_even, tuning
from winticket.sparse.choices import Shape, Tuning
from winticket.sparse.convert import Converted, candidates, convert
from winticket.sparse.fuse import fuse
from winticket.sparse.layers import SparseConv2d, window_of
from winticket.sparse.native import instruction_sets, missing
from winticket.sparse.operators import cross_entropy, loss_and_correct, sparse_linear
from winticket.sparse.products import batch_last
from winticket.sparse.structure import Structure, structure

__all__ = [
    "Converted",
    "Shape",
    "SparseConv2d",
    "Structure",
    "Tuning",
    "batch_last",
    "break_even",
    "candidates",
    "convert",
    "cross_entropy",
    "fuse",
    "instruction_sets",
    "loss_and_correct",
    "missing",
    "sparse_linear",
    "structure",
    "tuning",
    "window_of",
]
