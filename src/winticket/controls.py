"""Controls: ticket -> ticket, what could explain a ticket away.

Every control keeps the ticket's seeds, so that it trains on the same data in the same order, and keeps the
count of weights in every layer (`random_global`, and `other` where layers compete: in the network); every control
differs from the ticket. Weights that it prunes are stored as zeros.

What a control draws comes from a stream of its own, derived from `seed` and the control's name. So the seed may be the
one that the network was initialised from: the draws have nothing to do with the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from winticket.align import Symmetry, match, permuted
from winticket.ticket import Mask, Seeds, State, Ticket, Weights, same_bits

__all__ = [
    "Control",
    "inverted",
    "magnitudes",
    "other",
    "other_aligned",
    "random_global",
    "random_mask",
    "reinit",
    "reshuffle",
    "shuffle_units",
    "sign_in",
    "signs",
]

REVISION = 2

Control = Callable[..., Ticket]
F = TypeVar("F", bound=Control)


@dataclass(frozen=True)
class Arm:
    """What a control is called, and how it looks.

    name        what users type and documents hold: "random"
    label       in words, for tables and figures
    look        colour, marker and dashes in figures
    from_start  whether it trains from step 0, whatever step the ticket was rewound to
    """

    name: str
    label: str
    look: tuple[str, str, str]
    from_start: bool = False


def arm(name: str, label: str, *, look: tuple[str, str, str], from_start: bool = False) -> Callable[[F], F]:
    """Says beside a control what its arm is (see `Arm`); `arm_of` reads it."""

    def mark(control: F) -> F:
        control.__dict__["arm"] = Arm(name, label, look, from_start)
        return control

    return mark


def arm_of(control: Control) -> Arm:
    """The arm of a control of this room."""
    found: Arm = control.__dict__["arm"]
    return found


def arms() -> dict[str, Control]:
    """Every control by the name of its arm, in the order of this file: the verdict's two, then those beside it."""
    marked = [thing for thing in globals().values() if isinstance(getattr(thing, "arm", None), Arm)]
    return {arm_of(control).name: control for control in marked}


@arm("reinit", "re-initialised", look=("#E69F00", "s", "--"), from_start=True)
def reinit(ticket: Ticket, *, seed: int, draw: Callable[[int], State]) -> Ticket:
    """The ticket's mask on freshly drawn initial weights: is it the structure alone?

    `draw(s)` gives a state of the same network from its own initialisation, s being a number of 32 bits derived from
    `seed` and the control's name: so a network that was initialised from `seed` itself is not drawn again. Frankle &
    Carbin 2019, §2 ("random reinitialization"): θ₀' drawn from the distribution that θ₀ was drawn from. It is trained
    from step 0 even if the ticket starts later, which is the stronger control (start_at_step_zero in Frankle's
    OpenLTH). ValueError if the draw gives the ticket's own weights back.
    """
    start = draw(_derived(seed, "reinit") & 0xFFFFFFFF)
    return _fresh(ticket, start, ticket.mask.apply(start.weights), "reinit", seed)


@arm("random", "random mask", look=("#CC79A7", "^", "-."))
def random_mask(ticket: Ticket, *, seed: int) -> Ticket:
    """The ticket's own initial weights under a random mask of the same count in every layer.

    A layer-matched random ticket: is it the density of each layer alone? Layers kept whole stay whole. Frankle & Carbin
    2019, Figure 1 ("randomly sampled sparse networks"); with the ticket's counts as OpenLTH's randomly_prune.
    ValueError where no other mask with these counts exists (every layer whole or empty).
    """
    _require_choice(ticket)
    generator = _stream(seed, "random_mask")
    mask = _until_other(
        ticket, lambda: {n: _shuffled(keep, generator) for n, keep in ticket.mask.keep.items()}
    )
    return _masked(ticket, mask, "random")


@arm("random-global", "random mask, any layer", look=("#999933", "<", "-."))
def random_global(ticket: Ticket, *, seed: int) -> Ticket:
    """The ticket's own initial weights under a random mask of the same count in the whole network.

    What `random_mask` keeps, the density of each layer, is random here too. Frankle's OpenLTH 2020, randomly_prune with
    the strategy "global". ValueError where the mask is whole or
    empty.
    """
    if ticket.mask.count() in (0, ticket.mask.total()):
        raise ValueError(
            "the mask is whole or empty, so a random one of the same count would be it; prune first"
        )
    generator = _stream(seed, "random_global")

    def draw() -> dict[str, Tensor]:
        flat = _shuffled(torch.cat([keep.reshape(-1) for keep in ticket.mask.keep.values()]), generator)
        parts = torch.split(flat, [keep.numel() for keep in ticket.mask.keep.values()])
        return {n: part.view(k.shape) for (n, k), part in zip(ticket.mask.keep.items(), parts, strict=True)}

    return _masked(ticket, _until_other(ticket, draw), "random_global")


@arm("shuffle-units", "mask shuffled within units", look=("#44AA99", ">", ":"))
def shuffle_units(ticket: Ticket, *, seed: int) -> Ticket:
    """The mask shuffled within each filter or neuron, which keeps its count of weights: is it how many each has?

    A finer shuffle than Frankle et al. 2021 (Pruning Neural Networks at Initialization) do within layers. ValueError
    where every unit is kept whole or emptied.
    """
    mask = ticket.mask
    units = {name: mask.laid_out(name).by_unit(keep).flatten(1) for name, keep in mask.keep.items()}
    if all(bool((unit.all(1) | ~unit.any(1)).all()) for unit in units.values()):
        raise ValueError(
            "every unit is kept whole or emptied, so shuffling within units gives the ticket's own mask; take another "
            "control"
        )
    generator = _stream(seed, "shuffle_units")

    def draw() -> dict[str, Tensor]:
        keep = {}
        for name, unit in units.items():
            moved = unit.gather(1, torch.rand(unit.shape, generator=generator).argsort(1))
            layout, like = mask.laid_out(name), mask.keep[name]
            keep[name] = layout.from_units(moved.view(layout.by_unit(like).shape), like)
        return keep

    return _masked(ticket, _until_other(ticket, draw), "shuffle_units")


@arm("inverted", "what was pruned", look=("#D55E00", "v", "--"))
def inverted(ticket: Ticket, *, seed: int) -> Ticket:
    """What the ticket pruned: as many weights in every layer, at random from those; the rest, where they are too few,
    from the ticket's own.

    After the inverted scores of Frankle et al. 2021 (Pruning Neural Networks at Initialization). ValueError where every
    layer is kept whole or emptied.
    """
    _require_choice(ticket)
    generator = _stream(seed, "inverted")
    keep = {}
    for name, own in ticket.mask.keep.items():
        # Pruned weights score above 1, kept ones below it.
        score = torch.rand(own.numel(), generator=generator) + (~own).reshape(-1).float()
        chosen = torch.zeros(own.numel(), dtype=torch.bool)
        chosen[score.argsort(descending=True)[: int(own.sum())]] = True
        keep[name] = chosen.view(own.shape)
    return _masked(ticket, replace(ticket.mask, keep=keep), "inverted")


@arm("reshuffle", "weights shuffled", look=("#882255", "X", "--"))
def reshuffle(ticket: Ticket, *, seed: int) -> Ticket:
    """The ticket's mask with its initial weights shuffled within every layer: are the values enough, in any place?

    Zhou et al. 2019 (Deconstructing Lottery Tickets), "reshuffle": re-initialised from the layer's own kept values.
    ValueError where that changes nothing.
    """
    generator = _stream(seed, "reshuffle")

    def move(kept: Tensor) -> Tensor:
        return kept[torch.randperm(len(kept), generator=generator)]

    return _restarted(ticket, move, "reshuffle")


@arm("signs", "signs alone", look=("#009E73", "D", ":"))
def signs(ticket: Ticket, *, seed: int) -> Ticket:
    """The ticket's mask and its initial signs, all magnitudes of a layer equal: are the signs enough?

    Zhou et al. 2019, "signed constant": the standard deviation of the layer's initial weights. Nothing is drawn, so
    `seed` changes nothing. ValueError where the ticket is so already.
    """
    del seed
    deviation = {name: ticket.start.weights[name].std(correction=0) for name in ticket.mask.keep}
    kept = {name: ticket.start.weights[name].sign() * deviation[name] for name in ticket.mask.keep}
    return _with_weights(ticket, kept, "signs")


@arm("magnitudes", "magnitudes alone", look=("#56B4E9", "P", "-."))
def magnitudes(ticket: Ticket, *, seed: int) -> Ticket:
    """The ticket's mask and its initial magnitudes under random signs: the other half of `signs`.

    After Zhou et al. 2019, where signs turn out to be what matters. ValueError where no weight changes.
    """
    generator = _stream(seed, "magnitudes")

    def flip(kept: Tensor) -> Tensor:
        return kept * (2 * torch.randint(2, kept.shape, generator=generator) - 1)

    return _restarted(ticket, flip, "magnitudes")


@arm("sign-in", "learnt signs, fresh weights", look=("#117733", "p", ":"), from_start=True)
def sign_in(ticket: Ticket, *, seed: int, draw: Callable[[int], State], end: Weights) -> Ticket:
    """The ticket's mask on freshly drawn magnitudes, with the signs that dense training ended with: are those enough?

    After Gadhikar et al. 2025 (Sign-In to the Lottery, arXiv:2504.12801), who find that a mask trains well from any
    start that has the signs which training arrives at. `end` are the weights at the end of the replicate's own dense
    training; a weight that ended at 0 keeps the sign drawn. Only eligible weights take a sign; like `reinit`, it is
    trained from step 0. ValueError if the draw gives the ticket's own weights back.
    """
    start = draw(_derived(seed, "sign_in") & 0xFFFFFFFF)
    signed = {
        name: torch.where(end[name] == 0, start.weights[name], start.weights[name].abs() * end[name].sign())
        for name in ticket.mask.keep
    }
    return _fresh(ticket, start, ticket.mask.apply({**start.weights, **signed}), "sign_in", seed)


@arm("other", "another replicate's mask", look=("#661100", "h", "--"))
def other(ticket: Ticket, *, seed: int, neighbour: Ticket) -> Ticket:
    """The ticket's own start under the mask that another replicate found: does a mask serve any initialisation?

    Adnan et al. 2025 (Sparse Training from Random Initialization), their "naive" mask. Nothing is drawn, so `seed`
    changes nothing. The count of weights is the ticket's in the network, and in every layer where the allocation fixes
    it (where layers compete, two searches share them out differently). ValueError where the masks do not fit, or are
    the same.
    """
    del seed
    return _borrowed(ticket, neighbour.mask, "other")


@arm("other-aligned", "another's mask, aligned", look=("#332288", "*", "-."))
def other_aligned(
    ticket: Ticket, *, seed: int, neighbour: Ticket, ends: tuple[Weights, Weights], symmetry: Symmetry
) -> Ticket:
    """As `other`, once the other replicate's hidden units are matched to this one's: is it only their numbering?

    `ends` are the trained dense weights of this replicate and of the other, which are matched
    (`winticket.align.match`); the other's mask is permuted accordingly. Adnan et al. 2025, who match activations where
    we match weights (Ainsworth et al. 2023), which needs no data. ValueError as for `other`.
    """
    del seed
    orders = match(*ends, symmetry)
    keep = permuted(neighbour.mask.keep, symmetry, orders)
    return _borrowed(ticket, replace(neighbour.mask, keep=keep), "other_aligned")


def _borrowed(ticket: Ticket, mask: Mask, origin: str) -> Ticket:
    """The ticket's start under a mask that was found elsewhere."""
    if same_bits(mask.keep, ticket.mask.keep):
        raise ValueError("both replicates found the same mask, so the other's is no control")
    if mask.count() != ticket.mask.count():
        raise ValueError(
            f"the other mask keeps {mask.count()} weights and the ticket's {ticket.mask.count()}; a control keeps as "
            "many"
        )
    return _masked(ticket, mask, origin)


def _require_choice(ticket: Ticket) -> None:
    if all(kept in (0, total) for kept, total in ticket.mask.layers().values()):
        raise ValueError(
            "every layer is kept whole or emptied, so a random mask of the same counts would be the ticket's "
            "own; prune first"
        )


def _until_other(ticket: Ticket, draw: Callable[[], dict[str, Tensor]]) -> Mask:
    """Drawn until it is not the ticket's own mask."""
    while True:
        mask = replace(ticket.mask, keep=draw())
        if any(not torch.equal(mask.keep[n], ticket.mask.keep[n]) for n in mask.keep):
            return mask


def _masked(ticket: Ticket, mask: Mask, origin: str) -> Ticket:
    """The ticket's start under another mask."""
    start = ticket.start
    state = State(mask.apply(start.weights), start.buffers, {}, start.step)
    return Ticket(mask, state, origin, ticket.seeds, ticket.about)


def _fresh(ticket: Ticket, start: State, weights: Weights, origin: str, seed: int) -> Ticket:
    """The ticket's mask on these weights of a fresh start; ValueError if they are its own."""
    own = ticket.mask.apply(ticket.start.weights)
    if same_bits(_eligible(weights, ticket.mask), _eligible(own, ticket.mask)):
        raise ValueError(
            f"re-initialising with seed {seed} gave the ticket's own weights; it would be no control"
        )
    state = State(weights, start.buffers, {}, start.step)
    return Ticket(ticket.mask, state, origin, ticket.seeds, ticket.about)


def _restarted(ticket: Ticket, change: Callable[[Tensor], Tensor], origin: str) -> Ticket:
    """The ticket's mask with the kept weights of every layer, [kept], changed."""
    weights = {}
    for name, keep in ticket.mask.keep.items():
        weights[name] = ticket.start.weights[name].clone()
        weights[name][keep] = change(ticket.start.weights[name][keep])
    return _with_weights(ticket, weights, origin)


def _with_weights(ticket: Ticket, weights: Mapping[str, Tensor], origin: str) -> Ticket:
    """The ticket with other eligible weights. ValueError where they are its own."""
    start = ticket.start
    changed = ticket.mask.apply({**start.weights, **weights})
    own = ticket.mask.apply(start.weights)
    if same_bits(_eligible(changed, ticket.mask), _eligible(own, ticket.mask)):
        raise ValueError(f"{origin} gives the ticket's own weights back; it would be no control")
    state = State(changed, start.buffers, {}, start.step)
    return Ticket(ticket.mask, state, origin, ticket.seeds, ticket.about)


def _derived(seed: int, control: str) -> int:
    return Seeds(seed, 0).derive("control", control)


def _stream(seed: int, control: str) -> torch.Generator:
    """The control's own random numbers. Those of `seed` itself may have drawn the weights that it is a control of."""
    return torch.Generator().manual_seed(_derived(seed, control))


def _shuffled(keep: Tensor, generator: torch.Generator) -> Tensor:
    order = torch.randperm(keep.numel(), generator=generator)
    return keep.reshape(-1)[order].view(keep.shape)


def _eligible(weights: Mapping[str, Tensor], mask: Mask) -> dict[str, Tensor]:
    return {name: weights[name] for name in mask.keep}
