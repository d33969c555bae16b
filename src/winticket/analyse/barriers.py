"""Barriers between the trained networks of successive levels."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from winticket.analyse.facts import (
    Cells,
    Lines,
    NothingToAnalyseError,
    analysis,
    first_replicate,
    part,
    present,
    together,
)
from winticket.analyse.line import between
from winticket.run import Task
from winticket.stages import Setup
from winticket.table import Table
from winticket.ticket import Failed, Trajectory

REVISION = 1


BARRIERS = {
    "level": "number of the sparser of the two levels",
    "density": "its share of the eligible weights kept",
    "replicate": "number of the replicate, from 1",
    "error_barrier": "highest test error on the line between the two trained networks, less the mean of its ends",
    "loss_barrier": "the same of the test loss",
    "accuracy": "test accuracy of the sparser network",
    "dense_accuracy": "test accuracy of the dense network of the replicate",
}


def barriers_of_stacks(
    setup: Setup,
    before: Sequence[Trajectory | Failed],
    after: Sequence[Trajectory | Failed],
    dense: Sequence[Trajectory | Failed],
    *,
    level: int,
    density: float,
    points: int,
) -> Table:
    """The barriers between the trained networks of two levels, replicate by replicate."""
    rows: list[tuple[Any, ...]] = []
    earlier, whole = dict(present(before)), dict(present(dense))
    for number, path in present(after):
        if number not in earlier or number not in whole:
            continue
        made = between(setup, earlier[number], path, points=points)
        full = whole[number].curve.last()["test_accuracy"]
        rows.append((level, density, number + 1, made.error, made.loss, 1 - made.errors[-1], full))
    return Table(tuple(BARRIERS), tuple(rows))


MATCHES = 0.005
"""A level counts as matching in a sentence if its mean accuracy is at most this far below the dense network's."""


def barriers_says(table: Table) -> list[str]:
    """The barriers of levels that match the dense network, and of those that do not."""
    if not table.values:
        return ["No two successive levels finished."]
    heights: dict[bool, list[float]] = {True: [], False: []}
    densities: dict[bool, list[float]] = {True: [], False: []}
    for level in dict.fromkeys(table.column("level")):
        rows = table.where(level=level)
        short = float((rows.numbers("dense_accuracy") - rows.numbers("accuracy")).mean())
        heights[short <= MATCHES].append(float(rows.numbers("error_barrier").mean()))
        densities[short <= MATCHES].append(float(rows.numbers("density")[0]))
    words = {True: "within half a point of the dense network", False: "further below the dense network"}
    lines = []
    for matches, there in heights.items():
        if there:
            levels = "1 level" if len(there) == 1 else f"{len(there)} levels"
            lines.append(
                f"At the {levels} whose tickets end {words[matches]} (weights kept: {_span(densities[matches])}), the "
                f"mean error barrier to the level before is {_span(there)}."
            )
    return lines


def _span(fractions: Sequence[float]) -> str:
    ends = [f"{100 * value:.2g}" for value in (max(fractions), min(fractions))]
    return f"{' to '.join(dict.fromkeys(ends))} %"


@analysis(
    "barriers",
    title="Is there a barrier between successive levels?",
    source="Paul, Chen, Larsen, Frankle, Ganguli & Dziugaite 2023 (Unmasking the Lottery Ticket Hypothesis), section 3",
    says=barriers_says,
    lines=(
        Lines(
            x="density", y="error_barrier", x_label="weights kept by the sparser of the two levels",
            y_label="error barrier to the level before", percent=True, level=0.02, level_label="2 %",
        ),
    ),
    columns=BARRIERS,
)  # fmt: skip
def barriers(cells: Cells, *, replicates: int = 5, points: int = 11) -> Task:
    """Looks for a barrier of error between the trained networks of successive levels of a search.

    Paul et al. find that a level's ticket matches the dense network as long as there is none between its trained
    network and the one of the level before.
    """
    levels = [0, *cells.levels("ticket")]
    dense = {first_replicate(stack): stack for stack in cells.stacks(0, "dense", replicates=replicates)}
    tasks = []
    for before, level in itertools.pairwise(levels):
        earlier = {first_replicate(s): s for s in cells.stacks(before, "ticket" if before else "dense")}
        for stack in cells.stacks(level, "ticket", replicates=replicates):
            first = first_replicate(stack)
            if first in earlier and first in dense:
                tasks.append(
                    part(
                        barriers_of_stacks,
                        cells.setup,
                        earlier[first],
                        stack,
                        dense[first],
                        name="barriers",
                        level=level,
                        density=cells.densities[level],
                        points=points,
                    )
                )
    if not tasks:
        raise NothingToAnalyseError("no two successive levels have finished")
    return together(tasks, name="barriers")
