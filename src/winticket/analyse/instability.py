"""Instability: do two trainings that differ only in SGD noise end in one basin of error?"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from winticket.analyse.facts import (
    Cells,
    Lines,
    NothingToAnalyseError,
    analysis,
    first_replicate,
    part,
    present,
    setup_of,
    tickets_of,
    together,
)
from winticket.analyse.line import REVISION as LINE
from winticket.analyse.line import between
from winticket.analyse.summary import kept_percent, said, summarised
from winticket.run import Task, derive
from winticket.stages import Setup, at_steps, trained
from winticket.table import Table, Value
from winticket.ticket import Failed, Ticket, Trajectory

REVISION = 1 + LINE  # both only rise, so that a change of either gives a new sum
STABLE = 0.02
"""Below this error barrier Frankle et al. 2020 call a network stable to SGD noise."""


def child(setup: Setup, path: Trajectory, *, step: int | None, noise: int) -> Ticket:
    """The ticket that continues a training from its state after `step` updates, with other SGD noise.

    The optimiser's state goes along. None and 0 stand for the state that the training itself started from.
    """
    del setup
    ticket = path.ticket
    start = path.saved[step] if step else ticket.start
    return replace(ticket, start=start, origin="child", seeds=replace(ticket.seeds, noise=noise))


INSTABILITY = {
    "level": "number of the level; 0 is the dense network",
    "density": "share of the eligible weights kept",
    "arm": "whose network is trained twice",
    "step": "step up to which the two trainings are one; from there their SGD noise differs",
    "share": "that step as a share of the training",
    "from_start": "whether that is where the training itself starts",
    "replicate": "number of the replicate, from 1",
    "error_barrier": "highest test error on the line between the two, less the mean error of its ends",
    "loss_barrier": "the same of the test loss",
    "error": "mean test error of the two",
}


def instability_of_stacks(
    setup: Setup,
    stack: Sequence[Trajectory | Failed],
    children: Sequence[Trajectory | Failed],
    *,
    place: tuple[int, float, str, int | None],
    points: int,
) -> Table:
    """The barrier between each replicate's training and a child that left it at some step.

    `place` is level, density and arm of the stack, and the step at which the children left (None: the start).
    """
    rows: list[tuple[Any, ...]] = []
    second = dict(present(children))
    level, density, arm, split = place
    for number, path in present(stack):
        if number in second:
            made = between(setup, path, second[number], points=points)
            error = (made.errors[0] + made.errors[-1]) / 2
            step = second[number].ticket.start.step
            where = (level, density, arm, step, step / setup.recipe.steps, not split, number + 1)
            rows.append((*where, made.error, made.loss, error))
    return Table(tuple(INSTABILITY), tuple(rows))


def instability_says(table: Table) -> list[str]:
    """From where the dense network is stable, and whether tickets are more stable than random masks."""
    if not table.values:
        return ["No two trainings of one network finished, so there is no line between them."]
    lines = []
    dense = summarised(table.where(arm="dense"), "error_barrier", ["share"]).sort("share").rows()
    if dense:
        first = dense[0]
        where = f"{_percent(first['share'])} of the training" if first["share"] else "their common init"
        lines.append(
            f"Two trainings of the dense network that differ in SGD noise from {where} on have an error barrier of "
            f"{_said(first)} between them."
        )
        lines.append(
            f"The dense network is stable to SGD noise (mean barrier below {_percent(STABLE)}) {_stable_from(dense)}."
        )
    pruned = summarised(table.where(from_start=True), "error_barrier", ["density", "arm"])
    for density in dict.fromkeys(row["density"] for row in pruned.rows() if row["arm"] == "ticket"):
        both = {str(row["arm"]): row for row in pruned.where(density=density).rows()}
        if "random" in both:
            lines.append(
                f"At a density of {kept_percent(float(density or 0))}, the barrier is {_said(both['ticket'])} for "
                f"tickets and "
                f"{_said(both['random'])} for random masks."
            )
    return lines


def _stable_from(rows: Sequence[dict[str, Value]]) -> str:
    """The share of the training from which on every mean barrier is below the limit, in words."""
    stable = list(itertools.takewhile(lambda row: float(row["error_barrier"] or 0) < STABLE, reversed(rows)))
    if not stable:
        return "at no step tried"
    if len(stable) == len(rows) and not rows[0]["share"]:
        return "from its init on"
    return f"from {_percent(stable[-1]['share'])} of the training on"


def _said(row: dict[str, Value]) -> str:
    # No barrier is below 0, whatever Student's t makes of a few values near it.
    low = row["low"] if row["low"] is None else max(0.0, float(row["low"]))
    return said(row | {"low": low}, "error_barrier", percent=True, digits=2)


def _percent(fraction: Value) -> str:
    return f"{100 * float(fraction or 0):.3g} %"


@analysis(
    "instability",
    answers="classes",
    title="Do two trainings with different SGD noise end in one basin?",
    source="Frankle, Dziugaite, Roy & Carbin 2020, Linear Mode Connectivity and the Lottery Ticket Hypothesis, sec. 2",
    says=instability_says,
    lines=(
        Lines(
            x="share", y="error_barrier", series="arm", x_label="step of the split (% of the training)",
            y_label="error barrier", percent=True, x_percent=True, scale="linear", where={"arm": "dense"}, least=0.0,
            level=STABLE, level_label="stable below",
        ),
        Lines(
            x="density", y="error_barrier", series="arm", x_label="weights kept",
            y_label="error barrier of two trainings from the start", percent=True, level=STABLE, least=0.0,
            level_label="stable below", where={"from_start": True},
        ),
    ),
    columns=INSTABILITY,
)  # fmt: skip
def instability(
    cells: Cells,
    *,
    shares: tuple[float, ...] = (0.0, 0.02, 0.1, 0.3),
    ticket_shares: tuple[float, ...] = (0.0,),
    replicates: int = 5,
    levels: int = 4,
    points: int = 11,
) -> Task:
    """Trains networks again with other SGD noise, and looks for a barrier of error on the line between the two.

    The dense network is trained again from several points of its training: `shares` of it. Tickets and random masks, at
    `levels` levels, are trained again from `ticket_shares` of what follows their start. Two trainings are linearly
    connected if no network on the line between them, at `points` points, has a higher error than they have.
    """
    steps = cells.setup.recipe.steps
    tasks = []
    for arm, parts_of, begin in (
        ("dense", shares, 0),
        ("ticket", ticket_shares, cells.rewind_step),
        ("random", ticket_shares, cells.rewind_step),
    ):
        splits = tuple(dict.fromkeys(begin + round(share * (steps - begin)) for share in parts_of))
        if any(at >= steps for at in splits):
            raise ValueError(f"shares are {parts_of}; a training is split before its end, so each is below 1")
        for level in cells.chosen_levels(arm, levels):
            place = (level, cells.densities[level], arm)
            for stack in cells.stacks(level, arm, replicates=replicates):
                tasks += [
                    _children(stack, (*place, at if at > begin else None), points=points) for at in splits
                ]
    if not tasks:
        raise NothingToAnalyseError("no training has finished")
    return together(tasks, name="instability")


def _children(stack: Task, place: tuple[int, float, str, int | None], *, points: int) -> Task:
    """The task of the barriers between a stack and its children, which leave it at a step (None: the start).

    The stack itself is one of the two trainings from that step: its own noise is as good as any other, and it is there.
    """
    level, density, arm, step = place
    setup, tickets = setup_of(stack), tickets_of(stack)
    path = stack if not step else at_steps(setup, tickets, stack, (step,))
    steps, count = setup.recipe.steps, int(str(stack.label["count"]))
    children = trained(
        setup,
        derive(child, setup, path, step=step, noise=1),
        arm=f"{arm} again",
        level=level,
        first=first_replicate(stack),
        count=count,
        cost=1 - (step or 0) / steps,
    )
    return part(
        instability_of_stacks,
        setup,
        stack,
        children,
        name="instability",
        place=(level, density, arm, step),
        points=points,
    )
