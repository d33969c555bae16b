"""The numbers behind every figure and every table of the report; drawing adds no arithmetic to them."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from winticket.report.reading import (
    CHECK_NAMES,
    Document,
    arms,
    claimed,
    interval,
    is_in,
    levels,
    replicates,
    said,
)

Cell = str | int | float | bool | None
Curves = Iterable[Mapping[str, Any]]


@dataclass(frozen=True)
class Table:
    """Named columns and rows of plain values; None is missing, and stays so in the CSV (an empty cell)."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def __post_init__(self) -> None:
        for index, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(
                    f"row {index} has {len(row)} cells, but the table has {len(self.columns)} columns: "
                    f"{', '.join(self.columns)}"
                )

    def records(self) -> list[dict[str, Cell]]:
        """The rows as dictionaries, in order."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]

    def column(self, name: str) -> list[Cell]:
        """One column, in row order."""
        at = self._position(name)
        return [row[at] for row in self.rows]

    def where(self, **equal: Cell) -> Table:
        """The rows whose named columns equal the given values."""
        tests = [(self._position(name), value) for name, value in equal.items()]
        return Table(self.columns, tuple(row for row in self.rows if all(row[at] == v for at, v in tests)))

    def has(self, name: str) -> bool:
        """Whether any cell of a column is there."""
        return any(cell is not None for cell in self.column(name))

    def numbers(self, name: str) -> NDArray[np.float64]:
        """One column as float64, missing cells as nan: for drawing, where nan leaves a gap."""
        return np.array([np.nan if cell is None else float(cell) for cell in self.column(name)], np.float64)

    def to_csv(self, path: str | Path) -> Path:
        """Write as CSV: UTF-8, one header line, shortest decimal that reads back as the same number."""
        with Path(path).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(self.columns)
            writer.writerows(self.rows)
        return Path(path)

    def _position(self, name: str) -> int:
        if name not in self.columns:
            raise KeyError(f"no column {name!r}; the columns are {', '.join(self.columns)}")
        return self.columns.index(name)


def accuracy_by_density(document: Document) -> Table:
    """One row per level and arm: mean test accuracy at the last step, its 95 % interval, n, failed, claimed.

    `accuracy`, `ci_low` and `ci_high` are fractions; `replicates` counts those that did not fail.
    """
    return _by_density(document, value="accuracy", ends="accuracy_ci")


def early_stop_by_density(document: Document) -> Table:
    """One row per level and arm: mean step of minimum validation loss and its 95 % interval, in steps.

    Both are missing where most runs have it at the last step: the mean then says how long training was.
    """
    table = _by_density(document, value="early_stop_step", ends="early_stop_ci")
    stops = {
        (level["density"], name): arm.get("early_stop_steps") or ()
        for level in levels(document)
        for name, arm in level["arms"].items()
    }
    last, at = said(document, "steps"), table.columns.index("early_stop_step")
    rows = []
    for row in table.rows:
        finished = [s for s in stops[row[0], row[2]] if s is not None]
        ended = last is not None and 2 * finished.count(last) > len(finished)
        rows.append((*row[:at], None, None, None, *row[at + 3 :]) if ended else row)
    return Table(table.columns, tuple(rows))


def accuracy_at_early_stop_by_density(document: Document) -> Table:
    """One row per level and arm: mean test accuracy at the early-stop step, as a fraction."""
    return _by_density(document, value="accuracy_at_early_stop", ends="accuracy_at_early_stop_ci")


def _by_density(document: Document, *, value: str, ends: str) -> Table:
    won = claimed(document)
    rows: list[tuple[Cell, ...]] = []
    for level in levels(document):
        for name in arms(document):
            if name not in level["arms"]:
                continue
            arm = level["arms"][name]
            low, high = interval(arm, ends) or (None, None)
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
    curves: Curves, *, measure: str = "validation_accuracy", confidence: float = 0.95
) -> Table:
    """Mean over replicates of one measure against step, for every density and arm.

    The interval is Student's t over replicates: mean ± t(1 - (1 - confidence)/2, n - 1) · sd / √n; missing
    for n = 1. Intervals of accuracies end at 0 and 1, those of losses at 0. A replicate with a missing or non-finite
    value anywhere is left out whole, so that one mean never mixes different replicates along a curve.

    Raises ValueError where replicates of one density and arm were measured on different steps.
    """
    groups: dict[tuple[float, str], list[Mapping[str, Any]]] = {}
    for curve in curves:
        groups.setdefault((float(curve["density"]), str(curve["arm"])), []).append(curve)
    rows: list[tuple[Cell, ...]] = []
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


def _floats(values: Sequence[Any]) -> NDArray[np.float64]:
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
    found: list[dict[str, Cell]] = []
    for level in levels(document):
        for name in CHECK_NAMES:
            check = level.get("checks", {}).get(name)
            if isinstance(check, Mapping):
                found.append({"density": level["density"], "check": name} | _flat(check))
    return _from_records(found, first=("density", "check"))


def margins(document: Document) -> Table:
    """The verdict at other margins, one row each: margin_pp, outcome, smallest density won (or None)."""
    given = (document["verdict"].get("margins") or {}).get("curve") or ()
    return _from_records([_flat(row) for row in given], first=("margin_pp", "outcome", "density"))


def failures(document: Document) -> Table:
    """One row per failed replicate: arm, density, replicate, reason."""
    return _from_records(
        [_flat(item) for item in document.get("failures") or ()],
        first=("arm", "density", "replicate", "reason"),
    )


def emptied_layers(document: Document) -> Table:
    """One row per level and arm that lost whole layers: density, arm, the layers' names."""
    rows: list[tuple[Cell, ...]] = [
        (level["density"], arm, ", ".join(names))
        for level in levels(document)
        for arm, names in (level.get("emptied") or {}).items()
        if names
    ]
    return Table(("density", "arm", "layers"), tuple(rows))


def _flat(entry: Mapping[str, Any], prefix: str = "") -> dict[str, Cell]:
    """Nested mappings with joined names; an interval becomes its two ends, other lists one cell."""
    flat: dict[str, Cell] = {}
    for key, value in entry.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{name}_")
        elif name.endswith("ci"):
            flat[f"{name}_low"], flat[f"{name}_high"] = (None, None) if value is None else value
        elif isinstance(value, (list, tuple)):
            flat[name] = ", ".join(str(item) for item in value)
        else:
            flat[name] = value
    return flat


def _from_records(records: Sequence[Mapping[str, Cell]], *, first: tuple[str, ...]) -> Table:
    columns = tuple(dict.fromkeys([*first, *(name for record in records for name in record)]))
    return Table(columns, tuple(tuple(record.get(name) for name in columns) for record in records))
