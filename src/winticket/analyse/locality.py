"""Whether units read neighbouring pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from winticket.analyse.facts import Cells, Lines, NothingToAnalyseError, analysis, part, present, together
from winticket.analyse.first_layer import feature_names, first_layer
from winticket.analyse.positions import REVISION as POSITIONS
from winticket.analyse.positions import centrality, neighbours
from winticket.analyse.summary import kept_percent, said, summarised
from winticket.run import Task
from winticket.stages import Setup
from winticket.table import Table
from winticket.ticket import Failed, Trajectory

REVISION = POSITIONS  # plus 1 for every change of the numbers made here

COLUMNS = {
    "level": "number of the level",
    "density": "share of the eligible weights kept",
    "mask": "the ticket's first layer, or inputs drawn for each unit, a pixel as often as the ticket reads it",
    "replicate": "number of the replicate, from 1",
    "kept": "weights that the first layer keeps",
    "neighbours": "how many times as often as by chance two inputs of a unit are neighbours",
    "beyond": "the ticket's neighbours / those of its pixels alone: above 1, units choose neighbours",
    "centrality": "mean distance of the inputs from the middle of the image, relative to chance",
}
PIXELS_ALONE = "ticket's pixels, drawn for each unit"


def locality_of_stack(
    setup: Setup, tickets: Sequence[Trajectory | Failed], *, layer: str, level: int, density: float
) -> Table:
    """How local and how central the inputs are that the first layer of a stack's tickets keeps."""
    rows: list[tuple[Any, ...]] = []
    for number, path in present(tickets):
        keep = path.ticket.mask.keep[layer]
        kept, pixels = neighbours(keep, setup.input_shape)
        middle = centrality(keep, setup.input_shape)
        for mask, ratio, beyond in (
            ("ticket", kept, kept / pixels if pixels else math.nan),
            (PIXELS_ALONE, pixels, math.nan),
        ):
            known = [None if math.isnan(value) else value for value in (ratio, beyond, middle)]
            rows.append((level, density, mask, number + 1, int(keep.sum()), *known))
    return Table(tuple(COLUMNS), tuple(rows))


def locality_says(table: Table) -> list[str]:
    """How local and how central the first layer is at the sparsest level."""
    if not table.values:
        return ["No replicate finished, so there is nothing to measure."]
    at = table.where(density=min(float(str(d)) for d in table.column("density")))
    density = float(str(at.column("density")[0]))
    near = {str(row["mask"]): row for row in summarised(at, "neighbours", ["mask"]).rows()}
    middle = {str(row["mask"]): row for row in summarised(at, "centrality", ["mask"]).rows()}
    beyond = summarised(at, "beyond", ["mask"]).rows()
    sentences = []
    if "ticket" in near and beyond:
        sentences.append(
            f"At a density of {kept_percent(density)}, two inputs that a unit of the first layer keeps are neighbours "
            f"{said(near['ticket'], 'neighbours')} times as often as in a random mask. This is "
            f"{said(beyond[0], 'beyond')} times as often as the ticket's choice of pixels explains."
        )
    if "ticket" in middle:
        sentences.append(
            f"Kept inputs are {said(middle['ticket'], 'centrality')} times as far from the middle of the image as "
            "those of a random mask."
        )
    return sentences or ["The first layer keeps too few weights to say whether they are local."]


@analysis(
    "locality",
    title="Do units read neighbouring pixels?",
    source="Pellegrini & Biroli 2022, locality of masks: pairs of a unit's inputs by displacement, in the same channel",
    says=locality_says,
    lines=(
        Lines(
            x="density", y="neighbours", series="mask", x_label="weights kept",
            y_label="neighbouring inputs of a unit / by chance", level=1.0, level_label="random mask",
        ),
        Lines(
            x="density", y="centrality", x_label="weights kept", y_label="distance from the middle / by chance",
            level=1.0, level_label="random mask", where={"mask": "ticket"},
        ),
    ),
    columns=COLUMNS,
)  # fmt: skip
def locality(cells: Cells, *, replicates: int = 15, levels: int = 8) -> Task:
    """Measures how local and how central the inputs are that the units of the first layer keep.

    The chance values are exact expectations over random masks with the ticket's count of weights in every unit. Data
    must be images or signals, and the first layer must be a Linear layer that reads them whole.
    """
    if feature_names(cells.setup):
        raise NothingToAnalyseError("the features of a table have no neighbours, as pixels have")
    layer = first_layer(cells.setup, cells.eligible)
    planned = [
        part(
            locality_of_stack, cells.setup, stack, name="locality", layer=layer, level=level,
            density=cells.densities[level],
        )
        for level in cells.chosen_levels("ticket", levels)
        for stack in cells.stacks(level, "ticket", replicates=replicates)
    ]  # fmt: skip
    if not planned:
        raise NothingToAnalyseError("no level's tickets have finished")
    return together(planned, name="locality")
