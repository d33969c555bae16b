"""Instability: do two trainings that differ only in SGD noise end in one basin of error?"""

from __future__ import annotations

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
from winticket.analyse.line import between
from winticket.analyse.summary import said, summarised
from winticket.run import Task, derive
from winticket.stages import Setup, at_steps, trained
from winticket.table import Table
from winticket.ticket import Failed, Ticket, Trajectory

REVISION = 1
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
    "step": "step from which the two trainings continue with different SGD noise",
    "share": "that step as a share of the training",
    "from_start": "whether that is where the training itself starts",
    "replicate": "number of the replicate, from 1",
    "error_barrier": "highest test error on the line between the two, less the mean error of its ends",
    "loss_barrier": "the same of the test loss",
    "error": "mean test error of the two",
}


def instability_of_stacks(
    setup: Setup,
    one: Sequence[Trajectory | Failed],
    other: Sequence[Trajectory | Failed],
    *,
    place: tuple[int, float, str, int | None],
    points: int,
) -> Table:
    """The barrier between two children of each replicate.

    `place` is level, density and arm of the parents, and the step from which the children continue (None: the start).
    """
    rows: list[tuple[Any, ...]] = []
    second = dict(present(other))
    level, density, arm, split = place
    for number, path in present(one):
        if number in second:
            made = between(setup, path, second[number], points=points)
            error = (made.errors[0] + made.errors[-1]) / 2
            step = path.ticket.start.step
            where = (level, density, arm, step, step / setup.recipe.steps, not split, number + 1)
            rows.append((*where, made.error, made.loss, error))
    return Table(tuple(INSTABILITY), tuple(rows))


def instability_says(table: Table) -> list[str]:
    """From where the dense network is stable, and whether tickets are more stable than random masks."""
    if not table.values:
        return ["No two trainings of one network finished, so there is no line between them."]
    lines = []
    dense = summarised(table.where(arm="dense"), "error_barrier", ["share"]).rows()
    if dense:
        first = dense[0]
        lines.append(
            f"Two trainings of the dense network from the same init, with another order of examples, have an error "
            f"barrier of {said(first, 'error_barrier', percent=True)} between them."
        )
        below = [float(row["share"] or 0) for row in dense if float(row["error_barrier"] or 0) < STABLE]
        where = "at no step tried" if not below else f"from {100 * below[0]:.3g} % of the training on"
        where = "from its init on" if below and below[0] == 0 else where
        lines.append(f"The dense network is stable to SGD noise (barrier below {100 * STABLE:g} %) {where}.")
    pruned = summarised(table, "error_barrier", ["density", "arm"])
    for density in dict.fromkeys(row["density"] for row in pruned.rows() if row["arm"] == "ticket"):
        both = {str(row["arm"]): row for row in pruned.where(density=density).rows()}
        if "random" in both:
            lines.append(
                f"At a density of {100 * float(density or 0):.3g} %, the barrier is "
                f"{said(both['ticket'], 'error_barrier', percent=True)} for tickets and "
                f"{said(both['random'], 'error_barrier', percent=True)} for random masks."
            )
    return lines


@analysis(
    "instability",
    title="Do two trainings with different SGD noise end in one basin?",
    source="Frankle, Dziugaite, Roy & Carbin 2020, Linear Mode Connectivity and the Lottery Ticket Hypothesis, sec. 2",
    says=instability_says,
    lines=(
        Lines(
            x="share", y="error_barrier", series="arm", x_label="step of the split (% of the training)",
            y_label="error barrier", percent=True, x_percent=True, scale="linear", where={"arm": "dense"},
            level=STABLE, level_label="stable below",
        ),
        Lines(
            x="density", y="error_barrier", series="arm", x_label="weights kept",
            y_label="error barrier of two trainings from the start", percent=True, level=STABLE,
            level_label="stable below", where={"from_start": True},
        ),
    ),
    columns=INSTABILITY,
)  # fmt: skip
def instability(
    cells: Cells,
    *,
    shares: tuple[float, ...] = (0.0, 0.02, 0.1, 0.3),
    replicates: int = 5,
    levels: int = 4,
    points: int = 11,
) -> Task:
    """Trains networks twice with different SGD noise, and looks for a barrier of error on the line between the two.

    The dense network is split at several points of its training: `shares` of it. Tickets and random masks are split at
    their start, at `levels` levels. Two trainings are linearly connected if no network on the line between them has a
    higher error than they have.
    """
    if any(share >= 1 for share in shares):
        raise ValueError(f"shares is {shares}; a training is split before its end, so each is below 1")
    dense, steps = cells.stacks(0, "dense", replicates=replicates), cells.setup.recipe.steps
    tasks = []
    for stack in dense:
        splits = dict.fromkeys(round(share * steps) for share in shares)
        tasks += [_children(stack, (0, 1.0, "dense", at or None), points=points) for at in splits]
    tasks += [
        _children(stack, (level, cells.densities[level], arm, None), points=points)
        for arm in ("ticket", "random")
        for level in cells.chosen_levels(arm, levels)
        for stack in cells.stacks(level, arm, replicates=replicates)
    ]
    if not tasks:
        raise NothingToAnalyseError("no training has finished")
    return together([*tasks], name="instability")


def _children(stack: Task, place: tuple[int, float, str, int | None], *, points: int) -> Task:
    """The task of the barriers between two children of each replicate, spawned at a step (None: the start)."""
    level, density, arm, step = place
    setup, tickets = setup_of(stack), tickets_of(stack)
    path = stack if not step else at_steps(setup, tickets, stack, (step,))
    trainings = [
        trained(
            setup,
            derive(child, setup, path, step=step, noise=noise),
            arm=f"{arm} again",
            level=level,
            first=first_replicate(stack),
            count=int(str(stack.label["count"])),
        )
        for noise in (1, 2)
    ]
    return part(
        instability_of_stacks,
        setup,
        *trainings,
        name="instability",
        place=(level, density, arm, step),
        points=points,
    )
