"""Masks that change within one training: dynamic sparse training (SET, RigL), and gradual magnitude pruning.

The training that the mask comes from is itself a sparse network's; its results stand beside those of the ticket, the
last mask trained alone from its initial weights.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from winticket.allocate import Allocate, erk
from winticket.criteria import Criterion, magnitude
from winticket.criteria.applied import mask_of, scores_of
from winticket.pairing import usual
from winticket.procedures.setup import Setup
from winticket.procedures.stages import (
    Density,
    Found,
    carry_out,
    dense_ticket,
    evidence,
    trained,
)
from winticket.run import step
from winticket.schedules import cubic_at
from winticket.ticket import Failed, Mask, State, Ticket, Trajectory
from winticket.train import Gradient, relative_cost, rules
from winticket.train.rules import Grow, Regrowing, Score, Thinning, random_mask, usual_every

REVISION = 2


def set_(
    setup: Setup,
    densities: Sequence[Density],
    replicates: Sequence[int],
    *,
    criterion: Criterion = magnitude,
    allocate: Allocate = erk,
    every: int | None = None,
) -> Iterator[Found]:
    """Sparse evolutionary training: the weakest weights of every layer go, and as many places at random come.

    Mocanu et al. 2018, with the falling share of Evci et al. 2020. The mask is random at the start, as `allocate`
    spreads it, and changes after every `every` steps.
    """
    yield from _regrown(
        setup, densities, replicates, grow=at_random, criterion=criterion, allocate=allocate, every=every
    )


def rigl(
    setup: Setup,
    densities: Sequence[Density],
    replicates: Sequence[int],
    *,
    criterion: Criterion = magnitude,
    allocate: Allocate = erk,
    every: int | None = None,
) -> Iterator[Found]:
    """Rigged lottery: the weakest weights of every layer go, and those of the largest gradient come.

    Evci et al. 2020, algorithm 1. The mask is random at the start, as `allocate` spreads it (the paper's best
    is the default), and changes after every `every` steps; the gradient is that of the batch that follows, which is
    trained on as well (the paper leaves that update out). What has just gone may come back, as in the authors' code.
    """
    yield from _regrown(
        setup, densities, replicates, grow=by_gradient, criterion=criterion, allocate=allocate, every=every
    )


def gradual(
    setup: Setup,
    densities: Sequence[Density],
    replicates: Sequence[int],
    *,
    criterion: Criterion = magnitude,
    allocate: Allocate | None = None,
    every: int | None = None,
) -> Iterator[Found]:
    """Gradual pruning within one training, to a density that falls on a cubic: d + (1 - d) · (1 - t / T)³ at step t.

    Zhu & Gupta 2017, eq. 1; T is three quarters of the training. No lottery: the weights are never rewound.
    """
    dense = step(dense_ticket, setup, tuple(replicates))
    for level, density in enumerate(densities, 1):
        mean = (1 + 3 * _typical(density)) / 4  # of the cubic over the training's first part
        path = trained(
            setup,
            dense,
            arm="search",
            level=level,
            first=replicates[0],
            count=len(replicates),
            cost=relative_cost(setup.module(), mean, setup.recipe, engine=setup.engine),
            how=train_thinning,
            density=density,
            criterion=criterion,
            allocate=allocate or usual(criterion),
            every=_every(setup, every),
        )
        yield Found(step(last_mask, path), search=path)


def _regrown(
    setup: Setup,
    densities: Sequence[Density],
    replicates: Sequence[int],
    *,
    grow: Grow,
    criterion: Criterion,
    allocate: Allocate,
    every: int | None,
) -> Iterator[Found]:
    dense = step(dense_ticket, setup, tuple(replicates))
    for level, density in enumerate(densities, 1):
        path = trained(
            setup,
            step(sparse_start, dense, density=density, allocate=allocate),
            arm="search",
            level=level,
            first=replicates[0],
            count=len(replicates),
            cost=relative_cost(setup.module(), _typical(density), setup.recipe, engine=setup.engine),
            how=train_regrowing,
            grow=grow,
            criterion=criterion,
            every=_every(setup, every),
        )
        yield Found(step(last_mask, path), search=path)


def _typical(density: Density) -> float:
    return float(density["*"]) if isinstance(density, Mapping) else density


def _every(setup: Setup, every: int | None) -> int:
    return every or usual_every(setup.recipe.steps)


# The keys of stored results name these two by where they are: here, though the rules are in `train.rules`.
def at_random(mask: Mask, gradient: Gradient, generator: torch.Generator) -> dict[str, Tensor]:
    """Every free place alike."""
    return rules.at_random(mask, gradient, generator)


def by_gradient(mask: Mask, gradient: Gradient, generator: torch.Generator) -> dict[str, Tensor]:
    """Where the loss would fall fastest: |∂L/∂w|."""
    return rules.by_gradient(mask, gradient, generator)


def sparse_start(ticket: Ticket, *, density: Density, allocate: Allocate) -> Ticket:
    """The network at its initialisation under a random mask of that density."""
    mask = random_mask(ticket.mask, ticket.seeds, density=density, allocate=allocate)
    return replace(ticket, mask=mask, origin="search")


def last_mask(path: Trajectory) -> Ticket:
    """The ticket of a search: its last mask, with the weights that it began with."""
    return replace(path.ticket, origin="ticket")


def train_regrowing(
    setup: Setup,
    stack: Sequence[Ticket | Failed],
    *,
    grow: Grow,
    criterion: Criterion,
    every: int,
    checkpoint: Any = None,
    report: Callable[[int, int], None] | None = None,
) -> tuple[Trajectory | Failed, ...]:
    """Train a stack of sparse tickets, replacing the weakest weights now and then. Every layer keeps its count."""
    changes = Regrowing(setup.recipe.steps, grow, _score(setup, criterion), every)
    return carry_out(setup, stack, changes=changes, checkpoint=checkpoint, report=report)


def train_thinning(
    setup: Setup,
    stack: Sequence[Ticket | Failed],
    *,
    density: Density,
    criterion: Criterion,
    allocate: Allocate,
    every: int,
    checkpoint: Any = None,
    report: Callable[[int, int], None] | None = None,
) -> tuple[Trajectory | Failed, ...]:
    """Train a stack of dense tickets, pruning a little now and then."""
    way = partial(cubic_at, density)

    def prune(ticket: Ticket, now: State, density: Density) -> Mask:
        seen = evidence(setup, ticket, now, criterion)
        return mask_of(criterion, seen, allocate=allocate, density=density)

    changes = Thinning(setup.recipe.steps, way, prune, every)
    return carry_out(setup, stack, changes=changes, checkpoint=checkpoint, report=report)


def _score(setup: Setup, criterion: Criterion) -> Score:
    return lambda ticket, now: scores_of(criterion, evidence(setup, ticket, now, criterion))
