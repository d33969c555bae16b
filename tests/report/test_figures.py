"""Figures draw their tables' numbers, cope with missing values, and have the same bytes in every run."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from winticket.report import (
    accuracy_against_density,
    draw_all,
    early_stop_against_density,
    figures,
    learning_curve_figure,
)
from winticket.report.axes import spread
from winticket.report.figures import densities_to_show
from winticket.report.ink import LIGHT, look_of
from winticket.report.reading import ARM_NAMES
from winticket.report.saving import image
from winticket.report.tables import learning_curves
from winticket.report.titles import accuracy_title, early_stop_title

Document = Any  # tests may remove keys that every run writes


def texts(figure: Figure) -> str:
    """Return all text on a figure."""
    parts = [text.get_text() for text in figure.texts]
    for axes in figure.axes:
        parts += [text.get_text() for text in axes.texts]
        parts += [axes.get_xlabel(), axes.get_ylabel(), axes.get_title(loc="left")]
    return " ".join(parts).replace("\n", " ")


def labels(figure: Figure) -> list[str]:
    """Return the legend entries of all axes."""
    return [label for axes in figure.axes for label in axes.get_legend_handles_labels()[1]]


def test_the_lines_are_the_tables_numbers(digits: Document) -> None:
    figure, table = accuracy_against_density(digits)
    (axes,) = figure.axes
    lines = {str(line.get_label()): line for line in axes.lines}
    for arm, label in (("ticket", "ticket"), ("reinit", "re-initialised"), ("random", "random mask")):
        rows = table.where(arm=arm)
        np.testing.assert_array_equal(lines[label].get_xdata(), rows.numbers("density"))
        np.testing.assert_array_equal(lines[label].get_ydata(), 100 * rows.numbers("accuracy"))
    won = np.asarray(lines["ticket that won"].get_xdata())
    assert won.tolist() == digits["verdict"]["claimed"]
    low, high = axes.get_xlim()
    assert low > high, "density falls to the right"
    assert axes.get_xscale() == "log"


def test_titles_say_the_finding_and_n(digits: Document) -> None:
    words = texts(accuracy_against_density(digits)[0])
    assert "matches the dense network within 0.5 pp down to 9.0 %" in words
    assert "beats re-initialisation and the random mask" in words
    assert "n = 10" in words
    assert "smallest winning density: 9.0 %" in words
    words = texts(early_stop_against_density(digits)[0])
    assert "sooner than the dense network between 80.2 % and 51.6 %, and later at 26.8 % and below" in words


def test_titles_never_part_a_number_from_its_unit(digits: Document) -> None:
    for width in range(20, 90):
        for line in (
            accuracy_title(digits, width=width) + "\n" + early_stop_title(digits, width=width)
        ).splitlines():
            assert not line.startswith(("%", "pp"))


def test_not_won_and_undecided_titles(digits: Document) -> None:
    digits["verdict"] |= {"outcome": "not won", "density": None, "claimed": []}
    words = texts(accuracy_against_density(digits)[0])
    assert "Not won: at 3.1 % the ticket is" in words
    assert "below the dense network" in words
    assert "smallest winning" not in words
    digits["verdict"]["outcome"] = "inconclusive"
    assert "Inconclusive: at 3.1 % the ticket is" in texts(accuracy_against_density(digits)[0])


def test_every_arm_has_its_own_colour_marker_and_dashes() -> None:
    looks = [look_of(arm, ink=LIGHT) for arm in ("ticket", "reinit", "random")]
    assert len({look.color for look in looks}) == len({look.marker for look in looks}) == 3
    assert len({look.dashes for look in looks}) == 3


def test_a_collapsed_control_does_not_flatten_the_rest(digits: Document) -> None:
    for level in digits["levels"][-3:]:
        level["arms"]["random"] |= {"accuracy": 0.1, "accuracy_ci": [0.09, 0.11]}
    figure, _ = accuracy_against_density(digits)
    low, high = figure.axes[0].get_ylim()
    assert low > 85
    assert high < 100
    assert "with 3 points of the controls below" in texts(figure)


@pytest.mark.parametrize("arms", [("ticket", "reinit"), ("ticket", "random"), ("ticket",), ()])
@pytest.mark.parametrize(("levels", "replicates"), [(1, 1), (3, 5)])
def test_missing_arms_one_replicate_one_level(
    build: Callable[..., Document],
    draw_curves: Callable[..., list[Document]],
    tmp_path: Path,
    arms: tuple[str, ...],
    levels: int,
    replicates: int,
) -> None:
    document = build(levels=levels, replicates=replicates, arms=arms)
    document["verdict"] |= {"outcome": "inconclusive", "claimed": [], "density": None}
    figure, _ = accuracy_against_density(document)
    assert ("re-initialised" in labels(figure)) == ("reinit" in arms)
    assert ("no interval from one replicate" in texts(figure)) == (replicates == 1)
    image(early_stop_against_density(document)[0], "svg")
    image(learning_curve_figure(document, draw_curves(document, every=100))[0], "svg")


def test_without_curves_there_is_no_learning_curve_figure(digits: Document, tmp_path: Path) -> None:
    assert {path.stem for path in draw_all(digits, [], tmp_path)} == {
        "accuracy_against_density",
        "early_stop_against_density",
    }


def test_an_arm_whose_replicates_all_failed_leaves_a_gap(build: Callable[..., Document]) -> None:
    document = build(levels=4, replicates=2, failed=((2, "reinit", 0), (2, "reinit", 1)))
    figure, table = accuracy_against_density(document)
    image(figure, "png")
    assert [np.isnan(v) for v in table.where(arm="reinit").numbers("accuracy")] == [False, True, False, False]


def test_learning_curves_pair_colours_and_dash_reinit(
    digits: Document, draw_curves: Callable[..., list[Document]]
) -> None:
    figure, table = learning_curve_figure(digits, draw_curves(digits, every=50))
    left, right = figure.axes
    assert [line.get_linestyle() for line in right.lines] == ["-", "--"] * 4
    assert [line.get_color() for line in right.lines[::2]] == [line.get_color() for line in right.lines[1::2]]
    assert left.lines[0].get_label() == "dense, 100 %"
    assert "pp above the same mask with re-initialised weights" in texts(figure)
    assert left.get_ylim()[0] > 90, "the axis must show where the curves differ"
    assert digits["verdict"]["density"] in densities_to_show(digits, table)


def test_few_densities_are_all_shown(
    build: Callable[..., Document], draw_curves: Callable[..., list[Document]]
) -> None:
    document = build(levels=3)
    table = learning_curves(draw_curves(document, every=200))
    assert densities_to_show(document, table) == [level["density"] for level in document["levels"][1:]]


def test_ticks_do_not_crowd() -> None:
    densities = [0.8**level for level in range(17)]
    kept = spread(densities, apart=0.15)
    assert kept[0] == 1.0
    assert len(kept) == 9
    assert spread([1.0, 0.8], apart=0.15) == [1.0, 0.8]
    assert spread([0.5], apart=0.15) == [0.5]


def test_draw_all_writes_figure_and_table_side_by_side_and_the_same_bytes_twice(
    digits: Document, draw_curves: Callable[..., list[Document]], tmp_path: Path
) -> None:
    curves = draw_curves(digits, every=100)
    paths = draw_all(digits, curves, tmp_path / "new" / "folder")
    again = draw_all(digits, curves, tmp_path / "again")
    assert [path.name for path in paths] == [
        f"{name}.{suffix}"
        for name in ("accuracy_against_density", "early_stop_against_density", "learning_curves")
        for suffix in ("png", "svg", "csv")
    ]
    for first, second in zip(paths, again, strict=True):
        assert first.read_bytes() == second.read_bytes()
        if first.suffix == ".png":
            assert first.read_bytes().startswith(b"\x89PNG")
        if first.suffix == ".svg":
            assert b"<dc:date>" not in first.read_bytes()
    with (tmp_path / "again" / "accuracy_against_density.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["arm"] == "dense"]
    assert float(rows[0]["accuracy"]) == digits["levels"][0]["arms"]["dense"]["accuracy"]


def test_pyplot_is_never_imported() -> None:
    code = "import sys, winticket.report; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_arm_has_its_own_look_and_its_name_fits_the_legend() -> None:
    # The dense network is a horizontal line without markers.
    looks = [look_of(arm, ink=LIGHT) for arm in ARM_NAMES if arm != "dense"]
    assert len({(look.color, look.marker) for look in looks}) == len(looks)
    few, many = ["dense network", "ticket", "re-initialised", "random mask"], list(ARM_NAMES.values())
    assert figures._columns(few) == 4
    across = figures._columns(many)
    widest = max(sum(len(n) + 8 for n in many[i::across]) for i in range(across))
    assert across <= 5
    assert widest <= figures.LEGEND_WIDTH
