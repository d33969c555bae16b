"""Supermasks: learn which weights to keep, and change none.

The arm `search` is the untrained network under the learned mask. The ticket is the same mask, trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from winticket.allocate import Allocate, layerwise
from winticket.procedures.facts import method
from winticket.run import derive
from winticket.stages import (
    Density,
    PlannedLevel,
    Setup,
    dense_ticket,
    last_mask,
    sparse_start,
    train_mask,
    trained,
)

LEARNING_COST = 1.5
"""Cost of a step that learns a mask, in steps of the dense network; only the price of a plan uses it."""


@method("edge-popup", allocate="layerwise", fixed_counts=True, search="untrained")
def edge_popup(
    setup: Setup,
    densities: Sequence[Density],
    replicates: Sequence[int],
    *,
    allocate: Allocate = layerwise,
    search_lr: float | None = None,
) -> Iterator[PlannedLevel]:
    """Edge-popup: trains a score for every weight; each layer keeps the weights with the largest |score|.

    Ramanujan et al. 2020, §3. The recipe's optimiser trains the scores at the learning rate `search_lr` (default: the
    recipe's). Weights, biases and BatchNorm's scales keep their initial values. The paper's best initialisation is
    signed constants (init signed-constant).

    >>> from winticket.experiment import Experiment
    >>> setup = Experiment.of("digits", steps=20).setup()
    >>> [learned] = edge_popup(setup, [0.5], (0, 1))
    >>> learned.search.label["arm"]
    'search'
    """
    yield from _learned(setup, densities, replicates, kind="top", allocate=allocate, search_lr=search_lr)


@method("supermask", allocate="layerwise", fixed_counts=True, search="untrained")
def supermask(
    setup: Setup,
    densities: Sequence[Density],
    replicates: Sequence[int],
    *,
    allocate: Allocate = layerwise,
    search_lr: float | None = None,
) -> Iterator[PlannedLevel]:
    """Learned supermask: trains, for every weight, the probability of keeping it.

    Zhou et al. 2019, §5.1. The probabilities start at the density, and the final mask keeps the most probable weights
    of each layer, so the density is exact; in the paper the density is an outcome, and sampled masks are evaluated. The
    recipe's optimiser trains the logits at the learning rate `search_lr` (default: a hundred times the recipe's).
    BatchNorm's statistics are those of sampled masks.

    >>> from winticket.experiment import Experiment
    >>> setup = Experiment.of("digits", steps=20).setup()
    >>> [learned] = supermask(setup, [0.5], (0, 1))
    >>> learned.ticket.fn
    'winticket/last_mask'
    """
    rate = 100 * setup.recipe.lr if search_lr is None else search_lr
    yield from _learned(setup, densities, replicates, kind="sampled", allocate=allocate, search_lr=rate)


def _learned(
    setup: Setup,
    densities: Sequence[Density],
    replicates: Sequence[int],
    *,
    kind: str,
    allocate: Allocate,
    search_lr: float | None,
) -> Iterator[PlannedLevel]:
    dense = derive(dense_ticket, setup, tuple(replicates))
    rate = setup.recipe.lr if search_lr is None else search_lr
    searching = replace(setup, recipe=replace(setup.recipe, lr=rate))
    for level, density in enumerate(densities, 1):
        path = trained(
            searching,
            derive(sparse_start, dense, density=density, allocate=allocate),
            arm="search",
            level=level,
            first=replicates[0],
            count=len(replicates),
            cost=LEARNING_COST,
            how=train_mask,
            kind=kind,
        )
        yield PlannedLevel(derive(last_mask, path), search=path)
