"""A run sent to trackers, read back by their own libraries; and a tracker that fails does not stop the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import winticket
from winticket.experiment import Execution, Experiment, plan
from winticket.experiment.running import Ready, execute
from winticket.experiment.tracking import Curve, tracker
from winticket.results import Document

QUESTION: dict[str, Any] = {"model": "lenet-20-10", "steps": 20, "levels": 2, "replicates": 2, "gate": False}


def found(tmp_path: Path, **more: Any) -> winticket.Result:
    where: dict[str, Any] = {"store": tmp_path / "store", "out": tmp_path / "out", "workers": 0}
    return winticket.find("digits", **where, **QUESTION, **more)


def test_tensorboard_has_every_curve_and_the_verdict(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = found(tmp_path, track=[f"tensorboard:{tmp_path / 'events'}"])
    run = winticket.open(tmp_path / "out")
    curve = run.training("ticket", level=2, replicate=1).curve
    (folder,) = (tmp_path / "events" / "ticket").glob("level 02*")
    events = EventAccumulator(str(folder)).Reload()
    points = events.Scalars("validation_accuracy/replicate 2")
    assert [(p.step, p.value) for p in points] == [
        (step, pytest.approx(value))
        for step, value in zip(curve.step.tolist(), curve.validation_accuracy.tolist(), strict=True)
    ]
    of_run = EventAccumulator(str(tmp_path / "events" / "run")).Reload()
    assert set(of_run.Tags()["tensors"]) >= {"verdict/text_summary", "question/text_summary"}
    accuracies = [level["arms"]["ticket"]["accuracy"] for level in result.document["levels"][1:]]
    assert [p.value for p in of_run.Scalars("accuracy by level/ticket")] == pytest.approx(accuracies)


def test_mlflow_has_parameters_curves_verdict_and_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    place = f"file:{tmp_path / 'mlruns'}"
    found(tmp_path, track=[f"mlflow:{place}"])
    client = mlflow.MlflowClient(tracking_uri=place)
    runs = client.search_runs([client.get_experiment_by_name("winticket").experiment_id])
    (parent,) = (run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    assert parent.data.params["steps"] == "20"
    assert parent.data.tags["verdict"] == "inconclusive"
    assert parent.info.status == "FINISHED"
    assert {"ticket.safetensors", "result.json"} <= {
        file.path for file in client.list_artifacts(parent.info.run_id)
    }
    assert len(runs) == 1 + 1 + 2 * 3
    (one,) = (run for run in runs if run.data.tags["mlflow.runName"].startswith("reinit/level 01"))
    assert [m.step for m in client.get_metric_history(one.info.run_id, "validation_loss/replicate 1")][
        -1
    ] == 20


def test_results_from_the_store_are_sent_as_well(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    found(tmp_path)
    found(tmp_path, track=[f"tensorboard:{tmp_path / 'events'}"])
    assert {path.parent.name.partition(",")[0] for path in (tmp_path / "events").rglob("events*")} >= {
        "run", "dense", "level 01", "level 02",
    }  # fmt: skip


class Broken:
    """A tracker whose server is away."""

    def __init__(self) -> None:
        self.asked = 0

    def begin(self, question: Mapping[str, Any]) -> None:
        del question

    def curve(self, curve: Curve) -> None:
        del curve
        self.asked += 1
        raise ConnectionError("no route to http://me:secret@host")

    def end(self, document: Document, files: Sequence[Path]) -> None:
        raise AssertionError("it was to be left out")

    def close(self) -> None:
        raise AssertionError("it was to be left out")


def test_a_tracker_that_fails_does_not_stop_the_run(tmp_path: Path) -> None:
    planned = plan(Experiment.of("digits", **QUESTION))
    broken = Broken()
    execution = Execution.local(tmp_path / "store", workers=0)
    with pytest.warns(RuntimeWarning, match="the run goes on, but nothing more is sent to Broken") as warned:
        result = execute(Ready(planned, execution, tmp_path / "out", 0, (broken,)))
    assert broken.asked == 1
    assert "secret" not in str(warned[0].message)
    assert result.document["failures"] == []


def test_unknown_and_missing_trackers_are_refused_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"no tracker 'wandb'; give tensorboard\[:FOLDER\]"):
        found(tmp_path, track=["wandb"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install mlflow"):
        tracker("mlflow")
    assert not (tmp_path / "store").exists() or not list((tmp_path / "store" / "results").glob("*"))
