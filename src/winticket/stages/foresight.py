"""Pruning at initialisation in many small iterations, each scored at the network that the last one left."""

from __future__ import annotations

from dataclasses import replace

from winticket.allocate import Allocate
from winticket.criteria.applied import careful, scores_of
from winticket.criteria.gradients import REVISION as GRADIENTS
from winticket.criteria.gradients import foresight
from winticket.schedules import geometric_at
from winticket.stages.pruning import REVISION as PRUNING
from winticket.stages.pruning import evidence, scored
from winticket.stages.setup import Setup
from winticket.stages.tickets import Density
from winticket.ticket import Seeds, Ticket

REVISION = 1 + PRUNING + GRADIENTS  # all only rise, so that a change of any gives a new sum


def prune_with_foresight(
    setup: Setup, ticket: Ticket, *, density: Density, allocate: Allocate, iterations: int, revive: bool
) -> Ticket:
    """Prune an untrained network to `density` in `iterations`, by the foresight connection sensitivity.

    After iteration t of T the density is d^(t/T), which is k_t = exp(α log k + (1 - α) log m) weights with α = t/T
    (de Jorge et al. 2021). Each iteration scores the network under the mask of the iteration before, on examples
    that it draws itself, as many of each class as `scored` takes. With `revive`, it chooses among all weights of
    `ticket`; otherwise only among those that the iteration before kept.
    """
    seen, mask, seeds = evidence(setup, ticket, ticket.start, foresight), ticket.mask, ticket.seeds
    for number in range(1, iterations + 1):
        batches = scored(setup, Seeds(seeds.derive("scored", number), seeds.replicate))
        scores = scores_of(foresight, replace(seen, mask=mask, batches=batches))
        among = ticket.mask if revive else mask
        mask = careful(allocate)(scores, among, density=geometric_at(density, number / iterations))
    return replace(ticket, mask=mask, origin="ticket").settled(setup.module())
