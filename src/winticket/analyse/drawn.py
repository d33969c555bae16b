"""Masks drawn at random with a ticket's counts: what the shape of a ticket is compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from winticket.allocate import Allocate, erk, uniform
from winticket.ticket import Mask, Ticket

RANDOM, UNIFORM, ERK = "random", "random, uniform layers", "random, ERK layers"


def drawn_masks(ticket: Ticket, level: int) -> dict[str, Mask]:
    """Random masks with as many weights as a ticket's, by name.

    "random" has the ticket's count in every layer; the others spread the count over layers by `allocate.uniform` and
    `allocate.erk`. The draws follow from the ticket's seeds and the level. A mask that keeps nothing gives no masks.
    """
    if not ticket.mask.count():
        return {}

    def stream(kind: str) -> torch.Generator:
        return torch.Generator().manual_seed(ticket.seeds.derive("analysis", kind, level) & 0xFFFFFFFF)

    return {
        UNIFORM: _spread(ticket.mask, uniform, stream(UNIFORM)),
        ERK: _spread(ticket.mask, erk, stream(ERK)),
        RANDOM: _shuffled(ticket.mask, stream(RANDOM)),
    }


def counts_by(allocate: Allocate, mask: Mask) -> Mapping[str, int]:
    """The number of weights that an allocation keeps in each layer, at a mask's density; empty for an empty mask."""
    if not mask.count():
        return {}
    kept = _allocated(mask, allocate, lambda k: torch.ones(k.shape))
    return {name: count for name, (count, _) in kept.layers().items()}


def _shuffled(mask: Mask, generator: torch.Generator) -> Mask:
    keep = {}
    for name, k in mask.keep.items():
        order = torch.randperm(k.numel(), generator=generator)
        keep[name] = k.flatten()[order].view(k.shape)
    return replace(mask, keep=keep)


def _spread(mask: Mask, allocate: Allocate, generator: torch.Generator) -> Mask:
    return _allocated(mask, allocate, lambda k: torch.rand(k.shape, generator=generator))


def _allocated(mask: Mask, allocate: Allocate, score: Callable[[Tensor], Tensor]) -> Mask:
    full = Mask.full(mask.keep, layout=mask.layout)
    return allocate({n: score(k) for n, k in full.keep.items()}, full, density=mask.density())
