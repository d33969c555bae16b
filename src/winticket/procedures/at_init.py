"""Pruning at initialisation: the mask is chosen before any training, and only then is there one."""

from collections.abc import Iterator, Sequence

from winticket.allocate import Allocate, global_top
from winticket.criteria import Criterion, snip
from winticket.procedures.setup import Setup
from winticket.procedures.stages import Density, Found, dense_ticket, prune_untrained
from winticket.rewind import Rewind, to_init
from winticket.run import step


def at_init(
    setup: Setup,
    densities: Sequence[Density],
    replicates: Sequence[int],
    *,
    criterion: Criterion = snip,
    allocate: Allocate = global_top,
    rewind: Rewind = to_init,
) -> Iterator[Found]:
    """One stack of tickets per density, each pruned from the untrained network. Lee et al. 2019; Tanaka et al. 2020."""
    dense = step(dense_ticket, setup, tuple(replicates))
    for density in densities:
        options = {"density": density, "criterion": criterion, "allocate": allocate, "rewind": rewind}
        yield Found(step(prune_untrained, setup, dense, **options))
