"""What an arm has cost with all trainings that it needed, for the result document."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from winticket.experiment.plan import BESIDE
from winticket.experiment.runs import Replicate, Runs, Trained
from winticket.results import Cost, Spent

if TYPE_CHECKING:
    pass


def costs(runs: Runs) -> list[Cost]:
    """Cost of one replicate of each arm, including all trainings that its mask needed; means over replicates.

    The costs are optimiser steps, floating-point operations of training (None if a training has no count of them), and
    seconds of a process (an equal share of the stack's time). Arms without a finished replicate are absent.
    """
    densities = runs.plan.densities()
    spent = ((level, arm, cost(runs, level, arm)) for level, arm in runs.by_cell if arm not in BESIDE)
    return [{"density": densities[level], "arm": arm, **each} for level, arm, each in spent if each]


def cost(runs: Runs, level: int, arm: str) -> Spent | None:
    """The cost of one replicate of an arm with all trainings that it needed; None if no replicate finished."""
    plan = runs.plan
    totals: list[Spent] = []
    for number, entry in enumerate(runs.by_cell[level, arm]):
        first = number - number % plan.experiment.stack
        behind = [runs.by_cell[cell[:2]][number] for cell in plan.behind((level, arm, first))]
        if not isinstance(entry, Trained) or not all(isinstance(before, Trained) for before in behind):
            continue
        parts = [(_spent(entry), 1.0)]
        for before in behind:
            spent = _spent(before)
            part = 1.0 if entry.searched_steps is None else entry.searched_steps / (spent["steps"] or 1)
            parts.append((spent, part))
        totals.append(_added(parts))
    if not totals:
        return None
    sums = _added([(total, 1.0) for total in totals])
    return {
        "steps": _divided(sums["steps"], len(totals)),
        "flops": _divided(sums["flops"], len(totals)),
        "seconds": _divided(sums["seconds"], len(totals)),
    }


def _added(parts: Sequence[tuple[Spent, float]]) -> Spent:
    """The weighted sum of (cost, weight)."""
    return {
        "steps": _sum([(spent["steps"], weight) for spent, weight in parts]),
        "flops": _sum([(spent["flops"], weight) for spent, weight in parts]),
        "seconds": _sum([(spent["seconds"], weight) for spent, weight in parts]),
    }


def _sum(parts: Sequence[tuple[float | None, float]]) -> float | None:
    """The weighted sum of (value, weight); None if a value is missing."""
    known = [value * weight for value, weight in parts if value is not None]
    return math.fsum(known) if len(known) == len(parts) else None


def _divided(value: float | None, count: int) -> float | None:
    return None if value is None else value / count


def _spent(entry: Replicate) -> Spent:
    if not isinstance(entry, Trained):
        return {"steps": None, "flops": None, "seconds": None}
    return {"steps": entry.how.get("steps"), "flops": entry.how.get("work"), "seconds": entry.seconds}
