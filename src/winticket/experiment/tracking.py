"""Send a run's curves, verdict and files to TensorBoard or MLflow, as its trainings finish. Off unless asked for."""

from __future__ import annotations

import importlib.util
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from winticket.experiment.plan import BESIDE, Plan
from winticket.results import Document
from winticket.run import Event, Store
from winticket.text import without_secrets
from winticket.ticket import Trajectory


class Curve(NamedTuple):
    """The curve of one replicate: where it is in the run, and the points of its grid."""

    arm: str
    level: int
    density: float
    replicate: int
    points: Sequence[Mapping[str, float | None]]

    def group(self) -> str:
        """Arm and level, as trackers list them; levels sort by number."""
        return (
            self.arm if self.level == 0 else f"{self.arm}/level {self.level:02d}, {100 * self.density:.3g} %"
        )


class Tracker(Protocol):
    """Where a run is sent."""

    def begin(self, question: Mapping[str, Any]) -> None:
        """The run begins; its question, as in result.json."""

    def curve(self, curve: Curve) -> None:
        """A training has finished."""

    def end(self, document: Document, files: Sequence[Path]) -> None:
        """The run has finished and is judged; files are its document, page, ticket and figures."""

    def close(self) -> None:
        """Nothing more comes, also after an error."""


class TensorBoard:
    """Event files in a folder: a run for every arm and level, a tag for every measure and replicate."""

    def __init__(self, folder: str) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._folder, self._writer = Path(folder or "tensorboard"), SummaryWriter
        self._writers: dict[str, Any] = {}

    def _to(self, group: str) -> Any:
        if group not in self._writers:
            self._writers[group] = self._writer(str(self._folder / group))
        return self._writers[group]

    def begin(self, question: Mapping[str, Any]) -> None:
        self._to("run").add_text("question", f"```json\n{json.dumps(dict(question), indent=1)}\n```")

    def curve(self, curve: Curve) -> None:
        writer = self._to(curve.group())
        for point in curve.points:
            for name, value in point.items():
                if name != "step" and value is not None:
                    writer.add_scalar(f"{name}/replicate {curve.replicate + 1}", value, point["step"])
        writer.flush()

    def end(self, document: Document, files: Sequence[Path]) -> None:
        del files  # event files hold none
        verdict, writer = document["verdict"], self._to("run")
        writer.add_text("verdict", f"{verdict['outcome']}: {verdict['reason']}")
        for number, level in enumerate(document["levels"]):
            for arm, measured in level["arms"].items():
                if measured["accuracy"] is not None:
                    writer.add_scalar(f"accuracy by level/{arm}", measured["accuracy"], number)

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()


class MLflow:
    """An MLflow run with the question as parameters, and a nested run for every arm and level."""

    def __init__(self, place: str) -> None:
        from mlflow import MlflowClient

        self._client = MlflowClient(tracking_uri=place or None)
        self._runs: dict[str, str] = {}
        self._experiment, self._parent, self._status = "", "", "FAILED"

    def begin(self, question: Mapping[str, Any]) -> None:
        found = self._client.get_experiment_by_name("winticket")
        self._experiment = found.experiment_id if found else self._client.create_experiment("winticket")
        name = f"{question['model']} on {Path(str(question['data'])).name}"
        self._parent = self._client.create_run(self._experiment, run_name=name).info.run_id
        for key, value in question.items():
            if value is not None:
                self._client.log_param(self._parent, key, str(value)[:500])

    def curve(self, curve: Curve) -> None:
        from mlflow.entities import Metric

        group = curve.group()
        if group not in self._runs:
            tags = {"mlflow.parentRunId": self._parent}
            made = self._client.create_run(self._experiment, run_name=group, tags=tags)
            self._runs[group] = made.info.run_id
            self._client.log_param(made.info.run_id, "density", curve.density)
        metrics = [
            Metric(f"{name}/replicate {curve.replicate + 1}", value, 0, int(point["step"] or 0))
            for point in curve.points
            for name, value in point.items()
            if name != "step" and value is not None
        ]
        for at in range(0, len(metrics), 1000):  # a request takes no more
            self._client.log_batch(self._runs[group], metrics=metrics[at : at + 1000])

    def end(self, document: Document, files: Sequence[Path]) -> None:
        verdict = document["verdict"]
        self._client.set_tag(self._parent, "verdict", verdict["outcome"])
        self._client.set_tag(self._parent, "reason", verdict["reason"])
        if verdict["density"] is not None:
            self._client.log_metric(self._parent, "winning density", verdict["density"])
        for number, level in enumerate(document["levels"]):
            for arm, measured in level["arms"].items():
                if measured["accuracy"] is not None:
                    self._client.log_metric(
                        self._parent, f"accuracy/{arm}", measured["accuracy"], step=number
                    )
        for file in files:
            self._client.log_artifact(self._parent, str(file))
        self._status = "FINISHED"

    def close(self) -> None:
        for run in (*self._runs.values(), *([self._parent] if self._parent else [])):
            self._client.set_terminated(run, status=self._status)


@dataclass(frozen=True)
class _Kind:
    package: str
    make: Callable[[str], Tracker]
    install: str


KINDS = {
    "tensorboard": _Kind("tensorboard", TensorBoard, "tensorboard"),
    "mlflow": _Kind("mlflow", MLflow, "mlflow"),
}
"""Trackers by the word that users type."""


def tracker(text: str) -> Tracker:
    """The tracker of `tensorboard[:FOLDER]` or `mlflow[:URI]`; ValueError for another word or a missing package.

    >>> tracker("wandb")
    Traceback (most recent call last):
    ValueError: no tracker 'wandb'; give tensorboard[:FOLDER] or mlflow[:URI]
    """
    word, _, place = text.partition(":")
    if word not in KINDS:
        raise ValueError(f"no tracker {without_secrets(text)!r}; give tensorboard[:FOLDER] or mlflow[:URI]")
    kind = KINDS[word]
    if importlib.util.find_spec(kind.package) is None:
        raise ValueError(
            f"tracking by {word} needs a package that is not installed: pip install {kind.install}"
        )
    try:
        return kind.make(place)
    except Exception as error:  # whatever the tracker's package raises
        reason = without_secrets(str(error)).strip() or type(error).__name__
        raise ValueError(f"tracking by {word} cannot begin: {reason}") from error


class Tracking:
    """Sends what a run computes to its trackers. Call it with each event, and `end` with the result.

    A tracker that fails is left out from then on, with a RuntimeWarning: the run does not depend on it.
    """

    def __init__(self, trackers: Sequence[Tracker], plan: Plan, store: Store) -> None:
        self._trackers, self._plan, self._store = list(trackers), plan, store
        self._cells = {task.key: cell for cell, task in plan.tasks.items()}
        self._each(lambda one: one.begin(plan.experiment.describe()))

    def _each(self, send: Callable[[Tracker], None]) -> None:
        for one in list(self._trackers):
            try:
                send(one)
            except Exception as error:  # noqa: BLE001 - whatever a tracker's package raises
                self._trackers.remove(one)
                warnings.warn(
                    f"the run goes on, but nothing more is sent to {type(one).__name__}: "
                    f"{without_secrets(str(error))}",
                    RuntimeWarning,
                    stacklevel=2,
                )

    def __call__(self, event: Event) -> None:
        cell = self._cells.get(event.task.key)
        if (
            not self._trackers
            or event.kind not in ("finished", "reused")
            or cell is None
            or cell[1] in BESIDE
        ):
            return
        level, arm, first = cell
        density = self._plan.densities()[level]
        for replicate, path in enumerate(self._store.get(event.task.key), first):
            if isinstance(path, Trajectory):
                self._each(partial(_send, Curve(arm, level, density, replicate, path.curve.rows())))

    def end(self, document: Document) -> None:
        """Send the verdict and the files."""
        named = [document["results"], document["report"], document["ticket"], *document["figures"]]
        files = [path for name in named if name and (path := Path(name)).exists()]
        self._each(lambda one: one.end(document, files))

    def close(self) -> None:
        """Close the trackers."""
        self._each(lambda one: one.close())


def _send(curve: Curve, to: Tracker) -> None:
    to.curve(curve)
