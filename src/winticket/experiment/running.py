"""Carry an experiment out: see that it can be, run what is missing, judge, draw, write."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from winticket.experiment.machine import processes
from winticket.experiment.plan import Plan, plan
from winticket.experiment.price import cost
from winticket.experiment.reports import require_own_report
from winticket.experiment.spec import Experiment
from winticket.experiment.writing import Result, write
from winticket.run import Event, RunError, Store, StoreError
from winticket.run import run as execute
from winticket.stages import device
from winticket.train import measure

Watch = Callable[[Event], None]
# All that a first training imports, some of it deep inside torch; so it is read once and not by every worker.
PRELOAD = (
    "winticket.stages",
    "winticket.train.stacked",
    "torch.fx.experimental.proxy_tensor",
    "torch._dynamo",
)


@dataclass(frozen=True)
class Ready:
    """A plan with a place for its results that takes them; `workers` are processes, 0 for this one."""

    plan: Plan
    store: Store
    folder: Path
    workers: int
    need_bytes: int


def find(
    data: str | os.PathLike[str],
    *,
    store: str | os.PathLike[str] = "runs",
    out: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    retry_failed: bool = False,
    watch: Watch | None = None,
    checkpoint_seconds: float = 10.0,
    **choices: Any,
) -> Result:
    """Find a winning ticket on `data` and prove it: `winticket.find("digits", replicates=5)`.

    `choices` are fields of `Experiment` or `Recipe`; the rest is as in `conduct`. Raises ValueError or
    FileNotFoundError, before any training, for whatever cannot be had.
    """
    return conduct(
        Experiment.of(data, **choices),
        store=store,
        out=out,
        workers=workers,
        retry_failed=retry_failed,
        watch=watch,
        checkpoint_seconds=checkpoint_seconds,
    )


def conduct(
    experiment: Experiment,
    *,
    store: str | os.PathLike[str] = "runs",
    out: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    retry_failed: bool = False,
    watch: Watch | None = None,
    checkpoint_seconds: float = 10.0,
) -> Result:
    """Run an experiment on this machine and write report, figures, curves and ticket to the folder `out`.

    What the `store` has is not computed again, so a stopped run goes on and an extended one adds what is new.
    `workers` are processes (default: one per core, or one for a GPU; 0: this process); they change no number. `watch`
    hears every event. A training puts its state aside every `checkpoint_seconds`.
    Raises ValueError, StoreError or OSError, before any training, for what is wrong with the experiment or where
    `store` or `out` cannot be written; RunError where the run had to be given up; Interrupted on Ctrl-C. A training
    that fails is counted in the document, not raised.
    """
    began = time.monotonic()
    ready = prepare(plan(experiment), store=store, out=out, workers=workers)
    return carry_out(
        ready, retry_failed=retry_failed, watch=watch, checkpoint_seconds=checkpoint_seconds, began=began
    )


def prepare(
    planned: Plan,
    *,
    store: str | os.PathLike[str] = "runs",
    out: str | os.PathLike[str] | None = None,
    workers: int | None = None,
) -> Ready:
    """See that the plan's results can be kept; makes store and output folder, or, where it raises, nothing.

    ValueError if the output folder holds the report of another experiment.
    """
    place = Store(store)
    count = (0 if place.private else processes()) if workers is None else workers
    if count < 0:
        raise ValueError(f"workers is {count}; give the number of processes, or 0 to compute in this process")
    if count and place.private:
        raise ValueError(
            f"the store {place.path} is in this process's memory, which workers cannot write to; use workers=0"
        )
    folder = output_folder(planned, place, out)
    require_own_report(folder, planned.experiment.describe(), fingerprint=planned.setup.fingerprint)
    need = cost(planned, place, workers=count, measure=False).bytes
    if out is not None:
        _probe(folder)
    if planned.missing(place):
        place.check_writable(need)
    _probe(folder, keep=True)
    return Ready(planned, place, folder, count, need)


def carry_out(
    ready: Ready,
    *,
    retry_failed: bool = False,
    watch: Watch | None = None,
    checkpoint_seconds: float = 10.0,
    began: float | None = None,
) -> Result:
    """Train what is missing and write the results; see `conduct`. `began` is a time.monotonic() to count from."""
    began = time.monotonic() if began is None else began
    measure_engine(ready.plan, ready.store)
    with trouble_in_words(ready.store):
        outcomes = execute(
            list(ready.plan.tasks.values()),
            ready.store,
            workers=ready.workers,
            retry_failed=retry_failed,
            on_event=watch,
            checkpoint_seconds=checkpoint_seconds,
            preload=PRELOAD,
            need_bytes=ready.need_bytes,
        )
        return write(ready.plan, ready.store, ready.folder, outcomes, began=began)


@contextlib.contextmanager
def trouble_in_words(store: Store) -> Iterator[None]:
    """Around what computes and writes: trouble of the store or the disk ends the run, which says what to do."""
    try:
        yield
    except StoreError as error:
        raise RunError(str(error)) from error
    except OSError as error:
        raise RunError(
            f"{error}; every training that finished is kept in {store.path}: make room or give another --out, and run "
            "again"
        ) from error


def measure_engine(planned: Plan, store: Store) -> None:
    """Find out where the sparse kernels pay, before any training: all workers then make the same choice."""
    missing, experiment = planned.missing(store), planned.experiment
    if experiment.engine == "auto" and missing and device().type == "cpu":
        stacks = {planned.count(first) for _, _, first in missing}
        setup = planned.setup
        measure(
            setup.module(), planned.question.eligible, setup.recipe, stacks=stacks, example=setup.blank(2)
        )


def output_folder(planned: Plan, store: Store, out: str | os.PathLike[str] | None) -> Path:
    """Where report and figures go: `out`, or reports/NAME-KEY in the store (in ./winticket-reports for a URL)."""
    if out is not None:
        return Path(out).expanduser()
    experiment = planned.experiment
    told = [[t.key for t in planned.tasks.values()], experiment.margin_pp, experiment.alpha]
    key = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:8]
    data = Path(experiment.data).absolute().stem if Path(experiment.data).exists() else experiment.data
    name = re.sub(r"[^\w.-]+", ".", f"{data}-{experiment.model}-{key}")
    base = Path("winticket-reports") if "://" in store.path else Path(store.path).expanduser() / "reports"
    return base / name


def _probe(folder: Path, *, keep: bool = False) -> None:
    """OSError unless files can be written to the folder; it is left as it was, or made and left empty to `keep`."""
    made: list[Path] = []
    probe = folder / f".probe-{os.getpid()}"
    try:
        for each in reversed([folder, *folder.parents]):
            if not each.exists():
                each.mkdir()
                made.append(each)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        keep = False
        raise OSError(
            f"the output folder {str(folder)!r} cannot be written: {error.strerror or error}; give another with --out"
        ) from error
    finally:
        if not keep:
            for each in reversed(made):
                with contextlib.suppress(OSError):
                    each.rmdir()
