"""Training under a mask that changes: dynamic sparse training and gradual pruning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from winticket.allocate import Allocate
from winticket.criteria import Criterion
from winticket.criteria.applied import mask_of, scores_of
from winticket.schedules import cubic_at
from winticket.stages.pruning import REVISION as PRUNING
from winticket.stages.pruning import evidence
from winticket.stages.setup import Setup
from winticket.stages.tickets import Density
from winticket.stages.training import Context, train_tickets
from winticket.ticket import Failed, Mask, State, Ticket, Trajectory
from winticket.train.rules import Grow, Regrowing, Score, Thinning, random_mask

REVISION = 1 + PRUNING


def sparse_start(ticket: Ticket, *, density: Density, allocate: Allocate) -> Ticket:
    """The network at its initialisation under a random mask of that density.

    Errors: ValueError from `allocate`, for a density that it cannot give.

    >>> from winticket.experiment import Experiment
    >>> setup = Experiment.of("digits", steps=20).setup()
    >>> from winticket.allocate import erk
    >>> from winticket.stages import dense_ticket
    >>> round(sparse_start(dense_ticket(setup, 0), density=0.2, allocate=erk).mask.density(), 3)
    0.2
    """
    mask = random_mask(ticket.mask, ticket.seeds, density=density, allocate=allocate)
    return replace(ticket, mask=mask, origin="search")


def last_mask(path: Trajectory) -> Ticket:
    """The ticket that a search found: its last mask, with the weights that the search started from."""
    return replace(path.ticket, origin="ticket")


def train_regrowing(
    setup: Setup,
    stack: Sequence[Ticket | Failed],
    *,
    grow: Grow,
    criterion: Criterion,
    every: int,
    checkpoint: Any = None,
    context: Context | None = None,
    report: Callable[[int, int], None] | None = None,
) -> tuple[Trajectory | Failed, ...]:
    """Train a stack of sparse tickets; every `every` steps, replace a share of each layer's lowest-scored weights.

    `grow` scores the pruned weights, of which the best come back. Every layer keeps its count.
    """
    changes = Regrowing(setup.recipe.steps, grow, _score(setup, criterion), every)
    return train_tickets(setup, stack, changes=changes, checkpoint=checkpoint, context=context, report=report)


def train_thinning(
    setup: Setup,
    stack: Sequence[Ticket | Failed],
    *,
    density: Density,
    criterion: Criterion,
    allocate: Allocate,
    every: int,
    checkpoint: Any = None,
    context: Context | None = None,
    report: Callable[[int, int], None] | None = None,
) -> tuple[Trajectory | Failed, ...]:
    """Train a stack of dense tickets; every `every` steps, prune to the next density on the way to `density`."""
    densities = partial(cubic_at, density)

    def prune(ticket: Ticket, now: State, density: Density) -> Mask:
        seen = evidence(setup, ticket, now, criterion)
        return mask_of(criterion, seen, allocate=allocate, density=density)

    changes = Thinning(setup.recipe.steps, densities, prune, every)
    return train_tickets(setup, stack, changes=changes, checkpoint=checkpoint, context=context, report=report)


def _score(setup: Setup, criterion: Criterion) -> Score:
    return lambda ticket, now: scores_of(criterion, evidence(setup, ticket, now, criterion))
