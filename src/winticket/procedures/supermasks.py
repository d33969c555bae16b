"""Supermasks: which weights to keep is learned, and no weight changes.

The network as it is under the learned mask, untrained, stands beside the ticket, which is the same mask trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from winticket.allocate import Allocate, layerwise
from winticket.procedures.facts import method
from winticket.run import derive
from winticket.stages import Density, Found, Setup, dense_ticket, last_mask, sparse_start, train_mask, trained

LEARNING_COST = (
    1.5  # of a step that learns a mask, in dense steps: choosing the largest scores; for plans alone
)


@method("edge-popup", allocate="layerwise", fixed_counts=True, search="untrained")
def edge_popup(
    setup: Setup,
    densities: Sequence[Density],
    replicates: Sequence[int],
    *,
    allocate: Allocate = layerwise,
    search_lr: float | None = None,
) -> Iterator[Found]:
    """Edge-popup: every weight has a score that is trained, and each layer keeps the weights of its largest |score|.

    Ramanujan et al. 2020, §3. By the recipe's own optimiser, at the rate `search_lr` or the recipe's. Weights are the
    model's initial ones; the paper's best are signed constants (init signed-constant). Biases and BatchNorm's scales
    are not trained either.
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
) -> Iterator[Found]:
    """Learned supermask: every weight is kept with a probability of its own, and the probabilities are trained.

    Zhou et al. 2019, §5.1. They begin at the density, and the mask that counts keeps each layer's most probable
    weights, so that the density is the one asked for; in the paper it is what comes out, and sampled masks are what is
    measured. Trained are logits, at the rate `search_lr` or a hundred times the recipe's. BatchNorm's statistics are
    those of sampled masks.
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
) -> Iterator[Found]:
    dense = derive(dense_ticket, setup, tuple(replicates))
    rate = setup.recipe.lr if search_lr is None else search_lr
    own = replace(setup, recipe=replace(setup.recipe, lr=rate))
    for level, density in enumerate(densities, 1):
        path = trained(
            own,
            derive(sparse_start, dense, density=density, allocate=allocate),
            arm="search",
            level=level,
            first=replicates[0],
            count=len(replicates),
            cost=LEARNING_COST,
            how=train_mask,
            kind=kind,
        )
        yield Found(derive(last_mask, path), search=path)
