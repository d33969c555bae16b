"""The verdicts of several runs in one table, and the sentences behind each."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import cast

from winticket.report.elements import section, table
from winticket.report.metric import metric_of
from winticket.report.reading import (
    claimed,
    dense_arm,
    density_percent,
    ends,
    interval,
    plain,
    question_of,
    sentences,
)
from winticket.report.side_by_side_rows import Named, is_comparison, shared_metric
from winticket.report.titles import headline, spelt_out
from winticket.results import Comparison, Document


def verdicts_section(runs: Sequence[Named]) -> str:
    """The table of verdicts."""
    rows, shared = [], shared_metric(runs)
    for run in runs:
        if is_comparison(run.document):
            compared = cast("Comparison", run.document)
            cells = [
                "–",
                _dense_of(compared, named=shared is None),
                str(compared["replicates"]),
                "comparison of methods: no verdict",
            ]
        else:
            document = cast("Document", run.document)
            won, dense = claimed(document), dense_arm(document)
            metric = metric_of(document)
            value = "–" if dense is None else metric.text(dense.get("accuracy"), interval(dense, "accuracy"))
            cells = [
                density_percent(min(won)) if won else "none",
                value if shared else f"{metric.head(value)} {metric.name}",
                plain(question_of(document).get("replicates")),
                headline(document),
            ]
        rows.append([escape(cell) for cell in (run.name, *cells)])
    caption = (
        "Each run is judged by itself. That one wins and another does not is no test of the difference between "
        "them."
    )
    return table(
        (
            "run",
            "smallest winning ticket",
            shared.head("dense") if shared else "dense",
            "replicates",
            "verdict",
        ),
        rows,
        caption=caption,
        worded=True,
        text=1,
    )


def _dense_of(document: Comparison, *, named: bool) -> str:
    dense = next(
        (row for row in document["rows"] if row["arm"] == "dense" and row["equal"] == "density"), None
    )
    if dense is None:
        return "–"
    metric = metric_of(document)
    value = metric.text(dense["accuracy"], ends(dense["accuracy_ci"]))
    return f"{metric.head(value)} {metric.name}" if named else value


def sentences_section(runs: Sequence[Named]) -> str:
    """The reasons of all verdicts as a section of the page; empty if there are only comparisons."""
    parts = []
    for run in runs:
        if not is_comparison(run.document):
            lines = sentences(cast("Document", run.document))
            parts.append(
                f"<h3>{escape(run.name)}</h3>"
                + "".join(f"<p>{escape(line)}</p>" for line in spelt_out(lines))
            )
    return section("The verdicts in words", *parts) if parts else ""
