"""Analyses as figures, page and screen: each as its own facts say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from winticket.analyse import Analysis, Lines, summarised
from winticket.report.axes import density_axis
from winticket.report.elements import table as html_table
from winticket.report.ink import SERIES, Ink, Look, lettering, look_of, on, style
from winticket.report.inline import picture
from winticket.report.layout import FILE, Label, Layout, canvas, end_labels
from winticket.report.saving import image
from winticket.report.strokes import level_line
from winticket.table import Table, Value

KINDS = ("png", "svg", "pdf")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_ARMS = ("dense", "ticket", "reinit", "random", "search")
MOST_PANELS = 4
TITLE_WIDTH = 72
LONGEST_NAME = 28
"""Letters of a series' name beside the figure; the table has it whole."""
LONGEST = 40
"""Rows of a table on the page; the file beside it has them all."""


def drawn(
    one: Analysis, table: Table, *, number: int = 0, layout: Layout = FILE, subtitle: str = ""
) -> Figure:
    """The figure of an analysis; `number` is the position among its figures. Means over rows, with 95 % t intervals."""
    lines, ink = one.lines[number], layout.ink
    rows = table.where(**dict(lines.where)) if lines.where else table
    rows = rows if lines.low is not None and lines.low in rows.columns else _means(lines, rows)
    panels = list(dict.fromkeys(rows.column(lines.panel)))[:MOST_PANELS] if lines.panel else [None]
    series = [str(name) for name in dict.fromkeys(rows.column(lines.series))] if lines.series else []
    with style(ink):
        figure, all_axes = canvas(
            fill(one.title, TITLE_WIDTH), subtitle, layout, panels=len(panels), across=min(2, len(panels)),
            labels=[_cut(name) for name in series],
        )  # fmt: skip
        across = 1 if layout.narrow else min(2, len(panels))
        for at, (panel, axes) in enumerate(zip(panels, all_axes, strict=True)):
            part = rows.where(**{lines.panel: panel}) if lines.panel else rows
            labels = _panel(axes, lines, part, series, layout=layout)
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


def _panel(
    axes: Axes, lines: Lines, rows: Table, series: Sequence[str], *, layout: Layout
) -> list[Label]:
    """Draw the lines of one panel; returns their labels. `series` are those of all panels, so that looks agree."""
    scale, ink = 100.0 if lines.percent else 1.0, layout.ink
    labels = []
    for at, name in enumerate(series or [""]):
        part = rows.where(**{lines.series: _as_in(rows, lines.series, name)}) if lines.series else rows
        if not part.values:
            continue
        part = part.sort(lines.x)
        look = _look(name, at, ink=ink)
        x, y = part.numbers(lines.x), scale * part.numbers(lines.y)
        if {"low", "high"} <= set(part.columns):
            low, high = scale * part.numbers("low"), scale * part.numbers("high")
            axes.fill_between(x, low, high, color=look.color, alpha=0.15, linewidth=0)
        axes.plot(
            x, y, look.dashes, color=look.color, marker=look.marker, label=name or None,
            markerfacecolor=ink.paper, markeredgewidth=1.4,
        )  # fmt: skip
        ends = [y[0] if lines.scale == "density" else y[-1]]  # densities fall to the right
        if name and np.isfinite(ends[0]):
            labels.append(Label(float(ends[0]), _cut(name), lettering(look.color, ink=ink)))
    if lines.level is not None:
        level_line(axes, scale * lines.level, lines.level_label, ink=ink)
    _scales(axes, lines, rows.numbers(lines.x), layout)
    return labels


def _as_in(rows: Table, column: str, name: str) -> Value:
    """The cell of a column that is written as `name`; `name` itself if there is none."""
    return next((cell for cell in rows.column(column) if str(cell) == name), name)


def _cut(name: str) -> str:
    """A name that fits beside the lines."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def _scales(axes: Axes, lines: Lines, x: np.ndarray, layout: Layout) -> None:
    finite = x[np.isfinite(x)]
    if lines.scale == "density" and len(finite) and finite.min() > 0:
        density_axis(
            axes, Table(("density",), tuple((float(value),) for value in finite)), narrow=layout.narrow
        )
    elif lines.scale == "log" and len(finite) and finite.min() > 0:
        axes.set_xscale("log")
    if lines.y_log:
        axes.set_yscale("log")
    axes.set_xlabel(lines.x_label)
    axes.set_ylabel(f"{lines.y_label} (%)" if lines.percent else lines.y_label)


def _look(name: str, at: int, *, ink: Ink) -> Look:
    if name in _ARMS:
        return look_of(name, ink=ink) if name != "dense" else Look(ink.dense, "o", "-")
    return Look(on(ink, SERIES[at % len(SERIES)]), _MARKERS[at % len(_MARKERS)], "-")


@dataclass(frozen=True)
class Shown:
    """An analysis as the page shows it: facts, sentences and table."""

    analysis: Analysis
    table: Table
    sentences: tuple[str, ...]
    reason: str | None


def write_analyses(shown: Sequence[Shown], folder: Path, *, subtitle: str = "") -> list[Path]:
    """Write every analysis to `folder`: its table as CSV, its figures as PNG, SVG and PDF, and all of them as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for one in shown:
        if one.reason is not None or not one.table.values:
            continue
        name = one.analysis.name
        written.append(one.table.to_csv(folder / f"{name}.csv"))
        for number in range(len(one.analysis.lines)):
            figure = drawn(one.analysis, one.table, number=number, subtitle=subtitle)
            for kind in KINDS:
                written.append(folder / f"{name}{f'-{number + 1}' if number else ''}.{kind}")
                written[-1].write_bytes(image(figure, kind))
    return written


def as_json(one: Shown) -> dict[str, object]:
    """An analysis as one JSON object."""
    facts = one.analysis
    return {
        "name": facts.name,
        "title": facts.title,
        "source": facts.source,
        "columns": dict(facts.columns),
        "sentences": list(one.sentences),
        "reason": one.reason,
        "rows": json.loads(one.table.to_json()),
    }


def section_of(one: Shown, *, subtitle: str = "") -> str:
    """The section of the page: question, answer in words, figures, table, source."""
    facts = one.analysis
    body = [f"<h3>{escape(facts.title)}</h3>"]
    if one.reason is not None:
        return "\n".join([*body, f'<p class="note">Not analysed: {escape(one.reason)}.</p>'])
    body += [f"<p>{escape(sentence)}</p>" for sentence in one.sentences]
    for number in range(len(facts.lines)):
        words = f"{facts.title} {' '.join(one.sentences)}"
        name = f"{facts.name}-{number}"
        shape = partial(drawn, facts, one.table, number=number, subtitle=subtitle)
        body.append(f"<figure>{picture(lambda layout, draw=shape: draw(layout=layout), name=name, words=words)}</figure>")
    rows = [[escape(_text(cell)) for cell in row] for row in one.table.values[:LONGEST]]
    caption = f"{len(one.table)} rows" + (f", the first {LONGEST} shown" if len(one.table) > LONGEST else "")
    means = "; ".join(f"{name}: {what}" for name, what in facts.columns.items())
    body += [
        f"<details><summary>Table and definitions</summary><p>{escape(means)}.</p>",
        f"<p>Source: {escape(facts.source)}.</p>",
        html_table(one.table.columns, rows, caption=caption),
        "</details>",
    ]
    return "\n".join(body)


def _text(cell: Value) -> str:
    if cell is None:
        return "–"
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)
