"""Training: the recipe, the only training loop, and masks inside any other loop."""

from __future__ import annotations

from winticket.train.changing import Changes, Gradient, dense_gradient
from winticket.train.curves import evaluate, pace_examples
from winticket.train.engine import Engine, check_engine, measure, relative_cost
from winticket.train.loop import train
from winticket.train.masked import masked
from winticket.train.precision import check_precision
from winticket.train.recipe import Recipe
from winticket.train.stacked import may_stack
from winticket.train.supermask import Learning, Supermask
from winticket.train.wrapped import (
    Replicated,
    bare,
    check_ranks,
    check_whole,
    distributed,
    drawn_seed,
    shared_buffers,
    summed_over_ranks,
)

REVISION = 4
"""Raised whenever the numbers that `train` returns change."""

__all__ = [
    "REVISION",
    "Changes",
    "Engine",
    "Gradient",
    "Learning",
    "Recipe",
    "Replicated",
    "Supermask",
    "bare",
    "check_engine",
    "check_precision",
    "check_ranks",
    "check_whole",
    "dense_gradient",
    "distributed",
    "drawn_seed",
    "evaluate",
    "masked",
    "may_stack",
    "measure",
    "pace_examples",
    "relative_cost",
    "shared_buffers",
    "summed_over_ranks",
    "train",
]
