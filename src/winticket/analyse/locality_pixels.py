"""Which pixels or features the first layer reads, and how many of its units read each."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from winticket.analyse.facts import Cells, NothingToAnalyseError, analysis, part, present, together
from winticket.analyse.first_layer import feature_names, first_layer
from winticket.analyse.positions import image_shape
from winticket.analyse.summary import kept_percent
from winticket.run import Task
from winticket.stages import Setup
from winticket.table import Table
from winticket.ticket import Failed, Trajectory

REVISION = 2

PIXELS = {
    "level": "number of the level",
    "density": "share of the eligible weights kept",
    "row": "row of the pixel, from 0 at the top; 0 for signals",
    "column": "column of the pixel, from 0 at the left",
    "feature": "name of the feature, if the data are a table",
    "kept": "units of the first layer that read the pixel, of any channel; mean over tickets",
    "share": "kept / units of the first layer / channels",
    "tickets": "number of tickets",
}


def pixels_of_level(
    setup: Setup,
    stacks: Sequence[Sequence[Trajectory | Failed]],
    *,
    layer: str,
    level: int,
    density: float,
    features: tuple[str, ...] = (),
) -> Table:
    """How many units of the first layer read each pixel, in the mean over the tickets of some stacks.

    features: what the inputs are called, if they are the features of a table.
    """
    masks = [path.ticket.mask.keep[layer] for stack in stacks for _, path in present(stack)]
    if not masks:
        return Table(tuple(PIXELS))
    channels, height, width = image_shape(masks[0], setup.input_shape)
    counts = (
        torch.stack([keep.double().sum(0) for keep in masks]).mean(0).view(channels, height, width).sum(0)
    )
    most = len(masks[0]) * channels
    rows = [
        (
            level,
            density,
            row,
            column,
            features[column] if features else None,
            float(counts[row, column]),
            float(counts[row, column]) / most,
            len(masks),
        )
        for row in range(height)
        for column in range(width)
    ]
    return Table(tuple(PIXELS), tuple(rows))


def pixels_says(table: Table) -> list[str]:
    """How unevenly pixels are read at the sparsest level."""
    if not table.values:
        return ["No replicate finished, so there is nothing to measure."]
    at = table.where(density=min(float(str(d)) for d in table.column("density")))
    counts = sorted((float(str(row["kept"])), row["row"], row["column"], row["feature"]) for row in at.rows())
    density, unread = float(str(at.column("density")[0])), sum(1 for kept, *_ in counts if kept == 0)
    half = _holders_of_half([kept for kept, *_ in counts])
    most, row, column, feature = counts[-1]
    inputs = "pixels" if feature is None else "features"
    which = (
        f"The pixel in row {int(str(row)) + 1}, column {int(str(column)) + 1}"
        if feature is None
        else f"The feature {feature}"
    )
    return [
        f"At a density of {kept_percent(density)}, {half} of {len(counts)} {inputs} have half of the first layer's "
        f"weights, and {unread} have none in any of {at.column('tickets')[0]} tickets. {which} is read by the most "
        f"units: {most:.3g} in the mean."
    ]


def _holders_of_half(counts: Sequence[float]) -> int:
    """The fewest pixels that have half of the weights together."""
    half, total, number = sum(counts) / 2, 0.0, 0
    for count in sorted(counts, reverse=True):
        if total >= half:
            break
        total, number = total + count, number + 1
    return number


@analysis(
    "pixels",
    title="Which inputs does the ticket read?",
    source="Pellegrini & Biroli 2022, connections by pixel",
    says=pixels_says,
    lines=(),
    columns=PIXELS,
)
def pixels(cells: Cells, *, replicates: int = 5, levels: int = 6) -> Task:
    """Counts by pixel how many units of the first layer read it, at every level.

    The table has a row per pixel, so it can be drawn as a picture; for data that are a table, it has a row per feature.
    The first layer must be a Linear layer that reads examples whole.
    """
    layer, features = first_layer(cells.setup, cells.eligible), feature_names(cells.setup)
    planned = [
        part(
            pixels_of_level, cells.setup, list(cells.stacks(level, "ticket", replicates=replicates)), name="pixels",
            layer=layer, level=level, density=cells.densities[level], features=features,
        )
        for level in cells.chosen_levels("ticket", levels)
    ]  # fmt: skip
    if not planned:
        raise NothingToAnalyseError("no level's tickets have finished")
    return together(planned, name="pixels")
