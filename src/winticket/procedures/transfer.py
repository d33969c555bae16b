"""Transfer: tickets that were found elsewhere, put where they are to train now."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from winticket.run import Task, derive
from winticket.stages import Found, Setup, carried, widened


def transfer(setup: Setup, tickets: Iterable[Task], there: Setup | None = None) -> Iterator[Found]:
    """One stack of tickets for each that another setup's procedure yielded. Morcos et al. 2019, §3.

    `there` is that setup, where its network has another width.
    """
    for ticket in tickets:
        yield Found(
            derive(carried, setup, ticket) if there is None else derive(widened, setup, there, ticket)
        )
