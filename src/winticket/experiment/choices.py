"""Refuse choices that would not do what they seem to, and scale the evaluation grid with the steps."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from winticket.data import Reading
from winticket.text import nearest

MOST_TRAININGS = 200_000


def check_learning_rate(choices: Mapping[str, Any], usual: Mapping[str, Any]) -> None:
    """ValueError if another optimiser is chosen without a learning rate, so that it would run at the default one's."""
    optimizer, default = choices.get("optimizer"), usual.get("optimizer")
    alike = {optimizer, default} <= {"adam", "adamw"}
    if optimizer in ("sgd", "adam", "adamw") and optimizer != default and not alike and "lr" not in choices:
        raise ValueError(
            f"optimizer {optimizer} needs its own learning rate: {usual.get('lr')} is meant for {default}; "
            f"set --lr (lr=), usually {0.1 if optimizer == 'sgd' else 0.001} with {optimizer}"
        )


def check_effect(choices: Mapping[str, Any], *, schedule: str) -> None:
    """ValueError for a choice that would have no effect."""
    for name in ("milestones", "gamma"):
        if name in choices and schedule in ("constant", "cosine"):
            raise ValueError(
                f"{name} belongs to the step schedule, but the schedule is {schedule}; choose schedule step, or leave "
                f"{name} out"
            )


def proportionate(choices: Mapping[str, Any], *, steps: int, evaluate_every: int) -> dict[str, int]:
    """The evaluation grid scaled from the usual `steps` to the chosen ones; empty if choices name no steps, or a grid.

    So a short run still has points between its start and its end. A grid that is chosen is kept.
    """
    chosen = choices.get("steps")
    if "evaluate_every" in choices or isinstance(chosen, bool) or not isinstance(chosen, int) or chosen < 1:
        return {}  # The recipe itself refuses what is no number of steps.
    return {"evaluate_every": max(1, round(evaluate_every * chosen / steps))}


def refuse_execution(choices: Mapping[str, Any]) -> None:
    """TypeError for `engine`, which belongs to the execution and is not part of the question."""
    if "engine" in choices:
        engine = choices["engine"]
        raise TypeError(
            f"engine is {engine!r}, but an experiment has no engine, since it changes no number: pass "
            f"engine={engine!r} to winticket.find or winticket.experiment.conduct, or --engine {engine} to the command"
        )


def require_whole(name: str, value: Any) -> None:
    """TypeError for a choice `name` that is not a whole number."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is {value!r}; it is a whole number")


def require_known(choices: Mapping[str, Any], known: Collection[str]) -> None:
    """TypeError for a choice that experiments do not have."""
    refuse_execution(choices)
    for name in choices:
        if name not in known:
            raise TypeError(
                f"an experiment has no choice {name!r}{nearest(name, known)}; there are {', '.join(sorted(known))}"
            )


def check_reading(reading: Any, split: str) -> None:
    """TypeError if `reading` is none; ValueError if each replicate shall draw a split that the data determine."""
    if not isinstance(reading, Reading):
        raise TypeError(f"reading is {reading!r}; it is a winticket.data.Reading")
    if split == "own" and (reading.group or reading.time):
        raise ValueError(
            "split is own, but data that are split by group or time have one split for all replicates; choose split "
            "shared, or split by rows"
        )


def check_count(replicates: int, stack: int, networks: int) -> None:
    """ValueError for more trainings of stacks than a plan may have; each stack trains so many `networks`."""
    if -(-replicates // stack) * networks > MOST_TRAININGS:
        raise ValueError(
            f"{replicates} replicates, each with {networks} networks besides the dense one, are more than "
            f"{MOST_TRAININGS:,} trainings of stacks of {stack}, the most that one plan may have; use fewer, "
            "or several "
            "experiments with different seeds"
        )
