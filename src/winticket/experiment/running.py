"""Run an experiment: check that it can be computed, train what is missing, judge, draw and write."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from winticket.data import Data
from winticket.experiment.execution import Execution, run_errors
from winticket.experiment.plan import Plan, plan
from winticket.experiment.price import cost
from winticket.experiment.reports import require_same_experiment
from winticket.experiment.spec import Experiment
from winticket.experiment.tracking import Tracker, Tracking, tracker
from winticket.experiment.writing import Result, write, write_started
from winticket.run import Event, Store
from winticket.stages import device
from winticket.train import Engine, measure

Watch = Callable[[Event], None]


@dataclass(frozen=True)
class Ready:
    """A plan that is ready to run: store and folder can be written.

    plan        the trainings
    execution   how to compute them
    folder      for the report
    need_bytes  disk space that the missing results need
    trackers    where curves, verdict and files are sent
    """

    plan: Plan
    execution: Execution
    folder: Path
    need_bytes: int
    trackers: tuple[Tracker, ...] = ()
    warning: str | None = None
    """Said before the trainings: that one may need more memory than this machine has, as estimated."""


def find(
    data: Data,
    *,
    store: str | os.PathLike[str] = "runs",
    out: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    ray: str | None = None,
    dask: str | None = None,
    engine: Engine = "auto",
    retry_failed: bool = False,
    watch: Watch | None = None,
    checkpoint_seconds: float = 10.0,
    track: Sequence[str] = (),
    needs: Sequence[str] = (),
    **choices: Any,
) -> Result:
    """Find a winning ticket on `data` and prove it: `winticket.find("digits", replicates=5)`.

    data                name of a dataset, path of one, or the data: (X, y), a data frame, a dataset of torch or of
                        Hugging Face (see `winticket.data.as_path`)
    store               folder or URL that keeps the result of every training
    out                 folder for report, figures, curves and ticket (default: reports/NAME-KEY in the store)
    workers             processes that compute; 0 for this one (default: one per core, or one for a GPU)
    ray, dask           address of a cluster that computes, or "local" (see `Execution.local`)
    engine              "auto", "dense" or "sparse": how layers with pruned weights are computed
    retry_failed        compute trainings again that the store records as failed
    watch               is called with every event
    checkpoint_seconds  seconds between saved states of a training
    track               where curves, verdict and files are sent: "tensorboard:FOLDER", "mlflow:URI"
    needs               what this machine must have: "gpu", "memory=8GB" (for each process)
    choices             fields of `Experiment`, `Recipe` or `Reading`, as for `Experiment.of`

    Raises ValueError, TypeError or FileNotFoundError, before any training, for data or a choice that does not exist;
    other errors as for `conduct`.

    >>> find("digits", stepps=20)
    Traceback (most recent call last):
    TypeError: an experiment has no choice 'stepps' (did you mean 'steps'?); there are allocate, ...
    """
    return conduct(
        Experiment.of(data, **choices),
        out=out,
        watch=watch,
        track=track,
        store=store,
        workers=workers,
        ray=ray,
        dask=dask,
        engine=engine,
        retry_failed=retry_failed,
        checkpoint_seconds=checkpoint_seconds,
        needs=needs,
    )


def conduct(
    experiment: Experiment,
    execution: Execution | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    watch: Watch | None = None,
    track: Sequence[str] = (),
    **options: Any,
) -> Result:
    """Run an experiment and write report, figures, curves and ticket to the folder `out`.

    `execution` is how to compute; it changes no number. Without it, `options` are those of `Execution.local`: store
    ("runs"), workers (one per core, or one for a GPU; 0 for this process), ray, dask, engine ("auto"),
    retry_failed, checkpoint_seconds (10), needs. `watch` is called with every event. `track` names where curves,
    verdict and files are sent: "tensorboard:FOLDER" or "mlflow:URI".

    Results in the store are not computed again. So a stopped run resumes, and an extended experiment computes only
    what is new. A training that fails is counted in the document and raises nothing.

    Raises, before any training, ValueError if something is wrong with the experiment, and StoreError or OSError if the
    store or `out` cannot be written. Raises RunError if the run cannot continue, and Interrupted on Ctrl-C.

    >>> conduct(Experiment.of("digits", steps=20), Execution.local("memory://runs"), workers=2)
    Traceback (most recent call last):
    TypeError: an execution is passed, so pass workers to Execution.local instead
    """
    began = time.monotonic()
    if execution is not None and options:
        raise TypeError(f"an execution is passed, so pass {' and '.join(options)} to Execution.local instead")
    ready = prepare(plan(experiment), execution or Execution.local(**options), out=out, track=track)
    if ready.warning:
        warnings.warn(ready.warning, RuntimeWarning, stacklevel=2)
    return execute(ready, watch=watch, began=began)


def prepare(
    planned: Plan,
    execution: Execution,
    *,
    out: str | os.PathLike[str] | None = None,
    track: Sequence[str] = (),
) -> Ready:
    """Check that a plan can be computed and its results kept. Creates store and output folder, or nothing if it raises.

    Raises ValueError if the output folder holds the report of another experiment, if a tracker is unknown or not
    installed, if the engine cannot compute in the recipe's precision, or if this machine lacks what the execution says
    that a training needs. Raises StoreError or OSError if store or folder cannot be written.

    >>> from tempfile import TemporaryDirectory
    >>> planned = plan(Experiment.of("digits", steps=20))
    >>> with TemporaryDirectory() as folder:
    ...     prepare(planned, Execution.local("memory://runs"), out=folder).need_bytes > 0
    True
    """
    trackers = tuple(map(tracker, track))
    store = execution.store
    folder = output_folder(planned, store, out)
    require_same_experiment(folder, planned.experiment.describe(), fingerprint=planned.setup.fingerprint)
    need = cost(planned, execution, measure=False).bytes
    warning = execution.refuse_unfit([planned.tasks[cell] for cell in planned.missing(store)])
    if out is not None:
        _probe(folder)
    if planned.missing(store):
        store.check_writable(need)
    _probe(folder, keep=True)
    return Ready(planned, execution, folder, need, trackers, warning)


def execute(ready: Ready, *, watch: Watch | None = None, began: float | None = None) -> Result:
    """Train what is missing and write the results; errors as for `conduct`. `began` is the start by time.monotonic."""
    began = time.monotonic() if began is None else began
    execution = ready.execution
    measure_engine(ready.plan, execution)
    with run_errors(execution.store):
        write_started(ready.plan, execution, ready.folder)
        tracked = Tracking(ready.trackers, ready.plan, execution.store)
        with contextlib.closing(tracked):
            heard = _both(watch, tracked) if ready.trackers else watch
            outcomes = execution.run(ready.plan.tasks.values(), watch=heard, need_bytes=ready.need_bytes)
            result = write(ready.plan, execution, ready.folder, outcomes, began=began)
            tracked.end(result.document)
            return result


def _both(watch: Watch | None, tracked: Tracking) -> Watch:
    def heard(event: Event) -> None:
        if watch is not None:
            watch(event)
        tracked(event)

    return heard


def measure_engine(planned: Plan, execution: Execution) -> None:
    """Measure how layers train fastest, unless that is known. This precedes the trainings, so all workers agree."""
    missing = planned.missing(execution.store)
    if execution.engine != "dense" and missing and device().type == "cpu":
        stacks = {planned.count(first) for _, _, first in missing}
        setup = planned.setup
        measure(
            setup.module(), planned.question.eligible, setup.recipe, stacks=stacks, example=setup.blank(2)
        )


def output_folder(planned: Plan, store: Store, out: str | os.PathLike[str] | None) -> Path:
    """The folder for the report: `out`, or reports/NAME-KEY in the store (./winticket-reports/NAME-KEY for a URL)."""
    if out is not None:
        return Path(out).expanduser()
    experiment = planned.experiment
    identity = [[t.key for t in planned.tasks.values()], experiment.margin_pp, experiment.alpha]
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:8]
    data = Path(experiment.data).absolute().stem if Path(experiment.data).exists() else experiment.data
    name = re.sub(r"[^\w.-]+", ".", f"{data}-{experiment.model}-{key}")
    base = Path("winticket-reports") if "://" in store.path else Path(store.path).expanduser() / "reports"
    return base / name


def _probe(folder: Path, *, keep: bool = False) -> None:
    """OSError unless files can be written to the folder. With `keep`, the folder remains if it was missing."""
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
            f"the output folder {str(folder)!r} cannot be written: {error.strerror or error}; pass another with --out"
        ) from error
    finally:
        if not keep:
            for each in reversed(made):
                with contextlib.suppress(OSError):
                    each.rmdir()
