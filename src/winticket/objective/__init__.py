"""What a network is trained for, and the metric that it is judged by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from winticket.objective.scale import ACCURACY, Scale

if TYPE_CHECKING:
    from winticket.objective.metrics import Metric, metric
    from winticket.objective.question import (
        BALANCED,
        TASKS,
        LossAndMetric,
        Objective,
        balanced_weights,
        check_functions,
        constant_outputs,
        functions,
        noise_targets,
    )

REVISION = 1
"""Raised whenever a loss, a metric or the standardising of targets changes its numbers."""

__all__ = [
    "ACCURACY",
    "BALANCED",
    "REVISION",
    "TASKS",
    "LossAndMetric",
    "Metric",
    "Objective",
    "Scale",
    "balanced_weights",
    "check_functions",
    "constant_outputs",
    "functions",
    "metric",
    "noise_targets",
]


def __getattr__(name: str) -> object:
    # On first use: shipped networks and reports need scales, and not torch.
    if name not in __all__:
        raise AttributeError(f"module 'winticket.objective' has no attribute {name!r}")
    from importlib import import_module

    home = "metrics" if name in ("Metric", "metric") else "question"
    return getattr(import_module(f"winticket.objective.{home}"), name)
