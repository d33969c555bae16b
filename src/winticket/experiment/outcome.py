"""Build the result document from stored trainings: levels, arms, verdict, curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from winticket import models
from winticket.experiment import paces
from winticket.experiment.outcome_costs import costs
from winticket.experiment.outcome_measured import measured, no_early_stop, precision_effect, start_accuracy
from winticket.experiment.outcome_trainings import failures
from winticket.experiment.plan import GATE, Plan
from winticket.experiment.remarks import mean_effective_count, notes, remarks
from winticket.experiment.runs import Replicate, Runs, Trained, curves_of
from winticket.experiment.scored_on import ScoredOn, scored_on
from winticket.objective import ACCURACY
from winticket.results import Checks, Data, Judged, Level
from winticket.ticket import output_units

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
