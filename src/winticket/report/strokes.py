"""What several figures draw: lines of arms with their bands, the dense network, the smallest winning density."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from winticket.report.ink import Ink, Look, lettering, look_of
from winticket.report.layout import Label, Layout
from winticket.report.reading import (
    arm_name,
    arms,
    claimed,
    dense_arm,
    density_percent,
    levels,
    question_of,
    replicates,
)
from winticket.results import Document
from winticket.table import Table

SHORT = {"dense": "dense", "reinit": "re-init", "random": "random"}
"""Names of arms where there is little room."""
WON = "ticket that won"


def pruned_arms(document: Document) -> list[str]:
    """The arms other than the dense network."""
    return [arm for arm in arms(document) if arm != "dense"]


def kept_by_density(document: Document) -> dict[float, int]:
    """How many weights each density keeps; empty if the document does not say."""
    network = document.get("network")
    if network is None:
        return {}
    whole, found = network["kept"][0], dict[float, int]()
    for level in levels(document):
        near = min(network["kept"], key=lambda count: abs(count - level["density"] * whole))
        if abs(near - level["density"] * whole) <= 0.5:
            found[float(level["density"])] = near
    return found


def subtitle(document: Document, *, shown: str = "mean, 95 % t interval") -> str:
    """Data, network, number of replicates, and what is drawn of them."""
    experiment = question_of(document)
    dense = dense_arm(document)
    count = experiment.get("replicates") or (replicates(dense) if dense else None)
    band = shown if count is None or count > 1 else "no interval from one replicate"
    parts = [experiment.get("data"), experiment.get("model"), None if count is None else f"n = {count}", band]
    return " · ".join(str(part) for part in parts if part is not None)


def name_of(arm: str, layout: Layout) -> str:
    """The name of an arm at its line's end."""
    return SHORT.get(arm, arm_name(arm)) if layout.narrow else arm_name(arm)


def dense_line(axes: Axes, table: Table, value: str, *, scale: float, layout: Layout) -> list[Label]:
    """Draw the dense network as a horizontal line with a band; returns its label."""
    ink, dense = layout.ink, table.where(arm="dense")
    if not dense.values or np.isnan(dense.numbers(value)[0]):
        return []
    mean, low, high = (scale * float(dense.numbers(name)[0]) for name in (value, "ci_low", "ci_high"))
    axes.axhline(mean, color=ink.dense, linewidth=1.3, label=arm_name("dense"), zorder=2)
    if np.isfinite(low):
        axes.axhspan(low, high, color=ink.dense, alpha=0.10, linewidth=0, zorder=1)
    return [Label(mean, name_of("dense", layout), ink.text)]


def arm_line(axes: Axes, rows: Table, value: str, *, arm: str, scale: float, layout: Layout) -> list[Label]:
    """Draw an arm with its band, filled markers where a ticket won; returns its label at the last point it has."""
    look = look_of(arm, ink=layout.ink)
    x, y = rows.numbers("density"), scale * rows.numbers(value)
    low, high = scale * rows.numbers("ci_low"), scale * rows.numbers("ci_high")
    axes.fill_between(x, low, high, color=look.color, alpha=0.17, linewidth=0)
    axes.plot(
        x, y, look.dashes, color=look.color, marker=look.marker, label=arm_name(arm) if rows.values else "",
        zorder=4, markerfacecolor=layout.ink.paper, markeredgewidth=1.4,
    )  # fmt: skip
    _filled(axes, rows, x, y, look=look)
    ends = y[np.isfinite(y)]
    if not len(ends):
        return []
    return [Label(float(ends[-1]), name_of(arm, layout), lettering(look.color, ink=layout.ink))]


def _filled(axes: Axes, rows: Table, x: np.ndarray, y: np.ndarray, *, look: Look) -> None:
    won = np.array(rows.column("claimed"), dtype=bool)
    if won.any():
        axes.plot(x[won], y[won], look.marker, color=look.color, markersize=7, zorder=5, label=WON)


def mark_smallest(axes: Axes, document: Document, layout: Layout, *, at_top: bool = False) -> None:
    """Draw a vertical line at the smallest winning density, and name it at the bottom or the top."""
    won = claimed(document)
    if not won:
        return
    smallest, densities = min(won), [level["density"] for level in levels(document)]
    in_right_half = smallest * smallest < min(densities) * max(densities)
    ink, words = layout.ink, "smallest win" if layout.narrow else "smallest winning density"
    axes.axvline(smallest, color=ink.quiet, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    axes.annotate(
        f"{words}: {density_percent(smallest)}", (smallest, 0.975 if at_top else 0.025),
        xycoords=("data", "axes fraction"),
        xytext=(-5 if in_right_half else 5, 0), textcoords="offset points",
        ha="right" if in_right_half else "left", va="top" if at_top else "baseline", fontsize=9, color=ink.text,
        bbox={"facecolor": ink.paper, "edgecolor": "none", "alpha": 0.8, "pad": 1.5},  # a band may reach down to it
    )  # fmt: skip


def level_line(
    axes: Axes, y: float, text: str, *, ink: Ink, at_right: bool = False, above: bool = False
) -> None:
    """Draw a dotted horizontal line and name it below, or above, its left or right end."""
    axes.axhline(y, color=ink.quiet, linewidth=1.0, linestyle=(0, (1, 2)), zorder=2)
    axes.annotate(
        text, (0.992 if at_right else 0.008, y), xycoords=("axes fraction", "data"), xytext=(0, 3 if above else -3),
        textcoords="offset points", ha="right" if at_right else "left", va="bottom" if above else "top",
        fontsize=9, color=ink.quiet,
    )  # fmt: skip
