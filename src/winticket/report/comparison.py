"""Methods side by side: one table, one figure, one screen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table as Screen
from rich.text import Text

from winticket.report.figures import canvas, image
from winticket.report.ink import DENSITY_COLORS, DENSITY_MARKERS, LIGHT, Ink, on, style
from winticket.report.reading import Document, density_percent, duration, plus_minus
from winticket.report.tables import Table

COLUMNS = (
    "equal",
    "method",
    "arm",
    "density",
    "steps_each",
    "steps",
    "flops",
    "seconds",
    "accuracy",
    "ci_low",
    "ci_high",
    "to_dense",
    "to_dense_low",
    "to_dense_high",
    "replicates",
    "failed",
)
_EQUAL = {
    "density": "As many steps in every training",
    "cost": "As many steps in all, searches included",
}


def comparison(document: Document) -> Table:
    """One row per method and per what is held equal; accuracies and differences are fractions, costs a replicate's."""
    rows = []
    for row in document["rows"]:
        ci, apart = row["accuracy_ci"] or (None, None), row["to_dense_ci"] or (None, None)
        finished = sum(value is not None for value in row["accuracies"])
        own = [row[name] for name in COLUMNS[:9]]
        rows.append((*own, *ci, row["to_dense"], *apart, finished, row["failed"]))
    return Table(COLUMNS, tuple(rows))


def comparison_figure(document: Document, *, ink: Ink = LIGHT) -> tuple[Figure, Table]:
    """Test accuracy against what one replicate cost, in steps: an open mark with usual trainings, a full one with the
    trainings so much longer that all cost the same.
    """
    table = comparison(document)
    percent = density_percent(document["density"])
    title = f"What each method makes of a density of {percent}, and what it costs"
    under = f"{document['data']} · {document['model']} · n = {document['replicates']} · mean, 95 % t interval"
    with style(ink):
        figure, axes = canvas(title, under, ink=ink)
        names = list(dict.fromkeys((r["method"], r["arm"]) for r in document["rows"]))
        for number, (method, arm) in enumerate(names):
            mine = table.where(method=method, arm=arm)
            color = ink.dense if method == "dense" else on(ink, _color(number - 1))
            steps, centre = mine.numbers("steps"), 100 * mine.numbers("accuracy")
            low, high = 100 * mine.numbers("ci_low"), 100 * mine.numbers("ci_high")
            # Beside one another, where costs are the same: a mark is not to hide another.
            beside = steps * (1 + 0.02 * (number - (len(names) - 1) / 2))
            axes.plot(beside, centre, color=color, linewidth=1.0, alpha=0.5)
            axes.vlines(beside, low, high, color=color, linewidth=1.2)
            marker = DENSITY_MARKERS[number % len(DENSITY_MARKERS)]
            for at, equal in enumerate(mine.column("equal")):
                face = color if equal == "cost" else ink.paper
                axes.plot(
                    beside[at : at + 1],
                    centre[at : at + 1],
                    marker,
                    color=color,
                    markerfacecolor=face,
                    markersize=7,
                    label=_label(method, arm) if equal == "density" else None,
                )
        axes.set_xscale("log")
        axes.set_xlabel(
            "optimiser steps of one replicate, all trainings that it needed (full marks: the same for all)"
        )
        axes.set_ylabel("test accuracy (%)")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure, table


def _color(number: int) -> str:
    return DENSITY_COLORS[number % len(DENSITY_COLORS)]


def _label(method: str, arm: str) -> str:
    return f"{method}, untrained" if arm == "search" and method in ("edge-popup", "supermask") else method


def draw_comparison(document: Document, folder: str | Path) -> list[Path]:
    """compare.csv, compare.png and compare.svg in `folder`."""
    place = Path(folder)
    figure, table = comparison_figure(document)
    written = [table.to_csv(place / "compare.csv")]
    for kind in ("png", "svg"):
        written.append(place / f"compare.{kind}")
        written[-1].write_bytes(image(figure, kind))
    return written


def comparison_screen(document: Document) -> RenderableType:
    """What the command prints at the end."""
    parts: list[RenderableType] = []
    for equal, title in _EQUAL.items():
        rows = [row for row in document["rows"] if row["equal"] == equal]
        table = Screen(title=f"{title}, density {density_percent(document['density'])}", box=box.SIMPLE_HEAD)
        table.title_justify = "left"
        for name in ("method", "accuracy %", "to dense, pp", "steps", "GFLOP", "time"):
            table.add_column(name, justify="left" if name == "method" else "right", no_wrap=True)
        for row in rows:
            table.add_row(*_cells(row))
        parts.append(table)
    count = document["replicates"]
    parts.append(
        Text(
            f"n = {count}; ± half a 95 % interval, paired with the dense network's of the same table; steps, "
            "operations and time of one replicate with all trainings that its mask needed",
            style="dim",
        )
    )
    return Group(*parts, *(Text(f"written  {path}") for path in document["files"]))


def _cells(row: Mapping[str, Any]) -> list[str]:
    flops, seconds = row["flops"], row["seconds"]
    mark = "!" if row["failed"] else ""
    return [
        _label(row["method"], row["arm"]) + mark,
        plus_minus(row["accuracy"], row["accuracy_ci"], scale=100, digits=2),
        ""
        if row["method"] == "dense"
        else plus_minus(row["to_dense"], row["to_dense_ci"], scale=100, digits=2),
        "–" if row["steps"] is None else f"{row['steps']:,.0f}",
        "–" if flops is None else f"{flops / 1e9:,.1f}",
        "–" if seconds is None else duration(seconds),
    ]
