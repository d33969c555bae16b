"""The nouns of the field (mask, state, ticket, trajectory) and the file that a ticket is kept in."""

from __future__ import annotations

from winticket.bits import same_bits
from winticket.ticket.copies import apart
from winticket.ticket.curve import Curve, no_curve
from winticket.ticket.file import FORMAT_VERSION, TicketFileError
from winticket.ticket.nouns import (
    JSON,
    Failed,
    Mask,
    Scores,
    Seeds,
    State,
    Ticket,
    Trajectory,
    Weights,
    output_units,
)

REVISION = 1
"""Raised when seeds derive otherwise, or what a mask does to weights changes."""

__all__ = [
    "FORMAT_VERSION",
    "JSON",
    "REVISION",
    "Curve",
    "Failed",
    "Mask",
    "Scores",
    "Seeds",
    "State",
    "Ticket",
    "TicketFileError",
    "Trajectory",
    "Weights",
    "apart",
    "no_curve",
    "output_units",
    "same_bits",
]
