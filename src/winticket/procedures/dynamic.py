"""Masks that change within one training: dynamic sparse training (SET, RigL), and gradual magnitude pruning.

The training that the mask comes from is itself a sparse network's; its results stand beside those of the ticket, the
last mask trained alone from its initial weights.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from winticket.allocate import Allocate, layerwise
from winticket.criteria import Criterion, magnitude
from winticket.procedures.setup import Setup
from winticket.procedures.stages import (
    Density,
    Found,
    carry_out,
    dense_ticket,
    evidence,
    trained,
)
from winticket.run import step
from winticket.ticket import Failed, Mask, State, Ticket, Trajectory
from winticket.train import Gradient, relative_cost

REVISION = 1
DROPPED = 0.3
"""Share of a layer's weights that the first change replaces; it falls to 0 on a cosine (Evci et al. 2020, eq. 1)."""
UNTIL = 0.75
"""Share of the training after which the mask stays."""


def set_(
    setup: Setup,
    densities: Sequence[Density],
    replicates: Sequence[int],
    *,
    criterion: Criterion = magnitude,
    allocate: Allocate = layerwise,
    every: int | None = None,
) -> Iterator[Found]:
    """Sparse evolutionary training: the weakest weights of every layer go, and as many places at random come.

    Mocanu et al. 2018, with the falling share of Evci et al. 2020. The mask is random at the start, as `allocate`
    spreads it, and changes after every `every` steps.
    """
    yield from _regrown(
        setup, densities, replicates, grow=at_random, criterion=criterion, allocate=allocate, every=every
    )


def rigl(
    setup: Setup,
    densities: Sequence[Density],
    replicates: Sequence[int],
    *,
    criterion: Criterion = magnitude,
    allocate: Allocate = layerwise,
    every: int | None = None,
) -> Iterator[Found]:
    """Rigged lottery: the weakest weights of every layer go, and those of the largest gradient come.

    Evci et al. 2020, algorithm 1. The mask is random at the start, as `allocate` spreads it (the paper's best: erk),
    and changes after every `every` steps; the gradient is that of the batch that follows, which is trained on as well
    (the paper leaves that update out). What has just gone may come back, as in the authors' code.
    """
    yield from _regrown(
        setup, densities, replicates, grow=by_gradient, criterion=criterion, allocate=allocate, every=every
    )


def gradual(
    setup: Setup,
    densities: Sequence[Density],
    replicates: Sequence[int],
    *,
    criterion: Criterion = magnitude,
    allocate: Allocate = layerwise,
    every: int | None = None,
) -> Iterator[Found]:
    """Gradual pruning within one training, to a density that falls on a cubic: d + (1 - d) · (1 - t / T)³ at step t.

    Zhu & Gupta 2017, eq. 1; T is three quarters of the training. No lottery: the weights are never rewound.
    """
    dense = step(dense_ticket, setup, tuple(replicates))
    for level, density in enumerate(densities, 1):
        mean = (1 + 3 * _typical(density)) / 4  # of the cubic over the training's first part
        path = trained(
            setup,
            dense,
            arm="search",
            level=level,
            first=replicates[0],
            count=len(replicates),
            cost=relative_cost(setup.module(), mean, setup.recipe, engine=setup.engine),
            how=train_thinning,
            density=density,
            criterion=criterion,
            allocate=allocate,
            every=_every(setup, every),
        )
        yield Found(step(last_mask, path), search=path)


def _regrown(
    setup: Setup,
    densities: Sequence[Density],
    replicates: Sequence[int],
    *,
    grow: "Grow",
    criterion: Criterion,
    allocate: Allocate,
    every: int | None,
) -> Iterator[Found]:
    dense = step(dense_ticket, setup, tuple(replicates))
    for level, density in enumerate(densities, 1):
        path = trained(
            setup,
            step(sparse_start, dense, density=density, allocate=allocate),
            arm="search",
            level=level,
            first=replicates[0],
            count=len(replicates),
            cost=relative_cost(setup.module(), _typical(density), setup.recipe, engine=setup.engine),
            how=train_regrowing,
            grow=grow,
            criterion=criterion,
            every=_every(setup, every),
        )
        yield Found(step(last_mask, path), search=path)


def check_changes(method: str, steps: int, every: int | None) -> None:
    """ValueError where the mask would never change in a training of so many steps."""
    if method == "gradual" and steps < 2:
        raise ValueError(f"method gradual prunes while it trains, and training has {steps} steps; give more")
    if method in ("set", "rigl") and (every or usual_every(steps)) > UNTIL * steps:
        raise ValueError(
            f"every is {every or usual_every(steps)}, but method {method} changes its mask in the first "
            f"{UNTIL:g} of the {steps} steps of training alone; give less, or train longer"
        )


def _typical(density: Density) -> float:
    return float(density["*"]) if isinstance(density, Mapping) else density


def _every(setup: Setup, every: int | None) -> int:
    """Steps between changes: a hundred, as Evci et al. have it, unless training is short."""
    return every or usual_every(setup.recipe.steps)


def usual_every(steps: int) -> int:
    """A hundred, or a twentieth of a training that is shorter than two thousand steps."""
    return min(100, max(1, steps // 20))


Grow = Callable[[Mask, Gradient, torch.Generator], Mapping[str, Tensor]]
"""Scores of the places that a mask leaves free: the highest are taken."""


def at_random(mask: Mask, gradient: Gradient, generator: torch.Generator) -> dict[str, Tensor]:
    """Every free place alike."""
    del gradient
    return {name: torch.rand(keep.shape, generator=generator) for name, keep in mask.keep.items()}


def by_gradient(mask: Mask, gradient: Gradient, generator: torch.Generator) -> dict[str, Tensor]:
    """Where the loss would fall fastest: |∂L/∂w|."""
    del generator
    found = gradient()
    return {name: found[name].abs() for name in mask.keep}


def sparse_start(ticket: Ticket, *, density: Density, allocate: Allocate) -> Ticket:
    """The network at its initialisation under a random mask of that density."""
    generator = torch.Generator().manual_seed(ticket.seeds.derive("sparse start"))
    scores = {name: torch.rand(keep.shape, generator=generator) for name, keep in ticket.mask.keep.items()}
    return replace(ticket, mask=allocate(scores, ticket.mask, density=density), origin="search")


def last_mask(path: Trajectory) -> Ticket:
    """The ticket of a search: its last mask, with the weights that it began with."""
    return replace(path.ticket, origin="ticket")


def train_regrowing(
    setup: Setup,
    stack: Sequence[Ticket | Failed],
    *,
    grow: Grow,
    criterion: Criterion,
    every: int,
    checkpoint: Any = None,
    report: Callable[[int, int], None] | None = None,
) -> tuple[Trajectory | Failed, ...]:
    """Train a stack of sparse tickets, replacing the weakest weights now and then. Every layer keeps its count."""
    changes = Regrowing(setup, grow, criterion, every)
    return carry_out(setup, stack, changes=changes, checkpoint=checkpoint, report=report)


def train_thinning(
    setup: Setup,
    stack: Sequence[Ticket | Failed],
    *,
    density: Density,
    criterion: Criterion,
    allocate: Allocate,
    every: int,
    checkpoint: Any = None,
    report: Callable[[int, int], None] | None = None,
) -> tuple[Trajectory | Failed, ...]:
    """Train a stack of dense tickets, pruning a little now and then."""
    changes = Thinning(setup, density, criterion, allocate, every)
    return carry_out(setup, stack, changes=changes, checkpoint=checkpoint, report=report)


@dataclass(frozen=True)
class Regrowing:
    """Which weights go and which come, and when."""

    setup: Setup
    grow: Grow
    criterion: Criterion
    every: int

    def steps(self, start: int, end: int) -> Sequence[int]:
        """All multiples of `every` in the first `UNTIL` of the training."""
        return [t for t in range(self.every, end, self.every) if start < t <= UNTIL * end]

    def change(self, ticket: Ticket, now: State, gradient: Gradient) -> Mask:
        """The weakest share of every layer replaced; what has just gone may come back, as in the authors' code."""
        share = DROPPED / 2 * (1 + math.cos(math.pi * now.step / (UNTIL * self.setup.recipe.steps)))
        scores = self.criterion(evidence(self.setup, ticket, now, self.criterion))
        dropped = {name: int(share * int(keep.sum())) for name, keep in ticket.mask.keep.items()}
        stays = {
            name: best(scores[name], keep, int(keep.sum()) - dropped[name])
            for name, keep in ticket.mask.keep.items()
        }
        generator = torch.Generator().manual_seed(ticket.seeds.derive("grow", now.step))
        wanted = self.grow(ticket.mask, gradient, generator)
        return Mask({name: keep | best(wanted[name], ~keep, dropped[name]) for name, keep in stays.items()})


@dataclass(frozen=True)
class Thinning:
    """How much is kept, and when less."""

    setup: Setup
    density: Density
    criterion: Criterion
    allocate: Allocate
    every: int

    def steps(self, start: int, end: int) -> Sequence[int]:
        """All multiples of `every` in the first `UNTIL` of the training, and its last step, for the density itself."""
        last = max(1, int(UNTIL * end))
        return [t for t in sorted({*range(self.every, last, self.every), last}) if start < t < end]

    def change(self, ticket: Ticket, now: State, gradient: Gradient) -> Mask:
        """The best of what is left, at the density of this step."""
        del gradient
        share = min(1.0, now.step / max(1, int(UNTIL * self.setup.recipe.steps)))
        scores = self.criterion(evidence(self.setup, ticket, now, self.criterion))
        mask = self.allocate(scores, ticket.mask, density=on_the_way(self.density, share))
        if not mask.within(ticket.mask):
            raise ValueError("the allocation keeps weights that were pruned; a mask only shrinks here")
        return mask


def on_the_way(density: Density, share: float) -> Density:
    """The density after that share of the way to `density`: cubic, from 1."""
    if isinstance(density, Mapping):
        return {name: d + (1 - d) * (1 - share) ** 3 for name, d in density.items()}
    return density + (1 - density) * (1 - share) ** 3


def best(scores: Tensor, among: Tensor, count: int) -> Tensor:
    """Bool of the shape of `scores`: the `count` highest where `among` is true; ties break by position."""
    places = among.reshape(-1).nonzero().squeeze(1)
    order = torch.sort(scores.reshape(-1)[places], descending=True, stable=True).indices[:count]
    chosen = torch.zeros(scores.numel(), dtype=torch.bool)
    chosen[places[order]] = True
    return chosen.view(scores.shape)
