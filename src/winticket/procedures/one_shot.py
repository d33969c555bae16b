"""One-shot pruning: train the dense network once and prune it to every density."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from winticket.allocate import Allocate
from winticket.criteria import Criterion, magnitude
from winticket.pairing import usual
from winticket.procedures.facts import method
from winticket.rewind import Rewind, to_init
from winticket.run import derive
from winticket.stages import Density, PlannedLevel, Setup, at_steps, dense_ticket, prune, saved_for, trained


@method("one-shot")
def one_shot(
    setup: Setup,
    densities: Sequence[Density],
    replicates: Sequence[int],
    *,
    criterion: Criterion = magnitude,
    allocate: Allocate | None = None,
    rewind: Rewind = to_init,
    rewind_step: int = 0,
) -> Iterator[PlannedLevel]:
    """Trains the dense network once and prunes it to each density. Frankle & Carbin 2019, §3.

    `rewind_step` is the step that `rewind` goes back to, if `rewind` takes one.

    >>> from winticket.experiment import Experiment
    >>> setup = Experiment.of("digits", steps=20).setup()
    >>> one, two = one_shot(setup, [0.8, 0.64], (0, 1))
    >>> one.ticket.inputs[1] == two.ticket.inputs[1]  # one training for both
    True
    """
    dense = derive(dense_ticket, setup, tuple(replicates))
    path = trained(setup, dense, arm="dense", level=0, first=replicates[0], count=len(replicates))
    path = at_steps(setup, dense, path, saved_for(rewind, rewind_step))
    for density in densities:
        options = {
            "density": density,
            "criterion": criterion,
            "allocate": allocate or usual(criterion),
            "rewind": rewind,
        }
        yield PlannedLevel(derive(prune, setup, path, rewind_step=rewind_step, **options))
