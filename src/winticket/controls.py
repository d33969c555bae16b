"""Controls: ticket -> ticket; each could explain the ticket's success by something simpler.

A control keeps the ticket's seeds, so it trains on the same data in the same order. It keeps the count of weights in
each layer; `random_global` keeps the count in the network, and so does `other` if layers compete. A control always
differs from the ticket. Pruned weights are stored as zeros.

A control draws from a stream derived from `seed` and its name. The seed may therefore be the one that initialised the
network: the draws are independent of its weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from winticket.align import Symmetry, match, permuted
from winticket.ticket import Mask, Seeds, State, Ticket, Weights, kept_parts, same_bits, with_parts

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
    """The name and look of a control.

    name        what users type and documents hold: "random"
    label       words for tables and figures
    look        colour, marker and dashes in figures
    from_start  whether it trains from step 0, whatever step the ticket was rewound to
    """

    name: str
    label: str
    look: tuple[str, str, str]
    from_start: bool = False


def arm(name: str, label: str, *, look: tuple[str, str, str], from_start: bool = False) -> Callable[[F], F]:
    """Marks a control with its arm (see `Arm`); `arm_of` reads it."""

    def mark(control: F) -> F:
        control.__dict__["arm"] = Arm(name, label, look, from_start)
        return control

    return mark


def arm_of(control: Control) -> Arm:
    """The arm of a control that `arm` marked.

    >>> arm_of(random_mask).label
    'random mask'
    """
    marked: Arm = control.__dict__["arm"]
    return marked


def arms() -> dict[str, Control]:
    """Every control by the name of its arm, in the order of this file; the verdict uses the first two."""
    marked = [thing for thing in globals().values() if isinstance(getattr(thing, "arm", None), Arm)]
    return {arm_of(control).name: control for control in marked}


@arm("reinit", "re-initialised", look=("#E69F00", "s", "--"), from_start=True)
def reinit(ticket: Ticket, *, seed: int, draw: Callable[[int], State]) -> Ticket:
    """The ticket's mask on freshly drawn initial weights: is the structure alone enough?

    Frankle & Carbin 2019, §2 ("random reinitialization"): θ₀' from the distribution of θ₀. `draw(s)` gives a state of
    the same network, initialised from s, a number of 32 bits derived from `seed` and the control's name; so a network
    that was initialised from `seed` is not drawn again. The control trains from step 0 even if the ticket starts later,
    which makes it the stronger control (start_at_step_zero in Frankle's OpenLTH). Errors: ValueError if the draw gives
    the ticket's weights again.

    >>> drawn = State({"w": torch.full((1, 4), 0.5)}, {}, {}, 0)
    >>> reinit(_example(), seed=0, draw=lambda s: drawn).start.weights["w"]
    tensor([[0.5000, 0.5000, 0.0000, 0.0000]])
    """
    start = draw(_derived(seed, "reinit") & 0xFFFFFFFF)
    return _fresh(ticket, start, ticket.mask.apply(start.weights), "reinit", seed)


@arm("random", "random mask", look=("#CC79A7", "^", "-."))
def random_mask(ticket: Ticket, *, seed: int) -> Ticket:
    """The ticket's initial weights under a random mask with its counts: is the density of each layer alone enough?

    Frankle & Carbin 2019, Figure 1 ("randomly sampled sparse networks"), with the counts of the ticket's layers as in
    OpenLTH's randomly_prune. Layers that are kept whole stay whole. For a ticket of whole attention heads or neurons
    (`winticket.allocate.structures`), as many of these are drawn. Errors: ValueError if no other mask has these counts
    (every layer is whole or empty).

    >>> random_mask(_example(), seed=0).mask.layers()
    {'w': (2, 4)}
    """
    _require_choice(ticket)
    generator, parts = _stream(seed, "random_mask"), kept_parts(ticket.mask)

    def draw() -> Mapping[str, Tensor]:
        if not parts:
            return {n: _shuffled(keep, generator) for n, keep in ticket.mask.keep.items()}
        whole = {n: torch.ones_like(keep) for n, keep in ticket.mask.keep.items()}
        drawn = {n: _shuffled(kept, generator) for n, kept in parts.items()}
        return with_parts(replace(ticket.mask, keep=whole), drawn).keep

    return _masked(ticket, _until_other(ticket, draw), "random")


@arm("random-global", "random mask, any layer", look=("#999933", "<", "-."))
def random_global(ticket: Ticket, *, seed: int) -> Ticket:
    """The ticket's initial weights under a random mask with the same count of weights in the network.

    Unlike in `random_mask`, the density of each layer is random too. Frankle's OpenLTH 2020, randomly_prune with the
    strategy "global". Errors: ValueError if the mask is whole or empty.

    >>> random_global(_example(), seed=0).mask.count()
    2
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
    """The mask shuffled within each filter or neuron: is the count of weights in each unit enough?

    A finer shuffle than the one within layers of Frankle et al. 2021 (Pruning Neural Networks at Initialization).
    Errors: ValueError if every unit is kept whole or emptied.

    >>> shuffle_units(_example(), seed=0).mask.keep["w"].sum(1)
    tensor([2])
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
    """Weights that the ticket pruned, as many per layer as it keeps: does any choice of weights do as well?

    After the inverted scores of Frankle et al. 2021 (Pruning Neural Networks at Initialization). The weights are drawn
    at random; if a layer has too few pruned weights, kept weights fill up the count. Errors: ValueError if every layer
    is kept whole or emptied.

    >>> inverted(_example(), seed=0).mask.keep["w"]
    tensor([[False, False,  True,  True]])
    """
    _require_choice(ticket)
    generator = _stream(seed, "inverted")
    keep = {}
    for name, kept in ticket.mask.keep.items():
        # Pruned weights score above 1, kept weights below it.
        score = torch.rand(kept.numel(), generator=generator) + (~kept).reshape(-1).float()
        chosen = torch.zeros(kept.numel(), dtype=torch.bool)
        chosen[score.argsort(descending=True)[: int(kept.sum())]] = True
        keep[name] = chosen.view(kept.shape)
    return _masked(ticket, replace(ticket.mask, keep=keep), "inverted")


@arm("reshuffle", "weights shuffled", look=("#882255", "X", "--"))
def reshuffle(ticket: Ticket, *, seed: int) -> Ticket:
    """The ticket's mask with its initial weights shuffled within each layer: are the values enough, in any order?

    Zhou et al. 2019 (Deconstructing Lottery Tickets), "reshuffle": initial weights drawn from the kept values of the
    layer. Errors: ValueError if the shuffle changes nothing.

    >>> reshuffle(_example(), seed=0).start.weights["w"]
    tensor([[-2.,  1.,  0.,  0.]])
    """
    generator = _stream(seed, "reshuffle")

    def move(kept: Tensor) -> Tensor:
        return kept[torch.randperm(len(kept), generator=generator)]

    return _restarted(ticket, move, "reshuffle")


@arm("signs", "signs alone", look=("#009E73", "D", ":"))
def signs(ticket: Ticket, *, seed: int) -> Ticket:
    """The ticket's mask and initial signs with one magnitude for each layer: are the signs enough?

    Zhou et al. 2019, "signed constant": the magnitude is the standard deviation of the layer's initial weights. `seed`
    is not used. Errors: ValueError if the ticket's weights are such constants already.

    >>> signs(_example(), seed=0).start.weights["w"]
    tensor([[ 2.6926, -2.6926,  0.0000,  0.0000]])
    """
    del seed
    deviation = {name: ticket.start.weights[name].std(correction=0) for name in ticket.mask.keep}
    kept = {name: ticket.start.weights[name].sign() * deviation[name] for name in ticket.mask.keep}
    return _with_weights(ticket, kept, "signs")


@arm("magnitudes", "magnitudes alone", look=("#56B4E9", "P", "-."))
def magnitudes(ticket: Ticket, *, seed: int) -> Ticket:
    """The ticket's mask and initial magnitudes with random signs: are the magnitudes enough?

    After Zhou et al. 2019, who find that the signs matter. Errors: ValueError if no weight changes.

    >>> magnitudes(_example(), seed=0).start.weights["w"].abs()
    tensor([[1., 2., 0., 0.]])
    """
    generator = _stream(seed, "magnitudes")

    def flip(kept: Tensor) -> Tensor:
        return kept * (2 * torch.randint(2, kept.shape, generator=generator) - 1)

    return _restarted(ticket, flip, "magnitudes")


@arm("sign-in", "learnt signs, fresh weights", look=("#117733", "p", ":"), from_start=True)
def sign_in(ticket: Ticket, *, seed: int, draw: Callable[[int], State], end: Weights) -> Ticket:
    """The ticket's mask on freshly drawn magnitudes, with the signs at the end of dense training: are these enough?

    After Gadhikar et al. 2025 (Sign-In to the Lottery, arXiv:2504.12801), who find that a mask trains well from any
    start with the signs of the trained weights. `end` are the weights at the end of the replicate's dense training; a
    weight that ended at 0 keeps the drawn sign. Only eligible weights take a sign. Like `reinit`, the control trains
    from step 0. Errors: ValueError if the draw gives the ticket's weights again.

    >>> drawn, end = State({"w": torch.ones(1, 4)}, {}, {}, 0), {"w": torch.tensor([[-9.0, 5.0, 1.0, 1.0]])}
    >>> sign_in(_example(), seed=0, draw=lambda s: drawn, end=end).start.weights["w"]
    tensor([[-1.,  1.,  0.,  0.]])
    """
    start = draw(_derived(seed, "sign_in") & 0xFFFFFFFF)
    signed = {
        name: torch.where(end[name] == 0, start.weights[name], start.weights[name].abs() * end[name].sign())
        for name in ticket.mask.keep
    }
    return _fresh(ticket, start, ticket.mask.apply({**start.weights, **signed}), "sign_in", seed)


@arm("other", "another replicate's mask", look=("#661100", "h", "--"))
def other(ticket: Ticket, *, seed: int, neighbour: Ticket) -> Ticket:
    """The ticket's start under the mask of another replicate: does a mask suit any initialisation?

    Adnan et al. 2025 (Sparse Training from Random Initialization), their "naive" mask. `seed` is not used. The network
    keeps as many weights as under the ticket, and so does each layer if the allocation fixes its count; if layers
    compete, two searches may give a layer different counts. Errors: ValueError if the masks keep different counts of
    weights, or are the same.

    >>> neighbour = replace(_example(), mask=Mask({"w": torch.tensor([[False, True, True, False]])}))
    >>> other(_example(), seed=0, neighbour=neighbour).start.weights["w"]
    tensor([[ 0., -2.,  3.,  0.]])
    """
    del seed
    return _borrowed(ticket, neighbour.mask, "other")


@arm("other-aligned", "another's mask, aligned", look=("#332288", "*", "-."))
def other_aligned(
    ticket: Ticket, *, seed: int, neighbour: Ticket, ends: tuple[Weights, Weights], symmetry: Symmetry
) -> Ticket:
    """As `other`, after matching the hidden units of the two replicates: do masks differ by the units' order alone?

    Adnan et al. 2025, who match activations; we match weights (Ainsworth et al. 2023), which needs no data. `ends` are
    the trained dense weights of this replicate and of the other one. `winticket.align.match` matches them, and the
    other mask is permuted accordingly. Errors: ValueError as for `other`.
    """
    del seed
    orders = match(*ends, symmetry)
    keep = permuted(neighbour.mask.keep, symmetry, orders)
    return _borrowed(ticket, replace(neighbour.mask, keep=keep), "other_aligned")


def _example() -> Ticket:
    """A ticket that keeps (1, -2) of four weights, for the examples in this file."""
    mask = Mask({"w": torch.tensor([[True, True, False, False]])})
    start = State({"w": torch.tensor([[1.0, -2.0, 3.0, -4.0]])}, {}, {}, 0)
    return Ticket(mask, start, "ticket", Seeds(0, 0))


def _borrowed(ticket: Ticket, mask: Mask, origin: str) -> Ticket:
    """The ticket's start under a mask of another replicate."""
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


def _until_other(ticket: Ticket, draw: Callable[[], Mapping[str, Tensor]]) -> Mask:
    """A mask that is drawn again until it differs from the ticket's."""
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
    """The ticket's mask on the weights of a fresh start; ValueError if they are the ticket's."""
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
    """The ticket with other eligible weights; ValueError if they are the ticket's."""
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
    """The random numbers of a control. Those of `seed` itself may have drawn the ticket's weights."""
    return torch.Generator().manual_seed(_derived(seed, control))


def _shuffled(keep: Tensor, generator: torch.Generator) -> Tensor:
    order = torch.randperm(keep.numel(), generator=generator)
    return keep.reshape(-1)[order].view(keep.shape)


def _eligible(weights: Mapping[str, Tensor], mask: Mask) -> dict[str, Tensor]:
    return {name: weights[name] for name in mask.keep}
