"""The figures of a report. Each draws a table of numbers and returns it with the figure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from winticket.report.axes import density_axis, step_axis
from winticket.report.ink import DENSITY_MARKERS, LIGHT, Ink, Look, look_of, shades, style
from winticket.report.pace import judged_fraction, pace_title, steps_to_accuracy, to_draw
from winticket.report.reading import (
    arm_name,
    arms,
    claimed,
    dense_arm,
    density_percent,
    levels,
    pruned_levels,
    question_of,
    replicates,
)
from winticket.report.tables import (
    Curves,
    accuracy_by_density,
    early_stop_by_density,
    learning_curves,
)
from winticket.report.titles import accuracy_title, early_stop_title, learning_title
from winticket.results import Document
from winticket.table import Table

LEGEND_WIDTH = 115  # in characters; the sample of each line counts as eight


def accuracy_against_density(document: Document, *, ink: Ink = LIGHT) -> tuple[Figure, Table]:
    """Draw test accuracy after the last training step against density for every arm, with 95 % intervals.

    Density falls to the right on a logarithmic axis, as in Frankle & Carbin (2019, figs. 4 and 5). The dense network
    is a horizontal line with a band. Filled markers show the densities at which the verdict claims a winning ticket.

    Returns the figure, in percent, and its table, in fractions.

    >>> from winticket.report import accuracy_against_density
    >>> arms = {"dense": {"accuracy": 0.98}, "ticket": {"accuracy": 0.97}}
    >>> levels = [{"density": 1.0, "arms": arms}, {"density": 0.2, "arms": arms}]
    >>> document = {"levels": levels, "verdict": {"outcome": "inconclusive"}}
    >>> figure, table = accuracy_against_density(document)
    >>> table.where(arm="ticket").column("accuracy")
    [0.97, 0.97]
    """
    table = accuracy_by_density(document)
    with style(ink):
        figure, axes = _canvas(accuracy_title(document), _subtitle(document), ink=ink)
        _dense_reference(axes, table, "accuracy", scale=100, ink=ink)
        for arm in _pruned_arms(document):
            _arm_line(axes, table.where(arm=arm), "accuracy", look=look_of(arm, ink=ink), scale=100, ink=ink)
        _zoom(axes, table, ink=ink)
        _mark_margin(axes, document, ink=ink)
        _mark_smallest(axes, document, ink=ink)
        density_axis(axes, table)
        axes.set_ylabel("test accuracy (%)")
        _legend(axes)
    return figure, table


def early_stop_against_density(document: Document, *, ink: Ink = LIGHT) -> tuple[Figure, Table]:
    """Draw the step of lowest validation loss against density for every arm, with 95 % intervals.

    A lower step means that training was over sooner. Returns the figure and its table, both in steps.
    """
    table = early_stop_by_density(document)
    with style(ink):
        figure, axes = _canvas(early_stop_title(document), _subtitle(document), ink=ink)
        _dense_reference(axes, table, "early_stop_step", scale=1, ink=ink)
        for arm in _pruned_arms(document):
            rows = table.where(arm=arm)
            _arm_line(axes, rows, "early_stop_step", look=look_of(arm, ink=ink), scale=1, ink=ink)
        _mark_smallest(axes, document, ink=ink)
        density_axis(axes, table)
        axes.set_ylabel("early-stop step (minimum validation loss)")
        _legend(axes)
    return figure, table


def pace_against_density(document: Document, *, ink: Ink = LIGHT) -> tuple[Figure, Table]:
    """Draw the steps to a share of the dense network's final accuracy against density, for every arm.

    The lines show medians with 95 % intervals. A line has a gap if the median training never reaches that accuracy.
    Returns the figure and its table, both in steps.
    """
    table, fraction = steps_to_accuracy(document), judged_fraction(document)
    with style(ink):
        known = "median, 95 % interval" if table.has("ci_low") else "median, too few replicates for intervals"
        subtitle = _subtitle(document).replace("mean, 95 % t interval", known)
        figure, axes = _canvas(pace_title(document), subtitle, ink=ink)
        shown = to_draw(table, fraction=fraction or 1.0, steps=question_of(document).get("steps"))
        _dense_reference(axes, shown, "steps_to", scale=1, ink=ink)
        for arm in _pruned_arms(document):
            _arm_line(axes, shown.where(arm=arm), "steps_to", look=look_of(arm, ink=ink), scale=1, ink=ink)
        _mark_smallest(axes, document, ink=ink)
        density_axis(axes, shown)
        step_axis(axes, shown)
        axes.set_ylabel(f"steps to {100 * (fraction or 1):g} % of dense validation accuracy")
        _legend(axes)
    return figure, table


def learning_curve_figure(document: Document, curves: Curves, *, ink: Ink = LIGHT) -> tuple[Figure, Table]:
    """Draw validation accuracy against training step: tickets and dense on the left, re-initialisation on the right.

    The figure follows Frankle & Carbin (2019, fig. 3). As in the other figures, each arm has one colour: tickets are
    solid, and the same masks with re-initialised weights are dashed. Each density has one marker and one shade of
    these colours. The lines show means over replicates with 95 % t bands. The lower part of the axis, through which
    all curves rise together, is cut off so that their differences are visible.

    Returns the figure, in percent, and its table, in fractions. ValueError if replicates of one density and arm were
    measured at different steps.
    """
    table = learning_curves(curves)
    shown = densities_to_show(document, table)
    with style(ink):
        title = learning_title(document, table, shown)
        figure, (left, right) = two_canvases(title, _subtitle(document), ink=ink)
        _curve(left, table.where(arm="dense"), color=ink.dense, dashes="-", marker="", label="dense, 100 %")
        for arm, dashes, panels in (("ticket", "-", (left, right)), ("reinit", "--", (right,))):
            colors = shades(look_of(arm, ink=ink).color, len(shown), ink=ink)
            for density, color, marker in zip(shown, colors, DENSITY_MARKERS, strict=False):
                curve, label = table.where(arm=arm, density=density), density_percent(density)
                for axes in panels:
                    _curve(axes, curve, color=color, dashes=dashes, marker=marker, label=f"{arm}, {label}")
        _zoom_curves((left, right), table, shown)
        left.set_ylabel("validation accuracy (%)")
        for axes, heading in (
            (left, "tickets and the dense network"),
            (right, "tickets and re-initialisation"),
        ):
            axes.set_xlabel("training step")
            axes.set_title(heading, loc="left", fontsize=10, color=ink.quiet)
            if not axes.lines:
                axes.text(0.5, 0.5, "not run", transform=axes.transAxes, ha="center", color=ink.quiet)
        _curve_legends(left, right, ink=ink)
    return figure, table


def densities_to_show(document: Document, table: Table, *, most: int = 4) -> list[float]:
    """Choose at most `most` densities that have ticket curves, densest first, evenly spread over the levels.

    The smallest density at which a ticket wins is always among them.
    """
    with_tickets = {float(d) for d in table.where(arm="ticket").column("density") if d is not None}
    densities = sorted(with_tickets - {1.0}, reverse=True)
    if len(densities) <= most:
        return densities
    picked = {round(index) for index in np.linspace(0, len(densities) - 1, most + 1)[1:]}
    smallest = document["verdict"].get("density")
    if smallest is not None:
        nearest = min(range(len(densities)), key=lambda i: abs(densities[i] - smallest))
        picked = (picked - {min(picked, key=lambda i: abs(i - nearest))}) | {nearest}
    return [densities[i] for i in sorted(picked)]


def figures(document: Document, curves: Curves) -> dict[str, Callable[[Ink], tuple[Figure, Table]]]:
    """Return a function for each figure that this document has numbers for, by file name. It draws with an ink."""
    rows = list(curves)
    drawn: dict[str, Callable[[Ink], tuple[Figure, Table]]] = {
        "accuracy_against_density": lambda ink: accuracy_against_density(document, ink=ink),
    }
    if judged_fraction(document) is not None:
        drawn["pace_against_density"] = lambda ink: pace_against_density(document, ink=ink)
    if not pruned_levels(document) or early_stop_by_density(document).where(arm="ticket").has(
        "early_stop_step"
    ):
        drawn["early_stop_against_density"] = lambda ink: early_stop_against_density(document, ink=ink)
    if rows:
        drawn["learning_curves"] = lambda ink: learning_curve_figure(document, rows, ink=ink)
    return drawn


def _pruned_arms(document: Document) -> list[str]:
    return [arm for arm in arms(document) if arm != "dense"]


def _subtitle(document: Document) -> str:
    experiment = question_of(document)
    dense = dense_arm(document)
    count = experiment.get("replicates") or (replicates(dense) if dense else None)
    band = "mean, 95 % t interval" if count is None or count > 1 else "no interval from one replicate"
    parts = [experiment.get("data"), experiment.get("model"), None if count is None else f"n = {count}", band]
    return " · ".join(str(part) for part in parts if part is not None)


def _head(figure: Figure, title: str, subtitle: str, *, ink: Ink) -> None:
    figure.text(0.02, 0.975, title, ha="left", va="top", fontsize=12.5, fontweight="bold", linespacing=1.25)
    below = 0.975 - 0.058 * (1 + title.count("\n"))
    figure.text(0.02, below, subtitle, ha="left", va="top", fontsize=9, color=ink.quiet)


def _canvas(title: str, subtitle: str, *, ink: Ink) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.6, 5.0))
    figure.subplots_adjust(left=0.105, right=0.975, bottom=0.115, top=0.80 - 0.05 * title.count("\n"))
    _head(figure, title, subtitle, ink=ink)
    return figure, figure.add_subplot()


def two_canvases(title: str, subtitle: str, *, ink: Ink) -> tuple[Figure, tuple[Axes, Axes]]:
    """Return an empty figure with a title, a subtitle and two axes side by side that share their scales."""
    figure = Figure(figsize=(10.6, 5.0))
    top = 0.80 - 0.05 * title.count("\n")
    figure.subplots_adjust(left=0.07, right=0.985, bottom=0.115, top=top, wspace=0.07)
    _head(figure, title, subtitle, ink=ink)
    left = figure.add_subplot(1, 2, 1)
    right = figure.add_subplot(1, 2, 2, sharex=left, sharey=left)
    right.tick_params(labelleft=False)
    return figure, (left, right)


def _dense_reference(axes: Axes, table: Table, value: str, *, scale: float, ink: Ink) -> None:
    dense = table.where(arm="dense")
    if not dense.values or np.isnan(dense.numbers(value)[0]):
        return
    mean, low, high = (scale * float(dense.numbers(name)[0]) for name in (value, "ci_low", "ci_high"))
    axes.axhline(mean, color=ink.dense, linewidth=1.3, label=arm_name("dense"), zorder=2)
    if np.isfinite(low):
        axes.axhspan(low, high, color=ink.dense, alpha=0.10, linewidth=0, zorder=1)


def _arm_line(axes: Axes, rows: Table, value: str, *, look: Look, scale: float, ink: Ink) -> None:
    x, y = rows.numbers("density"), scale * rows.numbers(value)
    low, high = scale * rows.numbers("ci_low"), scale * rows.numbers("ci_high")
    axes.fill_between(x, low, high, color=look.color, alpha=0.17, linewidth=0)
    name = arm_name(str(rows.values[0][rows.columns.index("arm")])) if rows.values else ""
    axes.plot(
        x,
        y,
        look.dashes,
        color=look.color,
        marker=look.marker,
        label=name,
        zorder=4,
        markerfacecolor=ink.paper,
        markeredgewidth=1.4,
    )
    won = np.array(rows.column("claimed"), dtype=bool)
    if won.any():
        axes.plot(
            x[won],
            y[won],
            look.marker,
            color=look.color,
            markersize=7.5,
            zorder=5,
            label="ticket that won",
        )


def _zoom(axes: Axes, table: Table, *, ink: Ink) -> None:
    """Cut the axis if a collapsed control would flatten the other lines; say so, and how many points are hidden."""
    visible = np.concatenate([table.where(arm=arm).numbers("accuracy") for arm in ("dense", "ticket")])
    everything = np.concatenate([table.numbers(name) for name in ("accuracy", "ci_low")])
    if not np.isfinite(visible).any():
        return
    top, bottom = 100 * np.nanmax(visible), 100 * np.nanmin(visible)
    floor = bottom - max(6.0, 1.5 * (top - bottom))
    means = 100 * table.numbers("accuracy")
    hidden = int((means < floor).sum())
    if not (hidden or (np.isfinite(everything).any() and 100 * np.nanmin(everything) < floor)):
        return
    highest = 100 * np.nanmax(np.concatenate([table.numbers(name) for name in ("accuracy", "ci_high")]))
    axes.set_ylim(floor, highest + 0.05 * (highest - floor))
    points = "1 point" if hidden == 1 else f"{hidden} points" if hidden else "intervals"
    note = f"axis cut at {floor:.0f} %, with {points} of the controls below"
    axes.text(0.008, 0.075, note, transform=axes.transAxes, fontsize=8, color=ink.quiet)


def _mark_margin(axes: Axes, document: Document, *, ink: Ink) -> None:
    dense, margin = dense_arm(document), question_of(document).get("margin_pp")
    accuracy = None if dense is None else dense.get("accuracy")
    if accuracy is None or margin is None:
        return
    height = 100 * accuracy - margin
    axes.axhline(height, color=ink.quiet, linewidth=1.0, linestyle=(0, (1, 2)), zorder=2)
    axes.annotate(
        f"dense − {margin:g} pp", (0.008, height), xycoords=("axes fraction", "data"), xytext=(0, -3),
        textcoords="offset points", va="top", fontsize=8, color=ink.quiet,
    )  # fmt: skip


def _mark_smallest(axes: Axes, document: Document, *, ink: Ink) -> None:
    won = claimed(document)
    if not won:
        return
    smallest, densities = min(won), [level["density"] for level in levels(document)]
    in_right_half = smallest * smallest < min(densities) * max(densities)
    axes.axvline(smallest, color=ink.quiet, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    axes.annotate(
        f"smallest winning density: {density_percent(smallest)}", (smallest, 0.025),
        xycoords=("data", "axes fraction"),
        xytext=(-5 if in_right_half else 5, 0), textcoords="offset points",
        ha="right" if in_right_half else "left", fontsize=8.5, color=ink.text,
        bbox={"facecolor": ink.paper, "edgecolor": "none", "alpha": 0.8, "pad": 1.5},  # a band may reach down to it
    )  # fmt: skip


def _legend(axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(-0.01, 1.0),
            ncols=_columns(labels),
            fontsize=8.8,
            handlelength=2.2,
            columnspacing=1.3,
            borderaxespad=0.2,
            handletextpad=0.5,
        )


def _columns(labels: Sequence[str]) -> int:
    """Return how many legend labels fit side by side above the axes."""
    rows = math.ceil(sum(len(label) + 8 for label in labels) / LEGEND_WIDTH)
    return math.ceil(len(labels) / rows)


def _curve(axes: Axes, rows: Table, *, color: str, dashes: str, marker: str, label: str) -> None:
    if not rows.values:
        return
    x, y = rows.numbers("step"), 100 * rows.numbers("validation_accuracy")
    low, high = 100 * rows.numbers("ci_low"), 100 * rows.numbers("ci_high")
    axes.fill_between(x, low, high, color=color, alpha=0.13, linewidth=0)
    every = max(1, len(x) // 8)
    axes.plot(
        x, y, dashes, color=color, linewidth=1.6, marker=marker, markersize=4.5, markevery=every, label=label
    )


def _curve_legends(left: Axes, right: Axes, *, ink: Ink) -> None:
    if left.lines:
        left.legend(loc="lower right", fontsize=8.5)
    drawn = {line.get_linestyle() for line in right.lines}
    styles: tuple[tuple[str, Literal["-", "--"]], ...] = (("ticket", "-"), ("reinit", "--"))
    handles = [
        Line2D([], [], color=look_of(arm, ink=ink).color, linestyle=dashes, label=arm_name(arm))
        for arm, dashes in styles
        if dashes in drawn
    ]
    if handles:
        right.legend(handles=handles, loc="lower right", fontsize=8.5)


def _zoom_curves(pair: tuple[Axes, Axes], table: Table, shown: Sequence[float]) -> None:
    rows = [row for row in table.rows() if row["arm"] == "dense" or row["density"] in shown]
    drawn = [row for row in rows if row["arm"] in {"dense", "ticket", "reinit"}]
    if not drawn:
        return
    last = max(float(row["step"] or 0) for row in drawn)
    late = [
        100 * float(row["validation_accuracy"] or 0) for row in drawn if float(row["step"] or 0) >= 0.5 * last
    ]
    ends = [100 * float(row["ci_high"] or row["validation_accuracy"] or 0) for row in drawn]
    span = max(max(late) - min(late), 0.5)
    pair[0].set_ylim(min(late) - 0.05 * span, min(max(ends) + 0.05 * span, 100.2))
