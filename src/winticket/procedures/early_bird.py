"""Early-Bird tickets: take the mask as soon as it settles, early in the training of the dense network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from winticket.allocate import Allocate, units
from winticket.criteria import Criterion, l1_units
from winticket.procedures.facts import method
from winticket.run import derive
from winticket.stages import Density, PlannedLevel, Setup, at_steps, dense_ticket, emerged, looks, trained


@method("early-bird", criterion="l1_units", allocate="units", starts_dense=False)
def early_bird(
    setup: Setup,
    densities: Sequence[Density],
    replicates: Sequence[int],
    *,
    criterion: Criterion = l1_units,
    allocate: Allocate = units,
) -> Iterator[PlannedLevel]:
    """Draws a mask after every epoch of dense training; the first mask that has settled is the ticket.

    You et al. 2020, §3.2 and their code. A mask has settled if it differs from each of the four before it in less than
    a tenth of the units (`winticket.stages.distance` says what holds if few units are kept). The ticket starts from the
    weights of that moment and gets a whole training. The paper scores channels by BatchNorm's scale (criterion
    batchnorm_scale) and lets layers compete; the defaults here prune units of every layer.

    >>> from winticket.experiment import Experiment
    >>> setup = Experiment.of("digits", steps=20).setup()
    >>> one, two = early_bird(setup, [0.5, 0.2], (0, 1))
    >>> one.ticket.fn
    'winticket/emerged'
    """
    dense = derive(dense_ticket, setup, tuple(replicates))
    path = trained(setup, dense, arm="dense", level=0, first=replicates[0], count=len(replicates))
    path = at_steps(setup, dense, path, looks(setup))
    for density in densities:
        yield PlannedLevel(
            derive(emerged, setup, path, density=density, criterion=criterion, allocate=allocate)
        )
