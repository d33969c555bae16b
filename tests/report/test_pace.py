"""Steps to an accuracy in tables, figure, page and final screen."""

from __future__ import annotations

import io
import re
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from winticket.judge import FRACTIONS, pace_against_dense
from winticket.judge.statistics import hodges_lehmann
from winticket.report import draw_all, early_stop_by_density, final_screen, page
from winticket.report.captions import captions
from winticket.report.figures import pace_against_density
from winticket.report.pace import pace_cell, pace_sentence, pace_title, steps_to_accuracy
from winticket.report.reading import pace, speed
from winticket.report.saving import image
from winticket.report.soon import ALL_EARLY, how_soon
from winticket.train import Recipe

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
        "The ticket reaches 95 % of the dense network's final validation accuracy sooner than the dense network at "
        "densities of 80.2 to 51.6 %, and later at 26.8 to 3.1 %" in said
    )
    assert "median" in said
    assert axes.get_ylabel() == "steps to 95 % of dense validation accuracy"


def test_a_ticket_that_is_there_before_it_trains_can_be_drawn(paced: Document) -> None:
    paced["levels"][1]["arms"]["ticket"]["steps_to"] = entry([0] * 10)
    figure, table = pace_against_density(paced)
    assert table.where(arm="ticket", fraction=0.95).column("ratio")[0] == 0.0
    assert image(figure, "png").startswith(b"\x89PNG")
    (axes,) = figure.axes
    bottom, top = axes.get_ylim()
    assert bottom < 0 < top, "a step of 0 is within the axis and has a marker"
    assert axes.get_yticks().tolist() == [0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]


def test_the_title_where_nothing_is_shown(paced: Document) -> None:
    for level in paced["levels"][1:]:
        level["checks"]["pace"]["outcome"] = "alike"
    assert pace_title(paced, width=200) == (
        "No difference is shown in how soon the ticket reaches 95 % of the dense network's final validation accuracy"
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
    assert (
        "sooner (later): to reach 95 % of the dense network's final validation accuracy, the ticket is shown to need "
        "fewer (more) steps than the dense network; alike: neither." in text
    )
    assert (text.count("sooner"), text.count("alike"), text.count("faster")) == (3 + 1, 2 + 1, 1), (
        "once in the key"
    )


def test_a_cell_in_words() -> None:
    def shown(steps_to: Any) -> tuple[str, ...]:
        arm: Any = {"steps_to": steps_to}
        return pace_cell(arm, 0.95)

    nothing: Any = {}
    assert shown(entry([2 * s for s in DENSE])) == ("45, later", "2.00 ×, 2.00 to 2.00")
    assert shown(entry([None] * 10)) == ("never, later (10 never)",)
    two_lost = entry([*(2 * s for s in DENSE[:8]), None, None])
    assert shown(two_lost) == ("48, later (2 never)", "2.00 ×, ≥ 2.00")
    assert pace_cell(nothing, 0.95) == pace_cell(None, 0.95) == ("–",)
    found = entry(list(DENSE), itself=True)
    found["0.95"] |= {"ratio": 1.148, "ratio_ci": [1.021, 1.23]}
    assert shown(found)[1] == "1.15 ×, 1.02 to 1.23", "an end that is not the estimate does not look like it"
    found["0.95"] |= {"ratio": 0.0, "ratio_ci": [0.0, 0.0667]}
    assert shown(found)[1] == "0 ×, 0 to 0.067"
    found["0.95"] |= {"ratio": 20.04, "ratio_ci": [9.996, None]}
    assert shown(found)[1] == "20 ×, ≥ 10"


def test_the_page_has_the_figure_the_table_and_why_early_stops_are_missing(paced: Document) -> None:
    text = page(paced, [])
    assert "<h2>Steps to 95 % of the dense network's validation accuracy</h2>" in unescape(text).replace(
        "\u00a0", " "
    )
    assert "pace_against_density.csv" in text
    left_out = sum(level["density"] < 0.05 for level in paced["levels"])
    assert left_out > 1
    words = (
        "Early stops are not compared at densities of 4.8 to 3.1 %. In most replicates there, the validation"
    )
    assert words in text.replace("\u00a0", " ")
    assert '">45, later<br><span class="no">2.00 ×, 2.00 to 2.00</span></td>' in text


def test_a_document_without_paces_is_as_before(digits: Document, tmp_path: Path) -> None:
    assert steps_to_accuracy(digits).values == ()
    assert not any("pace" in path.name for path in draw_all(digits, [], tmp_path))
    assert "Steps to 95" not in page(digits, [])


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
        "The ticket reaches 95 % of the dense network's final validation accuracy later than the dense network "
        "itself, typically in 3 times its steps (95 % interval 3 to 3). Its validation loss is lowest later as well "
        "(step 502 against 328 on average; tested without a correction for the number of densities)."
    )
    level["checks"]["time"] = None
    found |= {
        "outcome": "sooner",
        "ratio": 0.0879,
        "ratio_ci": [0.0, 0.204],
        "steps": [3, 7, 0, 3, 0, 7, 3, 1, 1, 6],
    }
    assert pace_sentence(paced) == (
        "The ticket reaches 95 % of the dense network's final validation accuracy sooner than the dense network "
        "itself, typically in 8.8 % of its steps (95 % interval 0 to 20 %). In 2 of 10 replicates the ticket already "
        "has that accuracy at step 0, before it is trained. This is no error: the choice of the kept weights holds so "
        "much of what the dense network learnt that applying the mask to the untrained weights can be enough "
        "(supermasks: Zhou et al. 2019)."
    )
    level["arms"]["ticket"]["start_accuracy"] = 0.8123
    assert "before it is trained (the mean validation accuracy of all tickets at step 0 is 81.2 %)." in str(
        pace_sentence(paced)
    )
    for outcome, words in (
        (
            "slower",
            "But its validation loss is lowest later than the dense network's (step 502 against 328 on average;",
        ),
        ("faster", "Its validation loss is lowest sooner as well (step 502 against 328 on average;"),
        (
            "as fast",
            "No difference is shown in when its validation loss is lowest (step 502 against 328 on average;",
        ),
    ):
        level["checks"]["time"] = outcome
        assert words in str(pace_sentence(paced)), "both halves of how soon it learns"
    found["outcome"] = "alike"
    assert pace_sentence(paced) == (
        "No difference is shown in how soon the ticket reaches 95 % of the dense network's final validation accuracy."
    )
    paced["verdict"]["density"] = None
    assert pace_sentence(paced) is None


def note(document: Document) -> str:
    """All text of the section on steps, on one line."""
    return " ".join(unescape(how_soon(document)).split())


def test_the_section_says_how_ratios_come_about_and_when_accuracy_is_measured(paced: Document) -> None:
    text = note(paced)
    assert "(Hodges-Lehmann estimate) is not the ratio of the two medians" in text
    assert "The test is one-sided at 5 %, and the interval leaves 2.5 % on either side" in text
    assert "0 × means" not in text, "no ratio is 0"
    assert "Accuracy is measured" not in text, "the document does not say"
    paced["experiment"]["early_points"] = True
    assert (
        "measured at every step up to 12, then at growing distances, and in the end every 10 steps."
        in note(paced)
    )
    assert Recipe(steps=100, evaluate_every=10).grid()[: ALL_EARLY + 2] == [
        *range(ALL_EARLY + 1),
        ALL_EARLY + 2,
    ]
    paced["experiment"]["early_points"] = False
    assert "Accuracy is measured at every 10 steps." in note(paced)
    paced["experiment"] |= {"early_points": True, "evaluate_every": 1}
    assert "Accuracy is measured at every step." in note(paced)


def test_nothing_is_said_of_a_test_or_an_interval_that_so_few_replicates_do_not_have(paced: Document) -> None:
    for level in paced["levels"]:
        for arm in level["arms"].values():
            for one in arm["steps_to"].values():
                one |= {"ci": None, "outcome": None, "ratio_ci": None}
        level["checks"]["pace"] = {"fraction": 0.95, "outcome": None}
    text = note(paced)
    assert "test" not in text
    assert "not the ratio of the two medians" in text
    assert "median, too few replicates for intervals" in words(pace_against_density(paced)[0])


def test_a_ratio_of_0_is_explained_by_what_makes_it(paced: Document) -> None:
    """The median of pairwise means is -inf from three in ten values on: at n = 10 from the fourth, at 30 the ninth."""
    for count, fewest in ((10, 4), (30, 9)):
        for zeros in range(count):
            ratio = hodges_lehmann(np.array([-np.inf] * zeros + [0.1] * (count - zeros)))[0]
            assert (ratio == -np.inf) == (zeros >= fewest)
    paced["levels"][1]["arms"]["ticket"]["steps_to"] = entry([*[0] * 4, *[10] * 6])
    assert "three in ten replicates or more reach the target at step 0: the typical" in note(paced)
    for level in paced["levels"]:
        for arm in level["arms"].values():
            for found in arm["steps_to"].values():
                found["never"] = 0
    assert "“never” alone" not in note(paced), "every replicate reaches every target"
    paced["levels"][1]["arms"]["ticket"]["steps_to"]["0.95"]["never"] = 2
    assert "“never” alone that half or more do not. They count as slower" in note(paced)


def test_other_shares_than_the_judged_one_are_folded(paced: Document) -> None:
    (folded,) = re.findall(r"<details><summary>([^<]*)</summary>(.*?)</details>", how_soon(paced))
    assert unescape(folded[0]) == "The ticket's steps to other shares: 90, 98, 99, 100 %"
    assert re.findall(r'<th scope="col"[^>]*>([^<]*)</th>', folded[1]) == [
        "density",
        "90 %",
        "98 %",
        "99 %",
        "100 %",
    ]


def test_what_was_not_judged_is_not_said_to_be_tested(paced: Document) -> None:
    assert all(
        "tested alone" in captions(paced)[name]
        for name in ("pace_against_density", "early_stop_against_density")
    )
    for level in paced["levels"][1:]:
        level["checks"]["pace"]["outcome"] = level["checks"]["time"] = None
        level["arms"]["ticket"]["steps_to"]["0.95"]["outcome"] = None
    below = captions(paced)
    for name in ("pace_against_density", "early_stop_against_density"):
        assert "test " not in below[name]
        assert "tested" not in below[name]
    assert pace_title(paced, width=200) == (
        "Steps to 95 % of the dense network's final validation accuracy: not judged"
    )
    assert pace_sentence(paced) is None
    paced["levels"][1]["checks"]["pace"]["outcome"] = "alike"
    assert pace_title(paced, width=200).startswith(
        "No difference is shown in how soon the ticket reaches 95 %"
    )
