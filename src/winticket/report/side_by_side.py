"""Runs side by side on one page: accuracy against density of all, their verdicts, and what differs in the question."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from winticket.report.glossary import linked, words_section
from winticket.report.glossary_metric import meanings
from winticket.report.metric import Metric
from winticket.report.page import framed
from winticket.report.side_by_side_figure import figure_section
from winticket.report.side_by_side_numbers import numbers_section
from winticket.report.side_by_side_question import differences_section
from winticket.report.side_by_side_rows import Named, shared_metric
from winticket.report.side_by_side_verdicts import sentences_section, verdicts_section
from winticket.text import cleaned


def write_side_by_side(runs: Sequence[Named], path: str | Path) -> Path:
    """Write the page of several runs, and return its path. ValueError for fewer than two; OSError as for a file."""
    target = Path(path)
    target.write_text(side_by_side(runs), encoding="utf-8")
    return target


def side_by_side(runs: Sequence[Named]) -> str:
    """Return the page of several runs as HTML: searches, transfers and comparisons of methods.

    ValueError for fewer than two.
    """
    if len(runs) < 2:
        raise ValueError(f"{len(runs)} run is nothing to compare; give two or more")
    listed = [Named(run.name, cleaned(run.document)) for run in runs]
    body = "\n".join(
        [
            f"<section><h1>{len(listed)} runs side by side</h1>{verdicts_section(listed)}</section>",
            figure_section(listed),
            differences_section(listed),
            sentences_section(listed),
            numbers_section(listed),
        ]
    )
    shared = shared_metric(listed) or Metric()
    whole = linked(body, unit=shared.scale.unit)
    return framed(f"{len(listed)} runs side by side", f"{whole}\n{words_section(whole, meanings(shared))}")
