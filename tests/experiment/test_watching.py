"""`winticket watch`: a run has finished when its page is there, and whatever happens, no page goes stale."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import winticket
from winticket.cli import app
from winticket.experiment import Execution, Experiment, Result, conduct, plan, prepare
from winticket.experiment.watching import OtherQuestionError, Watched, write_progress
from winticket.experiment.writing import write_started
from winticket.places import STARTED

SMALL: dict[str, Any] = {"model": "lenet-20-10", "steps": 10, "levels": 1, "replicates": 2, "stack": 2}
REFRESH = '<meta http-equiv="refresh"'


@pytest.fixture(autouse=True)
def _undrawn(undrawn: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are not drawn, and the page is a word."""
    monkeypatch.setattr(
        "winticket.report.write_page", lambda _, __, path, **___: path.write_text("the report")
    )


def run(folder: Path, **choices: Any) -> Result:
    experiment = Experiment.of("digits", **{**SMALL, **choices})
    return conduct(experiment, store=folder / "store", out=folder / "out", workers=0)


def start(folder: Path, **choices: Any) -> Path:
    """The folder of a run that has been started, and of which nothing has finished."""
    planned = plan(Experiment.of("digits", **{**SMALL, **choices}))
    ready = prepare(planned, Execution.local(folder / "store", workers=0), out=folder / "out")
    ready.execution.store.check_writable(0)
    write_started(planned, ready.execution, ready.folder)
    return ready.folder


def typed(*words: object) -> tuple[int, str]:
    answer = CliRunner().invoke(app, [str(word) for word in words])
    return answer.exit_code, " ".join(answer.output.split())


def while_asleep(monkeypatch: pytest.MonkeyPatch, *acts: Callable[[], object]) -> None:
    """What happens while the command sleeps, one after the other."""
    left = iter(acts)
    monkeypatch.setattr(time, "sleep", lambda _: next(left)())


def interrupt() -> None:
    raise KeyboardInterrupt


def test_a_run_has_finished_only_when_its_page_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = start(tmp_path)
    watched = Watched(winticket.open(folder))
    seen: list[tuple[Any, bool]] = []

    def draw(_: Any, __: Any, path: Path, **___: Any) -> None:
        written = json.loads((folder / "result.json").read_text())
        seen.append((written["report"], watched.ended() is None))
        path.write_text("the report")

    monkeypatch.setattr("winticket.report.write_page", draw)
    result = run(tmp_path)
    assert seen == [(None, True)], "the numbers are there, the page is not"
    assert watched.ended() == json.loads(json.dumps(result.document))
    assert not (folder / STARTED).exists()


def test_a_run_killed_after_its_page_has_finished_and_before_it_has_not(tmp_path: Path) -> None:
    folder = start(tmp_path)
    watched, begun = Watched(winticket.open(folder)), (folder / STARTED).read_bytes()
    run(tmp_path)
    (folder / STARTED).write_bytes(begun)
    assert watched.ended() is not None
    (folder / "report.html").unlink()
    assert watched.ended() is None


def test_a_run_whose_page_could_not_be_drawn_has_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = start(tmp_path)
    monkeypatch.setattr("winticket.report.write_page", lambda *_, **__: 1 / 0)
    while_asleep(monkeypatch, lambda: run(tmp_path))
    status, said = typed("watch", folder)
    assert status == 0
    assert said.endswith(f"The run has finished, but it has no page; draw it by: winticket report {folder}")
    page = (folder / "progress.html").read_text()
    assert "report could not be drawn" in page
    assert REFRESH not in page


def test_watch_follows_a_run_to_its_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = start(tmp_path)
    while_asleep(monkeypatch, lambda: run(tmp_path))
    status, said = typed("watch", folder / "run.json")
    assert status == 0
    assert "0 of 10 trainings" in said
    assert said.endswith(f"The run has finished. Page: {folder / 'report.html'}")
    assert "url=report.html" in (folder / "progress.html").read_text()
    for name in (folder, folder / "result.json"):
        assert typed("watch", name) == (0, f"The run has finished. Page: {folder / 'report.html'}")


def test_watch_refuses_what_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("buy milk")
    (tmp_path / "compare.json").write_text("{}")
    (tmp_path / "result.json").mkdir()
    for name, why in (
        ("note.txt", "note.txt is not the result of a search or transfer"),
        ("compare.json", "compare.json is a comparison; give the folder of a search or transfer"),
        ("nowhere", "there is no"),
        ("", "is a comparison; give the folder of a search or transfer"),
    ):
        status, said = typed("watch", tmp_path / name)
        assert (status, "finished" in said.replace("finished run", "")) == (2, False)
        assert why in said


def test_a_folder_that_is_deleted_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = start(tmp_path)
    while_asleep(monkeypatch, lambda: shutil.rmtree(folder))
    status, said = typed("watch", folder)
    assert status == 2
    assert said.endswith(f"Error: the run's folder is gone: {folder}")
    assert not folder.exists()


def test_a_look_at_a_deleted_folder_does_not_make_it_again(tmp_path: Path) -> None:
    folder = start(tmp_path)
    watched = Watched(winticket.open(folder))
    shutil.rmtree(folder)
    with pytest.raises(FileNotFoundError, match="folder is gone"):
        watched.look()
    assert not folder.exists()


@pytest.mark.parametrize("broken", ["run.json", "result.json"])
def test_an_unreadable_file_is_named_and_the_page_no_longer_reloads(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = start(tmp_path)
    while_asleep(monkeypatch, lambda: (folder / broken).write_text("{"))
    status, said = typed("watch", folder)
    assert status == 2
    assert f"Error: {folder / broken}" in said
    page = (folder / "progress.html").read_text()
    assert "Unfinished: 0 of 10 trainings" in page
    assert REFRESH not in page


def test_a_run_that_is_taken_away_has_not_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = start(tmp_path)
    while_asleep(monkeypatch, (folder / STARTED).unlink)
    status, said = typed("watch", folder)
    assert status == 2
    assert "has neither run.json nor result.json" in said


def test_the_page_follows_another_question_in_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = start(tmp_path)
    watched = Watched(winticket.open(folder))
    while_asleep(monkeypatch, lambda: start(tmp_path, replicates=4), interrupt)
    status, said = typed("watch", folder)
    assert status == 130
    assert "0 of 10 trainings" in said
    assert "another question has been asked" in said
    assert "0 of 20 trainings" in (folder / "progress.html").read_text()
    with pytest.raises(OtherQuestionError):
        watched.ended()
    run(tmp_path, replicates=4)
    with pytest.raises(OtherQuestionError):
        watched.ended()


def test_a_stopped_watch_leaves_a_page_that_does_not_reload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, reloads = start(tmp_path), []

    def stop() -> None:
        reloads.append(REFRESH in (folder / "progress.html").read_text())
        raise KeyboardInterrupt

    while_asleep(monkeypatch, stop)
    status, said = typed("watch", folder)
    page = (folder / "progress.html").read_text()
    assert (status, reloads) == (130, [True])
    assert "Stopped watching; the run goes on" in said
    assert REFRESH not in page
    assert "reloads itself" not in page
    assert "Unfinished: 0 of 10 trainings" in page


def test_a_watch_that_is_stopped_as_the_run_ends_leads_to_the_report(tmp_path: Path) -> None:
    folder = start(tmp_path)
    watched = Watched(winticket.open(folder), refresh=1)
    watched.look()
    run(tmp_path)
    watched.leave()
    assert "url=report.html" in (folder / "progress.html").read_text()


def test_a_run_that_ends_replaces_a_page_of_its_progress(tmp_path: Path) -> None:
    folder = start(tmp_path)
    assert "Unfinished: 0 of 10" in write_progress(winticket.open(folder)).read_text()
    run(tmp_path)
    page = (folder / "progress.html").read_text()
    assert "url=report.html" in page
    assert "Unfinished" not in page
    (folder / "progress.html").unlink()
    run(tmp_path)
    assert not (folder / "progress.html").exists(), "nobody has asked for one"
