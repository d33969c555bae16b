"""What an experiment's networks are trained for and judged by, from its choices and the targets of its data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from winticket.catalogue import is_folder
from winticket.data import DatasetInfo
from winticket.models import pretrained
from winticket.objective import Objective, Scale
from winticket.stages import Pretrained, functions_source, require_unedited

TASK_OF = {
    "classes": "classification",
    "tokens": "next-token",
    "numbers": "regression",
    "labels": "multi-label",
    "positions": "segmentation",
}
"""The task that goes with each kind of target."""
CHOICES = ("loss", "metric", "class_weights", "unit")
"""Fields of an experiment that an objective has as well."""
APART = (*CHOICES, "relative_margin", "start", "redraw")
"""Fields of an experiment that its description has only if they differ from the usual ones."""
USUAL_RELATIVE = 2.0
"""The usual margin of a metric without a range, in percent of the dense network's value."""
USUAL_PLAIN = 0.01
"""The usual margin of a metric that has no zero to be relative to, such as R²."""


def objective_of(dataset: DatasetInfo, choices: Mapping[str, Any]) -> Objective | None:
    """The objective for the targets of a dataset; None for cross-entropy and accuracy.

    Raises ValueError for choices that do not go with the task, or a function of the user's that cannot be imported.
    """
    chosen = {name: value for name in CHOICES if (value := choices.get(name))}
    objective = Objective(TASK_OF[dataset.target], **chosen)
    objective.loss_function(), objective.scale()
    for name in objective.users():
        require_unedited(name)
    # Defaults filled in, so that a default and the same name chosen explicitly have the same keys.
    loss, metric = objective.named()
    objective = replace(objective, loss=loss, metric=metric, source=functions_source(objective.users()))
    return None if objective.usual else objective


def usual_margin(scale: Scale) -> dict[str, Any]:
    """The usual margin for a metric, as choices of an experiment: half a point of a percentage, or a relative one."""
    if scale.unit == "%":
        return {}
    if scale.low >= 0:
        return {"margin_pp": USUAL_RELATIVE, "relative_margin": True}
    return {"margin_pp": USUAL_PLAIN}


def check_margin(margin: float, scale: Scale, *, relative: bool) -> None:
    """ValueError for a margin that makes no sense for a metric."""
    if relative:
        if not 0 < margin < 100:
            raise ValueError(
                f"margin is {margin} % of the dense network's {scale.name}; it must lie in (0, 100), usually 1 to 5"
            )
        if scale.low < 0:
            raise ValueError(
                f"{scale.name} can be 0 or negative, so a margin cannot be relative to it; give one in its own unit, "
                f"as --margin {USUAL_PLAIN}"
            )
        return
    span = scale.factor * (scale.high - scale.low)
    if not (0 < margin < span and math.isfinite(margin)):
        known = f"in (0, {span:g})" if math.isfinite(span) else "above 0"
        kind = "percentage points" if scale.points == "pp" else scale.points or f"units of {scale.name}"
        usual = ", usually 0.5" if scale.points == "pp" else ""
        raise ValueError(f"margin is {margin} {kind}; it must lie {known}{usual}")


def pretrained_of(start: str | None, redraw: str, model: str = "") -> Pretrained | None:
    """The pretrained weights at a path, made absolute for worker processes; None without a path. Errors: ValueError.

    If the model is a causal language model of Transformers, and so is `start`, Transformers reads the weights.
    """
    if start is None:
        if redraw != "fresh":
            raise ValueError(
                f"redraw {redraw!r} goes with pretrained weights (start=, --start); leave it out"
            )
        return None
    try:
        path = Path(start).expanduser().absolute()
        whole = is_folder(model) and pretrained.is_language_model(path)
        return Pretrained.of(str(path), redraw, whole=whole)
    except OSError as error:
        raise ValueError(f"start {start!r} cannot be read: {error}") from error


def described(experiment: Any) -> dict[str, Any]:
    """The choices about objective and margin that differ from the usual ones.

    The others stay out of descriptions, so that questions about accuracy are described as they always were.
    """
    usual = {f.name: f.default for f in fields(experiment) if f.name in APART}
    return {name: value for name in APART if (value := getattr(experiment, name)) != usual[name]}
