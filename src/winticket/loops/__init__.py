"""Methods around anybody's own training loop, beside `Levels`: pruning at once, masks that change or are learned."""

from __future__ import annotations

from winticket.loops.changing import gradual, rigl, set_
from winticket.loops.learning import Learned, edge_popup, supermask
from winticket.loops.pruning import prune
from winticket.loops.sparse import Sparse

__all__ = ["Learned", "Sparse", "edge_popup", "gradual", "prune", "rigl", "set_", "supermask"]
