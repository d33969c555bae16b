"""What was measured of an arm, for the result document: means with their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from winticket import judge
from winticket.experiment.plan import EXACT
from winticket.experiment.runs import Replicate, Runs, Trained, accuracies, at_early_stop, early_stops
from winticket.experiment.scored_on import ScoredOn
from winticket.results import Measured, PrecisionEffect
from winticket.ticket import Failed

if TYPE_CHECKING:
    pass


def precision_effect(runs: Runs, over: ScoredOn) -> PrecisionEffect | None:
    """What the recipe's precision changed in the dense network, by replicate; None if that was not measured."""
    if (0, EXACT) not in runs.by_cell:
        return None
    pairs = zip(accuracies(runs.by_cell[0, "dense"]), accuracies(runs.by_cell[0, EXACT]), strict=True)
    differences = [None if a is None or b is None else over.scale.gain(b, a) for a, b in pairs]
    finished = [d for d in differences if d is not None]
    # A difference of two accuracies on the same answers moves in steps of one answer.
    interval = judge.mean_interval(differences, floor=over.step)
    return {
        "precision": runs.plan.setup.recipe.precision,
        "float32": measured(runs.by_cell[0, EXACT], over),
        "difference": math.fsum(finished) / len(finished) if finished else None,
        "difference_ci": None
        if interval is None
        else [max(interval[0], over.least), min(interval[1], -over.least)],
        "differences": differences,
    }


def no_early_stop(runs: Runs, number: int) -> str | None:
    """Why the early stops of a level are not compared; None if they are."""
    stops = {"dense": runs.by_cell[0, "dense"], **runs.arms(number)}
    last = runs.plan.experiment.recipe.steps
    return judge.uninformative_early_stop({arm: early_stops(e) for arm, e in stops.items()}, last)


def start_accuracy(entries: Sequence[Replicate]) -> float | None:
    """The mean accuracy (fraction) before the first step, of the replicates that finished and measured it."""
    firsts = [
        float(r.curve.pace_accuracy[0]) for r in entries if isinstance(r, Trained) and r.curve.step[0] == 0
    ]
    known = [accuracy for accuracy in firsts if math.isfinite(accuracy)]
    return math.fsum(known) / len(known) if known else None


def measured(entries: Sequence[Replicate], over: ScoredOn) -> Measured:
    """The document's entry for an arm at a level, whose scores are measured on `over`."""
    steps = max((float(r.curve.step[-1]) for r in entries if isinstance(r, Trained)), default=0.0)
    final, stops, stopped = accuracies(entries), early_stops(entries), at_early_stop(entries)
    accuracy, accuracy_ci = _mean(final, within=(over.scale.low, over.scale.high), floor=over.step)
    stop, stop_ci = _mean(stops, within=(0.0, steps), floor=0.0)
    early, early_ci = _mean(stopped, within=(over.scale.low, over.scale.high), floor=over.step)
    how = next((r.how for r in entries if isinstance(r, Trained)), {})
    return {
        "accuracy": accuracy,
        "accuracy_ci": accuracy_ci,
        "accuracies": list(final),
        "early_stop_step": stop,
        "early_stop_ci": stop_ci,
        "early_stop_steps": list(stops),
        "accuracy_at_early_stop": early,
        "accuracy_at_early_stop_ci": early_ci,
        "accuracies_at_early_stop": list(stopped),
        "failed": sum(isinstance(r, Failed) for r in entries),
        "stacked": how.get("stacked"),
        "stacking_reason": how.get("reason") or None,
        "sparse": how.get("sparse", []),
    }


def _mean(
    values: Sequence[float | None], *, within: tuple[float, float], floor: float
) -> tuple[float | None, list[float] | None]:
    """Mean and 95 % interval of the values that are not missing; all values lie in the range `within`."""
    finished = [value for value in values if value is not None]
    mean = math.fsum(finished) / len(finished) if finished else None
    interval = judge.mean_interval(values, floor=floor)
    # A mean lies in the range of the values, so cutting the interval there loses no coverage.
    return mean, None if interval is None else [max(interval[0], within[0]), min(interval[1], within[1])]
