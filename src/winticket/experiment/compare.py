"""Methods side by side at one density: with as many steps in every training, and at the same cost in all."""

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

from winticket.experiment import outcome
from winticket.experiment.entries import (
    USUAL_METHODS,
    Entry,
    at_budget,
    final_density,
    identity,
    lay_out,
    variants,
)
from winticket.experiment.execution import OPTIONS, Execution
from winticket.experiment.folder import OutputFolder
from winticket.experiment.machine import environment
from winticket.experiment.reports import COMPARISON, require_own_comparison
from winticket.experiment.running import measure_engine, trouble_in_words
from winticket.experiment.runs import collect
from winticket.results import SCHEMA, Comparison, Measured, Row, Spent
from winticket.run import Event, RunError, Store, Task
from winticket.text import cleaned, without_secrets
from winticket.ticket import Failed
from winticket.version import __version__

ROUNDS = 3
"""How often lengths are corrected at most. One correction is exact, except where a search ends by itself."""

Watching = Callable[[Sequence[Task]], AbstractContextManager[Callable[[Event], None] | None]]
"""Trainings to come -> a context whose value hears their events."""


def compare(
    data: str | os.PathLike[str],
    methods: Sequence[str] = USUAL_METHODS,
    *,
    density: float,
    out: str | os.PathLike[str],
    execution: Execution | None = None,
    watching: Watching | None = None,
    **choices: Any,
) -> Comparison:
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


def carry_out(
    first: Sequence[Entry],
    execution: Execution,
    *,
    out: str | os.PathLike[str],
    watching: Watching | None = None,
) -> Comparison:
    """Run a comparison that was laid out; see `compare`."""
    began, folder = time.monotonic(), Path(out)
    execution.check(first[0].plan.setup.recipe)
    require_own_comparison(folder, identity(first))
    folder.mkdir(parents=True, exist_ok=True)
    with trouble_in_words(execution.store):
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
    answers, commonest = outcome.test_answers(first[0].plan)
    rows = [_row("density", network) for network in equal_steps] + [_row("cost", n) for n in equal_cost]
    document: Comparison = {
        "winticket": __version__,
        "schema": SCHEMA,
        "data": experiment.data,
        "model": experiment.model,
        "density": final_density(first),
        "budget_steps": max(costs),
        "warnings": [*variants(first), *_unlearned(rows, commonest=commonest, answers=answers)],
        "replicates": experiment.replicates,
        "comparison": identity(first),
        "rows": _against_dense(rows, step=1 / answers),
        "environment": environment(),
        "store": without_secrets(store.path),
        "engine": execution.engine,
        "seconds": round(time.monotonic() - began, 3),
        "files": [],
    }
    return _written(cleaned(document), folder)


@dataclass(frozen=True)
class _Network:
    """A network of the comparison with what it reached and took."""

    entry: Entry
    measured: Measured
    spent: Spent


def _at_equal_cost(
    networks: Sequence[_Network], budget: float, run: Callable[[Sequence[Entry]], None], store: Store
) -> list[_Network]:
    """The networks, trained again with such lengths that each costs the budget in optimiser steps."""
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
    """Write the document, then the table and the figure, then the document with their paths; returns the last."""
    from winticket import report  # draws with matplotlib, which takes its time to import

    output = OutputFolder(folder)
    with output.staged(instead_of=[f"compare.{kind}" for kind in report.FIGURE_KINDS]) as new:
        (new / COMPARISON).write_text(json.dumps(document, indent=1, allow_nan=False))
    try:
        with output.staged() as new:
            document["files"] = [str(folder / p.name) for p in report.draw_comparison(document, new)]
    except Exception as error:  # noqa: BLE001 - whatever a library says of what is in the document
        document["unwritten"] = {"figure": f"{type(error).__name__}: {error}"}
    final: Comparison = cleaned(document)
    with output.staged() as new:
        (new / COMPARISON).write_text(json.dumps(final, indent=1, allow_nan=False))
    return final


def _why(entry: Entry, store: Store) -> str:
    """The first reason why a training failed."""
    entries = collect(entry.plan, store, only=entry.cells()).by_cell[entry.level, entry.arm]
    return next((e.reason for e in entries if isinstance(e, Failed)), "for no reason that is known")


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
    with watched as hears:
        execution.run(targets.values(), watch=hears)


def _measured(entry: Entry, store: Store) -> tuple[Measured, Spent]:
    """Accuracies by replicate, and the cost of one."""
    needed = {each for cell in entry.cells() for each in (cell, *entry.plan.behind(cell))}
    runs = collect(entry.plan, store, only=needed)
    answers, _ = outcome.test_answers(entry.plan)
    spent = outcome.cost(runs, entry.level, entry.arm)
    unknown: Spent = {"steps": None, "flops": None, "seconds": None}
    return outcome.measured(runs.by_cell[entry.level, entry.arm], answers=answers), spent or unknown


def _row(equal: Literal["density", "cost"], network: _Network) -> Row:
    """A row of the document, before it is compared with the dense network."""
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


def _unlearned(rows: Sequence[Row], *, commonest: float, answers: int) -> list[str]:
    """Sentences on a dense network that did not learn, beside which every method looks good."""
    from winticket import judge

    sentences = []
    for equal, where in (("density", "with as many steps in every training"), ("cost", "at equal cost")):
        dense = _dense(rows, equal)["accuracies"]
        levels = [
            judge.Level(row["density"], {"dense": tuple(dense), "ticket": tuple(row["accuracies"])})
            for row in rows
            if row["equal"] == equal and row["method"] != "dense"
        ]
        learned = judge.has_learned(dense, levels, commonest=commonest, test_examples=answers)
        if not learned.learned:
            sentences.append(f"{where}, differences to dense show nothing. {learned.sentence}")
    return sentences


def _against_dense(rows: list[Row], *, step: float) -> list[Row]:
    """Each row with its paired difference to the dense network of the same comparison, in fractions.

    step: between two possible accuracies.
    """
    from winticket import judge

    for row in rows:
        dense = _dense(rows, row["equal"])
        pairs = zip(row["accuracies"], dense["accuracies"], strict=True)
        differences = [None if a is None or b is None else a - b for a, b in pairs]
        finished = [difference for difference in differences if difference is not None]
        interval = judge.mean_interval(differences, floor=step) if row is not dense else None
        row["to_dense"] = math.fsum(finished) / len(finished) if finished else None
        row["to_dense_ci"] = None if interval is None else list(interval)
    return rows
