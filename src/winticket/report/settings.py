"""The settings of a run: the options that had an effect, with the values that were used, in words that explain them."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any, cast

from winticket.procedures import METHODS, method_of
from winticket.procedures.facts import halved_output_rate
from winticket.report.elements import definitions
from winticket.report.metric import Metric, metric_of
from winticket.report.reading import plain, question_of
from winticket.results import Document, Question
from winticket.results.document import Data

OFF_AT_ZERO = frozenset(
    ("rewind_step", "momentum", "nesterov", "weight_decay", "warmup", "flip", "crop", "final_density")
)
"""Options that change nothing if they are 0 or False."""
LABELS = {
    "every": "mask changes every",
    "search_lr": "learning rate of the search",
    "split": "split of the data",
    "stack": "replicates per stack",
    "stacking": "training in stacks",
    "carried": "levels of the source",
}
"""Options whose names do not say what they are; the others are shown by their names."""
VERDICT_ONLY = frozenset(("controls", "arms", "gate", "precision_check", "margin_pp", "alpha"))
"""Options of a source that had no part in finding its tickets."""
MEANINGS: Mapping[tuple[str, object], str] = {
    ("gate", True): "yes: the dense network is also trained for twice the steps",
    ("precision_check", True): "yes: the dense network is also trained in float32",
    ("early_points", True): "yes: more evaluations early in training",
    ("split", "own"): "each replicate draws its own",
    ("split", "shared"): "one for all replicates",
}


def settings(document: Document) -> str:
    """The settings of the experiment, and of the one that found the tickets if they were transferred, as HTML."""
    question, data, metric = question_of(document), document.get("data"), metric_of(document)
    html = (
        "<h3>Experiment</h3>"
        '<p class="note">Options that change nothing in this run are left out; result.json has all of them.</p>'
        + definitions(in_words(question, data, metric), wide=True)
    )
    if source := question.get("source"):
        searched = {name: value for name, value in source.items() if name not in VERDICT_ONLY}
        listed = definitions(in_words(cast("Question", searched), None), wide=True)
        html += f"<details><summary>Settings of the source of the tickets</summary>{listed}</details>"
    return html


def in_words(question: Question, data: Data | None, metric: Metric | None = None) -> list[tuple[str, str]]:
    """Each option that had an effect, as (name, value). Defaults that followed from other options are filled in.

    `metric` is the one that judges, accuracy by default: the margin is in its unit.
    """
    filled = {**cast("dict[str, Any]", question), **_filled(question, data)}
    return [
        _margin(metric, value)
        if name == "margin_pp" and metric is not None and not metric.in_points
        else (LABELS.get(name, name.replace("_", " ")), _value(name, value))
        for name, value in filled.items()
        if name != "source" and not idle(name, value, question)
    ]


def _margin(metric: Metric, value: float) -> tuple[str, str]:
    return "margin", metric.margin(value)


def _filled(question: Question, data: Data | None) -> dict[str, Any]:
    """The values of options that were left to their defaults, as far as the document tells."""
    filled: dict[str, Any] = {"output_rate": output_rate(question)} if "output_rate" in question else {}
    filled |= {name: "default" for name in ("every", "search_lr") if _open_to_method(question, name)}
    if data is not None:
        filled |= {"validation": data["validation"], "test": data["test"], "split": data["split"]}
    return {name: value for name, value in filled.items() if name in question}


def _open_to_method(question: Question, name: str) -> bool:
    """True if the method takes this option and it was left to its default."""
    procedure = METHODS.get(question.get("method") or "")
    return procedure is not None and name in signature(procedure).parameters and question.get(name) is None


def idle(name: str, value: object, question: Question) -> bool:
    """True if the option had no effect."""
    if value is None or value == []:
        return True
    if name in OFF_AT_ZERO:
        return not value
    if name == "precision_check":
        return question.get("precision") == "float32"
    if name in ("milestones", "gamma"):
        return question.get("schedule") != "step"
    return name == "pruning" and question.get("final_density") is None


def _value(name: str, value: object) -> str:
    if name in ("validation", "test"):
        return f"{plain(value)} examples"
    if name in ("every", "evaluate_every") and value != "default":
        return f"{plain(value)} steps"
    return MEANINGS.get((name, value), plain(value)) if isinstance(value, bool | str) else plain(value)


def method_words(question: Question) -> str | None:
    """Name the method in words: `iterative pruning by magnitude (imp)`. None if the document has no method.

    >>> method_words({"method": "imp", "criterion": "magnitude"}), method_words({"method": "rigl"})
    ('iterative pruning by magnitude (imp)', 'rigl')
    """
    name = question.get("method")
    title = method_of(METHODS[name]).title if name in METHODS else None
    if title is None:
        return name
    criterion = question.get("criterion")
    return f"{title}{f' by {criterion}' if criterion else ''} ({name})"


def output_rate(question: Question) -> float | None:
    """The share of the output layer's weights that each level prunes, if it differs from the share of other layers.

    None also if the document does not tell: it does not name the layers that --exclude leaves out.
    """
    stated, rate = question.get("output_rate"), question.get("rate")
    if stated is not None or rate is None or question.get("exclude"):
        return stated
    model = (question.get("source") or question).get("model") or ""
    return halved_output_rate(rate, model=model, allocate=question.get("allocate") or "")
