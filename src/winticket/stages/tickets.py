"""What a search starts from: the dense network of a replicate, and which of its weights may be pruned."""

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
    """The tickets of one level as a procedure plans them, and the search that they come from if it is a training.

    `search` is a stored task whose results are reported beside the ticket's: a network that was sparse during the
    search (dynamic sparse training) or was never trained (a supermask).
    """

    ticket: Task
    search: Task | None = None


def dense_ticket(setup: Setup, replicate: int) -> Ticket:
    """The dense network at the initialisation θ₀ of a replicate: a ticket with nothing pruned.

    >>> from winticket.experiment import Experiment
    >>> setup = Experiment.of("digits", steps=20).setup()
    >>> dense_ticket(setup, 0).mask.density()
    1.0
    """
    seeds = Seeds(setup.seed, replicate, setup.noise)
    start = setup.initial(seeds.derive("init"))
    return Ticket(whole_mask(setup, start.weights), start, "dense", seeds)


def whole_mask(setup: Setup, weights: Weights) -> Mask:
    """The mask that keeps every weight that may be pruned."""
    return Mask.full({n: weights[n] for n in prunable(setup)}, layout=layouts(setup.module()))


def prunable(setup: Setup) -> tuple[str, ...]:
    """Names of the eligible weights: those of the model with `setup.include` and without `setup.exclude`.

    Errors: ValueError if a pattern fits no parameter, or no weight is left.

    >>> from winticket.experiment import Experiment
    >>> setup = Experiment.of("digits", steps=20).setup()
    >>> prunable(setup)
    ('fc1.weight', 'fc2.weight', 'fc3.weight')
    """
    eligible = models.chosen(
        setup.module(), include=setup.include, exclude=setup.exclude, of=f" of {setup.model}"
    )
    if not eligible:
        raise ValueError(
            f"{setup.model} has no weight left to prune: no Linear or Conv layer, or all are excluded; parameters that "
            f"could be included: {', '.join(models.includable(setup.module())) or 'none'}"
        )
    return eligible


def spared(setup: Setup) -> dict[str, str]:
    """Every parameter that is not pruned: name -> reason in words."""
    pruned, reasons = set(prunable(setup)), models.excluded(setup.module(), setup.include)
    return {n: reasons.get(n, "excluded") for n, _ in setup.module().named_parameters() if n not in pruned}
