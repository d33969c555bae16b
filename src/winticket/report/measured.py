"""The figure of `winticket measure --levels`: size and time against density, with the accuracy beside them."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from winticket.report.axes import density_axis
from winticket.report.ink import LIGHT, Ink, style
from winticket.table import Table

COLUMNS = (
    "density",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "compact_bytes",
    "dense_bytes",
    "batch",
    "runtime",
    "microseconds",
    "low",
    "high",
)
"""Of the table: a row for each level, batch size and runtime; times are of a call."""
_LOOKS = (
    ("#0072B2", "o"),
    ("#D55E00", "s"),
    ("#009E73", "^"),
    ("#CC79A7", "D"),
    ("#E69F00", "v"),
    ("#56B4E9", "P"),
)


def measured_figure(table: Table, *, title: str, batch: int, ink: Ink = LIGHT) -> Figure:
    """Draw bytes, times at one batch size, and test accuracy against density, side by side.

    Bars show 95 % intervals. Bytes and times have logarithmic axes.
    """
    with style(ink):
        figure = Figure(figsize=(11.5, 4.2), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        size, time, accuracy = figure.subplots(1, 3)
        rows = table.where(batch=batch)
        for at, (column, name) in enumerate(
            (("compact_bytes", "compact file"), ("dense_bytes", "dense tensors"))
        ):
            first = rows.where(runtime=rows.column("runtime")[0])
            _line(size, first.numbers("density"), first.numbers(column) / 1000, name, number=at)
        size.set_ylabel("kB")
        size.set_yscale("log")
        for at, runtime in enumerate(dict.fromkeys(rows.column("runtime"))):
            one = rows.where(runtime=runtime)
            middle = one.numbers("microseconds")
            ends = (middle - one.numbers("low"), one.numbers("high") - middle)
            _line(time, one.numbers("density"), middle, str(runtime), number=at, ends=ends)
        time.set_ylabel(f"µs per call, batch {batch}")
        time.set_yscale("log")
        _accuracy(accuracy, rows)
        for axes in (size, time, accuracy):
            density_axis(axes, rows)
            axes.set_xlabel("density (decreases to the right)")
            axes.legend(fontsize=8)
    return figure


def _accuracy(axes: Axes, rows: Table) -> None:
    one = rows.where(runtime=rows.column("runtime")[0])
    middle = 100 * one.numbers("accuracy")
    ends = (middle - 100 * one.numbers("accuracy_low"), 100 * one.numbers("accuracy_high") - middle)
    _line(axes, one.numbers("density"), middle, "mean of all replicates", number=0, ends=ends)
    axes.set_ylabel("test accuracy (%)")


def _line(axes: Axes, x: object, y: object, label: str, *, number: int, ends: object = None) -> None:
    color, marker = _LOOKS[number % len(_LOOKS)]
    axes.errorbar(x, y, yerr=ends, color=color, marker=marker, capsize=2, label=label)  # type: ignore[arg-type]
