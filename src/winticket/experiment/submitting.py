"""A plan that waits in a store for workers: written by one command, computed by any number of others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from winticket import sparse
from winticket.experiment.execution import Execution
from winticket.experiment.opening import experiment_asked
from winticket.experiment.plan import Plan, plan
from winticket.experiment.price import cost
from winticket.experiment.running import measure_engine
from winticket.outside import Unreadable, converted
from winticket.places import exists_here
from winticket.run import Event, Needs, Outcomes, Task
from winticket.run.plans import Waiting, standings, waiting
from winticket.train import Engine
from winticket.version import __version__


class Asked(msgspec.Struct, omit_defaults=True):
    """The question of a plan in a store: the experiment, and what of its execution holds for every worker."""

    experiment: dict[str, Any]
    engine: Engine
    checkpoint_seconds: float
    needs: list[str] = []


@dataclass(frozen=True)
class Job:
    """A plan of a store that was made anew here, so that it can be computed.

    waiting  the store's file of it; plan: its trainings; execution: how to compute them
    """

    waiting: Waiting
    plan: Plan
    execution: Execution

    @property
    def tasks(self) -> list[Task]:
        return list(self.plan.tasks.values())


def submit(planned: Plan, execution: Execution) -> Waiting:
    """Write a plan into the store, for workers to compute (`winticket work STORE`). Nothing is trained.

    A plan that is there already stays as it is. Raises StoreError if the store cannot take results, and ValueError if
    only this process can see it, or if the engine cannot compute in the recipe's precision.

    >>> from tempfile import TemporaryDirectory
    >>> from winticket.experiment import Experiment
    >>> with TemporaryDirectory() as folder:
    ...     execution = Execution.local(folder + "/runs")
    ...     written = submit(plan(Experiment.of("digits", steps=20, levels=1)), execution)
    ...     [(each.name == written.name, len(how_far.ready)) for each, how_far in standings(execution.store)]
    [(True, 12)]
    """
    store = execution.store
    if store.private:
        raise ValueError(f"store {store.path} is in this process's memory, where no worker can see a plan")
    execution.check(planned.setup.recipe)
    experiment = planned.experiment
    if exists_here(experiment.data):  # workers may be started in other folders
        experiment = replace(experiment, data=str(Path(experiment.data).absolute()))
    question = Asked(
        {**experiment.describe()}, execution.engine, execution.checkpoint_seconds, execution.needs.words()
    )
    made = waiting(list(planned.tasks.values()), msgspec.to_builtins(question))
    store.check_writable(cost(planned, execution, measure=False).bytes)
    store.put_plan(made.name, made)
    return made


@dataclass(frozen=True)
class Submitted:
    """What there is to compute in a store.

    jobs     its unfinished plans, the oldest first
    refused  why other unfinished plans cannot be computed here, one message each
    failed   number of failed tasks in plans that have ended
    """

    jobs: tuple[Job, ...]
    refused: tuple[str, ...]
    failed: int


def submitted(execution: Execution, *, trust: Sequence[str] = ()) -> Submitted:
    """The unfinished plans of a store, made anew and ready to be computed.

    `trust` lists what a plan may import or fetch (see `winticket.open`). A plan is refused if it cannot be made anew
    here as it was written: by another version, on other or missing data, or with code that is not trusted or differs.
    """
    ready: list[Job] = []
    refused: list[str] = []
    failed = 0
    for each, how_far in standings(execution.store, claimed=False):
        if how_far.over() and not (execution.retry_failed and how_far.failed):
            failed += len(how_far.failed)
            continue
        try:
            ready.append(_job(each, execution, trust))
        except (ValueError, TypeError, OSError) as error:
            refused.append(str(error))
    return Submitted(tuple(ready), tuple(refused), failed)


def _job(each: Waiting, execution: Execution, trust: Sequence[str]) -> Job:
    where = f"plan {each.name} in {execution.store.path}"
    try:
        asked = converted(each.question, Asked)
        needs = Needs.of(asked.needs)
    except (Unreadable, ValueError) as error:
        raise ValueError(
            f"{where} was written by another winticket ({each.winticket}): {error}; {_drop(each)}"
        ) from error
    planned = plan(experiment_asked(asked.experiment, trust, where))
    keys = {listed.key for listed in waiting(list(planned.tasks.values()), {}).tasks}
    if keys != {listed.key for listed in each.tasks}:
        raise ValueError(f"{where} cannot be computed here, {_why(each)}; {_drop(each)}")
    return Job(
        each,
        planned,
        replace(execution, engine=asked.engine, checkpoint_seconds=asked.checkpoint_seconds, needs=needs),
    )


def _why(each: Waiting) -> str:
    if each.winticket != __version__:
        return (
            f"because winticket {each.winticket} wrote it and this is {__version__}, which would compute other "
            f"numbers: install winticket {each.winticket} on every worker, or submit the plan anew"
        )
    return (
        "because its tasks are others here: the data, or the code of your own model or functions, differ from those "
        "where it was written; make them the same, or submit the plan anew"
    )


def _drop(each: Waiting) -> str:
    return f"to give it up, remove plans/{each.name}.json from the store"


def compute(
    work: Iterable[Job], *, watch: Callable[[Event], None] | None = None, leave: float | None = None
) -> list[Outcomes]:
    """Compute jobs together with all other workers of their store. Returns when nothing is left to compute.

    Jobs that are to be computed alike (engine, checkpoints) run at the same time, others after them. `leave` is how
    many seconds to wait for other workers' tasks while nothing can be computed here; by default as long as it takes,
    since another worker may be lost. Tasks that cannot be computed here are left to others; if nobody computes them,
    this returns. So it does if whatever is left needs more than this machine has. Errors as for `winticket.run.run`.
    """
    alike: dict[Execution, list[Job]] = {}
    for job in work:
        alike.setdefault(job.execution, []).append(job)
    outcomes = []
    for execution, together in alike.items():
        _measure_alike(together, execution)
        tasks = [task for job in together for task in job.tasks]
        outcomes.append(execution.run(tasks, watch=watch, leave=leave, shared=True))
    return outcomes


def _measure_alike(together: Sequence[Job], execution: Execution) -> None:
    """Measure how layers train fastest, unless a worker on a machine of the same kind has left that in the store.

    So such workers make the same choices, and their results agree bit for bit.
    """
    store = execution.store
    known = store.measurements()
    sparse.adopt(known)
    for job in together:
        measure_engine(job.plan, execution)
    mine = sparse.measurements()
    for name, content in mine.items():
        if name not in known:
            store.put_measurement(name, content)
    # Of workers that measured at the same time, one was first; its choices hold for all.
    kept = store.measurements()
    sparse.adopt(
        {name: kept[name] for name, content in mine.items() if kept.get(name, content) != content}, over=True
    )
