"""Tickets put into another setup: other data, another recipe, another width."""

from __future__ import annotations

from dataclasses import replace

import torch

from winticket.align import REVISION as ALIGN
from winticket.align import resized, symmetry
from winticket.allocate import layerwise
from winticket.stages.setup import Setup
from winticket.stages.tickets import whole_mask
from winticket.ticket import State, Ticket

REVISION = 1 + ALIGN  # both only rise, so that a change of either gives a new sum


def carried(setup: Setup, ticket: Ticket, *, whole: bool = False) -> Ticket:
    """A ticket put into another setup: its mask and its start, trained from step 0 by a fresh optimiser.

    Weights whose shapes differ (an output layer for other classes) are this setup's own initialisation, the same in
    every ticket of a replicate. The mask covers what this setup prunes. With `whole` nothing is pruned: the dense
    network that the ticket is held against begins where it does.
    """
    drawn = setup.initial(ticket.seeds.derive("init")).weights
    given = ticket.start.weights
    weights = {n: given[n] if given[n].shape == w.shape else w for n, w in drawn.items()}
    mask = whole_mask(setup, weights)
    if not whole:
        mask = replace(mask, keep={n: ticket.mask.keep[n] for n in mask.keep})
    origin = "dense" if whole else ticket.origin
    return Ticket(mask, State(weights, ticket.start.buffers, {}, 0), origin, ticket.seeds, ticket.about)


def widened(setup: Setup, there: Setup, ticket: Ticket, *, whole: bool = False) -> Ticket:
    """A ticket's mask put into a network of another width; see `winticket.align.resized`.

    The start is this setup's own initialisation, the same for every ticket of a replicate: a copied unit with copied
    weights would learn what the first one does. A layer keeps `kept_here` weights: where units are not repeated a whole
    number of times, some that are too many go, or some that are missing come, at random. With `whole` nothing is
    pruned: the dense network that the ticket is held against.
    """
    # Not the seed of the search's own initialisation, whose first units would have the very same weights.
    start = setup.initial(ticket.seeds.derive("init of another width"))
    mask = whole_mask(setup, start.weights)
    origin = "dense" if whole else ticket.origin
    if not whole:
        old = {n: ticket.mask.keep[n] for n in mask.keep}
        new = resized(
            old, symmetry(there.module(), there.input_shape), symmetry(setup.module(), setup.input_shape)
        )
        generator = torch.Generator().manual_seed(ticket.seeds.derive("width", ticket.mask.count()))
        # What was kept first, and within that at random.
        scores = {n: keep + torch.rand(keep.shape, generator=generator) for n, keep in new.items()}
        counts = {n: kept_here(int(old[n].sum()), old[n].numel(), k.numel()) for n, k in mask.keep.items()}
        mask = layerwise(scores, mask, density={n: counts[n] / k.numel() for n, k in mask.keep.items()})
    return Ticket(mask, State(start.weights, start.buffers, {}, 0), origin, ticket.seeds, ticket.about)


def kept_here(kept: int, there: int, here: int) -> int:
    """The same share of a layer's weights: `kept` of `there`, as a count of `here`, at least 1 of any."""
    return max(min(kept, 1), (2 * kept * here + there) // (2 * there))
