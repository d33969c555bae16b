"""The numbers behind every figure and every table of the report; drawing adds no arithmetic to them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray
from scipy import stats

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
    """One row per level and arm: mean test accuracy at the last step, its 95 % interval, n, failed, claimed.

    `accuracy`, `ci_low` and `ci_high` are fractions; `replicates` counts those that did not fail.
    """
    return _by_density(document, value="accuracy")


def early_stop_by_density(document: Document) -> Table:
    """One row per level and arm: mean step of minimum validation loss and its 95 % interval, in steps.

    Both are missing where most runs have it at the last step: the mean then says how long training was.
    """
    table = _by_density(document, value="early_stop_step")
    stops: dict[tuple[Value, Value], Sequence[int | None]] = {
        (level["density"], name): arm.get("early_stop_steps") or ()
        for level in levels(document)
        for name, arm in level["arms"].items()
    }
    last, at = question_of(document).get("steps"), table.columns.index("early_stop_step")
    rows = []
    for row in table.values:
        finished = [step for step in stops[row[0], row[2]] if step is not None]
        ended = last is not None and 2 * finished.count(last) > len(finished)
        rows.append((*row[:at], None, None, None, *row[at + 3 :]) if ended else row)
    return Table(table.columns, tuple(rows))


def accuracy_at_early_stop_by_density(document: Document) -> Table:
    """One row per level and arm: mean test accuracy at the early-stop step, as a fraction."""
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
            verified = name == "ticket" and is_in(level["density"], won)
            rows.append(
                (
                    level["density"],
                    level.get("model_density"),
                    name,
                    arm.get(value),
                    low,
                    high,
                    *counts,
                    verified,
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
    curves: Curves, *, measure: Measure = "validation_accuracy", confidence: float = 0.95
) -> Table:
    """Mean over replicates of one measure against step, for every density and arm.

    The interval is Student's t over replicates: mean ± t(1 - (1 - confidence)/2, n - 1) · sd / √n; missing
    for n = 1. Intervals of accuracies end at 0 and 1, those of losses at 0. A replicate with a missing or non-finite
    value anywhere is left out whole, so that one mean never mixes different replicates along a curve.

    Raises ValueError where replicates of one density and arm were measured on different steps.
    """
    groups: dict[tuple[float, str], list[LearningCurve]] = {}
    for curve in curves:
        groups.setdefault((float(curve["density"]), str(curve["arm"])), []).append(curve)
    rows: list[tuple[Value, ...]] = []
    most = 1.0 if measure.endswith("accuracy") else math.inf
    for (density, arm), members in sorted(groups.items(), key=lambda item: -item[0][0]):
        steps = [np.asarray(member["step"], np.int64) for member in members]
        if any(not np.array_equal(step, steps[0]) for step in steps):
            raise ValueError(
                f"the replicates of arm {arm!r} at density {density:.4g} were measured on different steps; "
                "their mean needs one grid: evaluate every replicate on the same steps"
            )
        values = np.stack([_floats(member[measure]) for member in members])
        # At early points of the grid, all validation data are evaluated only where they are few.
        measured = np.isfinite(values).any(axis=0)
        values, grid = values[:, measured], steps[0][measured]
        whole = values[np.isfinite(values).all(axis=1)]
        if len(whole) == 0:
            continue
        mean, half = _mean_and_half_width(whole, confidence=confidence)
        for at, step in enumerate(grid):
            centre, width = float(mean[at]), None if half is None else float(half[at])
            ends = (None, None) if width is None else (max(centre - width, 0.0), min(centre + width, most))
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
    quantile = float(stats.t.ppf(0.5 + confidence / 2, count - 1))
    return mean, quantile * values.std(axis=0, ddof=1) / np.sqrt(count)


def checks_by_density(document: Document) -> Table:
    """One row per level and check with all that the check reports, flat; what it does not report is None.

    Differences, their intervals and their sd are fractions; names that end in _pp are percentage points.
    """
    rows: list[dict[str, Value]] = [
        {"density": level["density"], "check": name, **_flat(check)}
        for level in levels(document)
        for name in CHECK_NAMES
        if (check := check_of(level, name)) is not None
    ]
    return Table.from_rows(rows, columns=("density", "check"))


def margins(document: Document) -> Table:
    """The verdict at other margins, one row each: margin_pp, outcome, smallest density won (or None)."""
    others = document["verdict"].get("margins")
    curve = others["curve"] if others else ()
    return Table.from_rows((_flat(row) for row in curve), columns=("margin_pp", "outcome", "density"))


def failures(document: Document) -> Table:
    """One row per failed replicate: arm, density, replicate, reason."""
    return Table.from_rows(
        (_flat(item) for item in document.get("failures") or ()),
        columns=("arm", "density", "replicate", "reason"),
    )


def emptied_layers(document: Document) -> Table:
    """One row per level and arm that lost whole layers: density, arm, the layers' names."""
    rows: list[tuple[Value, ...]] = [
        (level["density"], arm, ", ".join(names))
        for level in levels(document)
        for arm, names in (level.get("emptied") or {}).items()
        if names
    ]
    return Table(("density", "arm", "layers"), tuple(rows))


def _flat(entry: Mapping[str, object], prefix: str = "") -> dict[str, Value]:
    """Nested mappings with joined names; an interval becomes its two ends, other lists one cell."""
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
