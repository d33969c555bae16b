"""Ship: what leaves winticket, smaller or faster, with the same answers."""

from __future__ import annotations

from winticket.ship.shrink import Compact
from winticket.ship.shrink_expand import expand, expanded

__all__ = ["Compact", "expand", "expanded"]
