"""Progressive skeletonisation: prune at initialisation by the gradients of the pruned network, not of the whole one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from winticket.allocate import Allocate, global_top
from winticket.procedures.facts import method
from winticket.run import derive
from winticket.stages import Density, PlannedLevel, Setup, dense_ticket, prune_with_foresight

ITERATIONS = 300
"""Iterations in which the density falls (de Jorge et al. 2021; their code's default is 10, its README takes 60)."""


@method("force", criterion="snip", allocate="global_top", before_training=True, gradual=True)
def force(
    setup: Setup,
    densities: Sequence[Density],
    replicates: Sequence[int],
    *,
    allocate: Allocate = global_top,
) -> Iterator[PlannedLevel]:
    """FORCE: prunes the untrained network in 300 iterations, each scored under the last mask; weights may come back.

    De Jorge et al. 2021 (Progressive Skeletonization, arXiv:2006.09081). The search looks for the mask m with the
    largest foresight connection sensitivity Σ |θ · ∂L/∂(θ⊙m)|. The density falls exponentially. A pruned weight has a
    gradient as well, and returns if its score is high. Each density starts again from the whole network. Each iteration
    draws ten examples of each class; the authors' code draws about as many, at random.

    >>> from winticket.experiment import Experiment
    >>> setup = Experiment.of("digits", steps=20).setup()
    >>> [sparse] = force(setup, [0.02], (0, 1))
    >>> sparse.ticket.options["iterations"], sparse.ticket.options["revive"]
    (300, True)
    """
    yield from _progressive(setup, densities, replicates, allocate=allocate, revive=True)


@method("iter-snip", criterion="snip", allocate="global_top", before_training=True, gradual=True)
def iter_snip(
    setup: Setup,
    densities: Sequence[Density],
    replicates: Sequence[int],
    *,
    allocate: Allocate = global_top,
) -> Iterator[PlannedLevel]:
    """Iterative SNIP: the iterations of FORCE, but a pruned weight stays pruned.

    De Jorge et al. 2021 (Progressive Skeletonization, arXiv:2006.09081), who compare it with FORCE.

    >>> from winticket.experiment import Experiment
    >>> setup = Experiment.of("digits", steps=20).setup()
    >>> [sparse] = iter_snip(setup, [0.02], (0, 1))
    >>> sparse.ticket.options["revive"]
    False
    """
    yield from _progressive(setup, densities, replicates, allocate=allocate, revive=False)


def _progressive(
    setup: Setup,
    densities: Sequence[Density],
    replicates: Sequence[int],
    *,
    allocate: Allocate,
    revive: bool,
) -> Iterator[PlannedLevel]:
    dense = derive(dense_ticket, setup, tuple(replicates))
    for density in densities:
        options = {"allocate": allocate, "iterations": ITERATIONS, "revive": revive}
        yield PlannedLevel(derive(prune_with_foresight, setup, dense, density=density, **options))
