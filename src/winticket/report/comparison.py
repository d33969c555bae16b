"""Methods side by side: one table, one figure, one screen."""

from __future__ import annotations

import re
from pathlib import Path

from matplotlib.figure import Figure
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table as Screen
from rich.text import Text

from winticket.procedures import METHODS, method_of
from winticket.report.figures import two_canvases
from winticket.report.ink import LIGHT, Ink, look_of, style
from winticket.report.reading import density_percent, duration, ends, plus_minus, replicates
from winticket.report.saving import image
from winticket.results import Comparison, Row
from winticket.table import Table, Value

_EQUAL = {
    "density": "As many steps in every training",
    "cost": "As many steps in all, searches included",
}


def comparison(document: Comparison) -> Table:
    """One row per method and per what is held equal; accuracies and differences are fractions, costs a replicate's."""
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
    """Test accuracy of every method, with 95 % intervals: with as many steps in every training, and in all.

    Beside each mark stands what one replicate cost in steps. The dense network is a line with its band.
    """
    table = comparison(document)
    percent = density_percent(document["density"])
    under = f"{document['data']} · {document['model']} · n = {document['replicates']} · mean, 95 % t interval"
    names = [
        key for key in dict.fromkeys((r["method"], r["arm"]) for r in document["rows"]) if key[1] != "dense"
    ]
    with style(ink):
        title = f"What each method makes of a density of {percent}, and at what cost"
        figure, pair = two_canvases(title, under, ink=ink)
        for axes, (equal, words) in zip(pair, _EQUAL.items(), strict=True):
            rows = table.where(equal=equal)
            dense = rows.where(arm="dense")
            axes.axvline(100 * dense.numbers("accuracy")[0], color=ink.dense, linewidth=1.5)
            low, high = (100 * dense.numbers(name)[0] for name in ("ci_low", "ci_high"))
            axes.axvspan(low, high, color=ink.dense, alpha=0.1, linewidth=0)
            color = look_of("ticket", ink=ink).color
            for place, (method, arm) in enumerate(names):
                mine = rows.where(method=method, arm=arm)
                axes.hlines(place, 100 * mine.numbers("ci_low"), 100 * mine.numbers("ci_high"), color=color)
                axes.plot(100 * mine.numbers("accuracy"), [place], "o", color=color)
                steps = mine.column("steps")[0]
                cost = "no cost known" if steps is None else f"{steps:,.0f} steps"
                axes.annotate(
                    cost,
                    (0.01, place),
                    xycoords=("axes fraction", "data"),
                    fontsize=7.5,
                    color=ink.quiet,
                    va="bottom",
                )
            axes.set_title(words, loc="left", fontsize=9.5, color=ink.text)
            axes.set_ylim(len(names) - 0.5, -0.6)
            axes.set_yticks(range(len(names)), [_label(*name) for name in names])
            axes.set_xlabel("test accuracy (%); line: the dense network's")
            axes.grid(visible=False, axis="y")
        figure.subplots_adjust(left=0.125)
    return figure, table


def _label(method: str, arm: str) -> str:
    """The method, and whether its network is the untrained one that a search left: at-init:snip, imp@100."""
    procedure = METHODS.get(re.split("[:@]", method)[0])
    untrained = arm == "search" and procedure is not None and method_of(procedure).search == "untrained"
    return f"{method}, untrained" if untrained else method


def draw_comparison(document: Comparison, folder: str | Path) -> list[Path]:
    """compare.csv, compare.png and compare.svg in `folder`."""
    place = Path(folder)
    figure, table = comparison_figure(document)
    written = [table.to_csv(place / "compare.csv")]
    for kind in ("png", "svg"):
        written.append(place / f"compare.{kind}")
        written[-1].write_bytes(image(figure, kind))
    return written


def comparison_screen(document: Comparison) -> RenderableType:
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
            f"n = {count}; ± half a 95 % interval, or the interval in brackets if it is not symmetric, paired with the "
            "dense network's of the same table; steps, operations and time of one replicate with all trainings that "
            "its mask needed",
            style="dim",
        )
    )
    parts += [Text(f"Note: {warning}") for warning in document.get("warnings", ())]
    return Group(*parts, *(Text(f"written  {path}") for path in document["files"]))


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
