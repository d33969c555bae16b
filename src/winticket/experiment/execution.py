"""How an experiment is computed: store, processes and engine. Nothing here changes a number or a key."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from winticket.experiment.machine import processes
from winticket.run import (
    Crew,
    Event,
    Json,
    Needs,
    Outcomes,
    RunError,
    Store,
    StoreError,
    Task,
    dask_crew,
    local,
    ray_crew,
    run,
    why_not,
)
from winticket.stages import device
from winticket.train import Engine, Recipe, check_engine, check_precision

# What a first training imports, partly deep inside torch. It is imported once instead of by every worker.
PRELOAD = (
    "winticket.stages",
    "winticket.train.stacked",
    "torch.fx.experimental.proxy_tensor",
    "torch._dynamo",
)


OPTIONS = ("store", "workers", "ray", "dask", "engine", "retry_failed", "checkpoint_seconds", "needs")
"""The options of `Execution.local`."""
LOCAL = "local"
"""The address that stands for a cluster on this machine, started for the run."""


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How an experiment is computed, and the store that keeps its results.

    store               keeps the result of every training
    crew                the processes that compute
    engine              how layers with pruned weights are computed: "dense", "sparse", or "auto" (sparse kernels
                        if they are faster on this machine); results agree to float tolerance
    retry_failed        compute trainings again that the store records as failed
    checkpoint_seconds  seconds between saved states of a training
    needs               what a machine must have to compute a training; others leave the training to those that have it

    Raises ValueError for an unknown engine, or for a crew that cannot write to the store.

    >>> execution = Execution.local("memory://runs")
    >>> execution.engine, execution.workers, execution.retry_failed
    ('auto', 0, False)
    """

    store: Store
    crew: Crew
    engine: Engine = "auto"
    retry_failed: bool = False
    checkpoint_seconds: float = 10.0
    needs: Needs = field(default_factory=Needs)

    def __post_init__(self) -> None:
        check_engine(self.engine)
        if not self.checkpoint_seconds >= 0:
            raise ValueError(f"checkpoint_seconds is {self.checkpoint_seconds}; it must be 0 or more")
        self.crew.check(self.store)

    @classmethod
    def local(
        cls,
        store: str | os.PathLike[str] = "runs",
        *,
        workers: int | None = None,
        ray: str | None = None,
        dask: str | None = None,
        needs: Iterable[str] = (),
        **options: Any,
    ) -> Execution:
        """An execution that is started from this machine and keeps results in `store`, a folder or URL.

        `workers` is the number of processes; 0 computes in the calling process. The default is one per core, or one
        for a GPU. `ray` and `dask` compute on a cluster instead: the address of one, or "local" to start one here (see
        `winticket.run.ray_crew` and `dask_crew`); `workers` is then the number of tasks at once, by default as many as
        the cluster has room for. `needs` are what a machine must have: "gpu", "memory=8GB". `options` are the other
        fields: engine, retry_failed, checkpoint_seconds.

        Raises StoreError if there is no store at that place. Raises ValueError as the class does, for both a Ray and a
        Dask cluster, for a cluster that cannot be reached, if its package is not installed, or for needs that are
        misspelt or stated for a cluster, which chooses machines by itself.

        >>> Execution.local("memory://runs", engine="dense").workers  # only this process can read a store in memory
        0
        """
        stated = Needs.of(needs)
        if stated != Needs() and (ray is not None or dask is not None):
            raise ValueError(
                "needs are compared with machines that run `winticket work` and with this one; Ray and Dask choose "
                "machines by themselves, so leave out --needs, or --ray and --dask"
            )
        opened = Store(store)
        return cls(store=opened, crew=_crew(opened, workers, ray=ray, dask=dask), needs=stated, **options)

    @property
    def workers(self) -> int:
        """Number of processes that compute; 0 if the calling process does."""
        return self.crew.workers

    def check(self, recipe: Recipe) -> None:
        """Raise ValueError if the engine cannot compute in the recipe's precision on this device."""
        check_precision(recipe.precision, device(), self.engine)

    def context(self) -> Mapping[str, Json]:
        """The context that stages receive (`winticket.stages.engine_of` reads it)."""
        return {"engine": self.engine}

    def run(
        self,
        tasks: Iterable[Task],
        *,
        watch: Callable[[Event], None] | None = None,
        need_bytes: int = 0,
        leave: float | None = None,
        shared: bool = False,
    ) -> Outcomes:
        """Compute the tasks, and what they need, unless the store has the results; see `winticket.run.run`."""
        return run(
            list(tasks),
            self.store,
            crew=self.crew,
            retry_failed=self.retry_failed,
            on_event=watch,
            checkpoint_seconds=self.checkpoint_seconds,
            context=self.context(),
            need_bytes=need_bytes,
            leave=leave,
            shared=shared,
            needs=self.needs,
        )

    def refuse_unfit(self, tasks: Sequence[Task]) -> str | None:
        """ValueError if a task needs more than this machine has, as stated; if only an estimate says so, a warning.

        The warning is None if all tasks fit, as far as is known.

        >>> Execution.local("memory://runs").refuse_unfit([]) is None
        True
        """
        machine = self.crew.machine()
        why = None if machine is None else why_not(tasks, self.needs, machine)
        if why is None or machine is None:
            return None
        if self.needs.memory is not None or (self.needs.gpu and not machine.gpu):
            raise ValueError(f"the largest training cannot be computed on this machine: {why}")
        return f"The largest training may not fit this machine: {why}."


def _crew(store: Store, workers: int | None, *, ray: str | None, dask: str | None) -> Crew:
    """The crew by the options of `Execution.local`; errors as there."""
    if ray is not None and dask is not None:
        raise ValueError(f"a run computes on one cluster: give --ray {ray} or --dask {dask}, not both")
    address = dask if ray is None else ray
    if address is None:
        return local(0 if store.private and workers is None else _or_processes(workers), preload=PRELOAD)
    make = ray_crew if ray is not None else dask_crew
    return make(None, _or_processes(workers)) if address == LOCAL else make(address, workers)


def _or_processes(workers: int | None) -> int:
    return processes() if workers is None else workers


@contextlib.contextmanager
def run_errors(store: Store) -> Iterator[None]:
    """Turn errors of the store or the disk within the block into a RunError that says what to do."""
    try:
        yield
    except StoreError as error:
        raise RunError(str(error)) from error
    except OSError as error:
        raise RunError(
            f"{error}; every training that finished is kept in {store.path}: make room or pass another --out, and run "
            "again"
        ) from error
