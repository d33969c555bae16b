"""The legend of the table on the final screen."""

from __future__ import annotations

import math

from winticket.report.metric import Metric, metric_of
from winticket.report.pace import judged_fraction, share
from winticket.report.reading import FEWEST_REPLICATES, claimed, pruned_levels, question_of, speed, too_few
from winticket.report.screen_table import ROOMY, cut_arms, early_stop, ends_fit
from winticket.results import Document


def legend(document: Document, *, width: int) -> list[tuple[str, str]]:
    """The legend of the table: (mark or column, meaning)."""
    levels = pruned_levels(document)
    entries = [arm for level in levels for arm in level["arms"].values()]
    ends_note = ""
    if cut_arms(document):
        ends_note = "; (low–high)" if ends_fit(document, width) else _one_end(metric_of(document))
        ends_note += " if it is not symmetric" if ends_fit(document, width) else ""
    signs = [("kept", "of the weights that may be pruned (not biases).")]
    signs.append(("* won" if claimed(document) else "won", _rule(document, roomy=width >= ROOMY)))
    signs.append(
        (
            "±",
            f"95 % interval of the mean{ends_note}. {_what(metric_of(document))} on test data after the last step.",
        )
    )
    if question_of(document).get("margin_pp") is not None:
        signs.append(
            (
                "difference",
                "in the text above: computed within each replicate and before rounding, so it may differ from the "
                "difference of two means in this table.",
            )
        )
        if not metric_of(document).higher:
            signs.append(("better", f"means a lower {metric_of(document).name}."))
    signs.append(
        ("yes", "a test paired by replicate shows it; no: it shows the opposite; open: it shows neither.")
    )
    if any(arm.get("failed") for arm in entries):
        signs.append(("!", "a replicate failed."))
    return [*signs, ("early stop", _about_early_stops(document)), _time(document)]


def _what(metric: Metric) -> str:
    """What the numbers of the table are."""
    one = metric.plural
    return f"{one[:1].upper()}{one[1:]} are"


def _one_end(metric: Metric) -> str:
    """What an interval with a single end means, which is cut at an end of the metric's range."""
    if metric.scale.unit == "%":
        return "; >96.0 means from 96.0 to 100 %, <4.0 from 0 to 4.0 %"
    low, high = metric.scale.low, metric.scale.high
    parts = [f"> from there to {high:g}"] if math.isfinite(high) else []
    parts += [f"< from {low:g} to there"] if math.isfinite(low) else []
    return f"; {' and '.join(parts)}"


def _rule(document: Document, *, roomy: bool) -> str:
    """The rule by which a ticket wins, in one line."""
    margin, alpha = question_of(document).get("margin_pp"), question_of(document).get("alpha")
    metric = metric_of(document)
    spelt = " (percentage points)" if metric.in_points else ""
    within = "the margin" if margin is None else f"the margin of {metric.margin(margin)}{spelt}"
    matches, beats = ("matches dense", "beats") if roomy else ("matches dense (=)", "beats (>)")
    level = "" if alpha is None else f" (chance of any false win: at most {100 * alpha:g} %)"
    return f"{matches} within {within} and {beats} both controls{level}."


def _about_early_stops(document: Document) -> str:
    shown = "step of the ticket's lowest validation loss, mean over replicates."
    if all(early_stop(level) != "–" for level in pruned_levels(document)):
        return shown
    return f"{shown} –: in most replicates, the loss of the ticket or of the dense network was lowest at the last step."


def _time(document: Document) -> tuple[str, str]:
    """The legend of the last column, which shows whether the ticket is sooner or later than dense."""
    missing = ""
    if not all(speed(level) for level in pruned_levels(document)):
        fewest = f" with fewer than {FEWEST_REPLICATES} replicates" if too_few(document) else ""
        missing = f" –: not judged{fewest}."
    fraction = judged_fraction(document)
    if fraction is None:
        return "last column", f"the ticket's early stop against the dense network's.{missing}"
    name = metric_of(document).name
    return f"to {100 * fraction:g} %", (
        f"sooner (later): to reach {share(document, fraction)} the dense network's final validation {name}, the ticket "
        f"is shown to need fewer (more) steps than the dense network; alike: neither.{missing}"
    )
