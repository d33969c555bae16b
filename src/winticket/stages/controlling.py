"""Controls of a ticket, from the ticket alone or together with another replicate of its stack."""

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
    """A control of the ticket; each control, replicate and count of weights has a different seed.

    Errors: ValueError if the control could not differ from the ticket.

    >>> from winticket.experiment import Experiment
    >>> setup = Experiment.of("digits", steps=20).setup()
    >>> from winticket.controls import reinit
    >>> from winticket.stages import dense_ticket
    >>> control_ticket(setup, dense_ticket(setup, 0), control=reinit).origin
    'reinit'
    """
    named = control.func if isinstance(control, partial) else control
    name = str(getattr(named, "__name__", named))
    options: dict[str, Any] = {"seed": ticket.seeds.derive("control", name, ticket.mask.count())}
    if "draw" in signature(control).parameters:
        options["draw"] = setup.redrawn
    return control(ticket, **options)


def trained_control_ticket(
    setup: Setup, ticket: Ticket, dense: Trajectory, *, control: Callable[..., Ticket]
) -> Ticket:
    """As `control_ticket`, for a control that takes the weights at the end of the replicate's dense training."""
    return control_ticket(setup, ticket, control=partial(control, end=dense.saved[max(dense.saved)].weights))


def needs_end(control: Callable[..., Ticket]) -> bool:
    """Whether a control takes the weights at the end of the replicate's dense training."""
    return "end" in signature(control).parameters


def needs_neighbour(control: Callable[..., Ticket]) -> bool:
    """Whether a control takes another replicate's ticket."""
    return "neighbour" in signature(control).parameters


def needs_symmetry(control: Callable[..., Ticket]) -> bool:
    """Whether a control matches hidden units, for which it takes the trained dense networks."""
    return "symmetry" in signature(control).parameters


def neighbours(
    setup: Setup, tickets: Task, dense: Task, count: int, *, control: Callable[..., Ticket]
) -> Task:
    """The derived task that makes the controls of a stack of `count` from the tickets of its other replicates.

    Each replicate takes the ticket of the next one, and the last takes the first's. `dense` is the stack's training
    with nothing pruned.
    """
    pairs = tuple((r, (r + 1) % count) for r in range(count))
    # A derived task gets a stack in a list whole, not element by element.
    stacks = [tickets, dense] if needs_symmetry(control) else [tickets]
    return derive(neighbour_ticket, setup, tickets, pairs, stacks, control=control)


def neighbour_ticket(
    setup: Setup,
    ticket: Ticket,
    pair: tuple[int, int],
    stacks: Sequence[Sequence[Ticket | Trajectory | Failed]],
    *,
    control: Callable[..., Ticket],
) -> Ticket | Failed:
    """A control that takes the ticket of another replicate.

    `pair` are the positions of the ticket and of the other replicate in the stack. `stacks` are the tickets of the
    whole stack and, for a control that matches hidden units, its dense trainings. If one of the two replicates failed,
    the result is a `Failed` that says which.
    """
    for lost in (stack[position] for stack in stacks for position in pair):
        if isinstance(lost, Failed):
            other = lost.seeds.replicate
            reason = f"it takes the mask of another replicate, and replicate {other} failed: {lost.reason}"
            return Failed(reason, None, ticket.seeds)
    options: dict[str, Any] = {"neighbour": stacks[0][pair[1]]}
    if needs_symmetry(control):
        paths = [path for path in (stacks[1][position] for position in pair) if isinstance(path, Trajectory)]
        options["ends"] = tuple(path.saved[max(path.saved)].weights for path in paths)
        options["symmetry"] = symmetry(setup.module(), setup.input_shape)
    seed = ticket.seeds.derive("control", control.__name__, ticket.mask.count())
    return control(ticket, seed=seed, **options)
