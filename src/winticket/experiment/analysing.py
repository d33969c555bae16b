"""Carry out analyses of a run: plan their tasks, compute what the store lacks, and read the tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from winticket.analyse import ANALYSES, Analysis, Cells, NothingToAnalyseError, analysis_named
from winticket.experiment.execution import Execution, run_errors
from winticket.run import Event, Store, Task, walk
from winticket.table import Table


class Analysable(Protocol):
    """What an analysis reads of a run."""

    @property
    def store(self) -> Store: ...
    def cells(self) -> Cells: ...
    def missing(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class Analysed:
    """An analysis of one run.

    analysis   what was asked, with its facts
    table      the answer
    sentences  the answer in words
    reason     why there is no answer; None if there is one
    """

    analysis: Analysis
    table: Table
    sentences: tuple[str, ...]
    reason: str | None = None


@dataclass(frozen=True)
class AnalysisPlan:
    """Analyses of a run as tasks.

    tasks    by name, the task of each table
    impossible  by name, why an analysis cannot be made of this run
    """

    run: Analysable
    analyses: tuple[Analysis, ...]
    tasks: Mapping[str, Task]
    impossible: Mapping[str, str]

    def missing(self) -> list[Task]:
        """What has to be computed: parts of analyses, and further trainings that they need."""
        store = self.run.store
        return [task for task in walk(self.tasks.values()) if task.stored and not store.has(task.key)]


def plan_analyses(
    run: Analysable, names: Sequence[str] = (), *, options: Mapping[str, Mapping[str, Any]] | None = None
) -> AnalysisPlan:
    """Plan analyses of a run; nothing is computed.

    names    of analyses (default: all)
    options  by name of an analysis, its options; values may be text

    Raises ValueError for an unknown name or option, for an option of the wrong type, or for an analysis that is asked
    for by name and cannot read the run's answers, which are no classes.
    """
    chosen = [analysis_named(name) for name in dict.fromkeys(names or ANALYSES)]
    given = {name: analysis_named(name).checked(values) for name, values in (options or {}).items()}
    unused = [name for name in given if name not in {one.name for one in chosen}]
    if unused:
        raise ValueError(f"options for {unused[0]!r} are given, but that analysis is not asked for")
    cells, tasks, impossible = run.cells(), {}, {}
    for one in chosen:
        if (lack := one.lacks(cells)) is not None:
            if names:
                raise ValueError(lack)
            impossible[one.name] = lack
            continue
        try:
            tasks[one.name] = one.plan(cells, **given.get(one.name, {}))
        except NothingToAnalyseError as error:
            impossible[one.name] = str(error)
    return AnalysisPlan(run, tuple(chosen), tasks, impossible)


def stored_analyses(
    run: Analysable, *, options: Mapping[str, Mapping[str, Any]] | None = None
) -> list[Analysed]:
    """The analyses whose tables the run's store has already; nothing is computed.

    Options that this version does not know are passed over.
    """
    known = {name: values for name, values in (options or {}).items() if _can_be_planned(run, name, values)}
    planned = plan_analyses(run, options=known)
    return [
        Analysed(one, table, tuple(one.says(table)))
        for one in planned.analyses
        if one.name in planned.tasks and run.store.has(planned.tasks[one.name].key)
        for table in (run.store.get(planned.tasks[one.name].key),)
    ]


def _can_be_planned(run: Analysable, name: str, values: Mapping[str, Any]) -> bool:
    try:
        plan_analyses(run, [name], options={name: values})
    except ValueError:
        return False
    return True


def analyse(
    run: Analysable,
    names: Sequence[str] = (),
    *,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    execution: Execution | None = None,
    watch: Callable[[Event], None] | None = None,
) -> list[Analysed]:
    """Analyse a run: `winticket.open("runs/digits").analyse("overlap")`.

    Tables are stored with the run's trainings, so an analysis is computed once. `execution` says how to compute
    (default: as `find` does); `watch` is called with every event. An analysis that fails, or that the run lacks the
    trainings for, has a `reason` and an empty table.

    Raises ValueError as `plan_analyses` does, and RunError if the run's store cannot be used.
    """
    return compute(plan_analyses(run, names, options=options), execution=execution, watch=watch)


def compute(
    planned: AnalysisPlan,
    *,
    execution: Execution | None = None,
    watch: Callable[[Event], None] | None = None,
) -> list[Analysed]:
    """Compute planned analyses; arguments and errors as for `analyse`."""
    how = execution or Execution.local(planned.run.store.path, retry_failed=True)
    with run_errors(how.store):
        outcomes = how.run(planned.tasks.values(), watch=watch)
    return [_analysed(one, planned, outcomes) for one in planned.analyses]


def _analysed(one: Analysis, planned: AnalysisPlan, outcomes: Any) -> Analysed:
    reason = planned.impossible.get(one.name)
    if reason is None and not outcomes.ok(planned.tasks[one.name]):
        failures = [text for text in outcomes.failed.values() if text]
        reason = f"it failed: {failures[-1].strip().splitlines()[-1]}" if failures else "a part of it failed"
    if reason is not None:
        return Analysed(one, Table(tuple(one.columns)), (), reason)
    table: Table = outcomes.value(planned.tasks[one.name])
    return Analysed(one, table, tuple(one.says(table)))
