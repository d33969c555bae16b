"""Methods for your own training loop: masks that are fixed, change or are learned; pruning at once or by levels."""

from __future__ import annotations

from winticket.loops.changing import gradual, rigl, set_
from winticket.loops.learning import Learned, edge_popup, supermask
from winticket.loops.levels import Level, Levels
from winticket.loops.masking import masked
from winticket.loops.pruning import prune
from winticket.loops.scoring import state_of
from winticket.loops.sparse import Sparse

__all__ = [
    "Learned",
    "Level",
    "Levels",
    "Sparse",
    "edge_popup",
    "gradual",
    "masked",
    "prune",
    "rigl",
    "set_",
    "state_of",
    "supermask",
]
