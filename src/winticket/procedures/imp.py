"""Iterative magnitude pruning: train, prune a little, rewind, and again."""

from collections.abc import Iterator, Sequence

from winticket.allocate import Allocate, layerwise
from winticket.criteria import Criterion, magnitude
from winticket.procedures.setup import Setup
from winticket.procedures.stages import Density, dense_ticket, prune, trained
from winticket.rewind import Rewind, to_init
from winticket.run import Task, step


def imp(
    setup: Setup,
    densities: Sequence[Density],
    replicates: Sequence[int],
    *,
    criterion: Criterion = magnitude,
    allocate: Allocate = layerwise,
    rewind: Rewind = to_init,
) -> Iterator[Task]:
    """One stack of tickets per density, each found by training the one before. Frankle & Carbin 2019, §2."""
    ticket = step(dense_ticket, setup, tuple(replicates))
    for level, density in enumerate(densities):
        arm = "ticket" if level else "dense"
        path = trained(setup, ticket, arm=arm, level=level, first=replicates[0], count=len(replicates))
        ticket = step(prune, path, density=density, criterion=criterion, allocate=allocate, rewind=rewind)
        yield ticket
