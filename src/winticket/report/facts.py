"""What a run was about, as the page's table of facts: data, model, training, pruning, test, replicates."""

from __future__ import annotations

from winticket.report.elements import definitions, section
from winticket.report.reading import (
    claimed,
    computed,
    dense_arm,
    density_percent,
    duration,
    interval,
    plain,
    plus_minus,
    pruned_levels,
    question_of,
    tickets_from,
)
from winticket.results import AccuracyName, Arm, Document


def facts(document: Document) -> str:
    """The section "In short": one row for each fact that the document has."""
    dense, won, question = dense_arm(document), claimed(document), question_of(document)
    densities = [level["density"] for level in pruned_levels(document)]
    ends = dict.fromkeys(map(density_percent, (*densities[:1], *densities[-1:])))
    entries: list[tuple[str, str | None]] = [
        ("smallest verified ticket", density_percent(min(won)) + " of the weights" if won else "none"),
        ("dense test accuracy", None if dense is None else accuracy_text(dense, "accuracy") + " %"),
        ("replicates", known(question.get("replicates"))),
        (
            "densities",
            f"{len(densities)}: {' to '.join(ends)} of the weights kept" if densities else None,
        ),
        ("data", known(question.get("data"))),
        ("model", known(question.get("model"))),
        ("tickets from", tickets_from(source) if (source := question.get("source")) else None),
        ("training", _training(document)),
        ("pruning", _pruning(document)),
        ("computed", computed(document)),
        ("margin, error rate", _test(document)),
        ("seed", known(question.get("seed"))),
        ("time", None if document.get("seconds") is None else duration(document["seconds"])),
        ("winticket", document.get("winticket")),
    ]
    return section("In short", definitions(entries))


def known(value: object) -> str | None:
    """A value as plain text; None if there is none."""
    return None if value is None else plain(value)


def _training(document: Document) -> str | None:
    question = question_of(document)
    optimizer, lr = question.get("optimizer"), question.get("lr")
    steps, batch = question.get("steps"), question.get("batch")
    words = [
        None if optimizer is None else f"{optimizer} {plain(lr)}" if lr is not None else str(optimizer),
        None if steps is None else f"{steps} steps",
        None if batch is None else f"batch {batch}",
        None if question.get("schedule") in (None, "constant") else f"{question.get('schedule')} schedule",
        f"{question.get('warmup')} steps of warm-up" if question.get("warmup") else None,
    ]
    return ", ".join(word for word in words if word) or None


def _pruning(document: Document) -> str | None:
    question = question_of(document)
    rate, output = question.get("rate"), question.get("output_rate")
    words = [
        known(question.get("method")),
        known(question.get("allocate")),
        None if rate is None else f"{100 * rate:g} % per level",
        None if output is None else f"output layer {100 * output:g} %",
    ]
    return ", ".join(word for word in words if word) or None


def _test(document: Document) -> str | None:
    margin, alpha = question_of(document).get("margin_pp"), question_of(document).get("alpha")
    words = [None if margin is None else f"{margin:g} pp", None if alpha is None else f"{100 * alpha:g} %"]
    return ", ".join(word for word in words if word) or None


def accuracy_text(arm: Arm | None, value: AccuracyName) -> str:
    """An arm's accuracy with its interval, in percent, and how many replicates failed; a dash if there is no arm."""
    if arm is None:
        return "–"
    failed = f" ({arm['failed']} failed)" if arm.get("failed") else ""
    return plus_minus(arm.get(value), interval(arm, value), scale=100, digits=2) + failed
