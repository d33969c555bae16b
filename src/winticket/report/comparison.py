"""The comparison of methods: a table, a figure and a screen."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table as Screen
from rich.text import Text

from winticket.procedures import METHODS, method_of
from winticket.report.durations import duration
from winticket.report.ink import Ink, look_of, style
from winticket.report.layout import FILE, Layout, canvas, shortened
from winticket.report.metric import Metric, metric_of
from winticket.report.reading import density_percent, ends, replicates
from winticket.report.saving import image
from winticket.results import Comparison, Row
from winticket.table import Table, Value

EQUAL = {
    "density": "Equal steps per training",
    "cost": "Equal steps in total, including the search",
}


PER_LETTER = 0.075
"""Inches of a letter of a method's name."""
BESIDE_NAMES = 0.3
"""Inches on the left beside the names."""
MOST_FOR_NAMES = 0.5
"""Most of the figure's width that the names of methods take; longer ones are shortened in their middle."""


def head(document: Comparison) -> tuple[str, ...]:
    """The headings of the tables."""
    metric = metric_of(document)
    return (
        "method",
        metric.head(metric.name),
        metric.difference_head("to dense"),
        "steps",
        "GFLOP",
        "time",
    )


def comparison(document: Comparison) -> Table:
    """One row per method and budget. Accuracies and differences are fractions; costs are those of one replicate.

    If networks are compared by another metric, `accuracy` holds its values, in its own unit, and differences are
    positive if the method is better than the dense network.
    """
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


def method_name(method: str, arm: str) -> str:
    """The method, such as "imp@100", and "untrained" if the row is the untrained network that its search found."""
    procedure = METHODS.get(re.split("[:@]", method)[0])
    untrained = arm == "search" and procedure is not None and method_of(procedure).search == "untrained"
    return f"{method}, untrained" if untrained else method


def comparison_figure(document: Comparison, *, layout: Layout = FILE) -> tuple[Figure, Table]:
    """The test metric of every method with its 95 % interval, under two budgets: steps per training and steps in total.

    A label at each row gives the steps that one replicate cost. A line with a band shows the dense network.
    """
    table, metric = comparison(document), metric_of(document)
    names = [
        key for key in dict.fromkeys((r["method"], r["arm"]) for r in document["rows"]) if key[1] != "dense"
    ]
    room = int((MOST_FOR_NAMES * layout.width - BESIDE_NAMES) / PER_LETTER)
    shown = shortened([method_name(*name) for name in names], room)
    longest = max(map(len, shown), default=0)
    with style(layout.ink):
        figure, pair = canvas(
            comparison_title(document), comparison_subtitle(document), layout, panels=2, across=2,
            left=BESIDE_NAMES + PER_LETTER * longest, height=0.7 + 0.36 * len(names),
        )  # fmt: skip
        for axes, (equal, words) in zip(pair, EQUAL.items(), strict=True):
            _budget(axes, table.where(equal=equal), names, ink=layout.ink, metric=metric)
            axes.set_yticks(range(len(names)), shown)
            axes.set_title(words, loc="left", fontsize=9.5, color=layout.ink.text)
        pair[-1].set_xlabel(f"{metric.axis('test')}; line: dense network")
        if not layout.narrow:
            pair[0].set_xlabel(metric.axis("test"))
    return figure, table


def comparison_title(document: Comparison) -> str:
    """Return what the figure shows."""
    heading = metric_of(document).heading
    return f"{heading} and cost of each method at a density of {density_percent(document['density'])}"


def comparison_subtitle(document: Comparison) -> str:
    """Return data, network, number of replicates, and what is drawn of them."""
    return f"{document['data']} · {document['model']} · n = {document['replicates']} · mean, 95 % t interval"


def _budget(axes: Axes, rows: Table, names: Sequence[tuple[str, str]], *, ink: Ink, metric: Metric) -> None:
    """Draw the methods under one budget, a row for each."""
    dense = rows.where(arm="dense")
    axes.axvline(metric.shown(dense.numbers("accuracy")[0]), color=ink.dense, linewidth=1.5)
    low, high = (metric.shown(dense.numbers(name)[0]) for name in ("ci_low", "ci_high"))
    axes.axvspan(low, high, color=ink.dense, alpha=0.1, linewidth=0)
    color = look_of("ticket", ink=ink).color
    for position, (method, arm) in enumerate(names):
        of_method = rows.where(method=method, arm=arm)
        start, end = (metric.shown(of_method.numbers(name)) for name in ("ci_low", "ci_high"))
        axes.hlines(position, start, end, color=color)
        axes.plot(metric.shown(of_method.numbers("accuracy")), [position] * len(of_method), "o", color=color)
        steps = of_method.column("steps")[0]
        cost = "cost unknown" if steps is None else f"{steps:,.0f} steps"
        axes.annotate(
            cost, (0.01, position), xycoords=("axes fraction", "data"), xytext=(0, 3),
            textcoords="offset points", fontsize=8.5, color=ink.quiet, va="bottom",
        )  # fmt: skip
    axes.set_ylim(len(names) - 0.5, -0.75)
    axes.grid(visible=False, axis="y")


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
    for equal, title in EQUAL.items():
        rows = [row for row in document["rows"] if row["equal"] == equal]
        table = Screen(title=f"{title}, density {density_percent(document['density'])}", box=box.SIMPLE_HEAD)
        table.title_justify = "left"
        for name in head(document):
            table.add_column(name, justify="left" if name == "method" else "right", no_wrap=True)
        for row in rows:
            table.add_row(*cells(row, metric_of(document)))
        parts.append(table)
    parts.append(Text(legend(document), style="dim"))
    parts += [Text(f"Note: {warning}") for warning in document.get("warnings", ())]
    return Group(*parts, *(Text(f"written  {path}") for path in document["files"]))


def legend(document: Comparison) -> str:
    """What the tables' numbers and marks mean, as far as they occur."""
    sentences = [
        f"n = {document['replicates']} replicates. Density is the kept share of the weights that may be pruned.",
        "± is half the 95 % interval; if the interval is not symmetric, its ends are in brackets. Each difference to "
        "dense is paired by replicate with the dense network of the same table. Steps, operations and time are those "
        "of one replicate, including every training that its mask needed.",
    ]
    if not metric_of(document).higher:
        sentences.append(
            f"A lower {metric_of(document).name} is better; differences are positive if it is lower."
        )
    if any(method_name(row["method"], row["arm"]) != row["method"] for row in document["rows"]):
        sentences.append("Untrained: the network as its search left it, whose weights were never trained.")
    if any(row["failed"] for row in document["rows"]):
        sentences.append("!: a replicate failed.")
    return " ".join(sentences)


def cells(row: Row, metric: Metric) -> list[str]:
    """The cells of a network's row, in the order of `head`."""
    flops, seconds = row["flops"], row["seconds"]
    mark = "!" if row["failed"] else ""
    return [
        method_name(row["method"], row["arm"]) + mark,
        metric.text(row["accuracy"], ends(row["accuracy_ci"])),
        "" if row["method"] == "dense" else metric.text(row["to_dense"], ends(row["to_dense_ci"])),
        "–" if row["steps"] is None else f"{row['steps']:,.0f}",
        "–" if flops is None else f"{flops / 1e9:,.1f}",
        "–" if seconds is None else duration(seconds),
    ]
