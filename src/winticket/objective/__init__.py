"""What a network is trained for, and the metric that it is judged by."""

from __future__ import annotations

from winticket.objective.metrics import Metric, metric
from winticket.objective.question import (
    BALANCED,
    TASKS,
    LossAndMetric,
    Objective,
    check_functions,
    constant_outputs,
    functions,
    noise_targets,
)
from winticket.objective.scale import ACCURACY, Scale

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
    "check_functions",
    "constant_outputs",
    "functions",
    "metric",
    "noise_targets",
]
