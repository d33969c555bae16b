"""Pruning at initialisation: the mask is chosen before any training, and only then is there one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from winticket.allocate import Allocate
from winticket.criteria import Criterion, snip
from winticket.pairing import usual
from winticket.procedures.facts import method
from winticket.rewind import Rewind, to_init
from winticket.run import derive
from winticket.stages import Density, Found, Setup, dense_ticket, prune_untrained


@method("at-init", criterion="snip", before_training=True)
def at_init(
    setup: Setup,
    densities: Sequence[Density],
    replicates: Sequence[int],
    *,
    criterion: Criterion = snip,
    allocate: Allocate | None = None,
    rewind: Rewind = to_init,
) -> Iterator[Found]:
    """One stack of tickets per density, each pruned from the untrained network. Lee et al. 2019; Tanaka et al. 2020."""
    dense = derive(dense_ticket, setup, tuple(replicates))
    for density in densities:
        options = {
            "density": density,
            "criterion": criterion,
            "allocate": allocate or usual(criterion),
            "rewind": rewind,
        }
        yield Found(derive(prune_untrained, setup, dense, **options))
