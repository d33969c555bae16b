"""The verdict's evidence: at one density, what a win needs, what the tests answer, and by which numbers."""

from __future__ import annotations

import math
from functools import partial
from html import escape

from winticket.report.elements import table
from winticket.report.metric import Metric, metric_of
from winticket.report.reading import (
    check_of,
    claimed,
    density_percent,
    is_in,
    mark,
    pruned_levels,
    question_of,
    saved_of,
    unlearned,
)
from winticket.results import CheckName, Document, Level

NEEDS: dict[CheckName, str] = {
    "accuracy": "matches the dense network",
    "beats_reinit": "beats the same mask with new initial weights",
    "beats_random": "beats a random mask",
}
"""What a win needs, by the check that answers it."""


def evidence(document: Document) -> str:
    """The table of the tests at the density that the verdict is about, as HTML; empty if nothing was tested."""
    chosen = _chosen(document)
    if chosen is None:
        return ""
    level, which = chosen
    metric, rows = metric_of(document), []
    for name, words in NEEDS.items():
        check = check_of(level, name)
        if check is None:
            rows.append([escape(words), "–", "not run", "–", "–"])
            continue
        bound = check.get("bound")
        sure = confidence_text(check["test_level"]) if check.get("test_level") else None
        shares = check.get("relative")
        estimate = check.get("estimate")
        if shares is not None:
            estimate, bound = shares["estimate"], shares["bound"]
        write = partial(_points, metric, share=shares is not None)
        above = "–" if bound is None else f"{write(bound)}{f' ({sure})' if sure else ''}"
        rows.append(
            [
                escape(words),
                answer(document, level, name),
                write(estimate),
                above,
                _limit(check["null_pp"], "" if shares is None else f" % of dense {metric.name}"),
            ]
        )
    at = density_percent(level["density"])
    caption = (
        f"These are the tests at {at} of the weights, {which}. Differences are means over replicates, "
        f"{metric.counted}, "
        f"and are computed before rounding. {_sign(metric)}Yes: a test shows it. No: it shows the opposite. Open: "
        "neither."
    )
    head = (
        "a ticket wins if it",
        "answer",
        "difference" if metric.relative else metric.difference_head(),
        "shown to be above (confidence)",
        "needed",
    )
    return table(head, rows, caption=caption, worded=True)


def deciding_level(document: Document) -> Level | None:
    """The level of the smallest win; without one, the saved ticket's, else the sparsest. None if nothing was tested."""
    chosen = _chosen(document)
    return None if chosen is None else chosen[0]


def _chosen(document: Document) -> tuple[Level, str] | None:
    """The level that `deciding_level` takes, and which one it is, in words."""
    tried = [level for level in pruned_levels(document) if check_of(level, "accuracy") is not None]
    if not tried or unlearned(document):
        return None
    won, saved = claimed(document), saved_of(document)
    at = min(won) if won else None if saved is None else saved["density"]
    near = [level for level in tried if at is not None and is_in(level["density"], (at,))]
    if near:
        return near[0], "the smallest winning density" if won else "the saved ticket's density"
    return tried[-1], "the sparsest of those tried"


def answer(document: Document, level: Level, name: CheckName) -> str:
    """`yes`, `no` or `open` as HTML, which does not rely on colour alone."""
    text = mark(document, level, name)
    return f'<span class="answer {text}">{text}</span>' if text in ("yes", "no", "open") else text


def _sign(metric: Metric) -> str:
    return "" if metric.higher else "They are positive if the ticket is better. "


def _points(metric: Metric, difference: float | None, *, share: bool) -> str:
    """A gain in the metric's points, or in percent of the dense network's mean; with its unit where units differ."""
    if difference is None:
        return "–"
    text = f"{100 * difference:+.2f} %" if share else metric.signed(metric.shown(difference))
    return (metric.with_points(text) if metric.relative and not share else text).replace("-", "−")


def _limit(points: float, unit: str) -> str:
    return "more than 0" if points == 0 else f"more than {points:g}{unit}".replace("-", "−")


def confidence_text(level: float) -> str:
    """The confidence of a one-sided bound, with as many digits as tell it from 100 %.

    >>> [confidence_text(level) for level in (0.05, 0.0225, 0.00375)]
    ['95 %', '97.8 %', '99.6 %']
    """
    digits = max(1, math.ceil(-math.log10(100 * level)))
    return f"{round(100 * (1 - level), digits):.12g} %"


def about_confidences(document: Document) -> str | None:
    """Why bounds of the verdict have other confidences than 95 %; None if the document does not say."""
    level, alpha = deciding_level(document), question_of(document).get("alpha")
    if level is None or alpha is None:
        return None
    shown = [check_of(level, name) for name in NEEDS]
    levels = [check["test_level"] for check in shown if check is not None and check.get("test_level")]
    match = check_of(level, "accuracy")
    if not levels or match is None or not match.get("test_level"):
        return None
    others = sorted(set(levels[1:]))
    by_controls = f" and {' and '.join(map(confidence_text, others))} for the controls" if others else ""
    return (
        f"The confidences differ because the chance of any false win is held to {100 * alpha:g} % over all densities "
        f"together, so each single test needs a confidence above {100 - 100 * alpha:g} %: here, "
        f"{confidence_text(match['test_level'])} for the match{by_controls}. Intervals after ± are 95 % intervals."
    )
