"""Compare methods at one density under two budgets: equal steps per training, and equal total cost."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from winticket.data import Data
from winticket.experiment.entries import (
    USUAL_METHODS,
    Entry,
    at_budget,
    final_density,
    identity,
    lay_out,
    variants,
)
from winticket.experiment.execution import OPTIONS, Execution, run_errors
from winticket.experiment.folder import OutputFolder
from winticket.experiment.machine import environment
from winticket.experiment.outcome_costs import cost
from winticket.experiment.outcome_measured import measured
from winticket.experiment.reports import require_same_comparison
from winticket.experiment.running import measure_engine
from winticket.experiment.runs import collect
from winticket.experiment.scored_on import ScoredOn, scored_on
from winticket.objective import ACCURACY
from winticket.places import COMPARISON, COMPARISON_PAGE
from winticket.results import SCHEMA, Comparison, Measured, Row, Spent
from winticket.run import Event, RunError, Store, Task
from winticket.text import cleaned, without_secrets
from winticket.ticket import Failed
from winticket.version import __version__

ROUNDS = 3
"""How often lengths are corrected at most. One correction is exact unless a search ends by itself."""

Watching = Callable[[Sequence[Task]], AbstractContextManager[Callable[[Event], None] | None]]
"""Takes the trainings to come and returns a context whose value is called with their events, or is None."""


def compare(
    data: Data,
    methods: Sequence[str] = USUAL_METHODS,
    *,
    density: float,
    out: str | os.PathLike[str],
    execution: Execution | None = None,
    watching: Watching | None = None,
    **choices: Any,
) -> Comparison:
    """Compare methods at `density` under two budgets: equal steps per training, and equal total cost.

    For equal cost, every method trains again with as many steps as bring it to the cost of the most expensive one. The
    cost of a network is the number of optimiser steps of all trainings that it needed, including the search.

    methods    names of methods; a criterion may follow ("at-init:snip"), and a step to rewind to ("imp@100")
    density    the share of eligible weights that every method keeps, in (0, 1)
    out        folder for compare.json, a table and a figure
    execution  how to compute; without it, `choices` may contain the options of `Execution.local` (store, workers, ...)
    watching   takes the trainings to come; the context that it returns provides the function to call with their events
    choices    fields of `Experiment` or `Recipe` that all methods share, as for `Experiment.of`

    Returns the document that compare.json contains. Raises, before any training, ValueError for a choice that does not
    exist or does not fit a method, and OSError if `out` cannot be written. Raises RunError if no method finished.

    >>> compare("digits", ["imp"], density=1.2, out="out")
    Traceback (most recent call last):
    ValueError: density is 1.2; it must lie in (0, 1), as 0.1
    """
    options = {name: choices.pop(name) for name in OPTIONS if name in choices}
    if execution is not None and options:
        raise TypeError(f"an execution is passed, so pass {' and '.join(options)} to Execution.local instead")
    entries = lay_out(data, methods, density=density, **choices)
    return run_comparison(entries, execution or Execution.local(**options), out=out, watching=watching)


def run_comparison(
    first: Sequence[Entry],
    execution: Execution,
    *,
    out: str | os.PathLike[str],
    watching: Watching | None = None,
) -> Comparison:
    """Run a comparison that `lay_out` has planned; parameters and errors as for `compare`."""
    began, folder = time.monotonic(), Path(out)
    execution.check(first[0].plan.setup.recipe)
    execution.refuse_unfit([task for entry in first for task in entry.plan.tasks.values()])
    require_same_comparison(folder, identity(first))
    folder.mkdir(parents=True, exist_ok=True)
    with run_errors(execution.store):
        return _compared(first, execution, folder, watching, began=began)


def _compared(
    first: Sequence[Entry], execution: Execution, folder: Path, watching: Watching | None, *, began: float
) -> Comparison:
    run, store = partial(_execute, execution=execution, watching=watching), execution.store
    run(first)
    equal_steps = [_Network(entry, *_measured(entry, store)) for entry in first]
    costs = [network.spent["steps"] for network in equal_steps if network.spent["steps"]]
    if not costs:
        raise RunError(f"no method finished: {_why(first[0], store)}")
    equal_cost = _at_equal_cost(equal_steps, max(costs), run, store)
    experiment = first[0].plan.experiment
    over = scored_on(first[0].plan)
    rows = [_row("density", network) for network in equal_steps] + [_row("cost", n) for n in equal_cost]
    document: Comparison = {
        "winticket": __version__,
        "schema": SCHEMA,
        "data": experiment.data,
        "model": experiment.model,
        "density": final_density(first),
        "budget_steps": max(costs),
        "warnings": [*variants(first), *_unlearned(rows, over)],
        "replicates": experiment.replicates,
        "comparison": identity(first),
        "rows": _against_dense(rows, over),
        "environment": environment(),
        "store": without_secrets(store.path),
        "engine": execution.engine,
        "seconds": round(time.monotonic() - began, 3),
        "files": [],
    }
    if over.scale != ACCURACY:
        document["metric"] = over.entry()
    return _written(cleaned(document), folder)


@dataclass(frozen=True)
class _Network:
    """A network of the comparison, what accuracy it reached and what it cost."""

    entry: Entry
    measured: Measured
    spent: Spent


def _at_equal_cost(
    networks: Sequence[_Network], budget: float, run: Callable[[Sequence[Entry]], None], store: Store
) -> list[_Network]:
    """The networks after training again, each long enough to cost the budget in optimiser steps."""
    equal = list(networks)
    for _ in range(ROUNDS):
        longer = [at_budget(network.entry, network.spent["steps"], budget) for network in equal]
        if not any(longer):
            break
        run([entry for entry in longer if entry])
        equal = [
            _Network(entry, *_measured(entry, store)) if entry else before
            for before, entry in zip(equal, longer, strict=True)
        ]
    return equal


def _written(document: Comparison, folder: Path) -> Comparison:
    """Write the document, then table, figure and page, then the document again with their paths. Returns the latter."""
    from winticket import report  # It imports matplotlib, which is slow.

    output = OutputFolder(folder)
    with output.staged(instead_of=[f"compare.{kind}" for kind in ("html", *report.FIGURE_KINDS)]) as new:
        (new / COMPARISON).write_text(json.dumps(document, indent=1, allow_nan=False))
    try:
        with output.staged() as new:
            page = report.write_comparison_page(document, new / COMPARISON_PAGE)
            document["files"] = [str(folder / p.name) for p in (page, *report.draw_comparison(document, new))]
    except Exception as error:  # noqa: BLE001 - a drawing library may raise anything
        document["unwritten"] = {"figure": f"{type(error).__name__}: {error}"}
    final: Comparison = cleaned(document)
    with output.staged() as new:
        (new / COMPARISON).write_text(json.dumps(final, indent=1, allow_nan=False))
    return final


def _why(entry: Entry, store: Store) -> str:
    """The first reason why a training failed."""
    entries = collect(entry.plan, store, only=entry.cells()).by_cell[entry.level, entry.arm]
    return next((e.reason for e in entries if isinstance(e, Failed)), "the reason is not known")


def _execute(entries: Sequence[Entry], execution: Execution, watching: Watching | None) -> None:
    targets = {
        task.key: task for entry in entries for task in (entry.plan.tasks[cell] for cell in entry.cells())
    }
    if not targets:
        return
    for entry in {id(e.plan): e for e in entries}.values():
        measure_engine(entry.plan, execution)
    every = {
        entry.plan.tasks[each].key: entry.plan.tasks[each]
        for entry in entries
        for cell in entry.cells()
        for each in (cell, *entry.plan.behind(cell))
    }
    watched = watching(list(every.values())) if watching else nullcontext(None)
    with watched as listener:
        execution.run(targets.values(), watch=listener)


def _measured(entry: Entry, store: Store) -> tuple[Measured, Spent]:
    """Accuracies by replicate, and the cost of one replicate."""
    needed = {each for cell in entry.cells() for each in (cell, *entry.plan.behind(cell))}
    runs = collect(entry.plan, store, only=needed)
    spent = cost(runs, entry.level, entry.arm)
    unknown: Spent = {"steps": None, "flops": None, "seconds": None}
    return measured(runs.by_cell[entry.level, entry.arm], scored_on(entry.plan)), spent or unknown


def _row(equal: Literal["density", "cost"], network: _Network) -> Row:
    """A row of the document, without its differences to the dense network."""
    entry = network.entry
    return {
        "equal": equal,
        "method": entry.method,
        "arm": entry.arm,
        "density": entry.plan.densities()[entry.level],
        "steps_each": entry.steps,
        **network.measured,
        **network.spent,
        "to_dense": None,
        "to_dense_ci": None,
    }


def _dense(rows: Sequence[Row], equal: str) -> Row:
    return next(row for row in rows if row["equal"] == equal and row["method"] == "dense")


def _unlearned(rows: Sequence[Row], over: ScoredOn) -> list[str]:
    """Warnings if the dense network did not learn, since every method looks good next to it."""
    from winticket import judge

    sentences = []
    for equal, budget in (("density", "at equal steps per training"), ("cost", "at equal total cost")):
        dense = _dense(rows, equal)["accuracies"]
        levels = [
            judge.Level(row["density"], {"dense": tuple(dense), "ticket": tuple(row["accuracies"])})
            for row in rows
            if row["equal"] == equal and row["method"] != "dense"
        ]
        learned = judge.has_learned(
            dense, levels, constant=over.known_constant, test_examples=over.answers, scale=over.scale
        )
        if not learned.learned:
            sentences.append(f"{budget}, differences to the dense network show nothing. {learned.sentence}")
    return sentences


def _against_dense(rows: list[Row], over: ScoredOn) -> list[Row]:
    """Each row with its paired gain in accuracy (fractions), or another metric, over the dense network."""
    from winticket import judge

    for row in rows:
        dense = _dense(rows, row["equal"])
        pairs = zip(row["accuracies"], dense["accuracies"], strict=True)
        differences = [None if a is None or b is None else over.scale.gain(b, a) for a, b in pairs]
        finished = [difference for difference in differences if difference is not None]
        interval = judge.mean_interval(differences, floor=over.step) if row is not dense else None
        row["to_dense"] = math.fsum(finished) / len(finished) if finished else None
        row["to_dense_ci"] = None if interval is None else list(interval)
    return rows
