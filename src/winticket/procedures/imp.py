"""Iterative magnitude pruning: train, prune a little, rewind, repeat."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from winticket.allocate import Allocate
from winticket.criteria import Criterion, magnitude
from winticket.pairing import usual
from winticket.procedures.facts import method
from winticket.rewind import Rewind, to_init
from winticket.run import derive
from winticket.stages import (
    Density,
    PlannedLevel,
    Setup,
    at_steps,
    dense_ticket,
    prune,
    retraining,
    saved_for,
    trained,
)


@method("imp", title="iterative pruning", levels=True)
def imp(
    setup: Setup,
    densities: Sequence[Density],
    replicates: Sequence[int],
    *,
    criterion: Criterion = magnitude,
    allocate: Allocate | None = None,
    rewind: Rewind = to_init,
    rewind_step: int = 0,
) -> Iterator[PlannedLevel]:
    """Trains, prunes to the next density and rewinds, level by level. Frankle & Carbin 2019, §2.

    `rewind_step` is the step that `rewind` goes back to, if `rewind` takes one.

    >>> from winticket.experiment import Experiment
    >>> setup = Experiment.of("digits", steps=20).setup()
    >>> one, two = imp(setup, [0.8, 0.64], (0, 1))
    >>> two.ticket.inputs[1].label["arm"]  # the training that it is pruned from is the first level's
    'ticket'
    """
    ticket = derive(dense_ticket, setup, tuple(replicates))
    for level, density in enumerate(densities):
        arm = "ticket" if level else "dense"
        by = retraining(setup, rewind) if level else setup
        path = trained(by, ticket, arm=arm, level=level, first=replicates[0], count=len(replicates))
        if not level:
            path = at_steps(setup, ticket, path, saved_for(rewind, rewind_step))
        options = {
            "density": density,
            "criterion": criterion,
            "allocate": allocate or usual(criterion),
            "rewind": rewind,
        }
        ticket = derive(prune, setup, path, rewind_step=rewind_step, **options)
        yield PlannedLevel(ticket)
