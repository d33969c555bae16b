"""The axes of the figures against density: ticks, limits and scales."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from winticket.report.reading import density_percent
from winticket.table import Table


def density_axis(axes: Axes, table: Table) -> None:
    """Make the x axis a logarithmic density axis that decreases to the right, with ticks at the table's densities."""
    densities = {float(d) for d in table.column("density") if d is not None}
    ticks = spread(sorted(densities, reverse=True), apart=0.15)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: density_percent(x)))
    axes.set_xticks(ticks)
    axes.xaxis.set_minor_locator(NullLocator())
    low, high = min(densities), max(densities)
    room = max((high / low) ** 0.04, 1.05)
    axes.set_xlim(high * room, low / room)
    axes.set_xlabel("density: share of the prunable weights that is kept (decreases to the right)")


def step_axis(axes: Axes, table: Table) -> None:
    """Make the step axis logarithmic. If a ticket needs no training, the axis is linear from 0 to 1, to show its 0."""
    values = np.concatenate([table.numbers(name) for name in ("steps_to", "ci_low", "ci_high")])
    values = values[np.isfinite(values)]
    if not (values > 0).any():  # no training reached the accuracy, or all had it before step 1
        return
    highest = 1.25 * values.max()
    if values.min() >= 1:
        axes.set_yscale("log", nonpositive="clip")
        axes.set_ylim(0.8 * values.min(), highest)
    else:
        axes.set_yscale("symlog", linthresh=1.0, linscale=0.3)
        axes.set_ylim(-0.4, highest)
    steps = [digit * 10**power for power in range(math.ceil(math.log10(highest)) + 1) for digit in (1, 2, 5)]
    low, _ = axes.get_ylim()
    axes.set_yticks([step for step in (0, *steps) if low <= step <= highest])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def logarithmic(axes: Axes) -> None:
    """Make the y axis of a drawn panel logarithmic, with plain numbers at its ticks.

    matplotlib's own labels are formulas, and formulas are off, since names may contain dollar signs.
    """
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    subs = (1.0, 2.0, 5.0) if high < 1000 * low else (1.0,)
    axes.yaxis.set_major_locator(LogLocator(subs=subs))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def spread(densities: Sequence[float], *, apart: float) -> list[float]:
    """Thin out densities, densest first, so that tick labels do not overlap.

    Neighbours that remain are at least three quarters of `apart` from one another, as a share of the logarithmic axis.
    """
    if len(densities) < 2:
        return list(densities)
    least = apart * float(np.log(densities[0] / densities[-1])) * 0.75
    kept = [densities[0]]
    for density in densities[1:]:
        if np.log(kept[-1] / density) >= least:
            kept.append(density)
    return kept
