"""Barriers between the trained networks of successive levels."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
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
from winticket.analyse.line import REVISION as LINE
from winticket.analyse.line import between
from winticket.analyse.summary import said, summarised
from winticket.run import Task
from winticket.stages import Setup
from winticket.table import Table, Value
from winticket.ticket import Failed, Trajectory

REVISION = 1 + LINE  # both only rise, so that a change of either gives a new sum

MATCHES = 0.005
"""A network matches its dense network if its accuracy is at most this far below."""

BARRIERS = {
    "level": "number of the sparser of the two levels",
    "density": "its share of the eligible weights kept",
    "replicate": "number of the replicate, from 1",
    "error_rise": "how far the test error on the line between the two trained networks rises above the values between "
    "those of its ends",
    "loss_rise": "the same of the test loss",
    "error_barrier": "highest test error on the line, less the mean of its ends",
    "accuracy": "test accuracy of the sparser network",
    "dense_accuracy": "test accuracy of the dense network of the replicate",
    "matches": f"whether the first is at most {100 * MATCHES:g} points below the second",
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
        accuracy, full = (one.curve.last()["test_accuracy"] for one in (path, whole[number]))
        heights = (made.error_rise, made.loss_rise, made.error)
        matches = full - accuracy <= MATCHES + 1e-9  # accuracies are counts: rounding must not decide
        rows.append((level, density, number + 1, *heights, accuracy, full, matches))
    return Table(tuple(BARRIERS), tuple(rows))


def barriers_says(table: Table) -> list[str]:
    """The barriers of levels that match the dense network on average, and of those that do not."""
    if not table.values:
        return ["No two successive levels finished."]
    levels: dict[bool, list[Value]] = {True: [], False: []}
    for level in dict.fromkeys(table.column("level")):
        rows = table.where(level=level)
        short = float((rows.numbers("dense_accuracy") - rows.numbers("accuracy")).mean())
        levels[short <= MATCHES].append(level)
    words = {True: "match the dense network on average", False: "do not"}
    lines = []
    for matches, there in levels.items():
        if there:
            rows = Table(table.columns, tuple(row for row in table.values if row[0] in there))
            count = "1 level" if len(there) == 1 else f"{len(there)} levels"
            lines.append(
                f"At {count} (weights kept: {_span(rows.numbers('density'))}) the tickets {words[matches]} (to within "
                f"{100 * MATCHES:g} points). There, the error on the line to the level before rises by {_mean(rows)}."
            )
    if len(lines) == 2:
        lines.append(
            "Paul et al. found barriers exactly where the sparser network does not match; if the two rises differ "
            "clearly, this run agrees."
        )
    return lines


def _mean(rows: Table) -> str:
    """The mean rise with its interval over replicates; the levels of a replicate are no repetitions of one another."""
    by_replicate = summarised(rows, "error_rise", ["replicate"]).column("error_rise")
    (row,) = summarised(Table(("rise",), tuple((value,) for value in by_replicate)), "rise", []).rows()
    low = row["low"] if row["low"] is None else max(0.0, float(row["low"]))
    return said(row | {"low": low}, "rise", percent=True, digits=2)


def _span(fractions: Iterable[float]) -> str:
    values = list(fractions)
    ends = [f"{100 * value:.3g}" for value in (max(values), min(values))]
    return f"{' to '.join(dict.fromkeys(ends))} %"


@analysis(
    "barriers",
    title="Is there a barrier between successive levels?",
    source="Paul, Chen, Larsen, Frankle, Ganguli & Dziugaite 2023 (Unmasking the Lottery Ticket Hypothesis), section 3",
    says=barriers_says,
    lines=(
        Lines(
            x="density", y="error_rise", x_label="weights kept by the sparser of the two levels",
            y_label="rise of the error on the line to the level before", percent=True,
        ),
    ),
    columns=BARRIERS,
)  # fmt: skip
def barriers(cells: Cells, *, replicates: int = 5, points: int = 11) -> Task:
    """Looks for a barrier of error between the trained networks of successive levels of a search.

    Paul et al. find that a level's ticket matches the dense network as long as there is none between its trained
    network and the one of the level before. Since a ticket that does not match has a higher error than the level
    before, the error is set against the values between those of the two ends, and not against their mean.
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
