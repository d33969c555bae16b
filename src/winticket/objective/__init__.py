"""What a network is trained for, and the metric that it is judged by."""

from __future__ import annotations

from winticket.objective.scale import ACCURACY, Scale

__all__ = ["ACCURACY", "Scale"]
