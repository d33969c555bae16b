"""The metric against density for several runs in one figure."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from winticket.report.axes import density_axis, up_axis
from winticket.report.ink import SERIES, lettering, on, style
from winticket.report.inline import figure
from winticket.report.layers import MARKERS
from winticket.report.layout import FILE, Label, Layout, canvas, end_labels
from winticket.report.metric import Metric, metric_of
from winticket.report.side_by_side_rows import Named, accuracies, is_comparison, shared_metric
from winticket.report.strokes import level_line
from winticket.table import Table


def side_by_side_figure(runs: Sequence[Named], *, layout: Layout = FILE) -> tuple[Figure, Table]:
    """Draw the metric against density for every run, and the difference to its dense network; returns the table too.

    A run's line begins at its dense network, at 100 %. Methods of a comparison are single points. ValueError if runs
    are judged by several metrics.
    """
    made, metric = accuracies(runs), shared_metric(runs)
    if metric is None:
        raise ValueError("the runs are judged by different metrics, which have no common axis")
    with style(layout.ink):
        figure, (left, right) = canvas(
            f"{len(runs)} runs side by side", "mean over replicates, 95 % t interval", layout, panels=2, across=2,
            share=False, labels=[run.name for run in runs], height=2.6 if layout.narrow else 3.2,
        )  # fmt: skip
        labels = [
            label
            for at, run in enumerate(runs)
            if (label := _line((left, right), made.where(run=run.name), run, at, layout=layout)) is not None
        ]
        level_line(right, 0.0, "dense network", ink=layout.ink)
        for axes, title, unit in (
            (left, f"test {metric.name}", metric.axis("") if metric.scale.unit != "%" else "%"),
            (right, _to_dense(metric), metric.difference_axis(narrow=False)),
        ):
            density_axis(axes, made)
            axes.set_title(title, loc="left", fontsize=10, color=layout.ink.text)
            up_axis(axes, unit)
        end_labels(right, labels)
    return figure, made


def _to_dense(metric: Metric) -> str:
    return "minus the dense network of the run" if metric.higher else "dense network of the run minus this"


def _line(pair: tuple[Axes, Axes], rows: Table, run: Named, at: int, *, layout: Layout) -> Label | None:
    metric = metric_of(run.document)
    color, marker = on(layout.ink, SERIES[at % len(SERIES)]), MARKERS[at % len(MARKERS)]
    left, right = pair
    x, y, gap = rows.numbers("density"), metric.shown(rows.numbers("accuracy")), rows.numbers("to_dense")
    joined = "none" if is_comparison(run.document) else "-"
    for axes, values in ((left, y), (right, gap)):
        axes.plot(
            x,
            values,
            linestyle=joined,
            marker=marker,
            color=color,
            markerfacecolor=layout.ink.paper,
            label=run.name,
        )
        won = np.array(rows.column("claimed"), dtype=bool)
        axes.plot(x[won], values[won], marker, color=color, linestyle="none")
    low, high = metric.shown(rows.numbers("ci_low")), metric.shown(rows.numbers("ci_high"))
    if is_comparison(run.document):
        left.vlines(x, low, high, color=color, alpha=0.6)
    else:
        left.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
    finite = gap[np.isfinite(gap)]
    return Label(float(finite[-1]), run.name, lettering(color, ink=layout.ink)) if len(finite) else None


def figure_section(runs: Sequence[Named]) -> str:
    """The figure as a section of the page; a note if the runs have no common metric."""
    metric = shared_metric(runs)
    if metric is None:
        names = ", ".join(dict.fromkeys(metric_of(run.document).name for run in runs))
        note = f"The runs are judged by different metrics ({names}), so no figure has them side by side."
        return f"<section><p>{escape(note)}</p></section>"
    title = f"{metric.heading} against density"
    words = f"{title} of every run, and the difference to its dense network; the tables give numbers."
    values = metric.plural[:1].upper() + metric.plural[1:]
    caption = (
        f"Left: test {metric.name} after the last step, with 95 % intervals; a line begins at the run's dense network. "
        "Right: "
        f"{metric.minus('ticket', 'dense network')} of the same replicate, in the mean. Filled markers: winning "
        f"tickets. {values} on "
        "different data do not compare. Points that no line joins are methods of a comparison, at equal steps."
    )
    drawn = figure(
        lambda layout: side_by_side_figure(runs, layout=layout)[0],
        name="side-by-side", words=words, above=f"<h2>{escape(title)}</h2>", caption=caption,
    )  # fmt: skip
    return f"<section>{drawn}</section>"
