"""Figures draw their tables' numbers, cope with missing values, and have the same bytes in every run."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from winticket.report import (
    accuracy_against_density,
    difference_figure,
    draw_all,
    early_stop_against_density,
    layer_figure,
    learning_curve_figure,
)
from winticket.report.axes import metric_axis, spread
from winticket.report.curves import densities_to_show
from winticket.report.differences import difference_title
from winticket.report.figures import draws_early_stops
from winticket.report.ink import DARK, LIGHT, SERIES, dark_of, lettering, look_of
from winticket.report.layers import layer_title
from winticket.report.layout import DARK_FILE, FILE, Layout, parted
from winticket.report.reading import ARM_NAMES, arm_name
from winticket.report.saving import image
from winticket.report.tables import learning_curves
from winticket.report.titles import accuracy_title, at_densities, early_stop_title
from winticket.report.validation import against_the_verdict

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


def test_long_names_of_layers_leave_room_for_the_figure_and_differ(digits: Document) -> None:
    names = [f"encoder.layers.encoder_layer_{at}.self_attention.out_proj" for at in range(3)]
    layers = [{"name": f"{name}.weight", "shape": [4, 5], "size": 20} for name in names]
    counts = {f"{name}.weight": 5.0 + at for at, name in enumerate(names)}
    masks: Document = {
        "network": {"parameters": 60, "eligible": 60, "kept": [60, 18], "layers": layers},
        "plane": None,
        "levels": [{"density": 0.3, "replicates": 2, "layers": counts, "inputs": None}],
    }
    for layout in (FILE, Layout(narrow=True, titled=False)):
        figure, table = layer_figure(digits, masks, layout=layout)
        assert figure.axes[0].get_position().width * layout.width > 1.4, "inches"
        drawn = [text.get_text() for text in figure.axes[0].texts if "…" in text.get_text()]
        assert len(set(drawn)) == 3
        assert table.column("layer") == names, "whole"


def test_titles_say_the_finding_and_n(digits: Document) -> None:
    words = texts(accuracy_against_density(digits)[0])
    assert (
        "The ticket wins at densities of 41.5 to 9.0 %: it matches the dense network within 0.5 pp" in words
    )
    assert "and beats both controls" in words
    assert "n = 10" in words
    assert "smallest winning density: 9.0 %" in words
    words = texts(early_stop_against_density(digits)[0])
    assert "sooner than the dense network at densities of 80.2 to 51.6 %, and later at 26.8 to 3.1 %" in words


def test_titles_name_no_density_at_which_nothing_is_shown(digits: Document) -> None:
    """Once a range went from the first to the last density, over some between that had another outcome."""
    for level in digits["levels"][1:]:
        level["checks"]["time"] = "as fast"
    for number, outcome in ((3, "faster"), (5, "faster"), (13, "slower"), (14, "slower")):
        digits["levels"][number]["checks"]["time"] = outcome
    for level in digits["levels"][15:]:
        level["checks"] |= {"time": None, "time_left_out": "not compared: ..."}
    assert early_stop_title(digits, width=200) == (
        "The ticket reaches its early stop sooner than the dense network at densities of 51.6 % and 33.3 %, and later "
        "at 5.9 % and 4.8 %"
    )
    for level in digits["levels"][1:]:
        level["checks"]["time"] = None
    assert early_stop_title(digits, width=200) == (
        "Early stops of the ticket and the dense network: not judged"
    )
    digits["levels"][1]["checks"]["time"] = "as fast"
    assert early_stop_title(digits, width=200) == (
        "The early stops of the ticket and the dense network are not shown to differ"
    )
    digits["verdict"]["claimed"] = [level["density"] for level in digits["levels"][1:]]
    assert accuracy_title(digits, width=200).startswith("The ticket wins at every density: it matches")


def test_densities_in_words(digits: Document) -> None:
    tried = [level["density"] for level in digits["levels"][1:]]
    assert at_densities(digits, tried) == "at every density"
    assert at_densities(digits, tried[2:3]) == "at a density of 51.6 %"
    assert at_densities(digits, tried[:2]) == "at densities of 80.2 % and 64.3 %"
    assert at_densities(digits, [*tried[:3], tried[4]]) == "at densities of 80.2 to 51.6 % and 33.3 %"
    assert at_densities(digits, tried[::2]) == "at 8 of 16 densities"
    assert at_densities(digits, tried[:2], brief=True) == "at 80.2 % and 64.3 %"


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
    for level in digits["levels"][-3:]:
        level["arms"]["random"] |= {"accuracy": 0.97, "accuracy_ci": [0.5, 1.0]}
    figure, _ = accuracy_against_density(digits)
    assert "with intervals of the controls below" in texts(figure), "a band that is cut is no flat band"


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
        "difference_against_density",
        "early_stop_against_density",
    }


def test_an_arm_whose_replicates_all_failed_leaves_a_gap(build: Callable[..., Document]) -> None:
    document = build(levels=4, replicates=2, failed=((2, "reinit", 0), (2, "reinit", 1)))
    figure, table = accuracy_against_density(document)
    image(figure, "png")
    assert [np.isnan(v) for v in table.where(arm="reinit").numbers("accuracy")] == [False, True, False, False]


@pytest.mark.parametrize("layout", [FILE, DARK_FILE], ids=["light", "dark"])
def test_a_colour_means_the_same_arm_in_every_figure(
    digits: Document, draw_curves: Callable[..., list[Document]], layout: Layout
) -> None:
    figure, _ = learning_curve_figure(digits, draw_curves(digits, every=50), layout=layout)
    accuracy, _ = accuracy_against_density(digits, layout=layout)
    in_accuracy = {str(line.get_label()): line.get_color() for line in accuracy.axes[0].lines}
    for axes in figure.axes:
        lines = {str(line.get_label()): line.get_color() for line in axes.lines}
        for arm in ("ticket", "reinit"):
            assert lines[arm] == look_of(arm, ink=layout.ink).color == in_accuracy[arm_name(arm)]
        assert lines["dense"] == layout.ink.dense


def test_no_band_of_a_learning_curve_is_cut_at_the_top(
    digits: Document, draw_curves: Callable[..., list[Document]]
) -> None:
    curves = draw_curves(digits, every=50)
    for curve in curves:  # replicates that differ by 4 points, for wide bands
        apart = 0.02 if curve["replicate"] % 2 else -0.02
        curve["validation_accuracy"] = [min(value + apart, 1.0) for value in curve["validation_accuracy"]]
    figure, table = learning_curve_figure(digits, curves)
    drawn = densities_to_show(digits, table)
    rows = [row for row in table.rows() if row["arm"] == "dense" or row["density"] in drawn]
    highest = max(float(row["ci_high"] or 0) for row in rows if row["arm"] != "random")
    assert figure.axes[0].get_ylim()[1] > 100 * highest


def test_learning_curves_have_a_panel_for_each_density(
    digits: Document, draw_curves: Callable[..., list[Document]]
) -> None:
    figure, table = learning_curve_figure(digits, draw_curves(digits, every=50))
    shown = densities_to_show(digits, table)
    assert digits["verdict"]["density"] in shown
    assert len(figure.axes) == len(shown) == 4
    for axes, density in zip(figure.axes, shown, strict=True):
        drawn = {str(line.get_label()): line for line in axes.lines}
        assert {"dense", "ticket", "reinit"} <= set(drawn)
        assert drawn["reinit"].get_linestyle() == "--"
        rows = table.where(arm="ticket", density=density)
        np.testing.assert_array_equal(drawn["ticket"].get_ydata(), 100 * rows.numbers("validation_accuracy"))
        assert axes.get_xscale() == "symlog", "most happens in the first steps"
    low, high = figure.axes[0].get_ylim()
    assert low > 40
    assert high <= 100
    assert "pp above the same mask with re-initialised weights" in texts(figure)


def test_accuracies_are_stretched_towards_100() -> None:
    """Equal ratios of errors are equal distances: 98 to 97 as 80 to 70."""
    axes = Figure().add_subplot()
    metric_axis(axes, 50.0, 99.0)
    at = {
        y: float(axes.transAxes.inverted().transform(axes.transData.transform((0.0, y)))[1])
        for y in (70, 80, 97, 98)
    }
    assert at[98] - at[97] == pytest.approx(at[80] - at[70])
    assert at[98] > at[97] > at[80] > at[70]


def test_labels_at_the_ends_never_overlap_and_stay_near() -> None:
    noise = np.random.default_rng(0)
    for count in (1, 2, 5, 9):
        wanted = sorted(noise.uniform(0, 200, count).tolist())
        placed = parted(wanted, gap=12, most=200)
        assert placed == sorted(placed)
        assert all(b - a >= 12 - 1e-9 for a, b in pairwise(placed))
        assert all(0 <= place <= 200 for place in placed)
    assert parted([50, 100], gap=12, most=200) == [50, 100], "what is apart stays"
    assert parted([100, 100, 100], gap=12, most=200) == [88, 100, 112], "around what they want"
    assert parted([0, 1, 2], gap=100, most=150) == [0, 75, 150], "evenly, without enough room"


def test_differences_draw_estimate_bound_and_limit(digits: Document) -> None:
    for level in digits["levels"][1:]:
        for name in ("accuracy", "beats_reinit", "beats_random"):
            level["checks"][name]["bound"] = level["checks"][name]["estimate"] - 0.002
    figure, table = difference_figure(digits)
    left, right = figure.axes
    drawn = {str(line.get_label()): line for line in (*left.lines, *right.lines)}
    rows = table.where(check="accuracy")
    np.testing.assert_array_equal(drawn["ticket"].get_ydata(), 100 * rows.numbers("estimate"))
    np.testing.assert_array_equal(drawn["bound, ticket"].get_ydata(), 100 * rows.numbers("bound"))
    shown = [level["density"] for level in digits["levels"][1:] if level["checks"]["accuracy"]["passed"]]
    assert np.asarray(drawn["shown, ticket"].get_xdata()).tolist() == shown
    assert any(line.get_ydata() == [-0.5, -0.5] for line in left.lines if len(line.get_ydata()) == 2)  # type: ignore[arg-type]
    assert "must be above −0.5 pp" in texts(figure)
    assert "must be above 0" in texts(figure)
    ratio = np.asarray(drawn["reinit"].get_xdata()) / np.asarray(drawn["random"].get_xdata())
    assert (ratio > 1).all(), "two controls do not hide each other"


def test_the_early_stop_figure_goes_if_a_loss_still_fell_and_steps_have_a_figure(digits: Document) -> None:
    assert draws_early_stops(digits)
    digits["levels"][3]["checks"]["time_left_out"] = "not compared"
    assert draws_early_stops(digits), "nothing else shows how soon tickets learn"
    for level in digits["levels"][1:]:
        level["checks"]["pace"] = {"fraction": 0.95, "outcome": "alike"}
    assert not draws_early_stops(digits)
    digits["levels"][3]["checks"]["time_left_out"] = None
    assert draws_early_stops(digits)


def test_layers_on_the_dotted_line_keep_the_networks_share() -> None:
    sizes = {"fc1.weight": 100, "fc2.weight": 10}
    layers = [{"name": name, "shape": [size, 1], "size": size} for name, size in sizes.items()]
    network = {"parameters": 120, "eligible": 110, "layers": layers, "kept": [110, 55]}
    level = {
        "density": 0.5,
        "replicates": 3,
        "layers": {"fc1.weight": 46.0, "fc2.weight": 9.0},
        "inputs": None,
    }
    masks: Any = {"network": network, "plane": None, "levels": [level]}
    document: Any = {"levels": [], "verdict": {}, "network": network}
    figure, table = layer_figure(document, masks)
    assert table.column("layer_density") == [0.46, 0.9]
    assert "At 50.0 % of the weights, fc2 keeps 90.0 % of its weights and fc1 46.0 %" in texts(figure)
    even: Any = {**masks, "levels": [{**level, "layers": {"fc1.weight": 50.0, "fc2.weight": 5.0}}]}
    assert (
        layer_title(even, width=200)
        == "At 50.0 % of the weights, every layer keeps the same share of its weights"
    )


def test_densities_are_given_in_percent_and_in_weights(digits: Document) -> None:
    kept = [round(50200 * level["density"]) for level in digits["levels"]]
    digits["network"] = {"parameters": 50610, "eligible": 50200, "layers": [], "kept": kept}
    figure, _ = accuracy_against_density(digits)
    ticks = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert ticks[0] == "100 %\n50,200"
    assert all(re.fullmatch(r"[\d.]+ %\n[\d,]+", tick) for tick in ticks)


def test_validation_and_test_differences_are_compared(digits: Document) -> None:
    """Known by hand: validation two points below, test one point below, in every replicate but for a little noise."""
    level = next(x for x in digits["levels"] if x["density"] == digits["verdict"]["density"])
    dense = digits["levels"][0]["arms"]["dense"]
    noise = [0.0, 0.001, -0.001, 0.0, 0.001, -0.001, 0.0, 0.001, -0.001, 0.0]
    level["arms"]["ticket"]["accuracies"] = [
        a - 0.01 + e for a, e in zip(dense["accuracies"], noise, strict=True)
    ]
    curves: Any = [
        {"arm": arm, "density": density, "replicate": n, "validation_accuracy": [0.5, value]}
        for n in range(10)
        for arm, density, value in (("dense", 1.0, 0.9), ("ticket", level["density"], 0.88))
    ]
    text = against_the_verdict(digits, curves)
    assert "the ticket minus the dense network is −2.00 percentage points on validation data" in text
    assert "and −1.00 on test data" in text
    assert "differ by more than chance explains (−1.00, 95 % interval −1.06 to −0.94)" in text
    for curve in curves:
        if curve["arm"] == "ticket":
            curve["validation_accuracy"][-1] = 0.89 + (0.002 if curve["replicate"] % 2 else -0.002)
    assert "the difference between these two numbers may be chance" in against_the_verdict(digits, curves)
    assert against_the_verdict(digits, []) == "Test data, which are other examples, decide the verdict."


def test_few_densities_are_all_shown(
    build: Callable[..., Document], draw_curves: Callable[..., list[Document]]
) -> None:
    document = build(levels=3)
    table = learning_curves(draw_curves(document, every=200))
    assert densities_to_show(document, table) == [level["density"] for level in document["levels"][1:]]


def test_ticks_do_not_crowd() -> None:
    densities = [0.8**level for level in range(17)]
    kept = spread(densities, apart=0.1125)
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
        for name in (
            "accuracy_against_density",
            "difference_against_density",
            "learning_curves",
            "early_stop_against_density",
        )
        for suffix in ("png", "svg", "pdf", "csv")
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


def test_every_arm_has_its_own_look() -> None:
    # The dense network is a horizontal line without markers.
    looks = [look_of(arm, ink=LIGHT) for arm in ARM_NAMES if arm != "dense"]
    assert len({(look.color, look.marker) for look in looks}) == len(looks)


def test_every_colour_has_another_on_dark_pages_that_can_be_read() -> None:
    """Lettering of a line's colour has a contrast of 4.5 with the paper, in light and dark (WCAG 2.2, 1.4.3)."""
    lines = {look_of(arm, ink=LIGHT).color for arm in ARM_NAMES} | set(SERIES)
    for color in lines:
        word = lettering(color, ink=LIGHT)
        assert contrast(word, LIGHT.paper) >= 4.5, color
        assert contrast(dark_of(word), DARK.paper) >= 4.5, color
        assert contrast(dark_of(color), DARK.paper) >= 2.8, color


def contrast(one: str, other: str) -> float:
    """The contrast of two colours as WCAG 2 defines it."""

    def luminance(color: str) -> float:
        parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
        return float(np.dot(parts, (0.2126, 0.7152, 0.0722)))

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def shown_with(document: Document, **shown: bool) -> Document:
    """The document, where the claims over all densities are given."""
    for level in document["levels"][1:]:
        level["checks"] |= {"matched": shown["matched"], "nontrivial": shown["nontrivial"]}
    return document


def test_the_figure_of_differences_speaks_of_the_controls_that_were_run(
    build: Callable[..., Document],
) -> None:
    both = shown_with(build(levels=4), matched=True, nontrivial=False)
    match = "The ticket is shown to match the dense network at every density"
    assert difference_title(both, width=300) == f"{match}, and to beat both controls nowhere"
    assert len(difference_figure(both)[0].axes) == 2

    one = shown_with(build(levels=4, arms=("ticket", "reinit")), matched=True, nontrivial=False)
    beaten = [level["checks"]["beats_reinit"]["passed"] for level in one["levels"][1:]]
    assert beaten == [False, False, False, True]
    assert difference_title(one, width=300) == (
        f"{match}, and to beat re-initialisation at a density of 41.5 %; the random mask was not run"
    )
    words = texts(difference_figure(one)[0])
    assert "ticket minus control" in words
    assert "re-initialised" in words

    none = shown_with(build(levels=4, arms=("ticket",)), matched=True, nontrivial=False)
    assert (
        difference_title(none, width=300) == f"{match}; neither re-initialisation nor the random mask was run"
    )
    for layout in (FILE, Layout(narrow=True, titled=False)):
        figure, _ = difference_figure(none, layout=layout)
        assert len(figure.axes) == 1
        assert "control" not in texts(figure)
