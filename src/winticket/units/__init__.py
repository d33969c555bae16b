"""Units of a layer: their axis in its weight, the dead ones, and the parameters that die with these."""

from __future__ import annotations

from winticket.units.dead import (
    dead_parameters,
    effective_count,
    takes_whole_units,
    traced,
    why_untraceable,
    zeroed,
)
from winticket.units.layout import PLAIN, Layout, layout_of, layouts
from winticket.units.structures import Structure, structures

REVISION = 1
"""Raised when the definition of a dead unit, or an axis of a weight, changes."""

__all__ = [
    "PLAIN",
    "REVISION",
    "Layout",
    "Structure",
    "dead_parameters",
    "effective_count",
    "layout_of",
    "layouts",
    "structures",
    "takes_whole_units",
    "traced",
    "why_untraceable",
    "zeroed",
]
