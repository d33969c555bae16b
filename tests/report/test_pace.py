"""Steps to an accuracy in tables, figure, page and final screen."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from winticket.judge import FRACTIONS, pace_against_dense
from winticket.report import draw_all, early_stop_by_density, final_screen, page
from winticket.report.figures import pace_against_density
from winticket.report.pace import pace_cell, pace_sentence, pace_title, steps_to_accuracy
from winticket.report.reading import pace, speed
from winticket.report.saving import image

Document = Any  # a test may take away what every run writes
DENSE = [20, 24, 28, 20, 18, 21, 24, 28, 24, 21]


def entry(steps: list[int | None], *, itself: bool = False) -> Document:
    found = {}
    for fraction in FRACTIONS:
        one = pace_against_dense(
            steps, DENSE, fraction=fraction, alpha=0.05, has_target=[True] * 10, itself=itself
        )
        found[f"{fraction:g}"] = one.as_json()
    return found


@pytest.fixture
def paced(digits: Document) -> Document:
    """The digits case: tickets sooner down to .5, alike to .3, later below; random masks never get there below .05."""
    digits["levels"][0]["arms"]["dense"]["steps_to"] = entry(list(DENSE), itself=True)
    for level in digits["levels"][1:]:
        factor = 0.5 if level["density"] > 0.5 else 1 if level["density"] > 0.3 else 3
        sparse = level["density"] < 0.05
        arms = level["arms"]
        arms["ticket"]["steps_to"] = entry([int(factor * s) for s in DENSE])
        arms["reinit"]["steps_to"] = entry([2 * s for s in DENSE])
        arms["random"]["steps_to"] = entry([None] * 6 + [500] * 4 if sparse else [4 * s for s in DENSE])
        judged = arms["ticket"]["steps_to"]["0.95"]
        level["checks"]["pace"] = {"fraction": 0.95, "outcome": judged["outcome"]}
        level["checks"]["time_left_out"] = (
            "not compared: in 9 of 10 trainings of the ticket ..." if sparse else None
        )
    return digits


def words(figure: Figure) -> str:
    return " ".join(text.get_text().replace("\n", " ") for text in figure.texts)


def test_the_table_has_a_row_for_every_arm_and_target(paced: Document) -> None:
    table = steps_to_accuracy(paced)
    assert len(table) == (1 + 16 * 3) * 5
    (dense,) = table.where(arm="dense", fraction=0.95).rows()
    assert (dense["steps_to"], dense["ci_low"], dense["ci_high"]) == (22.5, 20, 28)
    assert dense["ratio"] is dense["outcome"] is None
    ticket = table.where(arm="ticket", fraction=0.95).rows()
    assert [row["outcome"] for row in ticket] == ["sooner"] * 3 + ["alike"] * 2 + ["later"] * 11
    assert ticket[0]["ratio"] == pytest.approx(0.5, abs=0.02)
    lost = table.where(arm="random", fraction=0.95).rows()[-1]
    assert (lost["steps_to"], lost["never"]) == (None, 6)
    assert lost["ci_low"] is not None
    assert lost["ci_high"] is None


def test_the_figure_draws_the_tables_numbers_and_says_the_finding(paced: Document) -> None:
    figure, table = pace_against_density(paced)
    (axes,) = figure.axes
    lines = {str(line.get_label()): line for line in axes.lines}
    for arm, label in (("ticket", "ticket"), ("reinit", "re-initialised"), ("random", "random mask")):
        rows = table.where(arm=arm, fraction=0.95)
        np.testing.assert_array_equal(lines[label].get_ydata(), rows.numbers("steps_to"))
    assert np.isnan(np.asarray(lines["random mask"].get_ydata(), float)[-1]), (
        "no mark where most never get there"
    )
    assert axes.get_yscale() == "log"
    assert axes.get_ylim()[0] > 0
    said = words(figure)
    assert (
        "reaches 95 % of dense accuracy sooner between 80.2 % and 51.6 %, and later between 26.8 % and"
        in said
    )
    assert "median" in said
    assert "steps to 95 % of the dense network's accuracy" in axes.get_ylabel()


def test_a_ticket_that_is_there_before_it_trains_can_be_drawn(paced: Document) -> None:
    paced["levels"][1]["arms"]["ticket"]["steps_to"] = entry([0] * 10)
    figure, table = pace_against_density(paced)
    assert table.where(arm="ticket", fraction=0.95).column("ratio")[0] == 0.0
    assert image(figure, "png").startswith(b"\x89PNG")


def test_the_title_where_nothing_is_shown(paced: Document) -> None:
    for level in paced["levels"][1:]:
        level["checks"]["pace"]["outcome"] = "alike"
    assert pace_title(paced, width=200) == (
        "The ticket reaches 95 % of dense accuracy as soon as dense, as far as these replicates show"
    )


def test_the_screens_time_is_pace_where_there_is_one(paced: Document) -> None:
    level = paced["levels"][9]
    level["checks"]["time"] = "faster"
    assert (pace(level), speed(level)) == ("later", "later")
    level["checks"]["pace"] = None
    assert (pace(level), speed(level)) == (None, "faster")
    screen = Console(file=io.StringIO(), width=80, color_system=None)
    screen.print(final_screen(paced))
    text = " ".join(screen.file.getvalue().split())  # type: ignore[attr-defined]
    assert "whether the ticket reaches 95 % of the dense network's accuracy sooner or later" in text
    assert (text.count("sooner"), text.count("alike"), text.count("faster")) == (3 + 1, 2 + 1, 1), (
        "once in the key"
    )


def test_a_cell_in_words() -> None:
    def shown(steps_to: Any) -> str:
        arm: Any = {"steps_to": steps_to}
        return pace_cell(arm, 0.95)

    nothing: Any = {}
    assert shown(entry([2 * s for s in DENSE])) == "45 (2 ×, 2 to 2; later)"
    assert shown(entry([None] * 10)) == "never (later; 10 never)"
    two_lost = entry([*(2 * s for s in DENSE[:8]), None, None])
    assert shown(two_lost) == "48 (2 ×, 2 up; later; 2 never)"
    assert pace_cell(nothing, 0.95) == pace_cell(None, 0.95) == "–"


def test_the_page_has_the_figure_the_table_and_why_early_stops_are_missing(paced: Document) -> None:
    text = page(paced, [])
    assert "How soon" in text
    assert "pace_against_density.csv" in text
    left_out = sum(level["density"] < 0.05 for level in paced["levels"])
    assert left_out > 1
    assert f"Early stops are not compared at {left_out} densities" in text
    assert "45 (2 ×, 2 to 2; later)" in text


def test_a_document_without_paces_is_as_before(digits: Document, tmp_path: Path) -> None:
    assert steps_to_accuracy(digits).values == ()
    assert not any("pace" in path.name for path in draw_all(digits, [], tmp_path))
    assert "How soon" not in page(digits, [])


def test_no_early_stop_figure_where_every_ticket_ends_at_the_last_step(
    digits: Document, tmp_path: Path
) -> None:
    for level in digits["levels"][1:]:
        level["arms"]["ticket"]["early_stop_steps"] = [800] * 10
    assert not early_stop_by_density(digits).where(arm="ticket").has("early_stop_step")
    assert not any("early_stop" in path.name for path in draw_all(digits, [], tmp_path))


def test_nobody_who_gets_there_leaves_an_empty_figure(paced: Document) -> None:
    """As where every training failed, or the tickets were there before they trained and dense never."""
    nobody: list[list[int | None]] = [[None] * 10, [0] * 10]
    for steps in nobody:
        for level in paced["levels"]:
            for arm in level["arms"].values():
                arm["steps_to"] = entry(steps)
        figure, _ = pace_against_density(paced)
        assert image(figure, "svg")


def test_the_screen_says_how_soon_the_smallest_ticket_learns(paced: Document) -> None:
    won = paced["verdict"]["density"]
    level = next(x for x in paced["levels"] if abs(x["density"] - won) < 1e-9)
    found = level["arms"]["ticket"]["steps_to"]["0.95"]
    assert found["outcome"] == "later"
    assert pace_sentence(paced) == (
        "The ticket reaches 95 % of the dense network's accuracy later than the dense network: in 3 times the steps "
        "(95 % interval 3 to 3)."
    )
    found |= {
        "outcome": "sooner",
        "ratio": 0.0879,
        "ratio_ci": [0.0, 0.204],
        "steps": [3, 7, 0, 3, 0, 7, 3, 1, 1, 6],
    }
    assert pace_sentence(paced) == (
        "The ticket reaches 95 % of the dense network's accuracy sooner than the dense network: in 8.8 % of the steps "
        "(95 % interval 0 to 20 %). In 2 of 10 replicates the ticket reaches it before the first training step."
    )
    found["outcome"] = "alike"
    assert (
        pace_sentence(paced)
        == "No difference was shown in how soon the ticket reaches 95 % of the dense network's accuracy."
    )
    paced["verdict"]["density"] = None
    assert pace_sentence(paced) is None
