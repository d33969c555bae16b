"""An unfinished run: what there is, what is missing, each training read once, and never a verdict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import winticket
from winticket.experiment import Execution, Experiment, conduct, plan, prepare
from winticket.experiment.sofar import SoFar
from winticket.experiment.watching import Watched, write_progress
from winticket.experiment.writing import write_started
from winticket.run import Interrupted

SMALL: dict[str, Any] = {"model": "lenet-20-10", "steps": 20, "levels": 2, "replicates": 4, "stack": 2}


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """The folder of a run that was stopped after its first four stacks."""
    experiment = Experiment.of("digits", **SMALL)
    finished = 0

    def stop(event: Any) -> None:
        nonlocal finished
        finished += event.kind == "finished"
        if finished == 4:
            raise Interrupted("enough")

    with pytest.raises(Interrupted):
        conduct(experiment, store=tmp_path / "store", out=tmp_path / "out", workers=0, watch=stop)
    return tmp_path / "out"


def test_counts_and_accuracies_are_those_of_the_store(stopped: Path) -> None:
    run = winticket.open(stopped)
    document, curves = SoFar(run).read()
    assert document["planned"] == 4 * (1 + 1 + 2 * 3)
    assert document["finished"] == 8
    assert document["last"] is not None
    assert document["missing"]
    assert "verdict" not in document
    table = run.table()
    measured = 0
    for number, level in enumerate(document["levels"]):
        for arm, entry in level["arms"].items():
            there = [a for a in table.where(level=number, arm=arm).column("test_accuracy") if a is not None]
            assert entry["accuracies"] == there
            assert (entry["planned"], entry["finished"]) == (4, len(there))
            measured += len(there)
    assert len(curves) == measured
    json.dumps(document)  # what --json prints


def test_a_second_look_reads_only_what_is_new(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = winticket.open(stopped)
    so_far = SoFar(run)
    so_far.read()
    read: list[str] = []
    get = run.store.get

    def watched(_: Any, key: str) -> Any:
        read.append(key)
        return get(key)

    monkeypatch.setattr(type(run.store), "get", watched)
    assert so_far.read()[0]["finished"] == 8
    assert read == []


def test_the_page_follows_the_run_to_its_report(stopped: Path, undrawn: None) -> None:
    run = winticket.open(stopped)
    watched = Watched(run, refresh=7)
    assert watched.look() == "8 of 32 trainings"
    page = stopped / "progress.html"
    html = page.read_text()
    assert '<meta http-equiv="refresh" content="7">' in html
    assert "Unfinished: 8 of 32 trainings" in html
    assert "There is no verdict yet" in html
    assert not any(word in html for word in ("<h1>Won", "<h1>Not won", "<h1>Inconclusive"))
    page.unlink()
    assert watched.look() is None
    assert not page.exists(), "nothing is new, so nothing is written"
    conduct(Experiment.of("digits", **SMALL), store=run.store.path, out=stopped, workers=0)
    assert watched.look() == "32 of 32 trainings"
    assert watched.finish() == stopped / "report.html"
    assert "url=report.html" in page.read_text()


def test_a_run_of_which_nothing_has_finished_has_a_page(tmp_path: Path) -> None:
    planned = plan(Experiment.of("digits", **SMALL))
    ready = prepare(planned, Execution.local(tmp_path / "store", workers=0), out=tmp_path / "out")
    ready.execution.store.check_writable(0)
    write_started(planned, ready.execution, ready.folder)
    path = write_progress(winticket.open(ready.folder))
    html = path.read_text()
    assert "Unfinished: 0 of 32 trainings" in html
    assert "No training has finished yet." in html
    assert "<meta http-equiv" not in html


def test_a_failure_that_is_retried_counts_only_while_it_stands(stopped: Path) -> None:
    run = winticket.open(stopped)
    watched = Watched(run)
    cell = next(cell for cell in run.plan.missing(run.store) if cell[1] == "reinit")
    task, stack = run.plan.tasks[cell], SMALL["stack"]
    assert watched.look() == "8 of 32 trainings"
    run.store.put_failure(task.key, "Traceback\nOSError: no space left", {})
    assert watched.look() == "10 of 32 trainings"
    page = (stopped / "progress.html").read_text()
    assert f"{stack} failed" in page
    run.store.forget(task.key, "failure")
    assert watched.look() == "8 of 32 trainings"
    run.store.put_failure(task.key, "Traceback\nOSError: no space left", {})
    assert watched.look() == "10 of 32 trainings"
    conduct(Experiment.of("digits", **SMALL), store=run.store.path, out=stopped, workers=0, retry_failed=True)
    assert watched.look() == "32 of 32 trainings"
    level, arm, first = cell
    entries = watched.so_far.read()[0]["levels"][level]["arms"][arm]
    assert entries["failed"] == 0
    assert entries["accuracies"][first : first + stack] == [
        run.training(arm, level=level, replicate=number).curve.last()["test_accuracy"]
        for number in range(first, first + stack)
    ]


def test_the_page_is_written_again_if_a_failure_becomes_a_result(stopped: Path) -> None:
    run = winticket.open(stopped)
    watched, cell = (
        Watched(run),
        next(cell for cell, task in run.plan.tasks.items() if run.store.has(task.key)),
    )
    key = run.plan.tasks[cell].key
    value, meta = run.store.get(key), run.store.meta(key)
    run.store.forget(key, "result")
    run.store.put_failure(key, "Traceback\nOSError: no space left", {})
    assert watched.look() == "8 of 32 trainings"
    assert "2 failed" in (stopped / "progress.html").read_text()
    run.store.put(key, value, {name: note for name, note in meta.items() if name != "key"})
    assert watched.look() == "8 of 32 trainings", "as many as before, and other ones"
    assert "failed" not in (stopped / "progress.html").read_text()
