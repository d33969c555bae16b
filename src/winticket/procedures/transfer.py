"""Transfer: tickets that were found elsewhere, put where they are to train now."""

from collections.abc import Iterable, Iterator

from winticket.procedures.setup import Setup
from winticket.procedures.stages import Found, prunable
from winticket.run import Task, step
from winticket.ticket import Mask, State, Ticket


def transfer(setup: Setup, tickets: Iterable[Task]) -> Iterator[Found]:
    """One stack of tickets for each that another setup's procedure yielded. Morcos et al. 2019, §3."""
    for ticket in tickets:
        yield Found(step(carried, setup, ticket))


def carried(setup: Setup, ticket: Ticket, *, whole: bool = False) -> Ticket:
    """A ticket put into another setup: its mask and its start, trained from step 0 by a fresh optimiser.

    Weights whose shapes differ (an output layer for other classes) are this setup's own initialisation, the same in
    every ticket of a replicate. The mask covers what this setup prunes. With `whole` nothing is pruned: the dense
    network that the ticket is held against begins where it does.
    """
    drawn = setup.initial(ticket.seeds.derive("init")).weights
    given = ticket.start.weights
    weights = {n: given[n] if given[n].shape == w.shape else w for n, w in drawn.items()}
    mask = Mask({n: ticket.mask.keep[n] for n in prunable(setup)})
    if whole:
        mask = Mask.full({n: weights[n] for n in mask.keep})
    origin = "dense" if whole else ticket.origin
    return Ticket(mask, State(weights, ticket.start.buffers, {}, 0), origin, ticket.seeds, ticket.about)
