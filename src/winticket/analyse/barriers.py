"""Barriers between trained tickets and the networks that they were pruned from, as those of successive levels are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from winticket.analyse.facts import (
    Cells,
    Lines,
    NothingToAnalyseError,
    analysis,
    first_replicate,
    part,
    present,
    tickets_of,
    together,
)
from winticket.analyse.line import REVISION as LINE
from winticket.analyse.line import between
from winticket.analyse.summary import kept_percent, said, summarised
from winticket.judge import mean_interval
from winticket.run import Task, stored_needs
from winticket.stages import Setup
from winticket.table import Table, Value
from winticket.ticket import Failed, Trajectory

REVISION = 1 + LINE  # both only rise, so that a change of either gives a new sum

MATCHES = 0.005
"""A network matches its dense network if its accuracy is at most this far below."""

BARRIERS = {
    "level": "number of the level",
    "density": "share of the eligible weights kept",
    "before": "level of the trained network that its tickets were pruned from; 0 is the dense network",
    "replicate": "number of the replicate, from 1",
    "error_rise": "how far the test error on the line from that network to the trained ticket rises above the values "
    "between those of its ends",
    "loss_rise": "the same of the test loss",
    "error_barrier": "highest test error on the line, less the mean of its ends",
    "accuracy": "test accuracy of the ticket",
    "dense_accuracy": "test accuracy of the dense network of the replicate",
    "matches": f"whether the first is at most {100 * MATCHES:g} points below the second",
}


def barriers_of_stacks(
    setup: Setup,
    before: Sequence[Trajectory | Failed],
    after: Sequence[Trajectory | Failed],
    dense: Sequence[Trajectory | Failed],
    *,
    place: tuple[int, float, int],
    points: int,
) -> Table:
    """The barriers between a level's trained tickets and the networks they were pruned from, replicate by replicate.

    `place` is level and density of the tickets, and the level of the networks before.
    """
    rows: list[tuple[Any, ...]] = []
    earlier, whole = dict(present(before)), dict(present(dense))
    for number, path in present(after):
        if number not in earlier or number not in whole:
            continue
        made = between(setup, earlier[number], path, points=points)
        accuracy, full = (one.curve.last()["test_accuracy"] for one in (path, whole[number]))
        heights = (made.error_rise, made.loss_rise, made.error)
        matches = full - accuracy <= MATCHES + 1e-9  # accuracies are counts: rounding must not decide
        rows.append((*place, number + 1, *heights, accuracy, full, matches))
    return Table(tuple(BARRIERS), tuple(rows))


def barriers_says(table: Table) -> list[str]:
    """The barriers of levels that match the dense network on average, and of those that do not."""
    if not table.values:
        return ["No ticket and the network that it was pruned from finished."]
    levels: dict[bool, list[Value]] = {True: [], False: []}
    for level in dict.fromkeys(table.column("level")):
        rows = table.where(level=level)
        short = float((rows.numbers("dense_accuracy") - rows.numbers("accuracy")).mean())
        levels[short <= MATCHES].append(level)
    words = {True: "at most", False: "more than"}
    lines, rises = [], {}
    for matches, there in levels.items():
        if there:
            rows = Table(table.columns, tuple(row for row in table.values if row[0] in there))
            # The levels of a replicate are no repetitions of one another.
            by_replicate = summarised(rows, "error_rise", ["replicate"]).rows()
            rises[matches] = {row["replicate"]: float(row["error_rise"] or 0) for row in by_replicate}
            count = "1 level" if len(there) == 1 else f"{len(there)} levels"
            rise = _mean(list(rises[matches].values()), least=0.0)
            lines.append(
                f"At {count} (weights kept: {_span(rows.numbers('density'))}) the tickets' mean accuracy is "
                f"{words[matches]} {100 * MATCHES:g} points below the dense network's. There, the error on the line "
                f"from the network that they were pruned from rises by {rise}."
            )
    if len(rises) == 2:
        lines.append(_compared(rises[True], rises[False]))
    return lines


def _compared(matching: Mapping[Value, float], others: Mapping[Value, float]) -> str:
    """Whether the lines of levels that do not match rise higher, by a paired interval over replicates."""
    gaps = [others[number] - matching[number] for number in others if number in matching]
    low, high = mean_interval(gaps) or (-math.inf, math.inf)
    found = "as Paul et al. found" if low > 0 else "which does not decide whether it does so here"
    found = "unlike what Paul et al. found" if high < 0 else found
    return (
        "Paul et al. found that the error rises exactly where the ticket does not match. It rises by "
        f"{_mean(gaps)} more there, {found}."
    )


def _mean(values: Sequence[float], *, least: float = -math.inf) -> str:
    (row,) = summarised(Table(("rise",), tuple((value,) for value in values)), "rise", []).rows()
    low = row["low"] if row["low"] is None else max(least, float(row["low"]))
    return said(row | {"low": low}, "rise", percent=True, digits=2)


def _span(fractions: Iterable[float]) -> str:
    values = list(fractions)
    ends = dict.fromkeys(kept_percent(value) for value in (max(values), min(values)))
    return " to ".join(ends).replace(" % to", " to")


@analysis(
    "barriers",
    answers="classes",
    title="Does a ticket stay in the basin of the network that it was pruned from?",
    source="Paul, Chen, Larsen, Frankle, Ganguli & Dziugaite 2023 (Unmasking the Lottery Ticket Hypothesis), section 3",
    says=barriers_says,
    lines=(
        Lines(
            x="density", y="error_rise", x_label="weights kept by the ticket",
            y_label="rise of the error on the line", percent=True,
        ),
    ),
    columns=BARRIERS,
)  # fmt: skip
def barriers(cells: Cells, *, replicates: int = 5, points: int = 11) -> Task:
    """Looks for a barrier of error between trained tickets and the trained networks that they were pruned from.

    In iterative pruning these are the networks of successive levels. Paul et al. find that a ticket matches the dense
    network as long as there is no barrier. Since a ticket that does not match has a higher error than the network
    before, the error is set against the values between those of the two ends, and not against their mean.
    """
    dense = {first_replicate(stack): stack for stack in cells.stacks(0, "dense", replicates=replicates)}
    levels = cells.levels("ticket")
    trained = {stack.key: (0, stack) for stack in dense.values()}
    trained |= {s.key: (level, s) for level in levels for s in cells.stacks(level, "ticket")}
    tasks = []
    for level in levels:
        for stack in cells.stacks(level, "ticket", replicates=replicates):
            whole = dense.get(first_replicate(stack))
            found = [trained[t.key] for t in stored_needs(tickets_of(stack)) if t.key in trained]
            if whole is None or not found:
                continue
            before, earlier = max(found, key=lambda one: one[0])
            place = (level, cells.densities[level], before)
            tasks.append(
                part(
                    barriers_of_stacks, cells.setup, earlier, stack, whole, name="barriers", place=place, points=points,
                )
            )  # fmt: skip
    if not tasks:
        raise NothingToAnalyseError(
            "no ticket has finished that was pruned from a trained network of this run, as in iterative or one-shot "
            "pruning"
        )
    return together(tasks, name="barriers")
