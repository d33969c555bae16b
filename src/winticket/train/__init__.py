"""Training: the recipe, the only training loop, and masks inside anybody else's loop."""

from winticket.train.loop import evaluate, train
from winticket.train.masked import masked
from winticket.train.recipe import Recipe

REVISION = 1
"""Raised whenever the numbers that `train` gives change."""

__all__ = ["REVISION", "Recipe", "evaluate", "masked", "train"]
