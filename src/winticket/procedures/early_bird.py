"""Early-Bird tickets: the mask is drawn as soon as it has settled, early in the dense network's training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from winticket.allocate import Allocate, units
from winticket.criteria import Criterion, l1_units
from winticket.procedures.facts import method
from winticket.run import derive
from winticket.stages import Density, Found, Setup, at_steps, dense_ticket, emerged, looks, trained


@method("early-bird", criterion="l1_units", allocate="units", starts_dense=False)
def early_bird(
    setup: Setup,
    densities: Sequence[Density],
    replicates: Sequence[int],
    *,
    criterion: Criterion = l1_units,
    allocate: Allocate = units,
) -> Iterator[Found]:
    """Early-Bird: after every epoch of dense training a mask is drawn; once it has settled, that is the ticket.

    You et al. 2020, §3.2 and their code: settled when the newest differs from each of the four before in less than a
    tenth of its units (in less if few units are kept: `distance`). The ticket goes on from the weights of that moment,
    through a whole training. They score channels by BatchNorm's scale (criterion batchnorm_scale) and let layers
    compete; units of every layer here.
    """
    dense = derive(dense_ticket, setup, tuple(replicates))
    path = trained(setup, dense, arm="dense", level=0, first=replicates[0], count=len(replicates))
    path = at_steps(setup, dense, path, looks(setup))
    for density in densities:
        yield Found(derive(emerged, setup, path, density=density, criterion=criterion, allocate=allocate))
