"""The figures of a report. Each draws a table of numbers and returns it with the figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from winticket.report.axes import density_axis, step_axis
from winticket.report.captions import against_density, captions
from winticket.report.curves import densities_to_show, drawn_curves
from winticket.report.differences import difference_figure, difference_title
from winticket.report.ink import style
from winticket.report.layers import layer_figure, layer_title
from winticket.report.layout import FILE, WIDER_LEFT, Label, Layout, canvas, end_labels
from winticket.report.metric import Metric, margin_of, metric_of
from winticket.report.pace import judged_fraction, pace_title, steps_axis, steps_to_accuracy, to_draw
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
"""An axis of values is cut this many times the range of the tickets away from them, on the worse side."""
_ARROWS = {True: "↓", False: "↑"}
"""Where a line leaves a cut axis: down if higher is better."""
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
        against_density(metric_of(document)): lambda: (
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
    table = learning_curves(rows, scale=metric_of(document).scale)
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
    """Draw the test metric after the last training step against density for every arm, with 95 % intervals.

    Density falls to the right on a logarithmic axis, as in Frankle & Carbin (2019, figs. 4 and 5). The dense network
    is a horizontal line with a band. Filled markers show the densities at which the verdict claims a winning ticket.
    The axis is cut on the worse side of the tickets, so that what decides can be seen. A metric of which lower is
    better has its natural numbers and direction: the line of the margin lies above the dense network then.

    Returns the figure, in percent if the metric is a fraction, and its table, in the metric's own unit.

    >>> from winticket.report import accuracy_against_density
    >>> arms = {"dense": {"accuracy": 0.98}, "ticket": {"accuracy": 0.97}}
    >>> levels = [{"density": 1.0, "arms": arms}, {"density": 0.2, "arms": arms}]
    >>> document = {"levels": levels, "verdict": {"outcome": "inconclusive"}}
    >>> figure, table = accuracy_against_density(document)
    >>> table.where(arm="ticket").column("accuracy")
    [0.97, 0.97]
    """
    table, metric = accuracy_by_density(document), metric_of(document)
    scale = metric.scale.factor
    with style(layout.ink):
        cut = _cut(table, document)
        names = [name_of(arm, layout) for arm in ("dense", *pruned_arms(document))]
        ends = [name if cut is None else f"{name} {_ARROWS[metric.higher]}95" for name in names]
        left = None if metric.scale.unit == "%" else WIDER_LEFT
        figure, axes = _canvas(
            document, accuracy_title(document), subtitle(document), layout, ends=ends, left=left
        )
        labels = dense_line(axes, table, "accuracy", scale=scale, layout=layout)
        for arm in pruned_arms(document):
            labels += arm_line(axes, table.where(arm=arm), "accuracy", arm=arm, scale=scale, layout=layout)
        if cut is not None:
            _zoom(axes, table, cut, layout, metric)
        _mark_margin(axes, document, layout)
        mark_smallest(axes, document, layout, at_top=not metric.higher)
        density_axis(axes, table, kept=kept_by_density(document))
        axes.set_ylabel(metric.axis("test"))
        end_labels(axes, [_beyond(label, cut, metric) for label in labels])
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
        axes.set_ylabel(steps_axis(document, fraction or 1, narrow=layout.narrow))
        end_labels(axes, labels)
    return figure, table


def _medians(document: Document) -> str:
    known = steps_to_accuracy(document).has("ci_low")
    return subtitle(
        document, shown="median, 95 % interval" if known else "median, too few replicates for intervals"
    )


def _canvas(
    document: Document,
    title: str,
    under: str,
    layout: Layout,
    *,
    ends: Sequence[str] = (),
    left: float | None = None,
) -> tuple[Figure, Axes]:
    named = ends or [name_of(arm, layout) for arm in ("dense", *pruned_arms(document))]
    figure, (axes,) = canvas(title, under, layout, labels=named, left=left)
    return figure, axes


def _beyond(label: Label, cut: float | None, metric: Metric) -> Label:
    """The label of a line that leaves a cut axis says where to."""
    sign = metric.scale.sign
    if cut is None or sign * label.y >= sign * cut:
        return label
    where = f"{label.y:.0f}" if metric.scale.unit == "%" else f"{label.y:.3g}"
    return Label(label.y, f"{label.text} {_ARROWS[metric.higher]}{where}", label.color)


def _cut(table: Table, document: Document) -> float | None:
    """Where an axis is cut, as it is written, lest controls flatten the other lines; None if they do not.

    The axis reaches further than the tickets by their range, and at least by two margins: 1 pp if the margin is 0.5 pp.
    """
    metric = metric_of(document)
    sign, worse = metric.scale.sign, "ci_low" if metric.higher else "ci_high"
    visible = np.concatenate([table.where(arm=arm).numbers("accuracy") for arm in ("dense", "ticket")])
    everything = np.concatenate([table.numbers(name) for name in ("accuracy", worse)])
    if not np.isfinite(visible).any():
        return None
    good, bad = np.nanmax(sign * visible), np.nanmin(sign * visible)
    top, bottom = metric.shown(float(good)), metric.shown(float(bad))
    floor = bottom - max(_least_room(document, metric), DEEP * (top - bottom))
    return float(sign * floor) if metric.shown(np.nanmin(sign * everything)) < floor else None


def _least_room(document: Document, metric: Metric) -> float:
    """How far at least an axis reaches beyond the tickets: 1 % of percentages, two margins of others."""
    return 1.0 if metric.scale.unit == "%" else 2 * (margin_of(document) or 0.0)


def _zoom(axes: Axes, table: Table, cut: float, layout: Layout, metric: Metric) -> None:
    """Cut the axis; say so, and how many points are hidden."""
    sign, better = metric.scale.sign, "ci_high" if metric.higher else "ci_low"
    hidden = int((sign * metric.shown(table.numbers("accuracy")) < sign * cut).sum())
    values = np.concatenate([table.numbers(name) for name in ("accuracy", better)])
    best = metric.shown(float(np.nanmax(sign * values)))
    end = best + 0.05 * (best - sign * cut)
    if metric.scale.unit == "%" and metric.higher:
        end = min(end, 100.4)
    axes.set_ylim(*sorted((cut, sign * end)))
    points = "1 point" if hidden == 1 else f"{hidden} points" if hidden else "intervals"
    side = "below" if metric.higher else "above"
    beyond = f"{points} {side}" if layout.narrow else f"with {points} of the controls {side}"
    where = f"{cut:.2f} %" if metric.scale.unit == "%" else f"{cut:.4g} {metric.scale.unit}".rstrip()
    axes.set_title(f"axis cut at {where}, {beyond}", loc="left", fontsize=9, color=layout.ink.quiet)


def _mark_margin(axes: Axes, document: Document, layout: Layout) -> None:
    """Draw the line that the ticket's mean has to stay on the good side of, and name it on its bad side."""
    dense, margin, metric = dense_arm(document), question_of(document).get("margin_pp"), metric_of(document)
    value, points = None if dense is None else dense.get("accuracy"), margin_of(document)
    if value is None or margin is None or points is None or len(levels(document)) < 2:
        return
    sign = "−" if metric.higher else "+"
    text = f"dense {sign} {margin:g} %" if metric.relative else f"dense {sign} {metric.margin(margin)}"
    height = metric.shown(value) - metric.scale.sign * points
    level_line(axes, height, text, ink=layout.ink, above=not metric.higher)
