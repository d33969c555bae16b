"""Layers that compute with their kept weights alone: compiled kernels, their operators, the break-even density."""

from __future__ import annotations

from winticket.sparse.breakeven import adopt, measurements, tuning
from winticket.sparse.chain import TILE, Link, Rule, score_links, tiles, train_links
from winticket.sparse.choices import Shape, Times, Tuning
from winticket.sparse.convert import Converted, candidates, convert
from winticket.sparse.fuse import fuse
from winticket.sparse.layers import SparseConv2d, window_of
from winticket.sparse.mixture import fastest_layers
from winticket.sparse.native import instruction_sets, missing
from winticket.sparse.operators import cross_entropy, loss_and_correct, sparse_linear
from winticket.sparse.products import batch_last
from winticket.sparse.recognise import Names, chain_of
from winticket.sparse.structure import Structure, structure
from winticket.sparse.updates import Factors, Gradient, OnePass, Target, multiplies

__all__ = [
    "TILE",
    "Converted",
    "Factors",
    "Gradient",
    "Link",
    "Names",
    "OnePass",
    "Rule",
    "Shape",
    "SparseConv2d",
    "Structure",
    "Target",
    "Times",
    "Tuning",
    "adopt",
    "batch_last",
    "candidates",
    "chain_of",
    "convert",
    "cross_entropy",
    "fastest_layers",
    "fuse",
    "instruction_sets",
    "loss_and_correct",
    "measurements",
    "missing",
    "multiplies",
    "score_links",
    "sparse_linear",
    "structure",
    "tiles",
    "train_links",
    "tuning",
    "window_of",
]
