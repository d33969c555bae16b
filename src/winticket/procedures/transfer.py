"""Transfer: train tickets that another experiment found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from winticket.run import Task, derive
from winticket.stages import PlannedLevel, Setup, carried, widened


def transfer(setup: Setup, tickets: Iterable[Task], there: Setup | None = None) -> Iterator[PlannedLevel]:
    """Puts tickets of another experiment into this setup. Morcos et al. 2019, §3.

    `there` is the setup of that experiment if its network has another width; then the masks alone are transferred.

    >>> from winticket.experiment import Experiment
    >>> setup = Experiment.of("digits", steps=20).setup()
    >>> from winticket.procedures import at_init
    >>> again = Experiment.of("digits", steps=40).setup()
    >>> [moved] = transfer(again, [found.ticket for found in at_init(setup, [0.2], (0, 1))])
    >>> moved.ticket.fn
    'winticket/carried'
    """
    for ticket in tickets:
        yield PlannedLevel(
            derive(carried, setup, ticket) if there is None else derive(widened, setup, there, ticket)
        )
