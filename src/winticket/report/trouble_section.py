"""The page's section of cautions and failures: what bears on the claim is open, and everything else is folded."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from winticket.report.elements import plain_table, section
from winticket.report.metric import metric_of
from winticket.report.reading import question_of, warnings_by_bearing
from winticket.report.tables import emptied_layers, failures
from winticket.results import Document
from winticket.table import Table

CAUTIONS = "Cautions"
"""The heading of the section that has the notes for which the screen has no room."""


def of_tuning(document: Document) -> str | None:
    """A caution if the run has the data and the seed on which its default settings were chosen."""
    question = question_of(document)
    if (question.get("data"), question.get("seed"), question.get("steps")) != ("digits", 0, 800):
        return None
    return (
        "The default settings of digits were chosen by hand on the results of this seed, 0. For a result that had no "
        "part in the choice, add --seed 1."
    )


def cautions(document: Document) -> str:
    """The section of the warnings: those that bear on the claim, and folded the others."""
    bearing, others = warnings_by_bearing(document)
    bearing += [tuned] if (tuned := of_tuning(document)) else []
    body = [listed(bearing)] if bearing else []
    if others:
        count = "1 note that does" if len(others) == 1 else f"{len(others)} notes that do"
        body.append(f"<details><summary>{count} not bear on the verdict</summary>{listed(others)}</details>")
    return section(CAUTIONS, *(body or ["<p>There are none.</p>"]))


def failed(document: Document) -> str:
    """The section of what failed: trainings, and layers that lost all their weights."""
    body = []
    lost, empty = failures(document), emptied_layers(document)
    if lost.values:
        name = metric_of(document).name
        caption = (
            f"Failed trainings. Means omit them, and tests take the {name} that is worst for the ticket."
        )
        rows = [
            (arm, density, int(replicate or 0) + 1, *rest) for arm, density, replicate, *rest in lost.values
        ]
        body.append(plain_table(Table(lost.columns, tuple(rows)), caption=caption))
    if empty.values:
        body.append(
            plain_table(empty, caption="Layers that lost all their weights in at least one replicate")
        )
    if unwritten := document.get("unwritten"):
        body.append(listed(f"{name} was not written: {why}" for name, why in unwritten.items()))
    return section(
        "What failed", *(body or ["<p>No training failed, and no layer lost all its weights.</p>"])
    )


def listed(sentences: Iterable[str]) -> str:
    """Sentences as a list, escaped."""
    return "<ul>" + "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences) + "</ul>"
