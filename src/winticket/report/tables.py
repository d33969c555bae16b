"""The numbers behind every figure and table of the report. The drawing code computes nothing more."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from winticket.objective import ACCURACY, Scale
from winticket.report.reading import (
    CHECK_NAMES,
    arms,
    check_of,
    claimed,
    interval,
    is_in,
    levels,
    question_of,
    replicates,
)
from winticket.results import Document, LearningCurve, MeanName
from winticket.table import Table, Value

Curves = Iterable[LearningCurve]
Measure = Literal[
    "train_loss", "validation_loss", "validation_accuracy", "pace_accuracy", "test_loss", "test_accuracy"
]
"""Columns of a learning curve."""


def accuracy_by_density(document: Document) -> Table:
    """Return one row per level and arm with the mean test accuracy at the last step and its 95 % interval.

    If networks are judged by another metric, `accuracy` holds its values, in its own unit. `accuracy`, `ci_low` and
    `ci_high` are fractions, or None if too few replicates finished. `replicates` counts the
    replicates that finished, and `failed` counts the others. `claimed` is True if the verdict claims a winning ticket
    at this density.

    >>> from winticket.report import accuracy_by_density
    >>> ticket = {"accuracy": 0.97, "accuracy_ci": [0.96, 0.98], "accuracies": [0.96, 0.98], "failed": 0}
    >>> document = {"levels": [{"density": 0.2, "arms": {"ticket": ticket}}], "verdict": {"claimed": [0.2]}}
    >>> row = accuracy_by_density(document).rows()[0]
    >>> row["accuracy"], row["ci_low"], row["ci_high"], row["replicates"], row["claimed"]
    (0.97, 0.96, 0.98, 2, True)
    """
    return _by_density(document, value="accuracy")


def early_stop_by_density(document: Document) -> Table:
    """Return one row per level and arm with the mean step of lowest validation loss and its 95 % interval, in steps.

    Both are None if more than half of the trainings have their lowest loss at the last step. The mean would then
    measure how long the training was.
    """
    table = _by_density(document, value="early_stop_step")
    stops: dict[tuple[Value, Value], Sequence[int | None]] = {
        (level["density"], name): arm.get("early_stop_steps") or ()
        for level in levels(document)
        for name, arm in level["arms"].items()
    }
    last, column = question_of(document).get("steps"), table.columns.index("early_stop_step")
    rows = []
    for row in table.values:
        finished = [step for step in stops[row[0], row[2]] if step is not None]
        mostly_last = last is not None and 2 * finished.count(last) > len(finished)
        rows.append((*row[:column], None, None, None, *row[column + 3 :]) if mostly_last else row)
    return Table(table.columns, tuple(rows))


def accuracy_at_early_stop_by_density(document: Document) -> Table:
    """Return one row per level and arm with the mean test accuracy at the early-stop step.

    The columns are those of `accuracy_by_density`, except that `accuracy_at_early_stop` replaces `accuracy`.
    Accuracies and interval ends are fractions.
    """
    return _by_density(document, value="accuracy_at_early_stop")


def _by_density(document: Document, *, value: MeanName) -> Table:
    won = claimed(document)
    rows: list[tuple[Value, ...]] = []
    for level in levels(document):
        for name in arms(document):
            if name not in level["arms"]:
                continue
            arm = level["arms"][name]
            low, high = interval(arm, value) or (None, None)
            counts = (replicates(arm), arm.get("failed"))
            wins = name == "ticket" and is_in(level["density"], won)
            rows.append(
                (
                    level["density"],
                    level.get("model_density"),
                    name,
                    arm.get(value),
                    low,
                    high,
                    *counts,
                    wins,
                )
            )
    columns = (
        "density",
        "model_density",
        "arm",
        value,
        "ci_low",
        "ci_high",
        "replicates",
        "failed",
        "claimed",
    )
    return Table(columns, tuple(rows))


def learning_curves(
    curves: Curves,
    *,
    measure: Measure = "validation_accuracy",
    confidence: float = 0.95,
    scale: Scale = ACCURACY,
) -> Table:
    """Return the mean of one measure over replicates at each step, for every density and arm.

    The interval is Student's t over replicates, mean ± t(1 - (1 - confidence)/2, n - 1) · sd / √n, and is None for
    n = 1. Intervals of accuracies are cut at 0 and 1, and intervals of losses at 0. Accuracies are fractions. Where
    networks are judged by another metric, `scale` is that metric's, and intervals are cut at the ends of its range.

    A step at which no replicate was measured gets no row. A replicate that lacks a finite value at any other step is
    skipped at all steps, so the same replicates enter the mean along the whole curve.

    Raises ValueError if replicates of one density and arm were measured at different steps.

    >>> from winticket.report import learning_curves
    >>> curve = {"density": 0.2, "arm": "ticket", "step": [0, 100], "validation_accuracy": [0.1, 0.9]}
    >>> other = {**curve, "validation_accuracy": [0.2, 0.8]}
    >>> [(row["step"], round(row["validation_accuracy"], 3)) for row in learning_curves([curve, other]).rows()]
    [(0, 0.15), (100, 0.85)]
    """
    groups: dict[tuple[float, str], list[LearningCurve]] = {}
    for curve in curves:
        groups.setdefault((float(curve["density"]), str(curve["arm"])), []).append(curve)
    rows: list[tuple[Value, ...]] = []
    lowest, highest = (scale.low, scale.high) if measure.endswith("accuracy") else (0.0, math.inf)
    for (density, arm), members in sorted(groups.items(), key=lambda item: -item[0][0]):
        steps = [np.asarray(member["step"], np.int64) for member in members]
        if any(not np.array_equal(step, steps[0]) for step in steps):
            raise ValueError(
                f"the replicates of arm {arm!r} at density {density:.4g} were measured at different steps, so they "
                "have no mean curve; evaluate every replicate at the same steps"
            )
        values = np.stack([_floats(member[measure]) for member in members])
        # Early in training a run evaluates all validation data only if they are few; other runs have no value there.
        measured = np.isfinite(values).any(axis=0)
        values, grid = values[:, measured], steps[0][measured]
        whole = values[np.isfinite(values).all(axis=1)]
        if len(whole) == 0:
            continue
        mean, half = _mean_and_half_width(whole, confidence=confidence)
        for index, step in enumerate(grid):
            centre, width = float(mean[index]), None if half is None else float(half[index])
            ends = (
                (None, None) if width is None else (max(centre - width, lowest), min(centre + width, highest))
            )
            rows.append((density, arm, int(step), centre, *ends, len(whole)))
    return Table(("density", "arm", "step", measure, "ci_low", "ci_high", "replicates"), tuple(rows))


def _floats(values: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([np.nan if value is None else float(value) for value in values], np.float64)


def _mean_and_half_width(
    values: NDArray[np.float64], *, confidence: float
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    count = len(values)
    mean = values.mean(axis=0)
    if count < 2:
        return mean, None
    from scipy import special  # takes a third of a second to import, and most commands write no page

    quantile = float(special.stdtrit(count - 1, 0.5 + confidence / 2))
    return mean, quantile * values.std(axis=0, ddof=1) / np.sqrt(count)


def checks_by_density(document: Document) -> Table:
    """Return one row per level and check, with one column for each value that any check reports.

    A value that a check does not report is None. Differences, their intervals and their standard deviations are
    fractions, and in the metric's unit if that is not accuracy. Columns whose names end in _pp are in percentage
    points, or in that unit.
    """
    rows: list[dict[str, Value]] = [
        {"density": level["density"], "check": name, **_flat(check)}
        for level in levels(document)
        for name in CHECK_NAMES
        if (check := check_of(level, name)) is not None
    ]
    return Table.from_rows(rows, columns=("density", "check"))


def margins(document: Document) -> Table:
    """Return what the verdict would be at other margins, one row per margin.

    `margin_pp` is in percentage points, or in the unit of a metric that is no percentage. `density` is the smallest
    density at which a ticket wins, or None.
    """
    verdicts = document["verdict"].get("margins")
    curve = verdicts["curve"] if verdicts else ()
    return Table.from_rows((_flat(row) for row in curve), columns=("margin_pp", "outcome", "density"))


def failures(document: Document) -> Table:
    """Return one row per failed training with its arm, density, replicate (counted from 0) and reason.

    >>> from winticket.report import failures
    >>> nan = {"arm": "ticket", "density": 0.2, "replicate": 3, "reason": "the loss became nan at step 120"}
    >>> failures({"failures": [nan]}).rows()[0]["reason"]
    'the loss became nan at step 120'
    """
    return Table.from_rows(
        (_flat(item) for item in document.get("failures") or ()),
        columns=("arm", "density", "replicate", "reason"),
    )


def emptied_layers(document: Document) -> Table:
    """Return one row per level and arm in which layers lost all their weights, with the names of those layers.

    >>> from winticket.report import emptied_layers
    >>> emptied_layers({"levels": [{"density": 0.01, "emptied": {"ticket": ["fc1", "fc2"]}}]}).rows()
    [{'density': 0.01, 'arm': 'ticket', 'layers': 'fc1, fc2'}]
    """
    rows: list[tuple[Value, ...]] = [
        (level["density"], arm, ", ".join(names))
        for level in levels(document)
        for arm, names in (level.get("emptied") or {}).items()
        if names
    ]
    return Table(("density", "arm", "layers"), tuple(rows))


def _flat(entry: Mapping[str, object], prefix: str = "") -> dict[str, Value]:
    """Flatten nested mappings by joining their names. An interval becomes two cells, and any other list one."""
    flat: dict[str, Value] = {}
    for key, value in entry.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{name}_")
        elif name.endswith("ci"):
            flat[f"{name}_low"], flat[f"{name}_high"] = value if isinstance(value, list) else (None, None)
        elif isinstance(value, list):
            flat[name] = ", ".join(str(item) for item in value)
        else:
            flat[name] = cast("Value", value)
    return flat
