"""Masks that change within one training: dynamic sparse training (SET, RigL), and gradual magnitude pruning.

The training that the mask comes from is itself a sparse network's; its results stand beside those of the ticket, the
last mask trained alone from its initial weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from winticket.allocate import Allocate, erk
from winticket.criteria import Criterion, magnitude
from winticket.pairing import usual
from winticket.procedures.facts import method
from winticket.run import derive
from winticket.stages import (
    Density,
    Found,
    Setup,
    dense_ticket,
    last_mask,
    sparse_start,
    train_regrowing,
    train_thinning,
    trained,
)
from winticket.train import relative_cost, rules
from winticket.train.rules import Grow, Regrowing, Thinning, usual_every


@method("set", allocate="erk", fixed_counts=True, search="trained", changes=Regrowing)
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
        setup,
        densities,
        replicates,
        grow=rules.at_random,
        criterion=criterion,
        allocate=allocate,
        every=every,
    )


@method("rigl", allocate="erk", fixed_counts=True, search="trained", changes=Regrowing)
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
        setup,
        densities,
        replicates,
        grow=rules.by_gradient,
        criterion=criterion,
        allocate=allocate,
        every=every,
    )


@method("gradual", gradual=True, search="trained", changes=Thinning)
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
    dense = derive(dense_ticket, setup, tuple(replicates))
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
        yield Found(derive(last_mask, path), search=path)


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
    dense = derive(dense_ticket, setup, tuple(replicates))
    for level, density in enumerate(densities, 1):
        path = trained(
            setup,
            derive(sparse_start, dense, density=density, allocate=allocate),
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
        yield Found(derive(last_mask, path), search=path)


def _typical(density: Density) -> float:
    return float(density["*"]) if isinstance(density, Mapping) else density


def _every(setup: Setup, every: int | None) -> int:
    return every or usual_every(setup.recipe.steps)
