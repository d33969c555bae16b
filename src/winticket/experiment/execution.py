"""How an experiment is computed, apart from what it asks: nothing here changes a number or a key."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from winticket.experiment.machine import processes
from winticket.run import Crew, Event, Json, Outcomes, Store, Task, local, run
from winticket.stages import device
from winticket.train import Engine, Recipe, check_engine, check_precision

# All that a first training imports, some of it deep inside torch: read once, and not by every worker.
PRELOAD = (
    "winticket.stages",
    "winticket.train.stacked",
    "torch.fx.experimental.proxy_tensor",
    "torch._dynamo",
)


OPTIONS = ("store", "workers", "engine", "retry_failed", "checkpoint_seconds")
"""What `Execution.local` takes, by name."""


@dataclass(frozen=True, kw_only=True)
class Execution:
    """Who computes an experiment, how, and in which store the results are kept.

    `engine` says how layers with pruned weights are computed: "auto" on sparse kernels if those are faster on this
    machine, "dense", or "sparse"; results agree to float tolerance. With `retry_failed`, trainings that are stored as
    failed are computed again. A training saves its state every `checkpoint_seconds`.
    Raises ValueError for an unknown engine, or a crew that cannot write to the store.
    """

    store: Store
    crew: Crew
    engine: Engine = "auto"
    retry_failed: bool = False
    checkpoint_seconds: float = 10.0

    def __post_init__(self) -> None:
        check_engine(self.engine)
        if not self.checkpoint_seconds >= 0:
            raise ValueError(f"checkpoint_seconds is {self.checkpoint_seconds}; it is 0 or more")
        self.crew.check(self.store)

    @classmethod
    def local(
        cls, store: str | os.PathLike[str] = "runs", *, workers: int | None = None, **options: Any
    ) -> Execution:
        """An execution on this machine, with results in `store`, a folder or URL.

        `workers` are processes, 0 for the calling one; the default is one per core, or one for a GPU. `options` are
        the other fields: engine, retry_failed, checkpoint_seconds.

        >>> Execution.local("memory://runs", engine="dense").workers  # a store in memory is for this process alone
        0
        """
        opened = Store(store)
        if workers is None:
            workers = 0 if opened.private else processes()
        return cls(store=opened, crew=local(workers, preload=PRELOAD), **options)

    @property
    def workers(self) -> int:
        """How many processes compute; 0 if the calling process does."""
        return self.crew.workers

    def check(self, recipe: Recipe) -> None:
        """ValueError for a recipe whose arithmetic the engine cannot do here."""
        check_precision(recipe.precision, device(), self.engine)

    def context(self) -> Mapping[str, Json]:
        """What the stages are told about how to compute (`winticket.stages.engine_of` reads it)."""
        return {"engine": self.engine}

    def run(
        self, tasks: Iterable[Task], *, watch: Callable[[Event], None] | None = None, need_bytes: int = 0
    ) -> Outcomes:
        """Compute what the tasks need and the store lacks; see `winticket.run.run`."""
        return run(
            list(tasks),
            self.store,
            crew=self.crew,
            retry_failed=self.retry_failed,
            on_event=watch,
            checkpoint_seconds=self.checkpoint_seconds,
            context=self.context(),
            need_bytes=need_bytes,
        )
