"""Output folders: files of one run, whole, and nobody else's lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from winticket.experiment.folder import OutputFolder
from winticket.experiment.reports import require_same_comparison, require_same_experiment


def names(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_a_block_that_fails_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text("old")

    def fails() -> None:
        with OutputFolder(tmp_path).staged(instead_of=["result.json"]) as new:
            (new / "result.json").write_text("new")
            raise KeyError("no")

    with pytest.raises(KeyError):
        fails()
    assert (tmp_path / "result.json").read_text() == "old"
    assert names(tmp_path) == ["result.json"]


def test_what_an_earlier_run_left_goes_and_what_is_the_users_stays(tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    for name in ("report.html", "figures/a.png", "notes.txt", "figures/mine.png"):
        (tmp_path / name).write_text("old")
    with OutputFolder(tmp_path).staged(instead_of=["report.html", "figures/a.png", "none.html"]) as new:
        (new / "figures").mkdir()
        (new / "figures" / "b.png").write_text("new")
        (new / "result.json").write_text("new")
    assert names(tmp_path) == ["figures/b.png", "figures/mine.png", "notes.txt", "result.json"]


def test_the_document_comes_first_so_that_no_file_is_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[str] = []
    replace = Path.replace

    def watched(self: Path, target: Path) -> Path:
        moved.append(Path(target).name)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    with OutputFolder(tmp_path).staged() as new:
        for name in ("curves.json", "result.json", "ticket.safetensors"):
            (new / name).write_text("")
    assert moved == ["result.json", "curves.json", "ticket.safetensors"]


def test_what_a_killed_run_was_writing_is_cleared_up_and_a_living_ones_is_not(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    dead, living = (tmp_path / f".winticket-{pid}-0123abcd" for pid in (int(done.stdout), os.getppid()))
    mine = tmp_path / ".winticket-notes"
    for folder in (dead, living, mine):
        folder.mkdir()
        (folder / "file").write_text("")
    OutputFolder(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([living.name, mine.name])


@pytest.mark.parametrize("name", ["report.html", "ticket.safetensors", "curves.json"])
def test_a_file_of_the_users_own_is_not_taken_for_an_earlier_runs(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("precious")
    with pytest.raises(ValueError, match=rf"has a {name} but no result.json that says which run wrote it"):
        require_same_experiment(tmp_path, {}, fingerprint="")
    (tmp_path / "compare.png").write_text("precious")
    with pytest.raises(ValueError, match=r"has a compare.png but no compare.json"):
        require_same_comparison(tmp_path, {})
