"""Pruning at initialisation: choose the mask before any training, then train under it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from winticket.allocate import Allocate
from winticket.criteria import Criterion, snip
from winticket.pairing import usual
from winticket.procedures.facts import method
from winticket.rewind import Rewind, to_init
from winticket.run import derive
from winticket.stages import Density, PlannedLevel, Setup, dense_ticket, prune_untrained


@method("at-init", criterion="snip", before_training=True)
def at_init(
    setup: Setup,
    densities: Sequence[Density],
    replicates: Sequence[int],
    *,
    criterion: Criterion = snip,
    allocate: Allocate | None = None,
    rewind: Rewind = to_init,
) -> Iterator[PlannedLevel]:
    """Prunes the untrained network to each density. Lee et al. 2019; Tanaka et al. 2020.

    A criterion takes as many rounds as in its paper (SynFlow a hundred).

    >>> from winticket.experiment import Experiment
    >>> setup = Experiment.of("digits", steps=20).setup()
    >>> [sparse] = at_init(setup, [0.2], (0, 1))
    >>> sparse.ticket.fn
    'winticket/prune_untrained'
    """
    dense = derive(dense_ticket, setup, tuple(replicates))
    for density in densities:
        options = {
            "density": density,
            "criterion": criterion,
            "allocate": allocate or usual(criterion),
            "rewind": rewind,
        }
        yield PlannedLevel(derive(prune_untrained, setup, dense, **options))
