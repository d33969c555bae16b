"""Methods around anybody's own training loop, beside `Levels`: pruning at once, masks that change or are learned."""

from winticket.loops.pruning import prune

__all__ = ["prune"]
