"""The figures of a report. Each draws a table of numbers and returns it with the figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from winticket.report.axes import density_axis, step_axis
from winticket.report.captions import captions
from winticket.report.curves import densities_to_show, drawn_curves
from winticket.report.differences import difference_figure, difference_title
from winticket.report.ink import style
from winticket.report.layers import layer_figure, layer_title
from winticket.report.layout import FILE, Label, Layout, canvas, end_labels
from winticket.report.pace import judged_fraction, pace_title, steps_to_accuracy, to_draw
from winticket.report.reading import dense_arm, levels, pruned_levels, question_of
from winticket.report.strokes import (
    arm_line,
    dense_line,
    kept_by_density,
    level_line,
    mark_smallest,
    name_of,
    pruned_arms,
    subtitle,
)
from winticket.report.tables import Curves, accuracy_by_density, early_stop_by_density, learning_curves
from winticket.report.titles import accuracy_title, early_stop_title, learning_title
from winticket.results import Document, Masks
from winticket.table import Table

DEEP = 1.2
"""An axis of accuracies is cut this many times the range of the tickets below them, at least one percentage point."""
WHOLE = 10_000
"""More letters than any title has, so that it is one line: a page breaks lines itself."""


@dataclass(frozen=True)
class Drawing:
    """A figure of a report, drawn when it is needed.

    title, caption  the finding in a sentence; what is drawn, and how to read it
    subtitle        data, network, number of replicates
    draw            the figure in a layout, and the table of its numbers
    """

    title: str
    subtitle: str
    caption: str
    draw: Callable[[Layout], tuple[Figure, Table]]


Made = tuple[str, str, Callable[[Layout], tuple[Figure, Table]]]
"""Title, subtitle, and the drawing in a layout with its table."""


def figures(
    document: Document,
    curves: Curves,
    masks: Masks | None = None,
    *,
    failed: Callable[[str, Exception], None] | None = None,
) -> dict[str, Drawing]:
    """Return each figure that this document has numbers for, by file name, in the order of the page.

    If a title or caption cannot be made, `failed` receives the figure's name and the error, and the others are
    returned.
    """
    drawings = {}
    below = captions(document, list(curves))
    for name, made in _on_page(document, list(curves), masks).items():
        try:
            title, under, draw = made()
            drawings[name] = Drawing(title, under, below[name], draw)
        except Exception as error:
            if failed is None:
                raise
            failed(name, error)
    return drawings


def _on_page(document: Document, rows: Curves, masks: Masks | None) -> dict[str, Callable[[], Made]]:
    """By name, title, subtitle and drawing of every figure, each made when it is asked for."""
    on_page: dict[str, Callable[[], Made]] = {
        "accuracy_against_density": lambda: (
            accuracy_title(document, width=WHOLE),
            subtitle(document),
            lambda layout: accuracy_against_density(document, layout=layout),
        )
    }
    if any(level.get("checks") for level in pruned_levels(document)):
        on_page["difference_against_density"] = lambda: (
            difference_title(document, width=WHOLE),
            subtitle(document, shown="paired mean, one-sided bound of its test"),
            lambda layout: difference_figure(document, layout=layout),
        )
    if rows:
        on_page["learning_curves"] = lambda: _of_learning(document, rows)
    if judged_fraction(document) is not None:
        on_page["pace_against_density"] = lambda: (
            pace_title(document, width=WHOLE),
            _medians(document),
            lambda layout: pace_against_density(document, layout=layout),
        )
    if draws_early_stops(document):
        on_page["early_stop_against_density"] = lambda: (
            early_stop_title(document, width=WHOLE),
            subtitle(document),
            lambda layout: early_stop_against_density(document, layout=layout),
        )
    if masks is not None and masks["levels"]:
        on_page["layer_densities"] = lambda: (
            layer_title(masks, width=WHOLE),
            subtitle(document, shown="mean of the tickets"),
            lambda layout: layer_figure(document, masks, layout=layout),
        )
    return on_page


def _of_learning(document: Document, rows: Curves) -> Made:
    table = learning_curves(rows)
    title = learning_title(document, table, densities_to_show(document, table), width=WHOLE)
    return title, subtitle(document), lambda layout: (drawn_curves(document, table, layout=layout), table)


def draws_early_stops(document: Document) -> bool:
    """Whether early stops have a figure: not if steps to an accuracy have one and a loss still fell at the end.

    An early stop at the last step only says how long training was.
    """
    tried = pruned_levels(document)
    if tried and not early_stop_by_density(document).where(arm="ticket").has("early_stop_step"):
        return False
    fell = any(level.get("checks", {}).get("time_left_out") is not None for level in tried)
    return judged_fraction(document) is None or not fell


def accuracy_against_density(document: Document, *, layout: Layout = FILE) -> tuple[Figure, Table]:
    """Draw test accuracy after the last training step against density for every arm, with 95 % intervals.

    Density falls to the right on a logarithmic axis, as in Frankle & Carbin (2019, figs. 4 and 5). The dense network
    is a horizontal line with a band. Filled markers show the densities at which the verdict claims a winning ticket.
    The axis is cut below the tickets, so that what decides can be seen.

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
    with style(layout.ink):
        cut = _floor(table)
        names = [name_of(arm, layout) for arm in ("dense", *pruned_arms(document))]
        ends = [name if cut is None else f"{name} ↓95" for name in names]
        figure, axes = _canvas(document, accuracy_title(document), subtitle(document), layout, ends=ends)
        labels = dense_line(axes, table, "accuracy", scale=100, layout=layout)
        for arm in pruned_arms(document):
            labels += arm_line(axes, table.where(arm=arm), "accuracy", arm=arm, scale=100, layout=layout)
        if cut is not None:
            _zoom(axes, table, cut, layout)
        _mark_margin(axes, document, layout)
        mark_smallest(axes, document, layout)
        density_axis(axes, table, kept=kept_by_density(document))
        axes.set_ylabel("test accuracy (%)")
        end_labels(axes, [_below(label, cut) for label in labels])
    return figure, table


def early_stop_against_density(document: Document, *, layout: Layout = FILE) -> tuple[Figure, Table]:
    """Draw the step of lowest validation loss against density for every arm, with 95 % intervals.

    A lower step means that training was over sooner. Returns the figure and its table, both in steps.
    """
    table = early_stop_by_density(document)
    with style(layout.ink):
        figure, axes = _canvas(document, early_stop_title(document), subtitle(document), layout)
        labels = dense_line(axes, table, "early_stop_step", scale=1, layout=layout)
        for arm in pruned_arms(document):
            rows = table.where(arm=arm)
            labels += arm_line(axes, rows, "early_stop_step", arm=arm, scale=1, layout=layout)
        mark_smallest(axes, document, layout)
        density_axis(axes, table, kept=kept_by_density(document))
        axes.set_ylabel("step of lowest validation loss")
        end_labels(axes, labels)
    return figure, table


def pace_against_density(document: Document, *, layout: Layout = FILE) -> tuple[Figure, Table]:
    """Draw the steps to a share of the dense network's final accuracy against density, for every arm.

    The lines show medians with 95 % intervals. A line has a gap if the median training never reaches that accuracy.
    Returns the figure and its table, both in steps.
    """
    table, fraction = steps_to_accuracy(document), judged_fraction(document)
    with style(layout.ink):
        figure, axes = _canvas(document, pace_title(document), _medians(document), layout)
        shown = to_draw(table, fraction=fraction or 1.0, steps=question_of(document).get("steps"))
        labels = dense_line(axes, shown, "steps_to", scale=1, layout=layout)
        for arm in pruned_arms(document):
            labels += arm_line(axes, shown.where(arm=arm), "steps_to", arm=arm, scale=1, layout=layout)
        mark_smallest(axes, document, layout)
        density_axis(axes, shown, kept=kept_by_density(document))
        step_axis(axes, shown)
        dense = "dense accuracy" if layout.narrow else "dense validation accuracy"
        axes.set_ylabel(f"steps to {100 * (fraction or 1):g} % of {dense}")
        end_labels(axes, labels)
    return figure, table


def _medians(document: Document) -> str:
    known = steps_to_accuracy(document).has("ci_low")
    return subtitle(
        document, shown="median, 95 % interval" if known else "median, too few replicates for intervals"
    )


def _canvas(
    document: Document, title: str, under: str, layout: Layout, *, ends: Sequence[str] = ()
) -> tuple[Figure, Axes]:
    named = ends or [name_of(arm, layout) for arm in ("dense", *pruned_arms(document))]
    figure, (axes,) = canvas(title, under, layout, labels=named)
    return figure, axes


def _below(label: Label, cut: float | None) -> Label:
    """The label of a line that leaves a cut axis says where to."""
    if cut is None or label.y >= cut:
        return label
    return Label(label.y, f"{label.text} ↓{label.y:.0f}", label.color)


def _floor(table: Table) -> float | None:
    """Where an axis of accuracies is cut, in percent, lest controls flatten the other lines; None if they do not."""
    visible = np.concatenate([table.where(arm=arm).numbers("accuracy") for arm in ("dense", "ticket")])
    everything = np.concatenate([table.numbers(name) for name in ("accuracy", "ci_low")])
    if not np.isfinite(visible).any():
        return None
    top, bottom = 100 * float(np.nanmax(visible)), 100 * float(np.nanmin(visible))
    floor = bottom - max(1.0, DEEP * (top - bottom))
    return floor if 100 * np.nanmin(everything) < floor else None


def _zoom(axes: Axes, table: Table, floor: float, layout: Layout) -> None:
    """Cut the axis; say so, and how many points are hidden."""
    hidden = int((100 * table.numbers("accuracy") < floor).sum())
    highest = 100 * np.nanmax(np.concatenate([table.numbers(name) for name in ("accuracy", "ci_high")]))
    axes.set_ylim(floor, min(highest + 0.05 * (highest - floor), 100.4))
    points = "1 point" if hidden == 1 else f"{hidden} points" if hidden else "intervals"
    below = f"{points} below" if layout.narrow else f"with {points} of the controls below"
    axes.set_title(f"axis cut at {floor:.2f} %, {below}", loc="left", fontsize=9, color=layout.ink.quiet)


def _mark_margin(axes: Axes, document: Document, layout: Layout) -> None:
    dense, margin = dense_arm(document), question_of(document).get("margin_pp")
    accuracy = None if dense is None else dense.get("accuracy")
    if accuracy is None or margin is None or len(levels(document)) < 2:
        return
    level_line(axes, 100 * accuracy - margin, f"dense − {margin:g} pp", ink=layout.ink)
