"""Early-Bird: when has the mask that training would give settled?"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from winticket.allocate import Allocate
from winticket.criteria import Criterion
from winticket.criteria.applied import mask_of
from winticket.stages.pruning import REVISION as PRUNING
from winticket.stages.pruning import evidence
from winticket.stages.setup import Setup
from winticket.stages.tickets import Density
from winticket.ticket import Mask, State, Ticket, Trajectory

REVISION = 1 + PRUNING
SETTLED = 0.1
"""The distance below which two masks count as the same."""
WIDEST = 0.6
"""The largest possible distance of two masks that keep 30 or 70 % of the units, which are the paper's limits."""
LOOKS = 5
"""Masks in a row, the newest included, that must count as the same."""
PATIENCE = 0.5
"""Share of the training in which the mask may settle."""
MOST = 40
"""The most states that are kept; if there are more epochs, a mask is drawn every few epochs."""


def looks(setup: Setup) -> tuple[int, ...]:
    """The steps after which a mask is drawn: the ends of epochs in the first half of training.

    If there are more than `MOST` epochs, every few of them; if fewer than eight, eight steps at equal distances.

    >>> from winticket.experiment import Experiment
    >>> looks(Experiment.of("digits", steps=200).setup())
    (12, 24, 36, 48, 60, 72, 84, 96)
    """
    last = max(1, int(PATIENCE * setup.recipe.steps))
    epoch = max(1, min(round(setup.train_examples() / setup.recipe.batch), last // 8))
    apart = epoch * max(1, -(-last // (epoch * MOST)))
    return tuple(range(apart, last + 1, apart))


def emerged(
    setup: Setup, path: Trajectory, *, density: Density, criterion: Criterion, allocate: Allocate
) -> Ticket:
    """The first mask that has settled, with the weights of that moment as step 0; if none has, the last mask.

    `about` of the ticket says after how many steps the mask was drawn, and whether it had settled.
    """
    masks: list[list[Tensor]] = []
    end = max(path.saved)
    states = [
        state for number, state in sorted(path.saved.items()) if number in looks(setup) or number == end
    ]
    for state in [s for s in states if s.step != end] or states:
        seen = evidence(setup, path.ticket, state, criterion)
        mask = mask_of(criterion, seen, allocate=allocate, density=density)
        masks.append(_decided(mask))
        settled = len(masks) >= LOOKS and all(
            distance(masks[-1], before) < SETTLED for before in masks[-LOOKS:-1]
        )
        bird = Ticket(
            mask,
            State(state.weights, state.buffers, {}, 0),
            "ticket",
            path.ticket.seeds,
            {**path.ticket.about, "searched_steps": state.step, "settled": settled},
        ).settled(setup.module())
        if settled:
            break
    return bird


def distance(one: Sequence[Tensor], two: Sequence[Tensor]) -> float:
    """The share of units that two masks disagree about, scaled up if only few units could differ.

    `one` and `two` are bool [units] per layer. The paper compares the share itself with `SETTLED` and prunes 30 to 70 %
    of the channels, so masks with nothing in common are at least `WIDEST` apart. Two masks that keep 5 % each differ in
    at most 10 % of their units, and any two of them would count as the same. If the largest possible share is below
    `WIDEST`, the distance is therefore the share in proportion to it.

    >>> import torch
    >>> one, two = ([torch.arange(10) == unit] for unit in (0, 1))  # one unit of ten each
    >>> distance(one, two), distance(one, one)
    (0.6, 0.0)
    """
    units = sum(len(a) for a in one)
    differ = sum(int((a != b).sum()) for a, b in zip(one, two, strict=True)) / units
    kept = [(int(a.sum() + b.sum()), 2 * len(a)) for a, b in zip(one, two, strict=True)]
    largest = sum(min(both, places - both) for both, places in kept) / units
    return differ * WIDEST / largest if 0 < largest < WIDEST else differ


def _decided(mask: Mask) -> list[Tensor]:
    """For each layer, which units are kept if the mask keeps or prunes units whole; else which weights are kept."""
    rows = [mask.laid_out(name).by_unit(keep).flatten(1) for name, keep in mask.keep.items()]
    if all(bool((r.all(1) | ~r.any(1)).all()) for r in rows):
        return [r.any(1) for r in rows]
    return [r.flatten() for r in rows]
