"""Masks that change within one training: dynamic sparse training (SET, RigL) and gradual magnitude pruning.

The search itself trains a sparse network, and its results are reported as the arm `search`. The ticket is the last mask
of the search, trained by itself from the initial weights.
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
    PlannedLevel,
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
) -> Iterator[PlannedLevel]:
    """Sparse evolutionary training: drops the lowest-scored weights of each layer and regrows as many at random.

    Mocanu et al. 2018, with the share replaced falling as in Evci et al. 2020. The first mask is random, with the
    counts that `allocate` gives each layer. The mask changes every `every` steps.

    >>> from winticket.experiment import Experiment
    >>> setup = Experiment.of("digits", steps=20).setup()
    >>> [sparse] = set_(setup, [0.2], (0, 1))
    >>> sparse.search.options["every"]
    1
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
) -> Iterator[PlannedLevel]:
    """Rigged lottery: drops the lowest-scored weights of each layer and regrows as many where the gradient is largest.

    Evci et al. 2020, algorithm 1. The first mask is random, with the counts that `allocate` gives each layer (default:
    the paper's best). The mask changes every `every` steps, by the gradient of the next batch. That batch also updates
    the weights, which it does not in the paper. A weight that was just dropped may be regrown, as in the authors' code.

    >>> from winticket.experiment import Experiment
    >>> setup = Experiment.of("digits", steps=20).setup()
    >>> [sparse] = rigl(setup, [0.2], (0, 1))
    >>> sparse.search.options["grow"].__name__
    'by_gradient'
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
) -> Iterator[PlannedLevel]:
    """Prunes gradually within one training; the density at step t is d + (1 - d) · (1 - t / T)³.

    Zhu & Gupta 2017, eq. 1, with T at three quarters of the training. This is the usual baseline without a lottery: the
    search never rewinds its weights.

    >>> from winticket.experiment import Experiment
    >>> setup = Experiment.of("digits", steps=20).setup()
    >>> [pruned] = gradual(setup, [0.2], (0, 1))
    >>> pruned.search.fn
    'winticket/train_thinning'
    """
    dense = derive(dense_ticket, setup, tuple(replicates))
    for level, density in enumerate(densities, 1):
        mean = (
            1 + 3 * _typical(density)
        ) / 4  # of the density, over the part of the training in which it falls
        path = trained(
            setup,
            dense,
            arm="search",
            level=level,
            first=replicates[0],
            count=len(replicates),
            cost=relative_cost(setup.module(), mean, setup.recipe),
            how=train_thinning,
            density=density,
            criterion=criterion,
            allocate=allocate or usual(criterion),
            every=_every(setup, every),
        )
        yield PlannedLevel(derive(last_mask, path), search=path)


def _regrown(
    setup: Setup,
    densities: Sequence[Density],
    replicates: Sequence[int],
    *,
    grow: Grow,
    criterion: Criterion,
    allocate: Allocate,
    every: int | None,
) -> Iterator[PlannedLevel]:
    dense = derive(dense_ticket, setup, tuple(replicates))
    for level, density in enumerate(densities, 1):
        path = trained(
            setup,
            derive(sparse_start, dense, density=density, allocate=allocate),
            arm="search",
            level=level,
            first=replicates[0],
            count=len(replicates),
            cost=relative_cost(setup.module(), _typical(density), setup.recipe),
            how=train_regrowing,
            grow=grow,
            criterion=criterion,
            every=_every(setup, every),
        )
        yield PlannedLevel(derive(last_mask, path), search=path)


def _typical(density: Density) -> float:
    return float(density["*"]) if isinstance(density, Mapping) else density


def _every(setup: Setup, every: int | None) -> int:
    return every or usual_every(setup.recipe.steps)
