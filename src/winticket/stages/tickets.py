"""What a search begins with: a replicate's whole network, and which of its weights may be pruned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from winticket import models
from winticket.run import Task
from winticket.stages.setup import Setup
from winticket.ticket import Mask, Seeds, Ticket, Weights
from winticket.units import layouts

REVISION = 1

Density = float | Mapping[str, float]


@dataclass(frozen=True)
class PlannedLevel:
    """A level's tickets as a procedure plans them, and the training of its own that they come from, if there is one.

    `search` is a stored task whose trajectories stand beside the ticket's: a network that was sparse while its mask
    was found (dynamic sparse training), or that was never trained (a supermask).
    """

    ticket: Task
    search: Task | None = None


def dense_ticket(setup: Setup, replicate: int) -> Ticket:
    """The whole network at its own initialisation: one replicate's θ₀ with nothing pruned."""
    seeds = Seeds(setup.seed, replicate)
    start = setup.initial(seeds.derive("init"))
    return Ticket(whole_mask(setup, start.weights), start, "dense", seeds)


def whole_mask(setup: Setup, weights: Weights) -> Mask:
    """The mask that prunes nothing of what may be pruned."""
    return Mask.full({n: weights[n] for n in prunable(setup)}, layout=layouts(setup.module()))


def prunable(setup: Setup) -> tuple[str, ...]:
    """Eligible weights and those of `setup.include`, less `setup.exclude`. ValueError where a pattern fits none."""
    left = models.chosen(
        setup.module(), include=setup.include, exclude=setup.exclude, of=f" of {setup.model}"
    )
    if not left:
        raise ValueError(
            f"{setup.model} has no weight left to prune: no Linear or Conv layer, or all are excluded; parameters that "
            f"could be included: {', '.join(models.includable(setup.module())) or 'none'}"
        )
    return left


def spared(setup: Setup) -> dict[str, str]:
    """Every parameter that is not pruned, by name, with the reason in words."""
    pruned, reasons = set(prunable(setup)), models.excluded(setup.module(), setup.include)
    return {n: reasons.get(n, "excluded") for n, _ in setup.module().named_parameters() if n not in pruned}
