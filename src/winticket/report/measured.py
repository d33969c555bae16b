"""The figure of `winticket measure --levels`: size and time against density, with the accuracy beside them."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from winticket.report.axes import density_axis, logarithmic
from winticket.report.ink import LIGHT, Ink, Look, on, style
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
LOOKS = {
    "sparse engine": Look("#0072B2", "o", "-"),
    "torch": Look("#D55E00", "s", "-"),
    "torch compiled": Look("#D55E00", "D", "--"),
    "torch shrunk": Look("#D55E00", "X", ":"),
    "onnxruntime": Look("#009E73", "^", "-"),
    "onnxruntime shrunk": Look("#009E73", "v", ":"),
    "litert": Look("#CC79A7", "P", "-"),
    "litert sparse": Look("#CC79A7", "*", "--"),
    "openvino": Look("#E69F00", "<", "-"),
    "openvino bf16": Look("#E69F00", ">", "-."),
}
"""By runtime: a colour for each library, and a marker for each runtime, so that the figure can be read in grey."""
_COMPACT, _DENSE, _ACCURACY = Look("#0072B2", "o", "-"), Look("#56B4E9", "s", "--"), Look("#0072B2", "o", "-")


def measured_figure(table: Table, *, title: str, batch: int, ink: Ink = LIGHT) -> Figure:
    """Draw bytes, times at one batch size, and test accuracy against density, side by side.

    Bars are the intervals of the table. Bytes and times have logarithmic axes.
    """
    with style(ink):
        figure = Figure(figsize=(11.5, 4.2), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        size, time, accuracy = figure.subplots(1, 3)
        rows = table.where(batch=batch)
        first = rows.where(runtime=rows.column("runtime")[0])
        for column, name, look in (
            ("compact_bytes", "compact file", _COMPACT),
            ("dense_bytes", "dense tensors", _DENSE),
        ):
            _line(size, first.numbers("density"), first.numbers(column) / 1000, name, look=look, ink=ink)
        size.set_ylabel("kB")
        for runtime in dict.fromkeys(map(str, rows.column("runtime"))):
            one = rows.where(runtime=runtime)
            middle = one.numbers("microseconds")
            ends = (middle - one.numbers("low"), one.numbers("high") - middle)
            _line(time, one.numbers("density"), middle, runtime, look=LOOKS[runtime], ink=ink, ends=ends)
        time.set_ylabel(f"µs per call, batch {batch}")
        _accuracy(accuracy, first, ink=ink)
        for axes in (size, time):
            logarithmic(axes)
        for axes in (size, time, accuracy):
            density_axis(axes, rows)
            axes.set_xlabel("density (falls to the right)")
        for axes in (size, accuracy):
            axes.legend(fontsize=8)
        # Ten runtimes would cover their lines.
        figure.legend(*time.get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=8)
    return figure


def _accuracy(axes: Axes, rows: Table, *, ink: Ink) -> None:
    middle = 100 * rows.numbers("accuracy")
    ends = (middle - 100 * rows.numbers("accuracy_low"), 100 * rows.numbers("accuracy_high") - middle)
    _line(axes, rows.numbers("density"), middle, "mean of all replicates", look=_ACCURACY, ink=ink, ends=ends)
    axes.set_ylabel("test accuracy (%)")


def _line(
    axes: Axes, x: ArrayLike, y: ArrayLike, label: str, *, look: Look, ink: Ink, ends: ArrayLike | None = None
) -> None:
    axes.errorbar(
        x,
        y,
        yerr=ends,
        color=on(ink, look.color),
        marker=look.marker,
        linestyle=look.dashes,
        capsize=2,
        label=label,
    )
