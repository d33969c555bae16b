"""Reports written again: from a run's own files alone, with what the store has, and after the folder has moved."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import winticket
from undrawn import undraw
from winticket.experiment import Execution
from winticket.experiment.analysing import stored_analyses
from winticket.experiment.masks import require_masks
from winticket.experiment.presenting import analyses_of
from winticket.experiment.rewriting import relocated, require_curves, rewrite
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
    (made,) = opened.analyse(
        "learning", options=options, execution=Execution.local(opened.store.path, workers=0)
    )
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


def json_in(file: Path) -> Any:
    return json.loads(file.read_text())


STRANGE: dict[str, Callable[[Any], object]] = {
    "a plane of 900 million inputs": lambda masks: masks["plane"].update(shape=[1, 30000, 30000]),
    "a plane of an unknown layer": lambda masks: masks["plane"].update(layer="fc9.weight"),
    "a layer that the network lacks": lambda masks: masks["levels"][0]["layers"].update({"fc9.weight": 1.0}),
    "a layer without weights": lambda masks: masks["network"]["layers"][0].update(size=0),
    "a level without layers": lambda masks: masks["levels"][0].update(layers={}),
    "too few inputs": lambda masks: masks["levels"][1].update(inputs=[1.0]),
}


@pytest.mark.parametrize("what", STRANGE)
def test_masks_of_no_run_are_left_out_with_a_note(what: str, run: Path) -> None:
    masks = json_in(run / "masks.json")
    require_masks(masks)
    STRANGE[what](masks)
    with pytest.raises(ValueError, match=r"layer|plane|input"):
        require_masks(masks)


def test_strange_masks_cost_their_part_of_the_page_alone(run: Path, tmp_path: Path) -> None:
    folder = copied(run, tmp_path)
    document, masks = json_in(folder / "result.json"), json_in(folder / "masks.json")
    document["store"] = str(tmp_path / "gone")
    masks["plane"]["shape"] = [1, 30000, 30000]
    (folder / "result.json").write_text(json.dumps(document))
    (folder / "masks.json").write_text(json.dumps(masks))
    made = rewrite(folder)
    assert "The page lacks what masks.json would show" in made.notes[1]
    assert 'id="mask-picture"' not in (folder / "report.html").read_text()


def test_curves_of_no_run_are_refused(run: Path) -> None:
    curves = json_in(run / "curves.json")
    require_curves(curves)
    shorter = [curves[0], curves[1] | {"validation_accuracy": []}]
    other = [
        curves[0],
        {key: value[:-1] if isinstance(value, list) else value for key, value in curves[1].items()},
    ]
    named = [curves[0] | {"arm": "dense\x1b[31m"}]
    refused = (
        (shorter, "not of the same length"),
        (other, "not measured at the same steps"),
        (named, "an arm is called 'dense"),
    )
    for strange, why in refused:
        with pytest.raises(ValueError, match=why):
            require_curves(strange)


def test_a_page_that_cannot_be_drawn_leaves_the_finished_run_as_it_was(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied(run, tmp_path)
    rewrite(folder)
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}

    def broken(*_: Any, **__: Any) -> Path:
        raise KeyError("a fault in drawing")

    monkeypatch.setattr("winticket.report.write_page", broken)
    with pytest.raises(ValueError, match="report cannot be drawn"):
        rewrite(folder)
    monkeypatch.setattr("winticket.report.draw_all", broken)
    with pytest.raises(ValueError, match="figures cannot be drawn"):
        rewrite(folder)
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize(
    "options",
    [{"nope": 1}, {"replicates": "9" * 400}, {"levels": [1]}, {"shares": 5}, {"shares": "2"}],
    ids=str,
)
def test_options_of_another_version_cost_no_other_analysis(
    options: dict[str, Any], run: Path, tmp_path: Path
) -> None:
    opened, folder = winticket.open(run), copied(run, tmp_path)
    opened.analyse("overlap", execution=Execution.local(opened.store.path, workers=0))
    (folder / "analyses").mkdir()
    (folder / "analyses" / "learning.json").write_text(json.dumps({"name": "learning", "options": options}))
    assert "overlap" in {one.analysis.name for one in analyses_of(opened, folder)}
