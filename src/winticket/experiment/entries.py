"""The networks of a comparison: method, plan and length of the trainings. Nothing runs here."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

from winticket.catalogue import check_methods
from winticket.data import Data
from winticket.experiment.names import METHODS, facts
from winticket.experiment.plan import Cell, Plan, plan
from winticket.experiment.spec import RECIPE_FIELDS, Experiment

USUAL_METHODS = ("imp", "one-shot", "at-init:snip", "at-init:random", "gradual", "set", "rigl")
SHARED = (
    *("model", "init", "include", "exclude", "replicates", "seed", "validation", "test", "split"),
    *RECIPE_FIELDS,
)
"""Choices that all methods of a comparison share."""
NEAR = 0.02
"""Costs that differ by less than this share count as equal."""
RATE = 0.2
"""Largest share of the remaining weights that iterative pruning prunes in one level."""


@dataclass(frozen=True)
class Entry:
    """One method's network: the plan that trains it, and its arm in that plan."""

    method: str
    plan: Plan
    arm: str

    @property
    def level(self) -> int:
        """The last level of the plan; 0 for the dense network."""
        return 0 if self.arm == "dense" else len(self.plan.counts) - 1

    @property
    def steps(self) -> int:
        """Optimiser steps of each training."""
        return self.plan.setup.recipe.steps

    def cells(self) -> list[Cell]:
        """The cells of the network in its plan, one per stack."""
        return [cell for cell in self.plan.tasks if cell[:2] == (self.level, self.arm)]


def lay_out(
    data: Data, methods: Sequence[str] = USUAL_METHODS, *, density: float, **choices: Any
) -> list[Entry]:
    """The networks of a comparison, the dense network first. Nothing runs; parameters and errors as for `compare`.

    >>> entries = lay_out("digits", ["imp", "rigl"], density=0.1, steps=20)
    >>> [(entry.method, entry.arm, entry.level) for entry in entries]
    [('dense', 'dense', 0), ('imp', 'ticket', 11), ('rigl', 'search', 1)]
    """
    if not 0 < density < 1:
        raise ValueError(f"density is {density}; it must lie in (0, 1), as 0.1")
    check_methods(methods)
    return _entries(data, methods, density, choices)


def identity(entries: Sequence[Entry]) -> dict[str, Any]:
    """What distinguishes this comparison from others: data, model, recipe, density and methods; JSON."""
    planned = entries[0].plan
    shared = {k: v for k, v in planned.experiment.describe().items() if k in SHARED}
    methods = list(dict.fromkeys(entry.method for entry in entries if entry.arm != "dense"))
    return {
        **shared,
        "fingerprint": planned.setup.fingerprint,
        "to density": final_density(entries),
        "methods": methods,
    }


def output_folder(entries: Sequence[Entry]) -> Path:
    """The default folder of a comparison: winticket-compare/DATA-MODEL-DENSITY."""
    experiment = entries[0].plan.experiment
    data = Path(experiment.data).absolute().stem if Path(experiment.data).exists() else experiment.data
    name = f"{data}-{experiment.model}-{final_density(entries):g}"
    return Path("winticket-compare") / re.sub(r"[^\w.-]+", ".", name)


def variants(entries: Sequence[Entry]) -> list[str]:
    """Warnings about methods whose allocation is not the one in the paper of their criterion."""
    sentences = {e.method: e.plan.experiment.variant() for e in entries if e.arm != "dense"}
    return [f"{method}: {sentence}" for method, sentence in sentences.items() if sentence]


def final_density(entries: Sequence[Entry]) -> float:
    """The density at which all methods end."""
    experiment = entries[0].plan.experiment
    return experiment.density[-1] if experiment.density else float(experiment.final_density or 1.0)


def _entries(data: Data, methods: Sequence[str], density: float, choices: Mapping[str, Any]) -> list[Entry]:
    if not methods:
        raise ValueError(f"no method is given; the usual methods are {', '.join(USUAL_METHODS)}")
    if len(set(methods)) < len(methods):
        raise ValueError(f"a method is given twice among {', '.join(methods)}")
    entries: list[Entry] = []
    plain = [request.partition("@")[0].partition(":")[0] for request in methods]
    experiments = {request: _experiment(data, request, plain, density, choices) for request in methods}
    if "exclude" not in choices:  # All methods must count the same weights.
        spared = tuple(dict.fromkeys(name for e in experiments.values() for name in e.exclude))
        experiments = {request: e.but(exclude=spared) for request, e in experiments.items()}
    for request, experiment in experiments.items():
        method, planned = experiment.method, plan(experiment)
        if not entries:
            entries.append(Entry("dense", planned, "dense"))
        searched = (len(planned.counts) - 1, "search", 0) in planned.tasks
        if searched:
            entries.append(Entry(request, planned, "search"))
        if not searched or facts(method).search != "trained":
            entries.append(Entry(request, planned, "ticket"))
    return entries


def _experiment(
    data: Data,
    request: str,
    plain: Sequence[str],
    density: float,
    choices: Mapping[str, Any],
) -> Experiment:
    """The experiment of one `request`; `plain` are the names of all methods of the comparison."""
    named, _, later = request.partition("@")
    method, colon, criterion = named.partition(":")
    if colon and not criterion:
        raise ValueError(f"{request!r} should read METHOD:CRITERION, as at-init:snip")
    chosen = {**choices, "method": method, "controls": (), "gate": False, "precision_check": False}
    for name in ("every", "search_lr"):
        if not _takes(method, name) and any(_takes(other, name) for other in plain):
            chosen.pop(name, None)  # It is meant for another method.
    if later:
        if not later.isdecimal():
            raise ValueError(f"{request!r} should read METHOD@STEP, the step to rewind to, as imp@100")
        chosen |= {"rewind": "to_step", "rewind_step": int(later)} if int(later) else {}
    if criterion:
        chosen["criterion"] = criterion
    if facts(method).levels:
        levels = math.ceil(math.log(density) / math.log(1 - RATE) - 1e-9)
        chosen |= {"final_density": density, "levels": levels}
    else:
        chosen["density"] = (density,)
    return Experiment.of(data, **chosen)


def _takes(method: str, name: str) -> bool:
    return method in METHODS and name in signature(METHODS[method]).parameters


def at_budget(entry: Entry, steps: float | None, budget: float) -> Entry | None:
    """The entry with trainings so long that its total cost is the budget; None if it costs the budget already.

    `steps` are the optimiser steps that it cost so far; None if they are not known. Dense training and n levels that
    rewind to step k take T + n (T - k) steps. So one more step in T costs one step per training, and T grows by the
    missing steps divided by the number of trainings.

    >>> _, entry = lay_out("digits", ["at-init"], density=0.1, steps=20)
    >>> longer = at_budget(entry, steps=20, budget=100)
    >>> longer.steps
    100
    """
    if steps is None or abs(steps - budget) < NEAR * budget:
        return None
    recipe = entry.plan.setup.recipe
    length = max(1, recipe.steps + round((budget - steps) / _lengthened(entry)))
    share = length / recipe.steps
    experiment = entry.plan.experiment.but(
        steps=length,
        **({"warmup": round(recipe.warmup * share)} if recipe.warmup else {}),
    )
    return Entry(entry.method, plan(experiment), entry.arm)


def _lengthened(entry: Entry) -> int:
    """How many of a network's trainings take one more step if the recipe has one more.

    That is all of them except Early-Bird's search, which ends when its mask has settled.
    """
    if not facts(entry.plan.experiment.method).starts_dense:
        return 1
    cell = entry.cells()[0]
    return len({cell, *entry.plan.behind(cell)})
