"""Choices that would not do what they seem to: refused before anything is made of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def own_rate(choices: Mapping[str, Any], usual: Mapping[str, Any]) -> None:
    """ValueError where another optimiser is asked for and would run at the usual one's learning rate."""
    optimizer, default = choices.get("optimizer"), usual.get("optimizer")
    alike = {optimizer, default} <= {"adam", "adamw"}
    if optimizer in ("sgd", "adam", "adamw") and optimizer != default and not alike and "lr" not in choices:
        raise ValueError(
            f"optimizer {optimizer} needs a learning rate of its own: {usual.get('lr')} is meant for {default}; "
            f"give --lr (lr=), usually {0.1 if optimizer == 'sgd' else 0.001} with {optimizer}"
        )


def effective(choices: Mapping[str, Any], *, schedule: str) -> None:
    """ValueError for a choice that would have no effect."""
    for name in ("milestones", "gamma"):
        if name in choices and schedule in ("constant", "cosine"):
            raise ValueError(
                f"{name} belongs to the step schedule, but the schedule is {schedule}; choose schedule step, or leave "
                f"{name} out"
            )


def proportionate(choices: Mapping[str, Any], *, steps: int, evaluate_every: int) -> dict[str, int]:
    """The grid for another number of steps than the usual `steps`, where choices name steps and no grid.

    So a short run has points between its start and its end; a grid that is given holds.
    """
    chosen = choices.get("steps")
    if "evaluate_every" in choices or isinstance(chosen, bool) or not isinstance(chosen, int) or chosen < 1:
        return {}  # what is no number of steps is refused where the recipe is made
    return {"evaluate_every": max(1, round(evaluate_every * chosen / steps))}
