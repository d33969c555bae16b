"""Tickets transferred to another setup: other data, another recipe, another width."""

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
    """The ticket in another setup: the same mask and start weights, trained from step 0 by a fresh optimiser.

    Weights whose shapes differ (an output layer for other classes) come from this setup's initialisation, the same in
    every ticket of a replicate. The mask covers the weights that this setup may prune. With `whole`, nothing is pruned:
    this is the dense network that the ticket is compared with, from the same start.

    >>> from winticket.experiment import Experiment
    >>> from winticket.stages import dense_ticket
    >>> setup = Experiment.of("digits", steps=20).setup()
    >>> ticket = dense_ticket(setup, 0)
    >>> carried(setup, ticket).mask.count() == ticket.mask.count()
    True
    """
    drawn = setup.initial(ticket.seeds.derive("init")).weights
    before = ticket.start.weights
    weights = {n: before[n] if before[n].shape == w.shape else w for n, w in drawn.items()}
    mask = whole_mask(setup, weights)
    if not whole:
        mask = replace(mask, keep={n: ticket.mask.keep[n] for n in mask.keep})
    origin = "dense" if whole else ticket.origin
    return Ticket(mask, State(weights, ticket.start.buffers, {}, 0), origin, ticket.seeds, ticket.about)


def widened(setup: Setup, there: Setup, ticket: Ticket, *, whole: bool = False) -> Ticket:
    """The ticket's mask in a network of another width; see `winticket.align.resized`.

    `there` is the setup that the ticket was found in. The start is this setup's initialisation, the same for every
    ticket of a replicate: a copied unit with copied weights would learn the same as the original. A layer keeps
    `kept_here` weights. If units do not repeat a whole number of times, surplus weights are pruned, or missing ones
    added, at random. With `whole`, nothing is pruned: this is the dense network that the ticket is compared with.

    >>> from winticket.experiment import Experiment
    >>> from winticket.stages import dense_ticket
    >>> setup = Experiment.of("digits", steps=20).setup()
    >>> wide = Experiment.of("digits", model="lenet-600-200", steps=20).setup()
    >>> whole = widened(wide, setup, dense_ticket(setup, 0), whole=True)
    >>> whole.mask.keep["fc1.weight"].shape
    torch.Size([600, 64])
    """
    # Another seed than the search's: under that one, the first units would have exactly the weights of the search's.
    start = setup.initial(ticket.seeds.derive("init of another width"))
    mask = whole_mask(setup, start.weights)
    origin = "dense" if whole else ticket.origin
    if not whole:
        old = {n: ticket.mask.keep[n] for n in mask.keep}
        new = resized(
            old, symmetry(there.module(), there.input_shape), symmetry(setup.module(), setup.input_shape)
        )
        generator = torch.Generator().manual_seed(ticket.seeds.derive("width", ticket.mask.count()))
        # Kept weights rank before pruned ones; chance decides among equals.
        scores = {n: keep + torch.rand(keep.shape, generator=generator) for n, keep in new.items()}
        counts = {n: kept_here(int(old[n].sum()), old[n].numel(), k.numel()) for n, k in mask.keep.items()}
        mask = layerwise(scores, mask, density={n: counts[n] / k.numel() for n, k in mask.keep.items()})
    return Ticket(mask, State(start.weights, start.buffers, {}, 0), origin, ticket.seeds, ticket.about)


def kept_here(kept: int, there: int, here: int) -> int:
    """How many of `here` weights are the same share as `kept` of `there`; at least 1 if `kept` is.

    >>> kept_here(3, 10, 25)
    8
    """
    return max(min(kept, 1), (2 * kept * here + there) // (2 * there))
