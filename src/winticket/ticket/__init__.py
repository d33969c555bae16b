"""The nouns of the field (mask, state, ticket, trajectory), and the file in which a ticket is saved."""

from __future__ import annotations

from winticket.bits import same_bits
from winticket.ticket.copies import apart
from winticket.ticket.curve import Curve, no_curve
from winticket.ticket.file import FORMAT_VERSION, TicketFileError
from winticket.ticket.mask import Mask, Weights, output_units
from winticket.ticket.nouns import JSON, Failed, Scores, Seeds, State, Ticket, Trajectory
from winticket.ticket.parts import kept_parts, members, with_parts

REVISION = 1
"""Raised when the derivation of seeds changes, or what a mask does to weights."""

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
    "kept_parts",
    "members",
    "no_curve",
    "output_units",
    "same_bits",
    "with_parts",
]
