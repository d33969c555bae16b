"""Build the result document from stored trainings: levels, arms, verdict, curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from winticket import judge, models
from winticket.experiment import paces
from winticket.experiment.plan import BESIDE, EXACT, GATE, SOURCE, Plan
from winticket.experiment.remarks import mean_effective_count, notes, remarks
from winticket.experiment.runs import (
    Replicate,
    Runs,
    Trained,
    accuracies,
    at_early_stop,
    curves_of,
    early_stops,
)
from winticket.experiment.scored_on import ScoredOn, scored_on
from winticket.objective import ACCURACY
from winticket.results import (
    Checks,
    Cost,
    Data,
    Failure,
    Judged,
    LearningCurve,
    Level,
    Measured,
    PrecisionEffect,
    Spent,
)
from winticket.ticket import Curve, Failed, output_units

if TYPE_CHECKING:
    from winticket.judge import Verdict


def document(runs: Runs, verdict: Verdict) -> Judged:
    """The result document without entries that depend on the machine and the duration; JSON."""
    plan = runs.plan
    words = verdict.as_json()
    words["warnings"] += remarks(runs)
    words["notes"] += notes(runs)
    over = scored_on(plan)
    judged: Judged = {
        "experiment": plan.experiment.describe(),
        "data": data_of(plan),
        "verdict": words,
        "levels": [_level(runs, number, verdict, over) for number in range(len(plan.counts))],
        "dense_doubled": measured(runs.by_cell[0, GATE], over) if (0, GATE) in runs.by_cell else None,
        "precision_effect": precision_effect(runs, over),
        "costs": costs(runs),
        "failures": failures(runs),
    }
    if over.scale != ACCURACY:
        judged["metric"] = over.entry()
    return judged


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


def _level(runs: Runs, number: int, verdict: Verdict, over: ScoredOn) -> Level:
    """One level of the document."""
    plan, arms = runs.plan, runs.arms(number)
    density = plan.densities()[number]
    steps_to, pace = paces.of_level(
        {arm: curves_of(entries) for arm, entries in arms.items()},
        curves_of(runs.by_cell[0, "dense"]),
        alpha=plan.experiment.alpha,
        learned=verdict.learned.learned,
        scale=over.scale,
        constant=over.known_constant,
    )
    checks: Checks = {}
    if number > 0:
        (judged,) = (level for level in verdict.levels if level.density == density)
        checks = {**judged.as_json(), "time_left_out": no_early_stop(runs, number), "pace": pace}
    output = models.output_layer(plan.setup.module())
    emptied = {arm: _emptied(entries, output) for arm, entries in arms.items()}
    outputs = {arm: _emptied_outputs(entries) for arm, entries in arms.items()}
    effective = {arm: mean_effective_count(entries) for arm, entries in arms.items()}
    return {
        "density": density,
        "model_density": _model_density(plan, number),
        "arms": {
            arm: {
                **measured(entries, over),
                "start_accuracy": start_accuracy(entries),
                "steps_to": steps_to[arm],
            }
            for arm, entries in arms.items()
        },
        "checks": checks,
        "emptied": {arm: names for arm, names in emptied.items() if names},
        "emptied_outputs": {arm: units for arm, units in outputs.items() if units},
        "effective_density": {arm: count / plan.counts[0] for arm, count in effective.items() if count},
    }


def data_of(plan: Plan) -> Data:
    """The data that the networks were trained and tested on."""
    _, validation, test = plan.setup.facts().sizes(validation=plan.setup.validation, test=plan.setup.test)
    train = plan.setup.train_examples()
    data: Data = {
        "fingerprint": plan.setup.fingerprint,
        "input_shape": list(plan.setup.input_shape),
        "classes": plan.setup.classes,
        "split": "own" if plan.setup.own_split else "shared",
        "tokens": plan.setup.tokens,
        "train": train,
        "validation": validation,
        "test": test,
    }
    if plan.setup.target != "classes":
        data["target"] = plan.setup.target
    return data


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


def _emptied(entries: Sequence[Replicate], output: str | None) -> list[str]:
    """Layers without any weight left in some replicate of an arm, and such units (classes) of the layer `output`."""
    trained = [entry for entry in entries if isinstance(entry, Trained)]
    classes = sorted({unit for entry in trained for unit in entry.classes})
    layers = sorted({name for entry in trained for name in entry.emptied})
    return [*layers, output_units(output, classes)] if output and classes else layers


def _emptied_outputs(entries: Sequence[Replicate]) -> list[list[int] | None] | None:
    """Output units without incoming weights by replicate, None if it failed; None if there are no such units."""
    units = [list(r.classes) if isinstance(r, Trained) else None for r in entries]
    return units if any(units) else None


def _model_density(plan: Plan, level: int) -> float:
    parameters = sum(p.numel() for p in plan.setup.module().parameters())
    return (parameters - plan.counts[0] + plan.counts[level]) / parameters
