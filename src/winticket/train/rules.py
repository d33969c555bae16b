"""Rules for a mask that changes during training: when it changes, and which weights are dropped and regrown.

For SET, RigL and gradual magnitude pruning. The rules are pure functions of a ticket and a state. The loop of
`winticket.train` and the loops of users (`winticket.rigl`, ...) apply the same ones.
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
"""Share of the training after which the mask no longer changes."""

Density = float | Mapping[str, float]
Score = Callable[[Ticket, State], Scores]
"""Scores of the weights in a state; larger = keep."""
Prune = Callable[[Ticket, State, Density], Mask]
"""A mask of that density within the ticket's, chosen by the weights in a state."""
Grow = Callable[[Mask, Gradient, torch.Generator], Mapping[str, Tensor]]
"""Scores of the pruned weights; those with the highest scores are regrown."""


def usual_every(steps: int) -> int:
    """Default number of steps between changes: 100 (Evci et al. 2020), or a twentieth of a shorter training.

    >>> usual_every(10_000), usual_every(800)
    (100, 40)
    """
    return min(100, max(1, steps // 20))


def random_mask(mask: Mask, seeds: Seeds, *, density: Density, allocate: Callable[..., Mask]) -> Mask:
    """The first mask of a sparse training: random within `mask`, with the counts that `allocate` gives each layer.

    >>> from winticket.allocate import layerwise
    >>> whole = Mask({"w": torch.ones(4, 5, dtype=torch.bool)})
    >>> random_mask(whole, Seeds(0, 0), density=0.25, allocate=layerwise).count()
    5
    """
    generator = torch.Generator().manual_seed(seeds.derive("sparse start"))
    return allocate(_random(mask, generator), mask, density=density)


def at_random(mask: Mask, gradient: Gradient, generator: torch.Generator) -> dict[str, Tensor]:
    """Random scores: every pruned weight is equally likely to be regrown (Mocanu et al. 2018)."""
    del gradient
    return _random(mask, generator)


def by_gradient(mask: Mask, gradient: Gradient, generator: torch.Generator) -> dict[str, Tensor]:
    """|∂L/∂w|, largest where the loss would fall fastest (Evci et al. 2020, algorithm 1).

    >>> mask = Mask({"w": torch.tensor([True, False, False])})
    >>> by_gradient(mask, lambda: {"w": torch.tensor([0.0, -3.0, 2.0])}, torch.Generator())["w"]
    tensor([0., 3., 2.])
    """
    del generator
    slopes = gradient()
    return {name: slopes[name].abs() for name in mask.keep}


@dataclass(frozen=True)
class Regrowing:
    """Replaces weights in a training of `total` steps; every layer keeps its count.

    Every `every` steps, the lowest weights of each layer by `score` are dropped, and as many are regrown, the highest
    by `grow`.
    """

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
        """The next mask. A weight that was just dropped may be regrown, as in the authors' code of RigL.

        Errors: ValueError for scores that are not finite, as after a training has diverged.
        """
        share = DROPPED / 2 * (1 + math.cos(math.pi * now.step / (UNTIL * self.total)))
        generator = torch.Generator().manual_seed(ticket.seeds.derive("grow", now.step))
        regrowing = self.grow(ticket.mask, gradient, generator)
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
        grown = {name: keep | best(regrowing[name], ~keep, dropped[name]) for name, keep in stays.items()}
        return replace(ticket.mask, keep=grown)


@dataclass(frozen=True)
class Thinning:
    """Prunes gradually in a training of `total` steps; `at(share)` is the density after that share of the pruning."""

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
        """All multiples of `every` in the first `UNTIL` of the training, and the end of it, at the final density."""
        last = max(1, int(UNTIL * end))
        return [t for t in sorted({*range(self.every, last, self.every), last}) if start < t < end]

    def change(self, ticket: Ticket, now: State, gradient: Gradient) -> Mask:
        """The best of the kept weights, at the density of this step.

        Errors: ValueError if the allocation keeps a weight that was pruned.
        """
        del gradient
        share = min(1.0, now.step / max(1, int(UNTIL * self.total)))
        mask = self.prune(ticket, now, self.at(share))
        if not mask.within(ticket.mask):
            raise ValueError("the allocation keeps weights that were pruned; a mask only shrinks here")
        return mask


def best(scores: Tensor, among: Tensor, count: int) -> Tensor:
    """Bool of the shape of `scores`: the `count` highest of those with `among` true; ties break by position.

    >>> best(torch.tensor([1.0, 5.0, 3.0]), torch.tensor([True, False, True]), 1)
    tensor([False, False,  True])
    """
    positions = among.reshape(-1).nonzero().squeeze(1)
    order = torch.sort(scores.reshape(-1)[positions], descending=True, stable=True).indices[:count]
    chosen = torch.zeros(scores.numel(), dtype=torch.bool)
    chosen[positions[order]] = True
    return chosen.view(scores.shape)


def _random(mask: Mask, generator: torch.Generator) -> dict[str, Tensor]:
    return {name: torch.rand(keep.shape, generator=generator) for name, keep in mask.keep.items()}
