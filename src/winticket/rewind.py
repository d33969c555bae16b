"""Rewinding: a trajectory and a new mask -> the next ticket."""

from collections.abc import Callable

from winticket.ticket import Mask, Ticket, Trajectory

__all__ = ["Rewind", "to_init"]

REVISION = 1

Rewind = Callable[[Trajectory, Mask], Ticket]


def to_init(path: Trajectory, mask: Mask) -> Ticket:
    """Back to where the trajectory's own ticket began: weights, buffers, and optimiser state if it had any.

    Frankle & Carbin 2019, §2 step 4: the remaining weights are reset to their values in θ₀.
    Raises ValueError where the mask revives a weight.
    """
    if not mask.within(path.ticket.mask):
        raise ValueError(
            "the new mask keeps weights that the trajectory's ticket had pruned; a mask only shrinks"
        )
    return Ticket(mask, path.ticket.start, path.ticket.origin, path.ticket.seeds, path.ticket.about)
