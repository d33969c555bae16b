"""The figure of an analysis: lines with bands, as the analysis' facts say."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from winticket.analyse import Analysis, Lines, summarised
from winticket.report.axes import density_axis
from winticket.report.ink import SERIES, Ink, Look, lettering, look_of, on, style
from winticket.report.layout import FILE, Label, Layout, canvas, end_labels
from winticket.report.strokes import level_line
from winticket.table import Table, Value

MOST_PANELS = 4
TITLE_WIDTH = 72
LONGEST_NAME = 28
"""Letters of a series' name beside the figure; the table has it whole."""
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
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
    rows = rows if lines.low is not None and lines.low in rows.columns else _means(lines, rows)
    panels = _panels(lines, rows) or [None]
    series: list[Value] = list(dict.fromkeys(rows.column(lines.series))) if lines.series else [None]
    across = 1 if layout.narrow else min(2, len(panels))
    with style(ink):
        figure, all_axes = canvas(
            fill(one.title, TITLE_WIDTH), subtitle, layout, panels=len(panels), across=across,
            labels=[name for value in series if (name := _name(lines, value))],
        )  # fmt: skip
        for at, (panel, axes) in enumerate(zip(panels, all_axes, strict=True)):
            part = rows.where(**{lines.panel: panel}) if lines.panel else rows
            labels = _panel(axes, lines, part, series, height=height, layout=layout)
            axes.set_ylabel(axes.get_ylabel() if at % across == 0 else "")
            axes.set_xlabel(axes.get_xlabel() if at + across >= len(panels) else "")
            if panel is not None:
                axes.set_title(str(panel), loc="left", fontsize=10, color=ink.text)
            if at % across == across - 1 or at == len(panels) - 1:
                end_labels(axes, labels)
    return figure


def _means(lines: Lines, table: Table) -> Table:
    by = [name for name in (lines.panel, lines.series, lines.x) if name]
    return summarised(table, lines.y, by)


def _panels(lines: Lines, rows: Table) -> list[Value]:
    if lines.panel is None:
        return [None]
    there = list(dict.fromkeys(rows.column(lines.panel)))
    return [one for one in lines.panels or there[:MOST_PANELS] if one in there]


def _panel(
    axes: Axes, lines: Lines, rows: Table, series: Sequence[Value], *, height: float | None, layout: Layout
) -> list[Label]:
    """Draw the lines of one panel; returns their labels. `series` are those of all panels, so that looks agree."""
    scale, ink = 100.0 if lines.percent else 1.0, layout.ink
    labels = []
    for at, value in enumerate(series):
        part = rows.where(**{lines.series: value}) if lines.series else rows
        if not part.values:
            continue
        part = part.sort(lines.x)
        look, name = _look(str(value), at, ink=ink), _name(lines, value)
        x, y = (100.0 if lines.x_percent else 1.0) * part.numbers(lines.x), scale * part.numbers(lines.y)
        if {"low", "high"} <= set(part.columns):
            low, high = scale * part.numbers("low"), scale * part.numbers("high")
            axes.fill_between(x, low, high, color=look.color, alpha=0.15, linewidth=0)
        axes.plot(
            x, y, look.dashes, color=look.color, marker=look.marker, label=name,
            markerfacecolor=ink.paper, markeredgewidth=1.4,
        )  # fmt: skip
        finite = y[np.isfinite(y)]
        if name and len(finite):
            end = finite[0] if lines.scale == "density" else finite[-1]  # densities fall to the right
            labels.append(Label(float(end), name, lettering(look.color, ink=ink)))
    if height is not None:
        level_line(axes, scale * height, lines.level_label, ink=ink)
    _scales(axes, lines, rows.numbers(lines.x), layout)
    return labels


def _scales(axes: Axes, lines: Lines, x: np.ndarray, layout: Layout) -> None:
    finite = x[np.isfinite(x)]
    positive = len(finite) > 0 and finite.min() > 0
    if lines.scale == "density" and positive:
        densities = Table(("density",), tuple((float(value),) for value in finite))
        density_axis(axes, densities, narrow=layout.narrow)
    elif lines.scale == "log" and positive:
        axes.set_xscale("log")
    if lines.y_log:
        axes.set_yscale("log")
    if lines.ceiling is not None:
        axes.set_ylim(0, 1.08 * max(axes.get_ylim()[1], 1e-6))
    elif not lines.y_log:
        axes.ticklabel_format(axis="y", useOffset=False)
    axes.set_xlabel(lines.x_label)
    axes.set_ylabel(f"{lines.y_label} (%)" if lines.percent else lines.y_label)


def _name(lines: Lines, value: Value) -> str | None:
    """The name of a series at the ends of its lines, cut if it is long."""
    if value is None:
        return None
    density = lines.series == "density" and isinstance(value, float)
    name = f"{100 * float(value):.3g} % kept" if density else str(value)
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def _look(name: str, at: int, *, ink: Ink) -> Look:
    if name in _ARMS:
        return look_of(name, ink=ink) if name != "dense" else Look(ink.dense, "o", "-")
    return Look(on(ink, SERIES[at % len(SERIES)]), _MARKERS[at % len(_MARKERS)], "-")
