"""Methods side by side at one density: with as many steps in every training, and at the same cost in all."""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

from winticket.catalogue import check_methods
from winticket.experiment import outcome
from winticket.experiment.execution import OPTIONS, Execution
from winticket.experiment.folder import OutputFolder
from winticket.experiment.machine import environment
from winticket.experiment.names import METHODS, facts
from winticket.experiment.plan import Place, Plan, plan
from winticket.experiment.reports import COMPARISON, require_own_comparison
from winticket.experiment.running import measure_engine, trouble_in_words
from winticket.experiment.runs import collect
from winticket.experiment.spec import RECIPE_FIELDS, Experiment
from winticket.run import Event, RunError, Store, Task
from winticket.text import cleaned, without_secrets
from winticket.ticket import Failed
from winticket.version import __version__

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
ROUNDS = 3
"""How often lengths are corrected at most. One correction is exact, except where a search ends by itself."""

Watching = Callable[[Sequence[Task]], AbstractContextManager[Callable[[Event], None] | None]]
"""Trainings to come -> a context whose value hears their events."""


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

    def places(self) -> list[Place]:
        """One per stack."""
        return [place for place in self.plan.tasks if place[:2] == (self.level, self.arm)]


def compare(
    data: str | os.PathLike[str],
    methods: Sequence[str] = USUAL_METHODS,
    *,
    density: float,
    out: str | os.PathLike[str],
    execution: Execution | None = None,
    watching: Watching | None = None,
    **choices: Any,
) -> dict[str, Any]:
    """Train every method's network at `density`, and again with as many steps as make all cost what the dearest does.

    `methods` are names, with a criterion where one is meant ("at-init:snip"), and a step to rewind to ("imp@100").
    Costs are optimiser steps of all trainings that a network needed. `choices` are those of `Experiment.of`; without an
    `execution`, also of `Execution.local` (store, workers, ...). Writes compare.json, a table and a figure to `out`,
    and returns the document. Raises ValueError, before any training, for what cannot be had, OSError where
    `out` cannot be written, RunError where no method finished.
    """
    options = {name: choices.pop(name) for name in OPTIONS if name in choices}
    if execution is not None and options:
        raise TypeError(f"pass {' and '.join(options)} to the execution, since one is given")
    entries = lay_out(data, methods, density=density, **choices)
    return carry_out(entries, execution or Execution.local(**options), out=out, watching=watching)


def lay_out(
    data: str | os.PathLike[str], methods: Sequence[str] = USUAL_METHODS, *, density: float, **choices: Any
) -> list[Entry]:
    """The plans of a comparison, the dense network first; see `compare`. Runs nothing."""
    if not 0 < density < 1:
        raise ValueError(f"density is {density}; give one in (0, 1), as 0.1")
    check_methods(methods)
    return _entries(data, methods, density, choices)


def carry_out(
    first: Sequence[Entry],
    execution: Execution,
    *,
    out: str | os.PathLike[str],
    watching: Watching | None = None,
) -> dict[str, Any]:
    """Run a comparison that was laid out; see `compare`."""
    began, folder = time.monotonic(), Path(out)
    execution.check(first[0].plan.setup.recipe)
    require_own_comparison(folder, identity(first))
    folder.mkdir(parents=True, exist_ok=True)
    with trouble_in_words(execution.store):
        return _compared(first, execution, folder, watching, began=began)


def _compared(
    first: Sequence[Entry], execution: Execution, folder: Path, watching: Watching | None, *, began: float
) -> dict[str, Any]:
    place = execution.store
    _execute(first, execution, watching)
    found = [("density", entry, _measured(entry, place)) for entry in first]
    costs = [row["steps"] for _, _, row in found if row["steps"]]
    if not costs:
        raise RunError(f"no method finished: {_why(first[0], place)}")
    budget = max(costs)
    equal = [(entry, row) for _, entry, row in found]
    for _ in range(ROUNDS):
        longer = [_at_budget(entry, row["steps"], budget) for entry, row in equal]
        if not any(longer):
            break
        _execute([entry for entry in longer if entry], execution, watching)
        equal = [
            (again, _measured(again, place)) if again else before
            for before, again in zip(equal, longer, strict=True)
        ]
    found += [("cost", entry, row) for entry, row in equal]
    experiment = first[0].plan.experiment
    answers, commonest = outcome.test_answers(first[0].plan)
    rows = [{"equal": by, **_told(entry), **row} for by, entry, row in found]
    document: dict[str, Any] = {
        "winticket": __version__,
        "data": experiment.data,
        "model": experiment.model,
        "density": _end(first),
        "budget_steps": budget,
        "warnings": [*_variants(first), *_unlearned(rows, commonest=commonest, answers=answers)],
        "replicates": experiment.replicates,
        "comparison": identity(first),
        "rows": _against_dense(rows, step=1 / answers),
        "environment": environment(),
        "store": without_secrets(place.path),
        "engine": execution.engine,
        "seconds": round(time.monotonic() - began, 3),
    }
    from winticket import report

    document.update(cleaned(document))
    output = OutputFolder(folder)
    with output.staged(instead_of=[f"compare.{kind}" for kind in report.FIGURE_KINDS]) as new:
        (new / COMPARISON).write_text(json.dumps({**document, "files": []}, indent=1, allow_nan=False))
    try:
        with output.staged() as new:
            document["files"] = [str(folder / p.name) for p in report.draw_comparison(document, new)]
    except Exception as error:  # noqa: BLE001 - whatever a library says of what is in the document
        document |= {"files": [], "unwritten": {"figure": f"{type(error).__name__}: {error}"}}
    document.update(cleaned(document))
    with output.staged() as new:
        (new / COMPARISON).write_text(json.dumps(document, indent=1, allow_nan=False))
    return document


def _variants(entries: Sequence[Entry]) -> list[str]:
    """Sentences on methods whose allocation is not the one of their criterion."""
    told = {e.method: e.plan.experiment.variant() for e in entries if e.arm != "dense"}
    return [f"{method}: {sentence}" for method, sentence in told.items() if sentence]


def identity(entries: Sequence[Entry]) -> dict[str, Any]:
    """What makes it this comparison: data, model, recipe, density and methods; JSON."""
    planned = entries[0].plan
    shared = {k: v for k, v in planned.experiment.describe().items() if k in SHARED}
    methods = list(dict.fromkeys(entry.method for entry in entries if entry.arm != "dense"))
    return {
        **shared,
        "fingerprint": planned.setup.fingerprint,
        "to density": _end(entries),
        "methods": methods,
    }


def output_folder(entries: Sequence[Entry]) -> Path:
    """Where a comparison goes unless another folder is given."""
    experiment = entries[0].plan.experiment
    data = Path(experiment.data).absolute().stem if Path(experiment.data).exists() else experiment.data
    name = f"{data}-{experiment.model}-{_end(entries):g}"
    return Path("winticket-compare") / re.sub(r"[^\w.-]+", ".", name)


def _why(entry: Entry, store: Store) -> str:
    """The first reason why a training failed."""
    entries = collect(entry.plan, store, only=entry.places()).by_place[entry.level, entry.arm]
    return next((e.reason for e in entries if isinstance(e, Failed)), "for no reason that is known")


def _end(entries: Sequence[Entry]) -> float:
    """The density that was asked for."""
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
    plain = [asked.partition("@")[0].partition(":")[0] for asked in methods]
    experiments = {asked: _experiment(data, asked, plain, density, choices) for asked in methods}
    if "exclude" not in choices:  # all are to count the same weights
        spared = tuple(dict.fromkeys(name for e in experiments.values() for name in e.exclude))
        experiments = {asked: e.but(exclude=spared) for asked, e in experiments.items()}
    for asked, experiment in experiments.items():
        method, planned = experiment.method, plan(experiment)
        if not entries:
            entries.append(Entry("dense", planned, "dense"))
        searched = (len(planned.counts) - 1, "search", 0) in planned.tasks
        if searched:
            entries.append(Entry(asked, planned, "search"))
        if not searched or facts(method).search != "trained":
            entries.append(Entry(asked, planned, "ticket"))
    return entries


def _experiment(
    data: str | os.PathLike[str],
    asked: str,
    plain: Sequence[str],
    density: float,
    choices: Mapping[str, Any],
) -> Experiment:
    """The experiment of one method as it is asked for; `plain` are the names of all methods of the comparison."""
    named, _, later = asked.partition("@")
    method, colon, criterion = named.partition(":")
    if colon and not criterion:
        raise ValueError(f"{asked!r} should read METHOD:CRITERION, as at-init:snip")
    own = {**choices, "method": method, "controls": (), "gate": False}
    for name in ("every", "search_lr"):
        if not _takes(method, name) and any(_takes(other, name) for other in plain):
            own.pop(name, None)  # it is meant for another method of the comparison
    if later:
        if not later.isdecimal():
            raise ValueError(f"{asked!r} should read METHOD@STEP, the step to rewind to, as imp@100")
        own |= {"rewind": "to_step", "rewind_step": int(later)} if int(later) else {}
    if criterion:
        own["criterion"] = criterion
    if facts(method).levels:
        levels = math.ceil(math.log(density) / math.log(1 - RATE) - 1e-9)
        own |= {"final_density": density, "levels": levels}
    else:
        own["density"] = (density,)
    return Experiment.of(data, **own)


def _takes(method: str, name: str) -> bool:
    return method in METHODS and name in signature(METHODS[method]).parameters


def _at_budget(entry: Entry, steps: float | None, budget: float) -> Entry | None:
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
    place = entry.places()[0]
    return len({place, *entry.plan.behind(place)})


def _execute(entries: Sequence[Entry], execution: Execution, watching: Watching | None) -> None:
    wanted = {
        task.key: task for entry in entries for task in (entry.plan.tasks[place] for place in entry.places())
    }
    if not wanted:
        return
    for entry in {id(e.plan): e for e in entries}.values():
        measure_engine(entry.plan, execution)
    every = {
        entry.plan.tasks[at].key: entry.plan.tasks[at]
        for entry in entries
        for place in entry.places()
        for at in (place, *entry.plan.behind(place))
    }
    watched = watching(list(every.values())) if watching else nullcontext(None)
    with watched as hears:
        execution.run(wanted.values(), watch=hears)


def _measured(entry: Entry, store: Store) -> dict[str, Any]:
    """Accuracies by replicate, and the cost of one."""
    needed = {at for place in entry.places() for at in (place, *entry.plan.behind(place))}
    runs = collect(entry.plan, store, only=needed)
    spent = outcome.cost(runs, entry.level, entry.arm)
    return {
        **outcome.measured(
            runs.by_place[entry.level, entry.arm], answers=outcome.test_answers(entry.plan)[0]
        ),
        **(spent or dict.fromkeys(outcome.SPENT)),
    }


def _told(entry: Entry) -> dict[str, Any]:
    kept = entry.plan.densities()[entry.level]
    return {"method": entry.method, "arm": entry.arm, "density": kept, "steps_each": entry.steps}


def _dense(rows: Sequence[Mapping[str, Any]], equal: str) -> Mapping[str, Any]:
    return next(row for row in rows if row["equal"] == equal and row["method"] == "dense")


def _unlearned(rows: Sequence[Mapping[str, Any]], *, commonest: float, answers: int) -> list[str]:
    """Sentences on a dense network that did not learn, beside which every method looks good."""
    from winticket import judge

    said = []
    for equal, where in (("density", "with as many steps in every training"), ("cost", "at equal cost")):
        dense = _dense(rows, equal)["accuracies"]
        levels = [
            judge.Level(row["density"], {"dense": tuple(dense), "ticket": tuple(row["accuracies"])})
            for row in rows
            if row["equal"] == equal and row["method"] != "dense"
        ]
        learned = judge.has_learned(dense, levels, commonest=commonest, test_examples=answers)
        if not learned.learned:
            said.append(f"{where}, differences to dense show nothing. {learned.sentence}")
    return said


def _against_dense(rows: list[dict[str, Any]], *, step: float) -> list[dict[str, Any]]:
    """Each row with its paired difference to the dense network of the same comparison, in fractions.

    step: between two possible accuracies.
    """
    from winticket import judge

    for row in rows:
        dense = _dense(rows, row["equal"])
        pairs = zip(row["accuracies"], dense["accuracies"], strict=True)
        apart = [None if a is None or b is None else a - b for a, b in pairs]
        there = [d for d in apart if d is not None]
        interval = judge.mean_interval(apart, floor=step) if row is not dense else None
        row["to_dense"] = math.fsum(there) / len(there) if there else None
        row["to_dense_ci"] = None if interval is None else list(interval)
    return rows
