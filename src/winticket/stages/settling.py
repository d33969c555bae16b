"""When a mask drawn in training has settled: Early-Bird's ticket."""

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
"""The distance below which two masks count as one."""
WIDEST = 0.6
"""The largest distance possible where a mask keeps 30 or 70 % of the units, the least that the paper takes."""
LOOKS = 5
"""Masks in a row, the newest included, that have to be one."""
PATIENCE = 0.5
"""Share of the training in which the mask may settle."""
MOST = 40
"""States that are kept at most; with more epochs than that, the looks are further apart."""


def looks(setup: Setup) -> tuple[int, ...]:
    """The steps after which a mask is drawn, in the first half of training: the ends of epochs.

    Of every so many where there are more than `MOST`; where there are not even eight, eight times.
    """
    last = max(1, int(PATIENCE * setup.recipe.steps))
    epoch = max(1, min(round(setup.train_examples() / setup.recipe.batch), last // 8))
    apart = epoch * max(1, -(-last // (epoch * MOST)))
    return tuple(range(apart, last + 1, apart))


def emerged(
    setup: Setup, path: Trajectory, *, density: Density, criterion: Criterion, allocate: Allocate
) -> Ticket:
    """The first mask that has settled, with the weights of that moment as step 0; the last look's if none has.

    `about` says after how many steps it was drawn, and whether it had settled.
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
        found = Ticket(
            mask,
            State(state.weights, state.buffers, {}, 0),
            "ticket",
            path.ticket.seeds,
            {**path.ticket.about, "searched_steps": state.step, "settled": settled},
        ).settled(setup.module())
        if settled:
            break
    return found


def distance(one: Sequence[Tensor], two: Sequence[Tensor]) -> float:
    """The share of units that two masks disagree about; more than that where so few could differ that it says nothing.

    `one` and `two` are bool [units] per layer. The paper compares the share itself with `SETTLED`, pruning 30 to 70 %
    of the channels: masks with nothing in common are then at least `WIDEST` apart. Two masks that keep 5 % each differ
    in no more than 10 % of their units, so that any two would be one; where the largest possible distance is below
    `WIDEST`, the share is in proportion to it.
    """
    units = sum(len(a) for a in one)
    differ = sum(int((a != b).sum()) for a, b in zip(one, two, strict=True)) / units
    kept = [(int(a.sum() + b.sum()), 2 * len(a)) for a, b in zip(one, two, strict=True)]
    largest = sum(min(both, places - both) for both, places in kept) / units
    return differ * WIDEST / largest if 0 < largest < WIDEST else differ


def _decided(mask: Mask) -> list[Tensor]:
    """By layer, of every unit whether it is kept, if units are kept whole or not at all; else of every weight."""
    rows = [mask.laid_out(name).by_unit(keep).flatten(1) for name, keep in mask.keep.items()]
    if all(bool((r.all(1) | ~r.any(1)).all()) for r in rows):
        return [r.any(1) for r in rows]
    return [r.flatten() for r in rows]
