"""From stored trainings to the result document: levels, arms, verdict, curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import torch

from winticket import models
from winticket.experiment import paces
from winticket.experiment.plan import BESIDE, GATE, SOURCE, Plan
from winticket.experiment.remarks import effective, remarks
from winticket.experiment.runs import (
    Replicate,
    Runs,
    Trained,
    accuracies,
    at_early_stop,
    curves_of,
    early_stops,
)
from winticket.ticket import Curve, Failed, output_units

if TYPE_CHECKING:
    from winticket.judge import Verdict

SPENT = ("steps", "flops", "seconds")
CURVE_COLUMNS = tuple(field.name for field in fields(Curve))


def document(runs: Runs, verdict: Verdict) -> dict[str, Any]:
    """The result document without what depends on where and how long it ran; JSON."""
    plan = runs.plan
    told = verdict.as_json()
    checks = {level.density: level.as_json() for level in verdict.levels}
    output = models.output_layer(plan.setup.module())
    levels, (answers, _) = [], test_answers(plan)
    for number, density in enumerate(plan.densities()):
        arms = runs.arms(number)
        steps_to, pace = paces.of_level(
            {arm: curves_of(entries) for arm, entries in arms.items()},
            curves_of(runs.by_place[0, "dense"]),
            alpha=plan.experiment.alpha,
            learned=verdict.learned.learned,
        )
        levels.append(
            {
                "density": density,
                "model_density": _model_density(plan, number),
                "arms": {
                    arm: {**measured(entries, answers=answers), "steps_to": steps_to[arm]}
                    for arm, entries in arms.items()
                },
                "checks": {}
                if number == 0
                else {**checks[density], "time_left_out": no_early_stop(runs, number), "pace": pace},
                "emptied": {
                    arm: gone for arm, entries in arms.items() if (gone := _emptied(entries, output))
                },
                "emptied_outputs": {
                    arm: found for arm, entries in arms.items() if (found := _emptied_outputs(entries))
                },
                "effective_density": {
                    arm: count / plan.counts[0]
                    for arm, entries in arms.items()
                    if (count := effective(entries))
                },
            }
        )
    return {
        "experiment": plan.experiment.describe(),
        "data": _data(plan),
        "verdict": {
            **told,
            "warnings": [*told["warnings"], *remarks(runs)],
        },
        "levels": levels,
        "dense_doubled": measured(runs.by_place[0, GATE], answers=answers)
        if (0, GATE) in runs.by_place
        else None,
        "costs": costs(runs),
        "failures": failures(runs),
    }


def _data(plan: Plan) -> dict[str, Any]:
    """What was trained and tested on."""
    source = plan.setup.facts()
    sizes = source.sizes(validation=plan.setup.validation, test=plan.setup.test)
    return {
        "fingerprint": plan.setup.fingerprint,
        "input_shape": list(plan.setup.input_shape),
        "classes": plan.setup.classes,
        "split": "own" if plan.setup.own_split else "shared",
        **dict(zip(("train", "validation", "test"), sizes, strict=True)),
    }


def costs(runs: Runs) -> list[dict[str, Any]]:
    """What one replicate of each arm took, with all trainings that its mask was found by; means over replicates.

    Optimiser steps, floating-point operations of training (None where a training has no count of them) and seconds of
    a process, an equal share of its stack's. Arms of which no replicate finished are left out.
    """
    densities = runs.plan.densities()
    found = ((level, arm, cost(runs, level, arm)) for level, arm in runs.by_place if arm not in BESIDE)
    return [{"density": densities[level], "arm": name, **spent} for level, name, spent in found if spent]


def cost(runs: Runs, level: int, arm: str) -> dict[str, Any] | None:
    """Steps, operations and seconds of one replicate of an arm and of all that it needed; None if none finished."""
    plan = runs.plan
    totals: list[dict[str, float | None]] = []
    for number, entry in enumerate(runs.by_place[level, arm]):
        first = number - number % plan.experiment.stack
        behind = [runs.by_place[at[:2]][number] for at in plan.behind((level, arm, first))]
        if not isinstance(entry, Trained) or not all(isinstance(b, Trained) for b in behind):
            continue
        parts = [(_spent(entry), 1.0)]
        for before in behind:
            spent = _spent(before)
            part = 1.0 if entry.searched_steps is None else entry.searched_steps / (spent["steps"] or 1)
            parts.append((spent, part))
        totals.append(
            {name: _sum([None if s[name] is None else s[name] * part for s, part in parts]) for name in SPENT}
        )
    if not totals:
        return None
    sums = {name: _sum([total[name] for total in totals]) for name in SPENT}
    return {name: None if value is None else value / len(totals) for name, value in sums.items()}


def _sum(values: Sequence[float | None]) -> float | None:
    """None where one is missing."""
    there = [v for v in values if v is not None]
    return math.fsum(there) if len(there) == len(values) else None


def _spent(entry: Replicate) -> dict[str, Any]:
    if not isinstance(entry, Trained):
        return dict.fromkeys(SPENT)
    return {"steps": entry.how.get("steps"), "flops": entry.how.get("work"), "seconds": entry.seconds}


def failures(runs: Runs) -> list[dict[str, Any]]:
    """Every replicate that failed, with its place and reason."""
    own, source = runs.plan.densities(), runs.plan.source_densities()
    return [
        {
            "arm": arm,
            "density": (source if arm == SOURCE else own)[level],
            "replicate": number,
            "reason": entry.reason,
        }
        for (level, arm), entries in sorted(runs.by_place.items())
        for number, entry in enumerate(entries)
        if isinstance(entry, Failed)
    ]


def curves(runs: Runs) -> list[dict[str, Any]]:
    """One row per training that finished: density, arm, replicate and the columns of its learning curve."""
    densities = runs.plan.densities()
    return [
        {
            "density": densities[level],
            "arm": arm,
            "replicate": number,
            **{name: getattr(entry.curve, name).tolist() for name in CURVE_COLUMNS},
        }
        for (level, arm), entries in sorted(runs.by_place.items())
        for number, entry in enumerate(entries)
        if isinstance(entry, Trained) and arm not in BESIDE
    ]


def best(runs: Runs, found: Mapping[str, Any]) -> tuple[int, int] | None:
    """(level, replicate) of the ticket that is saved; among replicates the best on validation data.

    At the smallest density claimed; where none is, at the smallest that the verdict's sequence shows to match; else at
    the density where the tickets' mean validation accuracy is highest. None where every ticket failed.
    """
    densities = runs.plan.densities()
    scores: dict[int, dict[int, float]] = {}
    for level in range(1, len(densities)):
        entries = enumerate(runs.by_place[level, "ticket"])
        own = {n: r.curve.last()["validation_accuracy"] for n, r in entries if isinstance(r, Trained)}
        if own:
            scores[level] = own
    if not scores:
        return None
    matched = [n for n in scores if found["levels"][n]["checks"].get("matched")]
    if found["verdict"]["density"] is not None:
        level = densities.index(found["verdict"]["density"])
    elif matched:
        level = max(matched)
    else:
        level = max(scores, key=lambda n: math.fsum(scores[n].values()) / len(scores[n]))
    return level, max(scores[level], key=lambda n: scores[level][n])


def no_early_stop(runs: Runs, number: int) -> str | None:
    """Why a level's early stops are not compared; None where they are."""
    from winticket import judge

    stops = {"dense": runs.by_place[0, "dense"], **runs.arms(number)}
    last = runs.plan.experiment.recipe.steps
    return judge.uninformative_early_stop({arm: early_stops(e) for arm, e in stops.items()}, last)


def test_answers(plan: Plan) -> tuple[int, float]:
    """How many answers a replicate's test set takes, and the accuracy of always giving the commonest."""
    answers = plan.setup.dataset(torch.device("cpu")).test.y.flatten()
    return len(answers), int(torch.bincount(answers).max()) / len(answers)


def measured(entries: Sequence[Replicate], *, answers: int) -> dict[str, Any]:
    """What the document says of an arm at a level, each of whose accuracies is the mean of so many `answers`."""
    from winticket import judge  # scipy's statistics take a second to import, and are wanted at the end alone

    found: dict[str, Any] = {}
    steps = max((float(r.curve.step[-1]) for r in entries if isinstance(r, Trained)), default=0.0)
    for name, many, values, most, floor in (
        ("accuracy", "accuracies", accuracies(entries), 1.0, 1 / answers),
        ("early_stop_step", "early_stop_steps", early_stops(entries), steps, 0.0),
        ("accuracy_at_early_stop", "accuracies_at_early_stop", at_early_stop(entries), 1.0, 1 / answers),
    ):
        there = [v for v in values if v is not None]
        interval = judge.mean_interval(values, floor=floor)
        ci = "early_stop_ci" if name == "early_stop_step" else f"{name}_ci"
        found[name] = math.fsum(there) / len(there) if there else None
        # No mean lies outside what a single value can be, so an interval ends there; it still covers as often.
        found[ci] = None if interval is None else [max(interval[0], 0.0), min(interval[1], most)]
        found[many] = list(values)
    how = next((r.how for r in entries if isinstance(r, Trained)), {})
    return {
        **found,
        "failed": sum(isinstance(r, Failed) for r in entries),
        "stacked": how.get("stacked"),
        "stacking_reason": how.get("reason") or None,
        "sparse": how.get("sparse", []),
    }


def _emptied(entries: Sequence[Replicate], output: str | None) -> list[str]:
    """Layers that some replicate of an arm has no weight left in, and output units (classes) of the layer `output`."""
    there = [r for r in entries if isinstance(r, Trained)]
    classes = sorted({unit for r in there for unit in r.classes})
    layers = sorted({name for r in there for name in r.emptied})
    return [*layers, output_units(output, classes)] if output and classes else layers


def _emptied_outputs(entries: Sequence[Replicate]) -> list[list[int] | None] | None:
    """By replicate the output units that no weight goes into, None where it failed; None if there are none at all."""
    units = [list(r.classes) if isinstance(r, Trained) else None for r in entries]
    return units if any(units) else None


def _model_density(plan: Plan, level: int) -> float:
    parameters = sum(p.numel() for p in plan.setup.module().parameters())
    return (parameters - plan.counts[0] + plan.counts[level]) / parameters
