"""The page's list of facts about a run: data, model, training, pruning, test and replicates."""

from __future__ import annotations

from winticket.report.durations import run_time
from winticket.report.elements import definitions
from winticket.report.metric import Metric, metric_of
from winticket.report.precision import precision_sentence
from winticket.report.reading import (
    claimed,
    computed,
    dense_arm,
    density_percent,
    interval,
    is_in,
    plain,
    pruned_levels,
    question_of,
    tickets_from,
)
from winticket.report.settings import method_words, output_rate
from winticket.results import AccuracyName, Arm, Document


def facts(document: Document) -> str:
    """Return the list "In short" as HTML, with one entry for each fact that the document contains."""
    dense, won, options = dense_arm(document), claimed(document), question_of(document)
    densities, metric = [level["density"] for level in pruned_levels(document)], metric_of(document)
    ends = dict.fromkeys(map(density_percent, (*densities[:1], *densities[-1:])))
    entries: list[tuple[str, str | None]] = [
        ("smallest winning density", density_percent(min(won)) + " of the weights" if won else "none"),
        (
            f"dense test {metric.name}",
            None if dense is None else value_text(document, dense, "accuracy", unit=True),
        ),
        ("best constant answer", _constant(metric)),
        ("precision", precision_sentence(document)),
        ("replicates", text_or_none(options.get("replicates"))),
        (
            "densities",
            f"{len(densities)}: {' to '.join(ends)} of the weights that may be pruned" if densities else None,
        ),
        ("parameters kept", _of_all_parameters(document)),
        ("data", text_or_none(options.get("data"))),
        ("model", text_or_none(options.get("model"))),
        ("tickets from", tickets_from(source) if (source := options.get("source")) else None),
        ("training", _training(document)),
        ("pruning", _pruning(document)),
        ("trained on sparse kernels", computed(document)),
        ("margin, false-win chance", _test(document)),
        ("seed", text_or_none(options.get("seed"))),
        ("run time", None if document.get("seconds") is None else run_time(document)),
        ("winticket", document.get("winticket")),
    ]
    return "<h3>In short</h3>" + definitions(entries)


def _of_all_parameters(document: Document) -> str | None:
    """The smallest winning ticket's share of all parameters, which include those that are never pruned."""
    won = claimed(document)
    shares = (
        level.get("model_density") for level in pruned_levels(document) if is_in(level["density"], won[-1:])
    )
    share = next((share for share in shares if share is not None), None)
    return None if share is None else f"{density_percent(share)} of all, in the smallest winning ticket"


def _constant(metric: Metric) -> str | None:
    """The value of the best constant answer, by which one tells whether the networks learned; for accuracy, chance."""
    return None if metric.is_accuracy or metric.constant is None else metric.value(metric.constant)


def text_or_none(value: object) -> str | None:
    """Write a value as plain text, or return None for None."""
    return None if value is None else plain(value)


def _training(document: Document) -> str | None:
    options = question_of(document)
    optimizer, lr = options.get("optimizer"), options.get("lr")
    steps, batch = options.get("steps"), options.get("batch")
    parts = [
        None if optimizer is None else f"{optimizer} {plain(lr)}" if lr is not None else str(optimizer),
        None if steps is None else f"{steps} steps",
        None if batch is None else f"batch {batch}",
        None if options.get("schedule") in (None, "constant") else f"{options.get('schedule')} schedule",
        f"{options.get('warmup')} steps of warm-up" if options.get("warmup") else None,
    ]
    return ", ".join(part for part in parts if part) or None


def _pruning(document: Document) -> str | None:
    options = question_of(document)
    rate, output, conv = options.get("rate"), output_rate(options), options.get("conv_rate")
    parts = [
        method_words(options),
        text_or_none(options.get("allocate")),
        None if rate is None else f"{100 * rate:g} % of the remaining weights per level",
        None if conv is None else f"convolutions {100 * conv:g} %",
        None if output is None else f"output layer {100 * output:g} %",
    ]
    return ", ".join(part for part in parts if part) or None


def _test(document: Document) -> str | None:
    margin, alpha = question_of(document).get("margin_pp"), question_of(document).get("alpha")
    parts = [
        None if margin is None else metric_of(document).margin(margin),
        None if alpha is None else f"{100 * alpha:g} %",
    ]
    return ", ".join(part for part in parts if part) or None


def value_text(document: Document, arm: Arm | None, value: AccuracyName, *, unit: bool = False) -> str:
    """Write an arm's value with its interval and the number of failed replicates, and its unit if asked for.

    A dash for no arm.
    """
    metric = metric_of(document)
    if arm is None:
        return metric.head("–") if unit else "–"
    failed = f" ({arm['failed']} failed)" if arm.get("failed") else ""
    text = metric.text(arm.get(value), interval(arm, value)) + failed
    return metric.head(text) if unit else text
