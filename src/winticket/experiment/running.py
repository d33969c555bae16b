"""Carry an experiment out: run what is missing, judge, draw, write."""

import dataclasses
import importlib.util
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from winticket import data as datasets
from winticket import report
from winticket.experiment import outcome
from winticket.experiment.plan import Plan, cost, plan
from winticket.experiment.spec import Experiment
from winticket.run import Event, Outcomes, RunError, Store, StoreError
from winticket.run import run as execute
from winticket.ticket import Ticket, Trajectory
from winticket.version import __version__

Watch = Callable[[Event], None]
PRELOAD = ("winticket.procedures.stages", "winticket.train.stacked", "torch.fx.experimental.proxy_tensor")


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run leaves: the result document (as `--json` prints it), the curves, and the ticket to go on with."""

    document: Mapping[str, Any]
    curves: list[dict[str, Any]]
    ticket: Ticket | None
    outcomes: Outcomes

    @property
    def verdict(self) -> Mapping[str, Any]:
        verdict: Mapping[str, Any] = self.document["verdict"]
        return verdict


def find(
    data: str,
    *,
    store: str | os.PathLike[str] = "runs",
    out: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    retry_failed: bool = False,
    watch: Watch | None = None,
    **choices: Any,
) -> Result:
    """Find a winning ticket on `data` and prove it: `winticket.find("digits", replicates=5)`.

    `choices` are fields of `Experiment` or `Recipe`; the rest is as in `conduct`. Raises ValueError or
    FileNotFoundError, before any training, for whatever cannot be had.
    """
    experiment = Experiment.of(data, **choices)
    return conduct(experiment, store=store, out=out, workers=workers, retry_failed=retry_failed, watch=watch)


def conduct(
    experiment: Experiment,
    *,
    store: str | os.PathLike[str] = "runs",
    out: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    retry_failed: bool = False,
    watch: Watch | None = None,
) -> Result:
    """Run an experiment on this machine and write report, figures, curves and ticket to the folder `out`.

    What the `store` has is not computed again, so a stopped run goes on and an extended one adds what is new.
    `workers` are processes (default: one per core; 0: this process); they change no number. `watch` hears every event.
    Raises StoreError or OSError, before any training, where store or `out` cannot be written; RunError where the run
    had to be given up; Interrupted on Ctrl-C. A training that fails is counted in the document, not raised.
    """
    began = time.monotonic()
    planned = plan(experiment)
    place = Store(store)
    folder = output_folder(planned, place, out)
    need = cost(planned, place, workers=1, measure=False).bytes
    if planned.missing(place):
        place.check_writable(need)
    _prepare(folder)
    try:
        outcomes = execute(
            list(planned.tasks.values()),
            place,
            workers=os.cpu_count() or 1 if workers is None else workers,
            retry_failed=retry_failed,
            on_event=watch,
            preload=PRELOAD,
            need_bytes=need,
        )
    except StoreError as error:
        raise RunError(str(error)) from error
    return _write(planned, place, folder, outcomes, began)


def output_folder(planned: Plan, store: Store, out: str | os.PathLike[str] | None) -> Path:
    """Where report and figures go: `out`, or reports/NAME-KEY in the store (in ./winticket-reports for a URL)."""
    if out is not None:
        return Path(out)
    key = list(planned.tasks.values())[-1].key[:8]
    name = (
        f"{Path(planned.experiment.data).stem or 'data'}-{planned.experiment.model.replace(':', '.')}-{key}"
    )
    base = Path("winticket-reports") if "://" in store.path else Path(store.path) / "reports"
    return base / name


def load_spec(path: str | os.PathLike[str], *, variant: str = "experiment") -> Experiment:
    """The experiment that a Python file defines under the name `variant`.

    Raises FileNotFoundError, or ValueError where the file does not run or has no such experiment.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"no file {str(file)!r}; give a Python file that defines `experiment`")
    spec = importlib.util.spec_from_file_location(f"winticket_spec_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise ValueError(f"{file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(file.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"{file} does not run: {type(error).__name__}: {error}") from error
    offered = {name: value for name, value in vars(module).items() if isinstance(value, Experiment)}
    if variant not in offered:
        raise ValueError(
            f"{file} has no experiment {variant!r}; it has {', '.join(offered) or 'none at all'}"
        )
    return offered[variant]


def environment() -> dict[str, Any]:
    """Versions and hardware here, for people."""
    return {
        "winticket": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "system": f"{sys.platform} {platform.machine()}",
        "cores": os.cpu_count(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "data cache": str(datasets.cache_folder(None)),
    }


def _prepare(folder: Path) -> None:
    """Make the output folder and see that it can be written, before anything is computed."""
    probe = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise OSError(
            f"the output folder {str(folder)!r} cannot be written: {error.strerror or error}; give another with --out"
        ) from error


def _write(planned: Plan, store: Store, folder: Path, outcomes: Outcomes, began: float) -> Result:
    runs = outcome.collect(planned, store)
    document = outcome.document(runs)
    curves = outcome.curves(runs)
    best = outcome.best(runs, document)
    ticket = _save_ticket(best, planned, document, folder) if best else None
    environments = _environments(planned, store)
    document = {
        "winticket": __version__,
        **document,
        "store": store.path,
        "results": str(folder / "result.json"),
        "report": str(folder / "report.html"),
        "ticket": str(folder / "ticket.safetensors") if ticket else None,
        "curves": str(folder / "curves.json"),
        "environment": environments[0] if environments else {},
        "keys": sorted(t.key for t in planned.tasks.values()),
        "computed": len(outcomes.computed),
        "reused": len(outcomes.reused),
    }
    if len(environments) > 1:
        document["verdict"]["warnings"].append(
            f"the trainings were computed in {len(environments)} different environments (versions, device or threads), "
            "so their last digits are not comparable"
        )
    (folder / "curves.json").write_text(json.dumps(_without_nan(curves)))
    document["figures"] = [str(p) for p in report.draw_all(document, curves, folder / "figures")]
    document["seconds"] = round(time.monotonic() - began, 3)
    document = _without_nan(document)
    report.write_page(document, curves, folder / "report.html")
    (folder / "result.json").write_text(json.dumps(document, indent=1, allow_nan=False))
    return Result(document, curves, ticket, outcomes)


def _save_ticket(best: Trajectory, planned: Plan, document: Mapping[str, Any], folder: Path) -> Ticket:
    """The ticket with all that it takes to train it again, and what became of it here."""
    setup = planned.setup
    loaded = setup.dataset(torch.device("cpu"))
    about: dict[str, Any] = {
        "model": setup.model,
        "init": setup.init,
        "input_shape": list(setup.input_shape),
        "classes": setup.classes,
        "recipe": dataclasses.asdict(setup.recipe),
        "data": {
            "name": setup.data,
            "fingerprint": setup.fingerprint,
            "split_seed": setup.split_seed(),
            "validation": len(loaded.validation.y),
            "test": len(loaded.test.y),
            "mean": list(loaded.mean),
            "std": list(loaded.std),
        },
        "method": planned.experiment.method,
        "verdict": {k: document["verdict"][k] for k in ("outcome", "density", "reason")},
        "test_accuracy": best.curve.last()["test_accuracy"],
    }
    ticket = dataclasses.replace(best.ticket, about=about)
    ticket.save(folder / "ticket.safetensors")
    return ticket


def _environments(planned: Plan, store: Store) -> list[dict[str, Any]]:
    """The different environments that the plan's results were computed in, the most recent one first."""
    found: dict[str, dict[str, Any]] = {}
    metas = [store.meta(t.key) for t in planned.tasks.values() if store.has(t.key)]
    for meta in sorted(metas, key=lambda m: str(m.get("when")), reverse=True):
        seen: Any = meta.get("environment") or {}
        found.setdefault(json.dumps(seen, sort_keys=True), dict(seen))
    return list(found.values())


def _without_nan(value: Any) -> Any:
    """The same with null for what was not measured or is not finite, since JSON has no other word for it."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {k: _without_nan(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(v) for v in value]
    return value
