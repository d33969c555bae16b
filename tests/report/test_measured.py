"""The figure of `winticket measure --levels`: each runtime has a look of its own, and lines are the table's numbers."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from winticket.report.axes import logarithmic
from winticket.report.ink import DARK, LIGHT, Ink, style
from winticket.report.measured import COLUMNS, LOOKS, measured_figure
from winticket.ship.measure_runtimes import RUNTIMES
from winticket.table import Table

DENSITIES = (1.0, 0.2, 0.05)


def microseconds(batch: int, runtime: str, density: float) -> float:
    return batch * (2.0 + list(RUNTIMES).index(runtime)) * (1 + density)


@pytest.fixture(scope="module")
def table() -> Table:
    """Every runtime at three densities and two batch sizes, with other numbers in each row."""
    rows = [
        (density, 0.9 + density / 20, 0.88, 0.97, int(1000 + 9000 * density), 40_000, batch, runtime,
         middle := microseconds(batch, runtime, density), 0.5 * middle, 3 * middle)
        for density in DENSITIES for batch in (1, 64) for runtime in RUNTIMES
    ]  # fmt: skip
    return Table(COLUMNS, tuple(rows))


def lines(axes: Axes) -> dict[str, Any]:
    """By label: the line with its error bars."""
    return {str(one.get_label()): one for one in axes.containers}


def drawn(
    figure: Figure, name: str, panel: int
) -> tuple[list[float], list[float], list[tuple[float, float]]]:
    """Densities, values and ends of the bars of a line."""
    line, _, bars = lines(figure.axes[panel])[name].lines
    ends = [(float(a[1]), float(b[1])) for a, b in bars[0].get_segments()] if bars else []
    return [float(x) for x in line.get_xdata()], [float(y) for y in line.get_ydata()], ends


def test_every_runtime_has_a_look_that_no_other_has() -> None:
    """By its marker alone, for grey paper; and by colour and dashes together, where markers are far apart."""
    assert LOOKS.keys() == RUNTIMES.keys()
    assert len({look.marker for look in LOOKS.values()}) == len(LOOKS)
    assert len({(look.color, look.dashes) for look in LOOKS.values()}) == len(LOOKS)


@pytest.mark.parametrize("ink", [LIGHT, DARK], ids=["light", "dark"])
def test_looks_are_those_of_the_lines(table: Table, ink: Ink) -> None:
    figure = measured_figure(table, title="t", batch=1, ink=ink)
    seen = {}
    for name, one in lines(figure.axes[1]).items():
        line = one.lines[0]
        seen[name] = to_hex(line.get_color()), line.get_marker(), line.get_linestyle()
    assert seen.keys() == RUNTIMES.keys()
    assert len(set(seen.values())) == len(RUNTIMES)
    if ink is LIGHT:
        assert seen == {name: (o.color.lower(), o.marker, o.dashes) for name, o in LOOKS.items()}
    assert ink.text in {to_hex(text.get_color()) for text in figure.legends[0].get_texts()}


@pytest.mark.parametrize("batch", [1, 64])
def test_times_are_those_of_the_batch_with_their_intervals(table: Table, batch: int) -> None:
    figure = measured_figure(table, title="Times", batch=batch)
    assert figure.axes[1].get_ylabel() == f"µs per call, batch {batch}"
    assert figure.axes[1].get_yscale() == "log"
    figure.canvas.draw()
    assert all(
        re.fullmatch(r"[0-9.]*", text.get_text()) for text in figure.axes[1].get_yticklabels(which="both")
    )
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [*RUNTIMES]
    for runtime in RUNTIMES:
        x, y, ends = drawn(figure, runtime, 1)
        right = [microseconds(batch, runtime, density) for density in DENSITIES]
        assert x == list(DENSITIES)
        assert y == right
        np.testing.assert_allclose(ends, [(0.5 * t, 3 * t) for t in right])


def test_bytes_and_accuracy_are_drawn_once(table: Table) -> None:
    figure = measured_figure(table, title="Sizes", batch=1)
    size, _, accuracy = figure.axes
    assert drawn(figure, "compact file", 0)[:2] == (list(DENSITIES), [10.0, 2.8, 1.45])
    assert drawn(figure, "dense tensors", 0)[:2] == (list(DENSITIES), [40.0] * 3)
    assert set(lines(size)) == {"compact file", "dense tensors"}
    x, y, ends = drawn(figure, "mean of all replicates", 2)
    np.testing.assert_allclose(y, [95.0, 91.0, 90.25])
    np.testing.assert_allclose(ends, [(88.0, 97.0)] * 3)
    assert (x, set(lines(accuracy))) == (list(DENSITIES), {"mean of all replicates"})
    assert all(
        axes.get_xlim()[0] > axes.get_xlim()[1] for axes in figure.axes
    )  # densities decrease to the right


@pytest.mark.parametrize(
    ("ends", "ticks"), [((0.3, 4.0), ["0.5", "1", "2"]), ((2e-4, 30.0), ["0.001", "0.01", "0.1", "1", "10"])]
)
def test_logarithmic_axes_have_plain_numbers(ends: tuple[float, float], ticks: list[str]) -> None:
    """A figure does not parse formulas, and matplotlib writes powers of ten as formulas."""
    with style(LIGHT):
        figure = Figure()
        axes = figure.subplots()
        axes.plot([0, 1], ends)
        logarithmic(axes)
        figure.canvas.draw()
    shown = [label for label in axes.get_yticklabels(which="both") if label.get_text()]
    low, high = axes.get_ylim()
    assert [
        one.get_text() for one in shown if low <= one.get_position()[1] <= high and one.get_text() in ticks
    ] == ticks
    assert all(re.fullmatch(r"[0-9.e-]+", one.get_text()) for one in shown)
