"""The figure of layer densities: which layers the tickets thin out more than others."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from winticket.report.axes import density_axis, share_axis
from winticket.report.ink import SERIES, lettering, on, style
from winticket.report.layout import FILE, Label, Layout, canvas, end_labels
from winticket.report.reading import density_percent
from winticket.report.strokes import kept_by_density, subtitle
from winticket.report.titles import lines
from winticket.results import Document, Masks
from winticket.table import Table, Value

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
MOST_NAMED = 16
"""More layers than this are not named one by one; the first and the last of them are, and the extremes."""


def layer_densities(masks: Masks) -> Table:
    """One row per level and layer: the share of the layer's weights that the tickets keep, in the mean.

    >>> network = {"parameters": 12, "eligible": 10, "layers": [{"name": "fc1.weight", "shape": [5, 2], "size": 10}]}
    >>> level = {"density": 0.5, "replicates": 2, "layers": {"fc1.weight": 4.5}, "inputs": None}
    >>> layer_densities({"network": {**network, "kept": [10, 5]}, "plane": None, "levels": [level]}).rows()
    [{'density': 0.5, 'layer': 'fc1', 'kept': 4.5, 'size': 10, 'layer_density': 0.45, 'replicates': 2}]
    """
    sizes = {layer["name"]: layer["size"] for layer in masks["network"]["layers"]}
    rows: list[tuple[Value, ...]] = [
        (
            level["density"],
            name.removesuffix(".weight"),
            kept,
            sizes[name],
            kept / sizes[name],
            level["replicates"],
        )
        for level in sorted(masks["levels"], key=lambda level: -level["density"])
        for name, kept in level["layers"].items()
    ]
    return Table(("density", "layer", "kept", "size", "layer_density", "replicates"), tuple(rows))


def layer_title(masks: Masks, *, width: int = 72) -> str:
    """Return which layer keeps most and which least of its weights, at the sparsest level."""
    table = layer_densities(masks)
    sparsest = table.where(density=min(float(str(d)) for d in table.column("density")))
    by_density = sorted(sparsest.rows(), key=lambda row: float(row["layer_density"] or 0))
    least, most = by_density[0], by_density[-1]
    at = density_percent(float(least["density"] or 0))
    low, high = (float(row["layer_density"] or 0) for row in (least, most))
    if len(by_density) == 1 or high - low <= 0.005 * high:
        return lines(f"At {at} of the weights, every layer keeps the same share of its weights", width)
    return lines(
        f"At {at} of the weights, {most['layer']} keeps {density_percent(high)} of its weights and {least['layer']} "
        f"{density_percent(low)}",
        width,
    )


def layer_figure(document: Document, masks: Masks, *, layout: Layout = FILE) -> tuple[Figure, Table]:
    """Draw the density of every layer against the density of the network, both on logarithmic axes.

    A layer on the dotted line keeps the same share as the network. Returns the figure and its table.
    """
    table = layer_densities(masks)
    layers = [str(name) for name in dict.fromkeys(table.column("layer"))]
    with style(layout.ink):
        figure, (axes,) = canvas(
            layer_title(masks), subtitle(document, shown="mean of the tickets"), layout, labels=layers
        )
        densities = table.where(layer=layers[0]).numbers("density")
        axes.plot(
            densities, densities, color=layout.ink.quiet, linewidth=1.0, linestyle=(0, (1, 2)), label="whole network"
        )  # fmt: skip
        labels = []
        for at, layer in enumerate(layers):
            rows = table.where(layer=layer)
            color = on(layout.ink, SERIES[at % len(SERIES)])
            x, y = rows.numbers("density"), rows.numbers("layer_density")
            y = np.where(y > 0, y, np.nan)
            axes.plot(x, y, color=color, marker=MARKERS[at % len(MARKERS)], markersize=4.5, label=layer)
            finite = y[np.isfinite(y)]
            if len(finite):
                labels.append(Label(float(finite[-1]), layer, lettering(color, ink=layout.ink)))
        density_axis(axes, table, kept=kept_by_density(document))
        kept = table.numbers("layer_density")
        share_axis(axes, float(kept[kept > 0].min()) if (kept > 0).any() else 0.01)
        axes.set_ylabel("weights of the layer kept")
        end_labels(axes, _named(labels))
    return figure, table


def _named(labels: list[Label]) -> list[Label]:
    if len(labels) <= MOST_NAMED:
        return labels
    by_height = sorted(labels, key=lambda label: label.y)
    chosen = [labels[0], labels[-1], by_height[0], by_height[-1]]
    return [label for at, label in enumerate(labels) if label in chosen and label not in labels[:at]]
