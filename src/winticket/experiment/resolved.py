"""Resolve an experiment: look up everything that it names, once for checks, plan and price."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from winticket.allocate import Allocate
from winticket.criteria import Criterion
from winticket.experiment import transferred_tickets
from winticket.experiment.counts import counts, densities
from winticket.experiment.names import ARMS
from winticket.experiment.spec import Experiment
from winticket.rewind import Rewind
from winticket.stages import Density, Setup, whole_mask
from winticket.ticket import Mask, Ticket


@dataclass(frozen=True)
class Resolved:
    """The choices of an experiment as values and functions.

    controls   control functions by the name of their arm
    whole      the mask that prunes nothing; it names the eligible weights
    densities  densities of levels 1..levels; empty for a transfer, which has those of its source
    counts     eligible weights kept at levels 0..levels
    source     the experiment whose tickets this one trains, resolved as well; None unless this is a transfer

    >>> resolved = resolve(Experiment.of("digits", model="lenet-20-10", steps=20, levels=2))
    >>> resolved.eligible, resolved.counts
    (('fc1.weight', 'fc2.weight', 'fc3.weight'), (1580, 1274, 1028))
    """

    experiment: Experiment
    setup: Setup
    criterion: Criterion
    allocate: Allocate
    rewind: Rewind
    controls: Mapping[str, Callable[..., Ticket]]
    whole: Mask
    densities: tuple[Density, ...]
    counts: tuple[int, ...]
    source: Resolved | None = None

    @property
    def eligible(self) -> tuple[str, ...]:
        """The names of the weights that may be pruned."""
        return tuple(self.whole.keep)

    @property
    def functions(self) -> dict[str, Callable[..., Any]]:
        """Criterion, allocation and rewind, by the option that names each."""
        return {"criterion": self.criterion, "allocate": self.allocate, "rewind": self.rewind}

    def another_width(self) -> bool:
        """True if the source's network differs in more than its output layer, so that only masks are transferred."""
        return self.source is not None and transferred_tickets.another_width(self.setup, self.source.setup)


def resolve(experiment: Experiment) -> Resolved:
    """Look up data, model and functions, and count the weights that every level keeps.

    Raises ValueError if they do not fit each other, or if a level would keep no weight of a layer or prune nothing.
    """
    parts: dict[str, Any] = experiment.functions()
    controls = {arm: ARMS[arm] for arm in experiment.controls}
    setup = experiment.setup()
    if experiment.source is None:
        whole = whole_mask(setup, _weights(setup))
        levels = tuple(densities(experiment, setup.module(), tuple(whole.keep)))
        kept = tuple(counts(experiment, whole, levels, parts["allocate"]))
        return Resolved(
            experiment, setup, **parts, controls=controls, whole=whole, densities=levels, counts=kept
        )
    source = resolve(experiment.source)
    new = transferred_tickets.new_weights(experiment, setup, source.setup)
    setup = replace(setup, exclude=(*setup.exclude, *new))
    whole = whole_mask(setup, _weights(setup))
    kept = tuple(transferred_tickets.counts(experiment, setup, whole, source.setup, _levels(source)))
    return Resolved(
        experiment, setup, **parts, controls=controls, whole=whole, densities=(), counts=kept, source=source
    )


def _levels(source: Resolved) -> transferred_tickets.SourceLevels:
    return transferred_tickets.SourceLevels(source.counts, source.whole, source.densities, source.allocate)


def _weights(setup: Setup) -> dict[str, Any]:
    return {name: weight.detach() for name, weight in setup.module().named_parameters()}
