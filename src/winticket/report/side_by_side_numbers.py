"""The numbers of several runs in one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import cast

from winticket.report.elements import table
from winticket.report.metric import Metric, metric_of
from winticket.report.reading import density_percent, ends
from winticket.report.side_by_side_rows import Named, accuracies, shared_metric
from winticket.table import Value


def numbers_section(runs: Sequence[Named]) -> str:
    """The table of all numbers as a section of the page."""
    made, by_run, shared = (
        accuracies(runs),
        {run.name: metric_of(run.document) for run in runs},
        shared_metric(runs),
    )
    rows = [
        [
            escape(str(row["run"])),
            escape(density_percent(float(row["density"] or 0))),
            escape(str(row["arm"])),
            _value(row, by_run[str(row["run"])], shared),
            _gap(row, by_run[str(row["run"])], shared),
            "yes" if row["claimed"] else "",
        ]
        for row in made.rows()
    ]
    value, gap = (
        (
            shared.head(shared.name),
            shared.difference_head("minus dense" if shared.higher else "dense minus it"),
        )
        if shared
        else ("value", "better than dense by")
    )
    numbers = table(("run", "density", "network", value, gap, "winning"), rows, caption=_of_numbers(shared))
    return f"<section><details><summary>All numbers</summary>{numbers}</details></section>"


def _of_numbers(shared: Metric | None) -> str:
    """The caption of all numbers."""
    if shared is None:
        return "Test values of each run's metric, ± half the width of the 95 % interval."
    unit = "percent" if shared.scale.unit == "%" else shared.scale.unit
    points = "percentage points" if shared.scale.points == "pp" else shared.scale.points
    values = f"Test {shared.plural}" + (f" in {unit}" if unit else "")
    return f"{values}, ± half the width of the 95 % interval" + (
        f"; differences in {points}." if points else "."
    )


def _value(row: Mapping[str, Value], metric: Metric, shared: Metric | None) -> str:
    pair = ends([cast("float | None", row["ci_low"]), cast("float | None", row["ci_high"])])
    text = metric.text(cast("float | None", row["accuracy"]), pair)
    return escape(text if shared else f"{metric.head(text)} {metric.name}")


def _gap(row: Mapping[str, Value], metric: Metric, shared: Metric | None) -> str:
    if row["to_dense"] is None:
        return "–"
    text = metric.signed(float(row["to_dense"])).replace("-", "−")
    return escape(text if shared else metric.with_points(text))
