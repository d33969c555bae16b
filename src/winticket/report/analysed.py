"""Analyses as sections of the page, files and JSON: each as its own facts say."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from winticket.analyse import Analysis
from winticket.report.analysis_figure import drawn
from winticket.report.elements import table as html_table
from winticket.report.inline import figure
from winticket.report.layout import Layout
from winticket.report.saving import image
from winticket.report.sharing import each
from winticket.table import Table, Value

KINDS = ("png", "svg", "pdf")
LONGEST = 40
"""Rows of a table on the page; the file beside it has them all."""


@dataclass(frozen=True)
class Shown:
    """An analysis as the page shows it: facts, sentences and table."""

    analysis: Analysis
    table: Table
    sentences: tuple[str, ...]
    reason: str | None
    options: Mapping[str, Any] = field(default_factory=dict)
    """Those that were given; all others had their defaults."""


def write_analyses(shown: Sequence[Shown], folder: Path, *, subtitle: str = "") -> list[Path]:
    """Write every analysis to `folder`: its table as CSV, its figures as PNG, SVG and PDF, and all of it as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    there = [one for one in shown if one.reason is None and one.table.values]
    written = each([partial(_written, one, folder, subtitle) for one in there])
    return [path for paths in written for path in paths]


def _written(one: Shown, folder: Path, subtitle: str) -> list[Path]:
    name = one.analysis.name
    paths = [one.table.to_csv(folder / f"{name}.csv"), folder / f"{name}.json"]
    paths[-1].write_text(json.dumps(as_json(one), ensure_ascii=False), encoding="utf-8")
    for number in _drawable(one.analysis, one.table):
        made = drawn(one.analysis, one.table, number=number, subtitle=subtitle)
        for kind in KINDS:
            paths.append(folder / f"{name}{f'-{number + 1}' if number else ''}.{kind}")
            paths[-1].write_bytes(image(made, kind))
    return paths


def as_json(one: Shown) -> dict[str, object]:
    """An analysis as one JSON object."""
    facts = one.analysis
    return {
        "name": facts.name,
        "title": facts.title,
        "source": facts.source,
        "options": dict(one.options),
        "columns": dict(facts.columns),
        "sentences": list(one.sentences),
        "reason": one.reason,
        "rows": json.loads(one.table.to_json()),
    }


def section_of(one: Shown, *, subtitle: str = "") -> str:
    """The part of the page: question, answer in words, figures, and folded the table with its definitions."""
    facts = one.analysis
    body = [f'<h3 id="{anchor(one)}">{escape(facts.title)}</h3>']
    if one.reason is not None:
        return "\n".join([*body, f'<p class="note">Not analysed: {escape(one.reason)}.</p>'])
    body += [f"<p>{escape(sentence)}</p>" for sentence in one.sentences]
    words = f"{facts.title} {' '.join(one.sentences)}"
    for number in _drawable(facts, one.table):
        draw = partial(_draw, one, number, subtitle)
        body.append(figure(draw, name=f"{facts.name}-{number}", words=words))
    rows = [[escape(_text(cell)) for cell in row] for row in one.table.values[:LONGEST]]
    caption = ("1 row" if len(one.table) == 1 else f"{len(one.table)} rows") + (
        f", the first {LONGEST} shown" if len(one.table) > LONGEST else ""
    )
    means = "; ".join(f"{name}: {what}" for name, what in facts.columns.items())
    body += [
        f"<details><summary>Table and definitions</summary><p>{escape(means)}.</p>",
        f"<p>Source: {escape(facts.source)}.</p>",
        html_table(one.table.columns, rows, caption=caption, name=facts.name),
        "</details>",
    ]
    return "\n".join(body)


def anchor(one: Shown) -> str:
    """The identifier of an analysis' part of the page."""
    return f"analysis-{one.analysis.name}"


def _draw(one: Shown, number: int, subtitle: str, layout: Layout) -> Figure:
    return drawn(one.analysis, one.table, number=number, layout=layout, subtitle=subtitle)


def _drawable(one: Analysis, table: Table) -> list[int]:
    """The figures for which the table has rows."""
    return [number for number, lines in enumerate(one.lines) if table.where(**dict(lines.where)).values]


def _text(cell: Value) -> str:
    if cell is None:
        return "–"
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)
