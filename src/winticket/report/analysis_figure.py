"""The figure of an analysis: lines with bands, as the analysis' facts say."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from winticket.analyse import Analysis, Lines, summarised
from winticket.report.axes import density_axis, logarithmic, up_axis
from winticket.report.ink import SERIES, Ink, Look, lettering, look_of, on, style
from winticket.report.layers import MARKERS
from winticket.report.layout import FILE, Label, Layout, canvas, end_labels, letters_beside
from winticket.report.strokes import level_line, name_of
from winticket.table import Table, Value

MOST_PANELS = 4
SHORT_NAME = 24
"""Letters of an axis' name that is written in one line in every layout."""
TITLE_WIDTH = 72
LONGEST_NAME = 22
"""Letters in a line of a series' name beside the figure."""
_ARMS = ("dense", "ticket", "reinit", "random", "search")


def drawn(
    one: Analysis, table: Table, *, number: int = 0, layout: Layout = FILE, subtitle: str = ""
) -> Figure:
    """The figure of an analysis; `number` is the position among its figures. Means over rows, with 95 % t intervals."""
    lines, ink = one.lines[number], layout.ink
    rows = table.where(**dict(lines.where)) if lines.where else table
    height = (
        lines.level if lines.ceiling is None or not rows.values else float(rows.numbers(lines.ceiling)[0])
    )
    chance = None if lines.baseline is None else _means(lines, rows, lines.baseline)
    rows = rows if lines.low is not None and lines.low in rows.columns else _means(lines, rows, lines.y)
    panels = _panels(lines, rows) or [None]
    series: list[Value] = list(dict.fromkeys(rows.column(lines.series))) if lines.series else [None]
    across = 1 if layout.narrow else min(2 if len(panels) <= MOST_PANELS else 3, len(panels))
    names = [name for value in series if (name := _name(lines, value, layout))]
    with style(ink):
        figure, all_axes = canvas(
            fill(one.title, TITLE_WIDTH), subtitle, layout, panels=len(panels), across=across,
            labels=names if chance is None else [*names, lines.baseline_label],
            left=0.8 if len(lines.y_label) <= SHORT_NAME else 0.97,
        )  # fmt: skip
        drawn_labels = []
        for panel, axes in zip(panels, all_axes, strict=True):
            only = {lines.panel: panel} if lines.panel else {}
            below = None if chance is None else chance.where(**only)
            drawn_labels.append(
                _panel(axes, lines, rows.where(**only), series, below, height=height, layout=layout)
            )
        if lines.ceiling is not None:
            all_axes[0].set_ylim(0, 1.08 * max(all_axes[0].get_ylim()[1], 1e-6))
        for at, (panel, axes, labels) in enumerate(zip(panels, all_axes, drawn_labels, strict=True)):
            axes.set_ylabel(axes.get_ylabel() if at % across == 0 else "")
            axes.set_xlabel(axes.get_xlabel() if at + across >= len(panels) else "")
            if panel is not None:
                axes.set_title(str(panel), loc="left", fontsize=10, color=ink.text)
            if at % across == across - 1 or at == len(panels) - 1:
                end_labels(axes, labels)
    return figure


def _means(lines: Lines, table: Table, column: str) -> Table:
    by = [name for name in (lines.panel, lines.series, lines.x) if name]
    return summarised(table, column, by)


def _panels(lines: Lines, rows: Table) -> list[Value]:
    if lines.panel is None:
        return [None]
    there = list(dict.fromkeys(rows.column(lines.panel)))
    return [one for one in lines.panels or there[:MOST_PANELS] if one in there]


def _panel(
    axes: Axes,
    lines: Lines,
    rows: Table,
    series: Sequence[Value],
    chance: Table | None,
    *,
    height: float | None,
    layout: Layout,
) -> list[Label]:
    """Draw the lines of one panel; returns their labels. `series` are those of all panels, so that looks agree.

    `chance` has the means of the baseline, which is dotted.
    """
    scale, ink = 100.0 if lines.percent else 1.0, layout.ink
    labels, last = [], None
    for at, value in enumerate(series):
        part = rows.where(**{lines.series: value}) if lines.series else rows
        if not part.values:
            continue
        part = part.sort(lines.x)
        look, name = _look(str(value), at, ink=ink), _name(lines, value, layout)
        x, y = _across(lines, part), scale * part.numbers(lines.y)
        if {"low", "high"} <= set(part.columns):
            low, high = scale * part.numbers("low"), scale * part.numbers("high")
            low = low if lines.least is None else np.maximum(low, scale * lines.least)
            axes.fill_between(x, low, high, color=look.color, alpha=0.15, linewidth=0)
        axes.plot(
            x, y, look.dashes, color=look.color, marker=look.marker, label=name,
            markerfacecolor=ink.paper, markeredgewidth=1.4,
        )  # fmt: skip
        if name and (end := _end(lines, y)) is not None:
            labels.append(Label(end, name, lettering(look.color, ink=ink)))
        if chance is not None and lines.baseline is not None:
            below = (chance.where(**{lines.series: value}) if lines.series else chance).sort(lines.x)
            low = scale * below.numbers(lines.baseline)
            axes.plot(_across(lines, below), low, ":", color=look.color, marker=look.marker, markersize=2.5)
            last = _end(lines, low)
    if chance is not None and last is not None:
        labels.append(Label(last, lines.baseline_label, ink.quiet))
    if height is not None:
        level_line(axes, scale * height, lines.level_label, ink=ink)
    _scales(axes, lines, rows.numbers(lines.x))
    return labels


def _across(lines: Lines, rows: Table) -> np.ndarray:
    return (100.0 if lines.x_percent else 1.0) * rows.numbers(lines.x)


def _end(lines: Lines, y: np.ndarray) -> float | None:
    """The height at which a line ends on the right; densities fall to the right."""
    finite = y[np.isfinite(y)]
    if not len(finite):
        return None
    return float(finite[0] if lines.scale == "density" else finite[-1])


def _scales(axes: Axes, lines: Lines, x: np.ndarray) -> None:
    finite = x[np.isfinite(x)]
    positive = len(finite) > 0 and finite.min() > 0
    if lines.scale == "density" and positive:
        densities = Table(("density",), tuple((float(value),) for value in finite))
        density_axis(axes, densities)
    elif lines.scale == "log" and positive:
        axes.set_xscale("log")
    elif lines.scale == "linear" and len(finite) and bool((finite == np.round(finite)).all()):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))  # numbers of layers, of classes
    if lines.y_log:
        logarithmic(axes)
    elif lines.ceiling is None:
        axes.ticklabel_format(axis="y", useOffset=False)
    axes.set_xlabel(lines.x_label)
    up_axis(axes, f"{lines.y_label} (%)" if lines.percent else lines.y_label)


def _name(lines: Lines, value: Value, layout: Layout) -> str | None:
    """The name of a series at the ends of its lines, in lines if it is long."""
    if value is None:
        return None
    if lines.series == "density" and isinstance(value, float):
        return f"{100 * value:.3g} % kept"
    name = name_of(str(value), layout) if str(value) in _ARMS else str(value)
    return fill(name, min(LONGEST_NAME, letters_beside(layout.width)), break_long_words=False)


def _look(name: str, at: int, *, ink: Ink) -> Look:
    if name in _ARMS:
        return look_of(name, ink=ink) if name != "dense" else Look(ink.dense, "o", "-")
    return Look(on(ink, SERIES[at % len(SERIES)]), MARKERS[at % len(MARKERS)], "-")
