"""The figure of learning curves: a panel for each density, with the dense network, the ticket and re-initialisation."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from winticket.report.axes import metric_axis, training_axis, up_axis
from winticket.report.ink import lettering, look_of, style
from winticket.report.layout import FILE, WIDER_LEFT, Label, Layout, canvas, end_labels
from winticket.report.metric import Metric, metric_of
from winticket.report.reading import density_percent
from winticket.report.strokes import kept_by_density, name_of, subtitle
from winticket.report.tables import Curves, learning_curves
from winticket.report.titles import learning_title
from winticket.results import Document
from winticket.table import Table

ARMS = ("dense", "ticket", "reinit")
ACROSS = 2
STARTS_AT = 0.5
"""The figure leaves out this share of the way from the worst mean to the best: there, all curves improve alike."""


def learning_curve_figure(
    document: Document, curves: Curves, *, layout: Layout = FILE
) -> tuple[Figure, Table]:
    """Draw the validation metric against training step: a panel for each density, with dense, ticket and re-init.

    The figure shows what Frankle & Carbin (2019) show in their figure 3. The lines are means over replicates with 95 %
    t bands. Steps are on a logarithmic axis, and values are stretched towards a perfect one, such as 100 %, so that
    both the first steps and the differences at the end are visible. The worst values are cut off.

    Returns the figure, in percent if the metric is a fraction, and its table, in the metric's own unit.
    ValueError if replicates of one density and arm were measured at different steps.
    """
    table = learning_curves(curves, scale=metric_of(document).scale)
    return drawn_curves(document, table, layout=layout), table


def drawn_curves(document: Document, table: Table, *, layout: Layout = FILE) -> Figure:
    """Draw the table of `learning_curves`, as `learning_curve_figure` does."""
    shown = densities_to_show(document, table)
    kept, metric = kept_by_density(document), metric_of(document)
    with style(layout.ink):
        title, panels = learning_title(document, table, shown), max(len(shown), 1)
        figure, all_axes = canvas(
            title, subtitle(document), layout, panels=panels, across=min(ACROSS, panels),
            labels=[name_of(arm, layout) for arm in ARMS], below=0.56,
            left=None if metric.scale.unit == "%" else WIDER_LEFT,
        )  # fmt: skip
        labels = [
            _panel(axes, table, density, layout=layout, metric=metric)
            for axes, density in zip(all_axes, shown or [1.0], strict=True)
        ]
        _limits(all_axes[0], table, shown, metric)
        across = 1 if layout.narrow else ACROSS
        for at, (axes, density) in enumerate(zip(all_axes, shown or [1.0], strict=True)):
            count = f" ({kept[density]:,})" if density in kept else ""
            axes.set_title(
                f"{density_percent(density)} of the weights{count}", loc="left", fontsize=10, color=layout.ink.text
            )  # fmt: skip
            if at % across == 0:
                up_axis(axes, metric.axis("validation"))
            if at + across >= panels:
                axes.set_xlabel("training step")
            if at % across == across - 1 or at == panels - 1:
                end_labels(axes, labels[at])
    return figure


def _panel(axes: Axes, table: Table, density: float, *, layout: Layout, metric: Metric) -> list[Label]:
    """Draw the arms of one density and the dense network; returns their labels."""
    labels = []
    for arm in ARMS:
        rows = table.where(arm=arm, density=1.0 if arm == "dense" else density)
        if not rows.values:
            continue
        look = look_of(arm, ink=layout.ink)
        color = layout.ink.dense if arm == "dense" else look.color
        x, y = rows.numbers("step"), metric.shown(rows.numbers("validation_accuracy"))
        low, high = metric.shown(rows.numbers("ci_low")), metric.shown(rows.numbers("ci_high"))
        axes.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)
        dashes = "-" if arm == "dense" else look.dashes
        axes.plot(x, y, dashes, color=color, linewidth=1.6, label=arm)
        word = layout.ink.text if arm == "dense" else lettering(color, ink=layout.ink)
        labels.append(Label(float(y[-1]), name_of(arm, layout), word))
    return labels


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


def _limits(axes: Axes, table: Table, shown: list[float], metric: Metric) -> None:
    """Set the scales that all panels share: from where the curves differ up to their best band."""
    rows = [
        row
        for row in table.rows()
        if row["arm"] == "dense" or (row["density"] in shown and row["arm"] in ARMS)
    ]
    if not rows:
        return
    scale, better = metric.scale, "ci_high" if metric.higher else "ci_low"
    means = [scale.sign * scale.factor * float(row["validation_accuracy"] or 0) for row in rows]
    ends = [
        scale.sign * scale.factor * float(value or 0)
        for row in rows
        for value in (row["validation_accuracy"] if row[better] is None else row[better],)
    ]
    last = max(float(row["step"] or 0) for row in rows)
    worst = min(means) + STARTS_AT * (max(means) - min(means))
    training_axis(axes, last)
    best, perfect = max(ends), scale.sign * scale.factor * scale.perfect
    room = max(perfect - best, 0.0) if np.isfinite(perfect) else best - worst
    metric_axis(axes, scale.sign * worst, scale.sign * (best + 0.08 * room), scale)
