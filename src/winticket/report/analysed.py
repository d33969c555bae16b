"""Analyses as figures, page and screen: each as its own facts say."""

from __future__ import annotations

import json
import math
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from winticket.analyse import Analysis, Lines, summarised
from winticket.report.elements import scrolled
from winticket.report.elements import table as html_table
from winticket.report.ink import LIGHT, Ink, Look, look_of, on, style
from winticket.report.saving import image
from winticket.table import Table, Value

KINDS = ("png", "svg", "pdf")
_SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255", "#332288")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_ARMS = ("dense", "ticket", "reinit", "random", "search")
MOST_PANELS = 4
LONGEST = 40
"""Rows of a table on the page; the file beside it has them all."""


def drawn(one: Analysis, table: Table, *, number: int = 0, ink: Ink = LIGHT, subtitle: str = "") -> Figure:
    """The figure of an analysis; `number` is the position among its figures. Means over rows, with 95 % t intervals."""
    lines = one.lines[number]
    rows = table.where(**dict(lines.where)) if lines.where else table
    height = (
        lines.level if lines.ceiling is None or not rows.values else float(rows.numbers(lines.ceiling)[0])
    )
    rows = rows if lines.low is not None and lines.low in rows.columns else _means(lines, rows)
    panels = _panels(lines, rows)
    with style(ink):
        figure = Figure(figsize=(7.6 if len(panels) == 1 else 10.6, 5.0))
        figure.subplots_adjust(
            left=0.105 if len(panels) == 1 else 0.07, right=0.98, bottom=0.115, top=0.76, wspace=0.08
        )
        figure.text(0.02, 0.975, one.title, ha="left", va="top", fontsize=12.5, fontweight="bold")
        figure.text(0.02, 0.915, subtitle, ha="left", va="top", fontsize=9, color=ink.quiet)
        first: Axes | None = None
        for at, panel in enumerate(panels, 1):
            axes = figure.add_subplot(1, len(panels), at, sharex=first, sharey=first)
            part = rows.where(**{lines.panel: panel}) if lines.panel else rows
            _panel(axes, lines, part, height=height, ink=ink)
            if first is not None:
                axes.tick_params(labelleft=False)
                axes.set_ylabel("")
            if panel is not None:
                axes.set_title(str(panel), loc="left", fontsize=10, color=ink.quiet)
            first = first or axes
        assert first is not None
        handles, labels = first.get_legend_handles_labels()
        if handles:
            width = max(len(label) for label in labels) + 6
            figure.legend(
                handles, labels, loc="upper left", bbox_to_anchor=(0.012, 0.885), fontsize=8.8, handlelength=2.2,
                ncols=max(1, min(len(labels), (92 if len(panels) == 1 else 130) // width)), columnspacing=1.3,
            )  # fmt: skip
    return figure


def _drawable(one: Analysis, table: Table) -> list[int]:
    """The figures for which the table has rows."""
    return [number for number, lines in enumerate(one.lines) if table.where(**dict(lines.where)).values]


def _means(lines: Lines, table: Table) -> Table:
    by = [name for name in (lines.panel, lines.series, lines.x) if name]
    return summarised(table, lines.y, by)


def _panels(lines: Lines, rows: Table) -> list[Value]:
    if lines.panel is None:
        return [None]
    there = list(dict.fromkeys(rows.column(lines.panel)))
    return [one for one in lines.panels or there[:MOST_PANELS] if one in there]


def _panel(axes: Axes, lines: Lines, rows: Table, *, height: float | None, ink: Ink) -> None:
    scale = 100.0 if lines.percent else 1.0
    series = list(dict.fromkeys(rows.column(lines.series))) if lines.series else [None]
    for at, name in enumerate(series):
        part = rows.where(**{lines.series: name}) if lines.series else rows
        part = part.sort(lines.x)
        look = _look(str(name), at, ink=ink)
        x, y = _wide(lines) * part.numbers(lines.x), scale * part.numbers(lines.y)
        if {"low", "high"} <= set(part.columns):
            low, high = scale * part.numbers("low"), scale * part.numbers("high")
            axes.fill_between(x, low, high, color=look.color, alpha=0.15, linewidth=0)
        axes.plot(
            x, y, look.dashes, color=look.color, marker=look.marker, label=_label(lines, name),
            markerfacecolor=ink.paper, markeredgewidth=1.4,
        )  # fmt: skip
    if height is not None:
        axes.axhline(scale * height, color=ink.quiet, linewidth=1.0, linestyle=(0, (1, 2)), zorder=1)
        axes.annotate(
            lines.level_label, (0.992, scale * height), xycoords=("axes fraction", "data"), xytext=(0, 3),
            textcoords="offset points", ha="right", fontsize=8, color=ink.quiet,
        )  # fmt: skip
    _scales(axes, lines, rows.numbers(lines.x))


def _wide(lines: Lines) -> float:
    return 100.0 if lines.x_percent else 1.0


def _scales(axes: Axes, lines: Lines, x: np.ndarray) -> None:
    finite = x[np.isfinite(x)]
    if lines.scale in ("density", "log") and len(finite) and finite.min() > 0:
        axes.set_xscale("log")
    if lines.scale == "linear" and len(finite) and bool((finite == np.round(finite)).all()):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))  # numbers of layers, of classes
    if lines.scale == "density":
        if not axes.xaxis_inverted():
            axes.invert_xaxis()
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g} %"))
        if keep := _apart(sorted(set(finite.tolist()), reverse=True)):
            axes.set_xticks(keep)
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.tick_params(axis="x", which="minor", length=0)
    if lines.y_log:
        axes.set_yscale("log")
    if lines.ceiling is not None:
        axes.set_ylim(0, 1.08 * max(axes.get_ylim()[1], 1e-6))
    elif not lines.y_log:
        axes.ticklabel_format(axis="y", useOffset=False)
    axes.set_xlabel(lines.x_label)
    axes.set_ylabel(f"{lines.y_label} (%)" if lines.percent else lines.y_label)


def _apart(values: Sequence[float], *, least: float = 0.13) -> list[float]:
    """Those of falling positive values whose distance on a logarithmic axis leaves room for a label."""
    kept: list[float] = []
    span = math.log(values[0] / values[-1]) if len(values) > 1 else 1.0
    for value in values:
        if not kept or math.log(kept[-1] / value) >= least * span:
            kept.append(value)
    return kept


def _label(lines: Lines, name: Value) -> str | None:
    if lines.series == "density" and isinstance(name, float):
        return f"{100 * name:.3g} % kept"
    return None if name is None else str(name)


def _look(name: str, at: int, *, ink: Ink) -> Look:
    if name in _ARMS:
        return look_of(name, ink=ink) if name != "dense" else Look(ink.dense, "o", "-")
    return Look(on(ink, _SERIES[at % len(_SERIES)]), _MARKERS[at % len(_MARKERS)], "-")


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
        for number in _drawable(one.analysis, one.table):
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
    for number in _drawable(facts, one.table):
        figure = drawn(facts, one.table, number=number, subtitle=subtitle)
        picture = b64encode(image(figure, "svg", letters=True)).decode()
        alt = f"{facts.title} {' '.join(one.sentences)}"
        body.append(
            "<figure>"
            + scrolled(f'<img class="turned" alt="{escape(alt)}" src="data:image/svg+xml;base64,{picture}">')
            + "</figure>"
        )
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
