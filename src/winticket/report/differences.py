"""The figure of what decides: each level's paired difference to the dense network and the controls, with its bound."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from winticket.report.axes import density_axis, up_axis
from winticket.report.ink import lettering, look_of, style
from winticket.report.layout import FILE, WIDER_LEFT, Label, Layout, canvas, end_labels
from winticket.report.metric import Metric, metric_of
from winticket.report.reading import (
    arm_name,
    arms,
    passed,
    pruned_levels,
    question_of,
    unlearned,
    unlearned_in_words,
)
from winticket.report.strokes import kept_by_density, level_line, mark_smallest, name_of, subtitle
from winticket.report.tables import checks_by_density
from winticket.report.titles import at_densities, lines
from winticket.results import Document, Level
from winticket.table import Table

APART = 1.025
"""Ratio by which two controls' points are moved apart on the axis of densities, so that they do not hide each other."""


CONTROLS = {"reinit": "re-initialisation", "random": "the random mask"}


def difference_title(document: Document, *, width: int = 72) -> str:
    """Return what the tests show: at which densities the ticket matches the dense network and beats the controls."""
    if unlearned(document):
        return lines(
            f"The dense network {unlearned_in_words(document)}, so comparisons with it show nothing", width
        )
    matched = [
        level["density"] for level in pruned_levels(document) if level.get("checks", {}).get("matched")
    ]
    match = f"The ticket is shown to match the dense network {at_densities(document, matched)}" if matched else (
        "The ticket is shown to match the dense network nowhere"
    )  # fmt: skip
    return lines(f"{match}{_wins(document)}", width)


def _wins(document: Document) -> str:
    """Where the ticket beats the controls, and which of them was not run."""
    present = _controls(document)
    if not present:
        return "; neither re-initialisation nor the random mask was run"
    # The verdict's claim is about both controls. Of one alone there is its test at each density.
    beats = [
        level["density"]
        for level in pruned_levels(document)
        if (
            level.get("checks", {}).get("nontrivial")
            if len(present) == len(CONTROLS)
            else _beaten(level, present[0])
        )
    ]
    over = "both controls" if len(present) == len(CONTROLS) else CONTROLS[present[0]]
    left = "".join(f"; {words} was not run" for name, words in CONTROLS.items() if name not in present)
    return f", and to beat {over} {at_densities(document, beats) if beats else 'nowhere'}{left}"


def _beaten(level: Level, control: str) -> bool:
    return bool(passed(level, "beats_reinit" if control == "reinit" else "beats_random"))


def _controls(document: Document) -> list[str]:
    return [name for name in arms(document) if name in CONTROLS]


def difference_figure(document: Document, *, layout: Layout = FILE) -> tuple[Figure, Table]:
    """Draw the mean paired difference of the metric at every density, with the bound that its test compares.

    Left: ticket minus dense network. A match is shown if the bound is above minus the margin. Right, if a control was
    run: ticket minus each control. A win is shown if the bound is above 0. Filled markers are shown, open ones are not.

    Differences are positive if the ticket is better, whichever direction of the metric is good.

    Returns the figure, in percentage points if the metric is a fraction, and the table of all checks, in the metric's
    own unit. With a margin that is a share of the dense network's mean, the left panel shows shares.
    """
    table, metric = checks_by_density(document), metric_of(document)
    present = _controls(document)
    panels = 2 if present else 1
    with style(layout.ink):
        figure, (left, *others) = canvas(
            difference_title(document), subtitle(document, shown="paired mean, one-sided bound of its test"), layout,
            panels=panels, across=panels, share=False, labels=[name_of(arm, layout) for arm in present],
            height=2.4 if layout.narrow else 3.1, left=None if metric.scale.unit == "%" else WIDER_LEFT,
        )  # fmt: skip
        _points(left, table, "accuracy", "ticket", layout=layout, metric=metric)
        margin = question_of(document).get("margin_pp")
        if margin is not None:
            unit = f"{margin:g} %" if metric.relative else metric.margin(margin)
            level_line(left, -margin, f"must be above −{unit}", ink=layout.ink)
        mark_smallest(left, document, layout)
        share = f"difference (% of dense {metric.name})" if metric.relative else None
        _finish(left, document, metric.minus("ticket", arm_name("dense")), layout, name=share)
        for right in others:
            labels = [
                _points(
                    right,
                    table,
                    f"beats_{arm}",
                    arm,
                    layout=layout,
                    metric=metric,
                    moved=APART ** (1 - 2 * at),
                )
                for at, arm in enumerate(present)
            ]
            level_line(right, 0.0, "must be above 0", ink=layout.ink, at_right=True)
            _finish(right, document, metric.minus("ticket", "control"), layout)
            end_labels(right, [label for label in labels if label is not None])
    return figure, table


def _finish(axes: Axes, document: Document, title: str, layout: Layout, *, name: str | None = None) -> None:
    densities = [level["density"] for level in pruned_levels(document)] or [1.0]
    of_axis = Table(("density",), tuple((density,) for density in densities))
    density_axis(axes, of_axis, kept=kept_by_density(document))
    axes.set_title(title, loc="left", fontsize=10, color=layout.ink.text)
    up_axis(axes, name or metric_of(document).difference_axis(narrow=layout.narrow))
    low, high = axes.get_ylim()
    room = 0.12 * (high - low)  # for what stands below the dotted line
    axes.set_ylim(low - room, high + 0.03 * (high - low))


def _points(
    axes: Axes,
    table: Table,
    check: str,
    arm: str,
    *,
    layout: Layout,
    metric: Metric,
    moved: float = 1.0,
) -> Label | None:
    """Draw the points of one check and their bounds; returns the label of its arm."""
    rows = table.where(check=check)
    if not rows.values or "estimate" not in rows.columns:
        return None
    look = look_of(arm, ink=layout.ink)
    shares = metric.relative and check == "accuracy" and "relative_estimate" in rows.columns
    factor, prefix = (100.0, "relative_") if shares else (metric.scale.factor, "")
    x, y = moved * rows.numbers("density"), factor * rows.numbers(f"{prefix}estimate")
    named = f"{prefix}bound"
    bound = factor * rows.numbers(named) if named in rows.columns else np.full(len(x), np.nan)
    axes.vlines(x, bound, y, color=look.color, linewidth=1.8, zorder=3)
    axes.plot(
        x, bound, "_", color=look.color, markersize=8, markeredgewidth=1.8, zorder=3, label=f"bound, {arm}"
    )
    axes.plot(
        x, y, look.marker, color=look.color, markerfacecolor=layout.ink.paper, markeredgewidth=1.4, zorder=4, label=arm
    )  # fmt: skip
    shown = np.array([bool(value) for value in rows.column("passed")])
    if shown.any():
        axes.plot(x[shown], y[shown], look.marker, color=look.color, zorder=5, label=f"shown, {arm}")
    finite = y[np.isfinite(y)]
    if arm == "ticket" or not len(finite):
        return None
    return Label(float(finite[-1]), name_of(arm, layout), lettering(look.color, ink=layout.ink))
