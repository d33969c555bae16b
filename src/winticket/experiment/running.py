"""Conduct an experiment: see that it can be computed, train what is missing, judge, draw, write."""

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

from winticket.experiment.execution import Execution
from winticket.experiment.plan import Plan, plan
from winticket.experiment.price import cost
from winticket.experiment.reports import require_own_report
from winticket.experiment.spec import Experiment
from winticket.experiment.writing import Result, write
from winticket.run import Event, RunError, Store, StoreError
from winticket.stages import device
from winticket.train import Engine, measure

Watch = Callable[[Event], None]


@dataclass(frozen=True)
class Ready:
    """A plan, how to compute it, and a folder for its report; both store and folder can be written."""

    plan: Plan
    execution: Execution
    folder: Path
    need_bytes: int


def find(
    data: str | os.PathLike[str],
    *,
    store: str | os.PathLike[str] = "runs",
    out: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    engine: Engine = "auto",
    retry_failed: bool = False,
    watch: Watch | None = None,
    checkpoint_seconds: float = 10.0,
    **choices: Any,
) -> Result:
    """Find a winning ticket on `data` and prove it: `winticket.find("digits", replicates=5)`.

    `choices` are fields of `Experiment` or `Recipe`; the other options are those of `conduct`. Raises ValueError or
    FileNotFoundError, before any training, for data or a choice that does not exist.
    """
    return conduct(
        Experiment.of(data, **choices),
        out=out,
        watch=watch,
        store=store,
        workers=workers,
        engine=engine,
        retry_failed=retry_failed,
        checkpoint_seconds=checkpoint_seconds,
    )


def conduct(
    experiment: Experiment,
    execution: Execution | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    watch: Watch | None = None,
    **options: Any,
) -> Result:
    """Run an experiment and write report, figures, curves and ticket to the folder `out`.

    `execution` says in which store, by whom and how it is computed, which changes no number; without one, `options`
    are those of `Execution.local`: store ("runs"), workers (one per core, or one for a GPU; 0 for this process),
    engine ("auto"), retry_failed, checkpoint_seconds (10). Results that the store has are not computed again, so a
    stopped run resumes and an extended experiment computes only what is new. `watch` is called with every event.
    Raises ValueError, StoreError or OSError, before any training, if something is wrong with the experiment or if store
    or `out` cannot be written; RunError if the run has to be given up; Interrupted on Ctrl-C. A training that fails is
    counted in the document, not raised.
    """
    began = time.monotonic()
    if execution is not None and options:
        raise TypeError(f"pass {' and '.join(options)} to the execution, since one is given")
    ready = prepare(plan(experiment), execution or Execution.local(**options), out=out)
    return execute(ready, watch=watch, began=began)


def prepare(planned: Plan, execution: Execution, *, out: str | os.PathLike[str] | None = None) -> Ready:
    """See that the plan can be computed and its results kept; makes store and output folder, or nothing if it raises.

    Raises ValueError if the output folder holds the report of another experiment, or the recipe does not suit the
    engine; StoreError or OSError if store or folder cannot be written.
    """
    store = execution.store
    folder = output_folder(planned, store, out)
    require_own_report(folder, planned.experiment.describe(), fingerprint=planned.setup.fingerprint)
    need = cost(planned, execution, measure=False).bytes
    if out is not None:
        _probe(folder)
    if planned.missing(store):
        store.check_writable(need)
    _probe(folder, keep=True)
    return Ready(planned, execution, folder, need)


def execute(ready: Ready, *, watch: Watch | None = None, began: float | None = None) -> Result:
    """Train what is missing and write the results; see `conduct`. `began` is a time.monotonic() to count from."""
    began = time.monotonic() if began is None else began
    execution = ready.execution
    measure_engine(ready.plan, execution)
    with trouble_in_words(execution.store):
        outcomes = execution.run(ready.plan.tasks.values(), watch=watch, need_bytes=ready.need_bytes)
        return write(ready.plan, execution, ready.folder, outcomes, began=began)


@contextlib.contextmanager
def trouble_in_words(store: Store) -> Iterator[None]:
    """Within: trouble with the store or the disk ends the run as a RunError that says what to do."""
    try:
        yield
    except StoreError as error:
        raise RunError(str(error)) from error
    except OSError as error:
        raise RunError(
            f"{error}; every training that finished is kept in {store.path}: make room or pass another --out, and run "
            "again"
        ) from error


def measure_engine(planned: Plan, execution: Execution) -> None:
    """Measure which layers train faster on sparse kernels, before any training, so that all workers choose alike."""
    missing = planned.missing(execution.store)
    if execution.engine == "auto" and missing and device().type == "cpu":
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
    identity = [[t.key for t in planned.tasks.values()], experiment.margin_pp, experiment.alpha]
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:8]
    data = Path(experiment.data).absolute().stem if Path(experiment.data).exists() else experiment.data
    name = re.sub(r"[^\w.-]+", ".", f"{data}-{experiment.model}-{key}")
    base = Path("winticket-reports") if "://" in store.path else Path(store.path).expanduser() / "reports"
    return base / name


def _probe(folder: Path, *, keep: bool = False) -> None:
    """OSError unless files can be written to the folder. With `keep` a missing folder is made, else nothing remains."""
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
