"""Judge stored trainings, and count the earlier looks at the same networks."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from winticket.experiment.outcome_measured import no_early_stop
from winticket.experiment.plan import GATE, Plan
from winticket.experiment.runs import Replicate, Runs, Trained, accuracies, at_early_stop, early_stops
from winticket.experiment.scored_on import scored_on
from winticket.experiment.spec import Experiment
from winticket.objective import ACCURACY
from winticket.run import Store
from winticket.run.keys import Json

if TYPE_CHECKING:
    from winticket.judge import Level, Look, Verdict

JUDGED = ("dense", "ticket", "reinit", "random")
SAME_NETWORKS = frozenset(
    (
        *(
            "replicates",
            "stack",
            "controls",
            "arms",
            "margin_pp",
            "relative_margin",
            "metric",
            "unit",
            "alpha",
            "gate",
            "precision_check",
            "evaluate_every",
            "early_points",
        ),
        *("levels", "density", "final_density", "pruning", "rate", "output_rate", "conv_rate", "data"),
        "carried",
    )
)
"""Choices that may differ between two looks at the same networks; any other difference makes another experiment."""


def verdict_of(runs: Runs, store: Store) -> Verdict:
    """Judge the trainings of a plan, given the earlier looks at the same networks that the store records.

    Judging the same numbers again is the same look. New numbers are a new look, which the store records before anybody
    sees the verdict. With fewer than five replicates or without both controls a verdict can claim nothing, so it is
    not counted as a look.
    """
    levels = _levels(runs)
    if not _decides(runs.plan, levels):
        return _judge(runs, levels, looks=[])
    experiment, paths = runs.plan.experiment, paths_of(runs.plan)
    about: dict[str, Json] = {
        "name": _digest([_numbers(levels), experiment.margin_pp, experiment.alpha, *_kind(experiment)]),
        "replicates": experiment.replicates,
        "margin_pp": experiment.margin_pp,
        "alpha": experiment.alpha,
        **dict.fromkeys(_kind(experiment), True),
    }
    mine, earlier = _registered(store, question_of(runs.plan), about)
    verdict = _judge(runs, levels, looks=[look_at(one, paths) for one in earlier])
    claims: dict[str, Json] = {
        "outcome": verdict.outcome,
        "claimed": list(verdict.claimed),
        "paths": [paths[density] for density in verdict.claimed],
    }
    store.put_look(question_of(runs.plan), {**mine, **claims})
    return verdict


def _kind(experiment: Experiment) -> tuple[str, ...]:
    """What a look's record says of the kind of its margin: nothing if that is in the unit of differences."""
    return ("relative",) if experiment.relative_margin else ()


def _registered(
    store: Store, question: str, about: Mapping[str, Json]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """This look and the earlier ones. A new look is recorded first, so that two processes never share a number."""
    looks = store.looks(question)
    if all(look["name"] != about["name"] for look in looks):
        new = {**about, "look": len(looks) + 1, "when": time.time_ns(), "claimed": [], "paths": []}
        store.put_look(question, new)
        looks = store.looks(question)
    at = next(n for n, look in enumerate(looks) if look["name"] == about["name"])
    return {**looks[at], "look": at + 1}, looks[:at]


def question_of(plan: Plan) -> str:
    """The name that all looks at the same networks share: a digest of data, model, recipe, method and seed."""
    about = {"data": plan.setup.fingerprint, "choices": _same(plan.experiment.describe())}
    return _digest(about)[:32]


def _same(choices: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _same(value) if isinstance(value, Mapping) else value
        for name, value in choices.items()
        if name not in SAME_NETWORKS
    }


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _numbers(levels: Sequence[Level]) -> list[Any]:
    """The numbers that decide the verdict."""
    return [[level.density, {arm: list(runs) for arm, runs in level.accuracy.items()}] for level in levels]


def paths_of(plan: Plan) -> dict[float, str]:
    """By density, a digest of all densities down to it: tickets of one density are other tickets on another path.

    Claims in one metric are none in another, so a metric other than accuracy is part of the digest.
    """
    experiment, way = plan.experiment, plan.source_densities()
    at = (0, *experiment.carried) if experiment.source is not None else range(len(way))
    rates = {name: experiment.describe()[name] for name in ("output_rate", "conv_rate")}
    metric = [] if (scale := plan.setup.scale()) == ACCURACY else [scale.name]
    return {
        density: _digest([way[: level + 1], rates, *metric])
        for density, level in zip(plan.densities(), at, strict=True)
    }


def look_at(about: Mapping[str, Any], paths: Mapping[float, str]) -> Look:
    """A look that the store records, with its claims about the tickets that are judged now."""
    from winticket import judge

    claims = zip(about["claimed"], about["paths"], strict=True)
    same = tuple(density for density, path in claims if paths.get(density) == path)
    return judge.Look(
        about["replicates"], about["margin_pp"], about["alpha"], same, about.get("relative", False)
    )


def _decides(plan: Plan, levels: Sequence[Level]) -> bool:
    """True if there are enough replicates and controls to claim a win at all."""
    from winticket.judge.checks import CONTROLS, MIN_REPLICATES

    controlled = any(level.density < 1 and set(CONTROLS) <= level.accuracy.keys() for level in levels)
    return plan.experiment.replicates >= MIN_REPLICATES and controlled


def _levels(runs: Runs) -> list[Level]:
    from winticket import judge

    densities = runs.plan.densities()
    levels = [
        judge.Level(
            density=1.0,
            accuracy=dict.fromkeys(("dense", "ticket"), accuracies(runs.by_cell[0, "dense"])),
        )
    ]
    for number in range(1, len(densities)):
        arms = {"dense": runs.by_cell[0, "dense"], **runs.arms(number)}
        arms = {
            arm: entries for arm, entries in arms.items() if arm in JUDGED
        }  # The verdict ignores other arms.
        levels.append(
            judge.Level(
                density=densities[number],
                accuracy={arm: accuracies(entries) for arm, entries in arms.items()},
                early_stop_step={}
                if no_early_stop(runs, number)
                else {arm: early_stops(entries) for arm, entries in arms.items()},
                accuracy_at_early_stop={arm: at_early_stop(entries) for arm, entries in arms.items()},
                train_loss={arm: _train_losses(entries) for arm, entries in arms.items()},
            )
        )
    return levels


def _judge(runs: Runs, levels: Sequence[Level], *, looks: Sequence[Look]) -> Verdict:
    from winticket import judge

    experiment = runs.plan.experiment
    enough = None
    over = scored_on(runs.plan)
    metric: dict[str, Any] = {
        "scale": over.scale,
        "relative": experiment.relative_margin,
        "constant": over.known_constant,
    }
    if (0, GATE) in runs.by_cell:
        doubled = accuracies(runs.by_cell[0, GATE])
        dense = accuracies(runs.by_cell[0, "dense"])
        enough = judge.gate(
            dense, doubled, experiment.margin_pp, alpha=experiment.alpha, test_examples=over.answers, **metric
        )
    return judge.judge(
        levels,
        margin_pp=experiment.margin_pp,
        alpha=experiment.alpha,
        trained_enough=enough,
        grid=experiment.recipe.evaluate_every,
        arms_expected=("dense", "ticket", *(arm for arm in experiment.controls if arm in JUDGED)),
        test_examples=over.answers,
        looks=looks,
        **metric,
    )


def _train_losses(entries: Sequence[Replicate]) -> tuple[float | None, ...]:
    """Training loss at the last step by replicate; None if the replicate failed or its loss was not finite."""
    losses = [entry.curve.last()["train_loss"] if isinstance(entry, Trained) else None for entry in entries]
    return tuple(loss if loss is not None and math.isfinite(loss) else None for loss in losses)
