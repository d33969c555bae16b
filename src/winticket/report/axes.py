"""The axes of the figures: ticks, limits and scales of densities, steps and metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from winticket.objective import ACCURACY, Scale
from winticket.report.reading import density_percent
from winticket.table import Table

KEPT = "weights kept (fewer to the right)"
TICK = 0.6
"""Inches from one density to the next: the width of `41.5 %` and some room."""
_OF_PERCENT = (100, 50, 30, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1)
"""Distances from a perfect value at which an axis of percentages has ticks."""
MOST_TICKS = 12
"""Of a stretched axis."""
LETTER = 0.092
"""Inches of a letter of an axis' name, on average."""


def density_axis(axes: Axes, table: Table, *, kept: Mapping[float, int] | None = None) -> None:
    """Make the x axis a logarithmic density axis that decreases to the right, with ticks at the table's densities.

    With `kept`, a tick also says how many weights its density keeps.
    """
    densities = {float(d) for d in table.column("density") if d is not None}
    ticks = spread(sorted(densities, reverse=True), apart=TICK / max(_inches(axes)[0], TICK))
    counts = kept or {}
    axes.set_xscale("log")
    axes.set_xticks(ticks, [_tick(density, counts) for density in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    low, high = min(densities), max(densities)
    room = max((high / low) ** 0.04, 1.05)
    axes.set_xlim(high * room, low / room)
    axes.set_xlabel(KEPT)


def up_axis(axes: Axes, name: str) -> None:
    """Name the y axis, in lines if the name is longer than the axes are high."""
    room = _inches(axes)[1] + 0.3
    axes.set_ylabel(fill(name, max(int(room / LETTER), 12)))


def _inches(axes: Axes) -> tuple[float, float]:
    """Width and height of the axes."""
    place, figure = axes.get_position(), axes.get_figure()
    assert isinstance(figure, Figure)
    width, height = figure.get_size_inches()
    return place.width * width, place.height * height


def _tick(density: float, kept: Mapping[float, int]) -> str:
    count = kept.get(density)
    return density_percent(density) + ("" if count is None else f"\n{count:,}")


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
    low, _ = axes.get_ylim()
    axes.set_yticks([step for step in (0, *_round_steps(highest)) if low <= step <= highest])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def training_axis(axes: Axes, last: float) -> None:
    """Make the x axis one of training steps from 0 to `last`: logarithmic from step 1 on, since most happens early."""
    axes.set_xscale("symlog", linthresh=1.0, linscale=0.35)
    axes.set_xlim(-0.25, last * 1.04)
    tens = [10**power for power in range(math.ceil(math.log10(max(last, 2))))]
    between = [step for step in tens if step <= last / 2.5]
    axes.set_xticks([0, *between, last], [f"{step:g}" for step in (0, *between, last)])
    axes.xaxis.set_minor_locator(NullLocator())


def metric_axis(axes: Axes, worst: float, best: float, scale: Scale = ACCURACY) -> None:
    """Make the y axis one of a metric from `worst` to `best`, as they are written, stretched towards a perfect value.

    Equal distances are equal ratios of what is missing to the perfect value, so that an accuracy of 98 against 97 % is
    as visible as one of 80 against 70 %. The axis of a metric without a perfect value is linear.
    """
    perfect, sign = scale.factor * scale.perfect, scale.sign
    if not math.isfinite(perfect):
        axes.set_ylim(*sorted((worst, best)))
        axes.ticklabel_format(axis="y", useOffset=False)
        return
    span = scale.factor * (scale.high - scale.low) if scale.bounded else abs(perfect - worst)
    least = max(sign * (perfect - best), span / 2000)

    def forth(values: np.ndarray) -> np.ndarray:
        height: np.ndarray = -sign * np.log10(
            np.maximum(sign * (perfect - np.asarray(values, float)), least / 2)
        )
        return height

    def back(height: np.ndarray) -> np.ndarray:
        away: np.ndarray = 10 ** (-sign * np.asarray(height, float))
        return perfect - sign * away

    axes.set_yscale("function", functions=(forth, back))
    low, high = sorted((worst, perfect - sign * least))
    axes.set_ylim(low, high)
    ticks = _OF_PERCENT if scale.unit == "%" else _missing_ticks(sign * (perfect - worst), least)
    room = 1e-9 * max(abs(low), abs(high), 1.0 if scale.unit == "%" else 0.0)
    inside = sorted(
        tick
        for missing in ticks
        if low - room <= (tick := round(perfect - sign * missing, 12)) <= high + room
    )
    axes.set_yticks(inside, [f"{tick:g}" for tick in inside])
    axes.yaxis.set_minor_locator(NullLocator())


def _missing_ticks(most: float, least: float) -> Sequence[float]:
    """Round distances from `least` to `most`: 10, 5, 2, 1, ..., and finer ones if these are few."""
    powers = range(math.floor(math.log10(least)) - 1, math.ceil(math.log10(most)) + 1)
    for digits in ((1, 2, 5), (1, 1.5, 2, 3, 5, 7), tuple(n / 10 for n in range(10, 100))):
        ticks = [digit * 10.0**power for power in powers for digit in digits]
        inside = [tick for tick in ticks if least - 1e-12 <= tick <= most + 1e-12]
        if len(inside) >= 3:
            break
    return inside[:: -(-len(inside) // MOST_TICKS)]


def share_axis(axes: Axes, low: float) -> None:
    """Make the y axis a logarithmic one of shares from `low` to 1, with round ticks in percent."""
    axes.set_yscale("log")
    powers = range(math.floor(math.log10(low)), 1)
    ticks = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
    axes.set_yticks([tick for tick in ticks if 0.7 * low <= tick <= 1])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.3g} %"))
    axes.yaxis.set_minor_locator(NullLocator())


def _round_steps(highest: float) -> list[int]:
    powers = range(math.ceil(math.log10(highest)) + 1)
    return [digit * 10**power for power in powers for digit in (1, 2, 5)]


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

    Neighbours that remain are at least `apart` from one another, as a share of the logarithmic axis.
    """
    if len(densities) < 2:
        return list(densities)
    least = apart * float(np.log(densities[0] / densities[-1]))
    kept = [densities[0]]
    for density in densities[1:]:
        if np.log(kept[-1] / density) >= least:
            kept.append(density)
    return kept
