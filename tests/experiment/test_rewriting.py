"""Reports written again: from a run's own files alone, with what the store has, and after the folder has moved."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import winticket
from undrawn import undraw
from winticket.experiment.analysing import stored_analyses
from winticket.experiment.presenting import analyses_of
from winticket.experiment.rewriting import relocated, rewrite
from winticket.report.analysed import Shown, write_analyses

OPTIONS: dict[str, Any] = {"model": "lenet-20-10", "steps": 40, "levels": 2, "replicates": 2, "workers": 0}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run without figures and page."""
    folder = tmp_path_factory.mktemp("rewritten")
    with pytest.MonkeyPatch.context() as patch:
        undraw(patch)
        winticket.find("digits", store=folder / "store", out=folder / "out", **OPTIONS)
    return folder / "out"


@pytest.fixture(autouse=True)
def undrawn_experiments() -> None:
    """These tests look at what is drawn."""


def copied(run: Path, to: Path) -> Path:
    return Path(shutil.copytree(run, to / "moved"))


def test_page_and_figures_come_from_the_folder_and_numbers_stay(run: Path, tmp_path: Path) -> None:
    folder = copied(run, tmp_path)
    before = json.loads((folder / "result.json").read_text())
    (folder / "figures").mkdir()
    (folder / "figures" / "early_stop_against_density.png").write_text("of an earlier version")
    (folder / "figures" / "mine.png").write_text("a user's")
    made = rewrite(folder)
    assert made.notes == ()
    after = json.loads((folder / "result.json").read_text())
    for name in ("verdict", "levels", "keys", "seconds", "computed", "network"):
        assert after[name] == before[name]
    html = (folder / "report.html").read_text()
    assert "Inconclusive: 2 replicates are too few for any verdict" in html
    assert 'id="mask-picture"' in html
    assert after["report"] == str(folder / "report.html")
    files = {path.relative_to(folder).as_posix() for path in (folder / "figures").iterdir()}
    assert files == {Path(path).relative_to(folder).as_posix() for path in after["figures"]} | {
        "figures/mine.png"
    }
    assert {Path(path).suffix for path in after["figures"]} == {".png", ".svg", ".pdf", ".csv"}
    assert "figures/accuracy_against_density.pdf" in files


def test_without_the_store_the_folder_is_enough(run: Path, tmp_path: Path) -> None:
    folder = copied(run, tmp_path)
    document = json.loads((folder / "result.json").read_text())
    document["store"] = str(tmp_path / "gone")
    (folder / "result.json").write_text(json.dumps(document))
    made = rewrite(folder)
    (note,) = made.notes
    assert note.startswith("The page is written without analyses, since the run cannot be opened: store")
    assert 'id="mask-picture"' in (folder / "report.html").read_text()


def test_masks_that_an_older_folder_lacks_are_counted_in_the_store(run: Path, tmp_path: Path) -> None:
    folder = copied(run, tmp_path)
    counted = json.loads((folder / "masks.json").read_text())
    (folder / "masks.json").unlink()
    document = json.loads((folder / "result.json").read_text())
    del document["network"], document["masks"]
    (folder / "result.json").write_text(json.dumps(document))
    made = rewrite(folder)
    assert json.loads((folder / "masks.json").read_text()) == counted
    assert made.document["network"] == counted["network"]


def test_paths_follow_the_folder(run: Path, tmp_path: Path) -> None:
    document = json.loads((run / "result.json").read_text())
    document["figures"] = [str(run / "figures" / "a.png"), "elsewhere/b.png"]
    moved = relocated(document, tmp_path)
    for name, file in (("results", "result.json"), ("ticket", "ticket.safetensors"), ("masks", "masks.json")):
        assert moved[name] == str(tmp_path / file)  # type: ignore[literal-required]
    assert moved["figures"] == [str(tmp_path / "figures" / "a.png"), "elsewhere/b.png"]
    assert relocated(document, run) == document
    assert moved["store"] == document["store"], "the store has not moved"


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no result\.json in the folder"):
        rewrite(tmp_path)
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(ValueError, match="is not the result of a search or transfer"):
        rewrite(tmp_path)


def test_the_page_has_the_analyses_that_the_store_has_and_computes_none(run: Path, tmp_path: Path) -> None:
    opened = winticket.open(run)
    before = len(list((run.parent / "store" / "results").iterdir()))
    assert stored_analyses(opened) == []
    assert len(list((run.parent / "store" / "results").iterdir())) == before
    options = {"learning": {"levels": "1"}}
    (made,) = opened.analyse("learning", options=options)
    assert made.reason is None
    assert stored_analyses(opened) == [], "it was made with another option"
    (again,) = stored_analyses(opened, options=options)
    assert again.sentences == made.sentences
    # The folder remembers the options, so the page finds the analysis.
    folder = copied(run, tmp_path)
    shown = [Shown(made.analysis, made.table, made.sentences, None, options["learning"])]
    written = write_analyses(shown, folder / "analyses")
    assert folder / "analyses" / "learning.json" in written
    assert [one.options for one in analyses_of(opened, folder)] == [{"levels": "1"}]
    rewrite(folder)
    html = (folder / "report.html").read_text()
    assert "<h2>Understanding the ticket</h2>" in html
    assert made.analysis.title in html
