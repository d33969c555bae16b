"""Single trainings for the result document: those that failed, their curves, and the ticket to save."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from winticket.experiment.plan import BESIDE, SOURCE
from winticket.experiment.runs import Runs, Trained
from winticket.results import Failure, Judged, LearningCurve
from winticket.ticket import Curve, Failed

if TYPE_CHECKING:
    pass


def failures(runs: Runs) -> list[Failure]:
    """Every replicate that failed, with arm, density and reason."""
    densities, source = runs.plan.densities(), runs.plan.source_densities()
    return [
        {
            "arm": arm,
            "density": (source if arm == SOURCE else densities)[level],
            "replicate": number,
            "reason": entry.reason,
        }
        for (level, arm), entries in sorted(runs.by_cell.items())
        for number, entry in enumerate(entries)
        if isinstance(entry, Failed)
    ]


def curves(runs: Runs) -> list[LearningCurve]:
    """One row per training that finished: density, arm, replicate and the columns of its learning curve."""
    densities = runs.plan.densities()
    return [
        curve_row(entry.curve, arm=arm, density=densities[level], replicate=number)
        for (level, arm), entries in sorted(runs.by_cell.items())
        for number, entry in enumerate(entries)
        if isinstance(entry, Trained) and arm not in BESIDE
    ]


def curve_row(curve: Curve, *, arm: str, density: float, replicate: int) -> LearningCurve:
    """A learning curve as curves.json holds it."""
    return {
        "density": density,
        "arm": arm,
        "replicate": replicate,
        "step": curve.step.tolist(),
        "train_loss": curve.train_loss.tolist(),
        "validation_loss": curve.validation_loss.tolist(),
        "validation_accuracy": curve.validation_accuracy.tolist(),
        "pace_accuracy": curve.pace_accuracy.tolist(),
        "test_loss": curve.test_loss.tolist(),
        "test_accuracy": curve.test_accuracy.tolist(),
    }


def best(runs: Runs, judged: Judged) -> tuple[int, int] | None:
    """(level, replicate) of the ticket to save: the replicate with the best validation accuracy at the chosen level.

    The chosen level has the smallest density that the verdict claims. If it claims none, it is the sparsest level that
    the verdict's sequence shows to match, or else the level with the highest mean validation accuracy. None if every
    ticket failed.
    """
    densities, density = runs.plan.densities(), judged["verdict"]["density"]
    by_level: dict[int, dict[int, float]] = {}
    sign = runs.plan.setup.scale().sign
    for level in range(1, len(densities)):
        entries = enumerate(runs.by_cell[level, "ticket"])
        finished = {n: sign * entry.accuracy() for n, entry in entries if isinstance(entry, Trained)}
        if finished:
            by_level[level] = finished
    if not by_level:
        return None
    matched = [n for n in by_level if judged["levels"][n]["checks"].get("matched")]
    if density is not None:
        level = densities.index(density)
    elif matched:
        level = max(matched)
    else:
        level = max(by_level, key=lambda n: math.fsum(by_level[n].values()) / len(by_level[n]))
    return level, max(by_level[level], key=lambda n: by_level[level][n])
