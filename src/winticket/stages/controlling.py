"""A control of a ticket, alone or with what it takes from another replicate of its stack."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from inspect import signature
from typing import Any

from winticket.align import REVISION as ALIGN
from winticket.align import symmetry
from winticket.run import Task, derive
from winticket.stages.setup import Setup
from winticket.ticket import Failed, Ticket, Trajectory

REVISION = 1 + ALIGN  # both only rise, so that a change of either gives a new sum


def control_ticket(setup: Setup, ticket: Ticket, *, control: Callable[..., Ticket]) -> Ticket:
    """A control of the ticket, with a seed of its own for each control, replicate and size of ticket."""
    named = control.func if isinstance(control, partial) else control
    name = str(getattr(named, "__name__", named))
    options: dict[str, Any] = {"seed": ticket.seeds.derive("control", name, ticket.mask.count())}
    if "draw" in signature(control).parameters:
        options["draw"] = setup.initial
    return control(ticket, **options)


def trained_control_ticket(
    setup: Setup, ticket: Ticket, dense: Trajectory, *, control: Callable[..., Ticket]
) -> Ticket:
    """As `control_ticket`, of a control that takes what its replicate's dense training ended with."""
    return control_ticket(setup, ticket, control=partial(control, end=dense.saved[max(dense.saved)].weights))


def needs_end(control: Callable[..., Ticket]) -> bool:
    """Whether a control takes the weights that its replicate's dense training ended with."""
    return "end" in signature(control).parameters


def needs_neighbour(control: Callable[..., Ticket]) -> bool:
    """Whether a control takes something from another replicate."""
    return "neighbour" in signature(control).parameters


def needs_symmetry(control: Callable[..., Ticket]) -> bool:
    """Whether a control takes the trained dense networks, to match their hidden units."""
    return "symmetry" in signature(control).parameters


def neighbours(
    setup: Setup, tickets: Task, dense: Task, count: int, *, control: Callable[..., Ticket]
) -> Task:
    """The derived task that makes a stack's controls from the tickets of its other replicates.

    Each takes the next one's, and the last the first's. `dense` is the stack's training with nothing pruned.
    """
    places = tuple((r, (r + 1) % count) for r in range(count))
    # In a list, stacks are handed over whole and not element by element.
    stacks = [tickets, dense] if needs_symmetry(control) else [tickets]
    return derive(neighbour_ticket, setup, tickets, places, stacks, control=control)


def neighbour_ticket(
    setup: Setup,
    ticket: Ticket,
    places: tuple[int, int],
    stacks: Sequence[Sequence[Ticket | Trajectory | Failed]],
    *,
    control: Callable[..., Ticket],
) -> Ticket | Failed:
    """A control of the ticket at the first of two places in its stack that takes something from the one at the second.

    `stacks` are the whole stack's tickets and, for a control that matches hidden units, its dense trainings. Where
    one of the two replicates failed, the control is a `Failed` that says which.
    """
    for lost in (stack[place] for stack in stacks for place in places):
        if isinstance(lost, Failed):
            told = f"it takes the mask of another replicate, and replicate {lost.seeds.replicate} failed: {lost.reason}"
            return Failed(told, None, ticket.seeds)
    options: dict[str, Any] = {"neighbour": stacks[0][places[1]]}
    if needs_symmetry(control):
        paths = [path for path in (stacks[1][place] for place in places) if isinstance(path, Trajectory)]
        options["ends"] = tuple(path.saved[max(path.saved)].weights for path in paths)
        options["symmetry"] = symmetry(setup.module(), setup.input_shape)
    seed = ticket.seeds.derive("control", control.__name__, ticket.mask.count())
    return control(ticket, seed=seed, **options)
