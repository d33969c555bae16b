"""What differs in the questions of several runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, cast

from winticket.report.elements import section, table
from winticket.report.metric import metric_of
from winticket.report.question import data_words
from winticket.report.reading import plain, question_of, tickets_from
from winticket.report.settings import in_words
from winticket.report.side_by_side_rows import Named, is_comparison
from winticket.results import Comparison, Document


def differing(runs: Sequence[Named]) -> list[tuple[str, ...]]:
    """The options whose values differ among the runs: per option its name and the value of each run.

    >>> one = Named("one", {"experiment": {"data": "digits", "steps": 800}, "levels": []})
    >>> other = Named("other", {"experiment": {"data": "digits", "steps": 400}, "levels": []})
    >>> differing([one, other])
    [('steps', '800', '400')]
    """
    mixed = any(is_comparison(run.document) for run in runs)
    asked = [_choices(run.document) if mixed else _options(cast("Document", run.document)) for run in runs]
    names = dict.fromkeys(name for options in asked for name in options)
    if mixed:  # a comparison states only what its methods share
        names = dict.fromkeys(name for name in names if all(name in options for options in asked))
    rows = [(name, *(options.get(name, "–") for options in asked)) for name in names]
    return [row for row in rows if len(set(row[1:])) > 1]


def _options(document: Document) -> dict[str, str]:
    """The options that had an effect, in words."""
    question = question_of(document)
    options = dict(in_words(question, document.get("data"), metric_of(document)))
    if words := data_words(document):
        options["examples"] = words
    if question.get("source"):
        options["tickets from"] = tickets_from(question["source"])
    return options


def _choices(document: Document | Comparison) -> dict[str, str]:
    """Every choice by its name, as the document states it."""
    if not is_comparison(document):
        found = cast("Document", document)
        chosen: Mapping[str, Any] = cast("Mapping[str, Any]", question_of(found))
    else:
        compared = cast("Comparison", document)
        known = {"data": compared["data"], "model": compared["model"]}
        for name, value in compared["comparison"].items():
            known |= value if isinstance(value, dict) else {name: value}
        chosen = known
    return {name.replace("_", " "): plain(value) for name, value in chosen.items() if name != "source"}


def differences_section(runs: Sequence[Named]) -> str:
    """The table of differing options as a section of the page."""
    made = differing(runs)
    if not made:
        return section("What differs in the question", "<p>Nothing: the runs ask the same.</p>")
    rows = [[escape(cell) for cell in row] for row in made]
    caption = "Options with the same value in all runs are left out. A dash: the option had no effect there."
    return section(
        "What differs in the question",
        table(("option", *(run.name for run in runs)), rows, caption=caption, text=len(runs), worded=True),
    )
