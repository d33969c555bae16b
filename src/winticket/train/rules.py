"""Which weights go, which come and when, in a training whose mask changes: SET, RigL, gradual magnitude pruning.

The rules are pure and know no training loop: the one in `winticket.train` asks them, and those around a user's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from winticket.ticket import Mask, Scores, Seeds, State, Ticket
from winticket.train.changing import Gradient

REVISION = 1
DROPPED = 0.3
"""Share of a layer's weights that the first change replaces; it falls to 0 on a cosine (Evci et al. 2020, eq. 1)."""
UNTIL = 0.75
"""Share of the training after which the mask stays."""

Density = float | Mapping[str, float]
Score = Callable[[Ticket, State], Scores]
"""Scores of the ticket's weights as they are in that state; larger = keep."""
Prune = Callable[[Ticket, State, Density], Mask]
"""A smaller mask than the ticket's, of that density, by its weights as they are in that state."""
Grow = Callable[[Mask, Gradient, torch.Generator], Mapping[str, Tensor]]
"""Scores of the places that a mask leaves free: the highest are taken."""


def usual_every(steps: int) -> int:
    """A hundred, as Evci et al. have it, or a twentieth of a training that is shorter than two thousand steps."""
    return min(100, max(1, steps // 20))


def random_mask(mask: Mask, seeds: Seeds, *, density: Density, allocate: Callable[..., Mask]) -> Mask:
    """A random mask of that density within `mask`, as `allocate` spreads it: what a sparse training begins with."""
    generator = torch.Generator().manual_seed(seeds.derive("sparse start"))
    return allocate(_random(mask, generator), mask, density=density)


def at_random(mask: Mask, gradient: Gradient, generator: torch.Generator) -> dict[str, Tensor]:
    """Every free place alike (Mocanu et al. 2018)."""
    del gradient
    return _random(mask, generator)


def by_gradient(mask: Mask, gradient: Gradient, generator: torch.Generator) -> dict[str, Tensor]:
    """Where the loss would fall fastest: |∂L/∂w| (Evci et al. 2020, algorithm 1)."""
    del generator
    found = gradient()
    return {name: found[name].abs() for name in mask.keep}


@dataclass(frozen=True)
class Regrowing:
    """Which weights go and which come, and when, in a training of `total` steps. Every layer keeps its count."""

    total: int
    grow: Grow
    score: Score
    every: int

    @staticmethod
    def check(method: str, steps: int, every: int | None) -> None:
        """ValueError if the mask of `method` would never change in a training of `steps` steps."""
        every = every or usual_every(steps)
        if every > UNTIL * steps:
            raise ValueError(
                f"every is {every}, but method {method} changes its mask in the first {UNTIL:g} of the {steps} "
                "steps of training alone; give less, or train longer"
            )

    def steps(self, start: int, end: int) -> Sequence[int]:
        """All multiples of `every` in the first `UNTIL` of the training."""
        return [t for t in range(self.every, end, self.every) if start < t <= UNTIL * end]

    def change(self, ticket: Ticket, now: State, gradient: Gradient) -> Mask:
        """The weakest share of every layer replaced; what has just gone may come back, as in the authors' code.

        ValueError for scores that are not finite, as in a training that has diverged.
        """
        share = DROPPED / 2 * (1 + math.cos(math.pi * now.step / (UNTIL * self.total)))
        generator = torch.Generator().manual_seed(ticket.seeds.derive("grow", now.step))
        wanted = self.grow(ticket.mask, gradient, generator)
        scores = self.score(ticket, now)
        for name in ticket.mask.keep:
            if not bool(scores[name].isfinite().all()):
                raise ValueError(
                    f"the scores of layer {name!r} are not all finite; a criterion gives finite scores, of a training "
                    "that has not diverged"
                )
        dropped = {name: int(share * int(keep.sum())) for name, keep in ticket.mask.keep.items()}
        stays = {
            name: best(scores[name], keep, int(keep.sum()) - dropped[name])
            for name, keep in ticket.mask.keep.items()
        }
        grown = {name: keep | best(wanted[name], ~keep, dropped[name]) for name, keep in stays.items()}
        return replace(ticket.mask, keep=grown)


@dataclass(frozen=True)
class Thinning:
    """How much is kept, and when less, in a training of `total` steps; `at(share)` is the density on the way."""

    total: int
    at: Callable[[float], Density]
    prune: Prune
    every: int

    @staticmethod
    def check(method: str, steps: int, every: int | None) -> None:
        """ValueError if `method` would prune only once in a training of `steps` steps, and so not gradually."""
        if steps < 2:
            raise ValueError(
                f"method {method} prunes while it trains, and training has {steps} steps; give more"
            )
        every, last = every or usual_every(steps), int(UNTIL * steps)
        if every >= last:
            raise ValueError(
                f"every is {every}, but method {method} prunes in the first {UNTIL:g} of the {steps} steps of "
                f"training, and would prune once, at step {max(1, last)}; give less, or train longer"
            )

    def steps(self, start: int, end: int) -> Sequence[int]:
        """All multiples of `every` in the first `UNTIL` of the training, and its last step, for the density itself."""
        last = max(1, int(UNTIL * end))
        return [t for t in sorted({*range(self.every, last, self.every), last}) if start < t < end]

    def change(self, ticket: Ticket, now: State, gradient: Gradient) -> Mask:
        """The best of what is left, at the density of this step."""
        del gradient
        share = min(1.0, now.step / max(1, int(UNTIL * self.total)))
        mask = self.prune(ticket, now, self.at(share))
        if not mask.within(ticket.mask):
            raise ValueError("the allocation keeps weights that were pruned; a mask only shrinks here")
        return mask


def best(scores: Tensor, among: Tensor, count: int) -> Tensor:
    """Bool of the shape of `scores`: the `count` highest where `among` is true; ties break by position."""
    places = among.reshape(-1).nonzero().squeeze(1)
    order = torch.sort(scores.reshape(-1)[places], descending=True, stable=True).indices[:count]
    chosen = torch.zeros(scores.numel(), dtype=torch.bool)
    chosen[places[order]] = True
    return chosen.view(scores.shape)


def _random(mask: Mask, generator: torch.Generator) -> dict[str, Tensor]:
    return {name: torch.rand(keep.shape, generator=generator) for name, keep in mask.keep.items()}
