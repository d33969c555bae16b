"""Controls: ticket -> ticket, what could explain a ticket away.

Every control keeps the ticket's seeds, so that it trains on the same data in the same order, and keeps the
count of weights in every layer; every control differs from the ticket. Weights that it prunes are stored as
zeros.
"""

from collections.abc import Callable, Mapping

import torch

from winticket.ticket import Mask, State, Ticket, same_bits

__all__ = ["Control", "random_mask", "reinit"]

REVISION = 1

Control = Callable[..., Ticket]


def reinit(ticket: Ticket, *, seed: int, draw: Callable[[int], State]) -> Ticket:
    """The ticket's mask on freshly drawn initial weights: is it the structure alone?

    `draw(seed)` gives a state of the same network from its own initialisation. Frankle & Carbin 2019, §2
    ("random reinitialization"): θ₀' drawn from the distribution that θ₀ was drawn from. ValueError where the
    draw gives the ticket's own weights back.
    """
    start = draw(seed)
    weights = ticket.mask.apply(start.weights)
    own = ticket.mask.apply(ticket.start.weights)
    if same_bits(_eligible(weights, ticket.mask), _eligible(own, ticket.mask)):
        raise ValueError(
            f"re-initialising with seed {seed} gave the ticket's own weights; it would be no control"
        )
    return Ticket(
        ticket.mask,
        State(weights, start.buffers, {}, ticket.start.step),
        "reinit",
        ticket.seeds,
        ticket.about,
    )


def random_mask(ticket: Ticket, *, seed: int) -> Ticket:
    """The ticket's own initial weights under a random mask of the same count in every layer.

    A layer-matched random ticket: is it the density of each layer alone? Layers kept whole stay whole.
    ValueError where no other mask with these counts exists (every layer whole or empty).
    """
    if all(kept in (0, total) for kept, total in ticket.mask.layers().values()):
        raise ValueError(
            "every layer is kept whole or emptied, so a random mask of the same counts would be the ticket's "
            "own; prune first"
        )
    generator = torch.Generator().manual_seed(seed)
    mask = ticket.mask
    while all(torch.equal(mask.keep[n], ticket.mask.keep[n]) for n in mask.keep):
        mask = Mask({name: _shuffled(keep, generator) for name, keep in ticket.mask.keep.items()})
    start = ticket.start
    weights = mask.apply(start.weights)
    return Ticket(mask, State(weights, start.buffers, {}, start.step), "random", ticket.seeds, ticket.about)


def _shuffled(keep: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    order = torch.randperm(keep.numel(), generator=generator)
    return keep.reshape(-1)[order].view(keep.shape)


def _eligible(weights: Mapping[str, torch.Tensor], mask: Mask) -> dict[str, torch.Tensor]:
    return {name: weights[name] for name in mask.keep}
