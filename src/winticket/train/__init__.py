"""Training: the recipe and the only training loop."""

from __future__ import annotations

from winticket.train.changing import Changes, Gradient, dense_gradient
from winticket.train.curves import evaluate, evaluate_outputs, pace_examples
from winticket.train.engine import Engine, check_engine, measure, relative_cost
from winticket.train.loop import train
from winticket.train.memory import peak_bytes
from winticket.train.precision import bf16_instructions, check_precision
from winticket.train.recipe import Recipe
from winticket.train.stacked import may_stack
from winticket.train.supermask import Learning, Supermask

REVISION = 4
"""Raised whenever the numbers that `train` returns change."""

__all__ = [
    "REVISION",
    "Changes",
    "Engine",
    "Gradient",
    "Learning",
    "Recipe",
    "Supermask",
    "bf16_instructions",
    "check_engine",
    "check_precision",
    "dense_gradient",
    "evaluate",
    "evaluate_outputs",
    "may_stack",
    "measure",
    "pace_examples",
    "peak_bytes",
    "relative_cost",
    "train",
]
