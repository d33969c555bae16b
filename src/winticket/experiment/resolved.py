"""An experiment with everything looked up that it names: done once, for whoever checks, plans and prices it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from winticket.allocate import Allocate
from winticket.criteria import Criterion
from winticket.experiment import carried
from winticket.experiment.counts import counts, densities
from winticket.experiment.names import ARMS
from winticket.experiment.spec import Experiment
from winticket.rewind import Rewind
from winticket.stages import Density, Setup, whole_mask
from winticket.ticket import Mask, Ticket


@dataclass(frozen=True)
class Resolved:
    """What an experiment asks for, as values and functions.

    `whole` is the mask that prunes nothing: it names the eligible weights. `densities` are those of levels 1..levels,
    `counts` the eligible weights kept at levels 0..levels. `controls` are functions by the name of their arm.
    `source` is the experiment whose tickets this one trains, resolved too; its own densities are then the source's.
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
        """Criterion, allocation and rewind by the option that names them."""
        return {"criterion": self.criterion, "allocate": self.allocate, "rewind": self.rewind}

    def another_width(self) -> bool:
        """Whether the source's network differs by more than its output layer, so that masks alone are carried."""
        return self.source is not None and carried.another_width(self.setup, self.source.setup)


def resolve(experiment: Experiment) -> Resolved:
    """Look up data, model and functions, and count what every level keeps.

    ValueError if they do not fit each other, or if a level would keep none of a layer or prune nothing.
    """
    parts: dict[str, Any] = experiment.functions()
    controls = {arm: ARMS[arm] for arm in experiment.controls}
    here = experiment.setup()
    if experiment.source is None:
        whole = whole_mask(here, _weights(here))
        levels = tuple(densities(experiment, here.module(), tuple(whole.keep)))
        kept = tuple(counts(experiment, whole, levels, parts["allocate"]))
        return Resolved(
            experiment, here, **parts, controls=controls, whole=whole, densities=levels, counts=kept
        )
    source = resolve(experiment.source)
    here = replace(here, exclude=(*here.exclude, *carried.new_weights(experiment, here, source.setup)))
    whole = whole_mask(here, _weights(here))
    bare = Resolved(
        experiment, here, **parts, controls=controls, whole=whole, densities=(), counts=(), source=source
    )
    left = carried.Left(source.counts, source.whole, source.densities, source.allocate)
    return replace(bare, counts=tuple(carried.counts(experiment, here, whole, source.setup, left)))


def _weights(setup: Setup) -> dict[str, Any]:
    return {name: weight.detach() for name, weight in setup.module().named_parameters()}
