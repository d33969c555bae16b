"""The networks of a comparison: which method's, in which plan, with trainings of which length. Nothing is run here."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

from winticket.catalogue import check_methods
from winticket.experiment.names import METHODS, facts
from winticket.experiment.plan import Cell, Plan, plan
from winticket.experiment.spec import RECIPE_FIELDS, Experiment

USUAL_METHODS = ("imp", "one-shot", "at-init:snip", "at-init:random", "gradual", "set", "rigl")
SHARED = (
    *("model", "init", "include", "exclude", "replicates", "seed", "validation", "test", "split"),
    *RECIPE_FIELDS,
)
"""Choices that all methods of a comparison have in common."""
NEAR = 0.02
"""Costs that differ by less than this share are the same."""
RATE = 0.2
"""What iterative pruning takes of the weights that are left, at most, in each of its levels."""


@dataclass(frozen=True)
class Entry:
    """One method's network: where in which plan it is trained, and how many steps each of its trainings has."""

    method: str
    plan: Plan
    arm: str

    @property
    def level(self) -> int:
        return 0 if self.arm == "dense" else len(self.plan.counts) - 1

    @property
    def steps(self) -> int:
        return self.plan.setup.recipe.steps

    def cells(self) -> list[Cell]:
        """One per stack."""
        return [cell for cell in self.plan.tasks if cell[:2] == (self.level, self.arm)]


def lay_out(
    data: str | os.PathLike[str], methods: Sequence[str] = USUAL_METHODS, *, density: float, **choices: Any
) -> list[Entry]:
    """The plans of a comparison, the dense network first; see `compare`. Runs nothing."""
    if not 0 < density < 1:
        raise ValueError(f"density is {density}; give one in (0, 1), as 0.1")
    check_methods(methods)
    return _entries(data, methods, density, choices)


def identity(entries: Sequence[Entry]) -> dict[str, Any]:
    """What makes it this comparison: data, model, recipe, density and methods; JSON."""
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
    """Where a comparison goes unless another folder is given."""
    experiment = entries[0].plan.experiment
    data = Path(experiment.data).absolute().stem if Path(experiment.data).exists() else experiment.data
    name = f"{data}-{experiment.model}-{final_density(entries):g}"
    return Path("winticket-compare") / re.sub(r"[^\w.-]+", ".", name)


def variants(entries: Sequence[Entry]) -> list[str]:
    """Sentences on methods whose allocation is not the one of their criterion."""
    sentences = {e.method: e.plan.experiment.variant() for e in entries if e.arm != "dense"}
    return [f"{method}: {sentence}" for method, sentence in sentences.items() if sentence]


def final_density(entries: Sequence[Entry]) -> float:
    """The density that all methods end at."""
    experiment = entries[0].plan.experiment
    return experiment.density[-1] if experiment.density else float(experiment.final_density or 1.0)


def _entries(
    data: str | os.PathLike[str], methods: Sequence[str], density: float, choices: Mapping[str, Any]
) -> list[Entry]:
    if not methods:
        raise ValueError(f"no method is given; usual are {', '.join(USUAL_METHODS)}")
    if len(set(methods)) < len(methods):
        raise ValueError(f"a method is given twice among {', '.join(methods)}")
    entries: list[Entry] = []
    plain = [request.partition("@")[0].partition(":")[0] for request in methods]
    experiments = {request: _experiment(data, request, plain, density, choices) for request in methods}
    if "exclude" not in choices:  # all are to count the same weights
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
    data: str | os.PathLike[str],
    request: str,
    plain: Sequence[str],
    density: float,
    choices: Mapping[str, Any],
) -> Experiment:
    """The experiment of one method as it is requested; `plain` are the names of all methods of the comparison."""
    named, _, later = request.partition("@")
    method, colon, criterion = named.partition(":")
    if colon and not criterion:
        raise ValueError(f"{request!r} should read METHOD:CRITERION, as at-init:snip")
    chosen = {**choices, "method": method, "controls": (), "gate": False}
    for name in ("every", "search_lr"):
        if not _takes(method, name) and any(_takes(other, name) for other in plain):
            chosen.pop(name, None)  # it is meant for another method of the comparison
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
    """The entry with trainings of such a length that all of it costs the budget; None if it does already.

    A step more in each training costs a step per training, also where trainings are rewound to step k: dense training
    and n levels take T + n (T - k) steps. So T grows by the missing steps over the number of trainings.
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
    """How many of the trainings that a network needs take a step more where the recipe has one more.

    All, except Early-Bird's search, which ends when its mask has settled, however long the recipe is.
    """
    if not facts(entry.plan.experiment.method).starts_dense:
        return 1
    cell = entry.cells()[0]
    return len({cell, *entry.plan.behind(cell)})
