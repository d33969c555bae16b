"""Progressive skeletonisation: prune at initialisation by what the pruned network, and not the whole one, loses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from winticket.allocate import Allocate, global_top
from winticket.procedures.facts import method
from winticket.run import derive
from winticket.stages import Density, Found, Setup, dense_ticket, prune_with_foresight

ITERATIONS = 300
"""Iterations in which the density falls (de Jorge et al. 2021; their code's default is 10, its README takes 60)."""


@method("force", criterion="snip", allocate="global_top", before_training=True, gradual=True)
def force(
    setup: Setup,
    densities: Sequence[Density],
    replicates: Sequence[int],
    *,
    allocate: Allocate = global_top,
) -> Iterator[Found]:
    """FORCE: before any training, keeps the weights that the pruned network is most sensitive to; any may come back.

    De Jorge et al. 2021 (Progressive Skeletonization, arXiv:2006.09081). A mask maximises the foresight connection
    sensitivity Σ |θ · ∂L/∂(θ⊙m)|, with the gradient of the network under that mask: found in 300 iterations of
    exponentially falling density. A weight outside the mask has a gradient too, and returns when its score is high.
    Every density is a search of its own from the initial weights. Examples are drawn anew in each iteration, ten of
    each class; the authors' code draws about as many, at random.
    """
    yield from _progressive(setup, densities, replicates, allocate=allocate, revive=True)


@method("iter-snip", criterion="snip", allocate="global_top", before_training=True, gradual=True)
def iter_snip(
    setup: Setup,
    densities: Sequence[Density],
    replicates: Sequence[int],
    *,
    allocate: Allocate = global_top,
) -> Iterator[Found]:
    """Iterative SNIP: SNIP in many small rounds before any training, each scored at the network pruned so far.

    De Jorge et al. 2021 (Progressive Skeletonization, arXiv:2006.09081), beside FORCE: the same scores, iterations and
    densities, but a pruned weight stays pruned.
    """
    yield from _progressive(setup, densities, replicates, allocate=allocate, revive=False)


def _progressive(
    setup: Setup,
    densities: Sequence[Density],
    replicates: Sequence[int],
    *,
    allocate: Allocate,
    revive: bool,
) -> Iterator[Found]:
    dense = derive(dense_ticket, setup, tuple(replicates))
    for density in densities:
        options = {"allocate": allocate, "iterations": ITERATIONS, "revive": revive}
        yield Found(derive(prune_with_foresight, setup, dense, density=density, **options))
