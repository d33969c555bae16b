"""Runs with names, and the accuracies of all of them as rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from winticket.report.comparison import method_name
from winticket.report.metric import Metric, metric_of
from winticket.report.reading import (
    claimed,
    dense_arm,
    ends,
    interval,
    is_in,
    paired_difference,
    pruned_levels,
)
from winticket.results import Comparison, Document
from winticket.table import Table, Value

COLUMNS = ("run", "density", "arm", "accuracy", "ci_low", "ci_high", "to_dense", "claimed")


@dataclass(frozen=True)
class Named:
    """A document with the name by which the page tells it from the others."""

    name: str
    document: Document | Comparison


def is_comparison(document: Document | Comparison) -> bool:
    """Whether a document is of a comparison of methods, which has rows and no verdict."""
    return "rows" in document


def shared_metric(runs: Sequence[Named]) -> Metric | None:
    """The metric that all runs are judged by; None if there are several, whose values stand on no common axis."""
    found = {metric_of(run.document).scale: metric_of(run.document) for run in runs}
    return next(iter(found.values())) if len(found) == 1 else None


def accuracies(runs: Sequence[Named]) -> Table:
    """One row per run, level and network: accuracies as fractions, and the difference to dense in percentage points.

    Of a run that is judged by another metric: its values in its own unit, and differences that are positive if the
    network is better than dense.

    Of searches and transfers the dense network and the ticket; of comparisons every method at equal steps, which is its
    arm.
    """
    return Table(COLUMNS, tuple(row for run in runs for row in _rows(run)))


def _rows(run: Named) -> list[tuple[Value, ...]]:
    if is_comparison(run.document):
        return _rows_of_methods(run.name, cast("Comparison", run.document))
    document = cast("Document", run.document)
    rows: list[tuple[Value, ...]] = []
    dense, won = dense_arm(document), claimed(document)
    if dense is not None:
        low, high = interval(dense, "accuracy") or (None, None)
        rows.append((run.name, 1.0, "dense", dense.get("accuracy"), low, high, 0.0, False))
    for level in pruned_levels(document):
        ticket = level["arms"]["ticket"]
        low, high = interval(ticket, "accuracy") or (None, None)
        gap = paired_difference(document, level, "ticket", dense)
        wins = is_in(level["density"], won)
        rows.append((run.name, level["density"], "ticket", ticket.get("accuracy"), low, high, gap, wins))
    return rows


def _rows_of_methods(name: str, document: Comparison) -> list[tuple[Value, ...]]:
    rows: list[tuple[Value, ...]] = []
    for row in document["rows"]:
        if row["equal"] != "density":
            continue
        low, high = ends(row["accuracy_ci"]) or (None, None)
        gap = 0.0 if row["arm"] == "dense" else row["to_dense"] and metric_of(document).shown(row["to_dense"])
        method = "dense" if row["arm"] == "dense" else method_name(row["method"], row["arm"])
        rows.append((name, row["density"], method, row["accuracy"], low, high, gap, False))
    return rows
