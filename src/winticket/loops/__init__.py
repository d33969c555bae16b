"""Methods around anybody's own training loop, beside `Levels`: pruning at once, masks that change or are learned."""

from winticket.loops.changing import Sparse, gradual, rigl, set_
from winticket.loops.pruning import prune

__all__ = ["Sparse", "gradual", "prune", "rigl", "set_"]
