"""The comparison of methods: a table, a figure and a screen."""

from __future__ import annotations

import re
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table as Screen
from rich.text import Text

from winticket.procedures import METHODS, method_of
from winticket.report.durations import duration
from winticket.report.ink import LIGHT, Ink, look_of, style
from winticket.report.layout import write_head
from winticket.report.reading import density_percent, ends, plus_minus, replicates
from winticket.report.saving import image
from winticket.results import Comparison, Row
from winticket.table import Table, Value

_EQUAL = {
    "density": "Equal steps per training",
    "cost": "Equal steps in total, including the search",
}


PER_LETTER = 0.0078
"""Width of a letter of a method's name, as a share of the figure's width."""


def comparison(document: Comparison) -> Table:
    """One row per method and budget. Accuracies and differences are fractions; costs are those of one replicate."""
    return Table.from_rows(_row(row) for row in document["rows"])


def _row(row: Row) -> dict[str, Value]:
    low, high = ends(row["accuracy_ci"]) or (None, None)
    to_dense_low, to_dense_high = ends(row["to_dense_ci"]) or (None, None)
    return {
        "equal": row["equal"],
        "method": row["method"],
        "arm": row["arm"],
        "density": row["density"],
        "steps_each": row["steps_each"],
        "steps": row["steps"],
        "flops": row["flops"],
        "seconds": row["seconds"],
        "accuracy": row["accuracy"],
        "ci_low": low,
        "ci_high": high,
        "to_dense": row["to_dense"],
        "to_dense_low": to_dense_low,
        "to_dense_high": to_dense_high,
        "replicates": replicates(row),
        "failed": row["failed"],
    }


def comparison_figure(document: Comparison, *, ink: Ink = LIGHT) -> tuple[Figure, Table]:
    """Test accuracy of every method with its 95 % interval, under two budgets: steps per training and steps in total.

    A label at each row gives the steps that one replicate cost. A line with a band shows the dense network.
    """
    table = comparison(document)
    percent = density_percent(document["density"])
    under = f"{document['data']} · {document['model']} · n = {document['replicates']} · mean, 95 % t interval"
    names = [
        key for key in dict.fromkeys((r["method"], r["arm"]) for r in document["rows"]) if key[1] != "dense"
    ]
    with style(ink):
        title = f"Accuracy and cost of each method at a density of {percent}"
        figure, pair = _two_canvases(title, under, ink=ink)
        for axes, (equal, words) in zip(pair, _EQUAL.items(), strict=True):
            rows = table.where(equal=equal)
            dense = rows.where(arm="dense")
            axes.axvline(100 * dense.numbers("accuracy")[0], color=ink.dense, linewidth=1.5)
            low, high = (100 * dense.numbers(name)[0] for name in ("ci_low", "ci_high"))
            axes.axvspan(low, high, color=ink.dense, alpha=0.1, linewidth=0)
            color = look_of("ticket", ink=ink).color
            for position, (method, arm) in enumerate(names):
                of_method = rows.where(method=method, arm=arm)
                axes.hlines(
                    position,
                    100 * of_method.numbers("ci_low"),
                    100 * of_method.numbers("ci_high"),
                    color=color,
                )
                axes.plot(100 * of_method.numbers("accuracy"), [position], "o", color=color)
                steps = of_method.column("steps")[0]
                cost = "cost unknown" if steps is None else f"{steps:,.0f} steps"
                axes.annotate(
                    cost,
                    (0.01, position),
                    xycoords=("axes fraction", "data"),
                    fontsize=7.5,
                    color=ink.quiet,
                    va="bottom",
                )
            axes.set_title(words, loc="left", fontsize=9.5, color=ink.text)
            axes.set_ylim(len(names) - 0.5, -0.6)
            axes.set_yticks(range(len(names)), [_label(*name) for name in names])
            axes.set_xlabel("test accuracy (%); line: dense network")
            axes.grid(visible=False, axis="y")
        longest = max((len(_label(*name)) for name in names), default=0)
        figure.subplots_adjust(left=max(0.125, 0.02 + PER_LETTER * longest))
    return figure, table


def _two_canvases(title: str, subtitle: str, *, ink: Ink) -> tuple[Figure, tuple[Axes, Axes]]:
    """Return an empty figure with a title, a subtitle and two axes side by side that share their scales."""
    figure = Figure(figsize=(10.6, 5.0))
    figure.subplots_adjust(left=0.07, right=0.985, bottom=0.115, top=0.80, wspace=0.07)
    write_head(figure, title, subtitle, ink=ink)
    left = figure.add_subplot(1, 2, 1)
    right = figure.add_subplot(1, 2, 2, sharex=left, sharey=left)
    right.tick_params(labelleft=False)
    return figure, (left, right)


def _label(method: str, arm: str) -> str:
    """The method, such as "imp@100", and "untrained" if the row is the untrained network that its search found."""
    procedure = METHODS.get(re.split("[:@]", method)[0])
    untrained = arm == "search" and procedure is not None and method_of(procedure).search == "untrained"
    return f"{method}, untrained" if untrained else method


def draw_comparison(document: Comparison, folder: str | Path) -> list[Path]:
    """Write compare.csv, compare.png, compare.svg and compare.pdf into `folder`."""
    target = Path(folder)
    figure, table = comparison_figure(document)
    written = [table.to_csv(target / "compare.csv")]
    for kind in ("png", "svg", "pdf"):
        written.append(target / f"compare.{kind}")
        written[-1].write_bytes(image(figure, kind))
    return written


def comparison_screen(document: Comparison) -> RenderableType:
    """The tables that `winticket compare` prints at the end."""
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
    parts.append(Text(_legend(document), style="dim"))
    parts += [Text(f"Note: {warning}") for warning in document.get("warnings", ())]
    return Group(*parts, *(Text(f"written  {path}") for path in document["files"]))


def _legend(document: Comparison) -> str:
    """What the tables' numbers and marks mean, as far as they occur."""
    sentences = [
        f"n = {document['replicates']} replicates. Density is the kept share of the weights that may be pruned.",
        "± is half the 95 % interval; if the interval is not symmetric, its ends are in brackets. Each difference to "
        "dense is paired by replicate with the dense network of the same table. Steps, operations and time are those "
        "of one replicate, including every training that its mask needed.",
    ]
    if any(_label(row["method"], row["arm"]) != row["method"] for row in document["rows"]):
        sentences.append("Untrained: the network as its search left it, whose weights were never trained.")
    if any(row["failed"] for row in document["rows"]):
        sentences.append("!: a replicate failed.")
    return " ".join(sentences)


def _cells(row: Row) -> list[str]:
    flops, seconds = row["flops"], row["seconds"]
    mark = "!" if row["failed"] else ""
    return [
        _label(row["method"], row["arm"]) + mark,
        plus_minus(row["accuracy"], ends(row["accuracy_ci"]), scale=100, digits=2),
        ""
        if row["method"] == "dense"
        else plus_minus(row["to_dense"], ends(row["to_dense_ci"]), scale=100, digits=2),
        "–" if row["steps"] is None else f"{row['steps']:,.0f}",
        "–" if flops is None else f"{flops / 1e9:,.1f}",
        "–" if seconds is None else duration(seconds),
    ]
