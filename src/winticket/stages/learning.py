"""Training that learns a mask and changes no weight."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from winticket.stages.setup import Setup
from winticket.stages.training import Context, train_tickets
from winticket.ticket import Failed, Ticket, Trajectory
from winticket.train import Learning

REVISION = 1


def train_mask(
    setup: Setup,
    stack: Sequence[Ticket | Failed],
    *,
    kind: Any,
    checkpoint: Any = None,
    context: Context | None = None,
    report: Callable[[int, int], None] | None = None,
) -> tuple[Trajectory | Failed, ...]:
    """Learn which weights to keep, as many in each layer as the tickets' masks keep; no weight changes.

    `kind` is "top" (edge-popup) or "sampled" (supermask).
    """
    alive = next((t for t in stack if isinstance(t, Ticket)), None)
    counts = {} if alive is None else {name: kept for name, (kept, _) in alive.mask.layers().items()}
    return train_tickets(
        setup, stack, learning=Learning(kind, counts), checkpoint=checkpoint, context=context, report=report
    )
