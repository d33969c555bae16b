"""Units of a layer: which axis of its weight they are, which are dead, and what goes with a dead one."""

from __future__ import annotations

from winticket.units.dead import effective_count, gone, traced, unknown, whole, zeroed
from winticket.units.layout import PLAIN, Layout, layout_of, layouts

REVISION = 1
"""Raised when what counts as dead, or an axis of a weight, changes."""

__all__ = [
    "PLAIN",
    "REVISION",
    "Layout",
    "effective_count",
    "gone",
    "layout_of",
    "layouts",
    "traced",
    "unknown",
    "whole",
    "zeroed",
]
