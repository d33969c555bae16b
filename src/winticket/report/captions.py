"""What stands below each figure of the page: what is drawn, how to read it, and why a point may be missing."""

from __future__ import annotations

import math
from collections.abc import Sequence

from winticket.report.metric import Metric, metric_of
from winticket.report.pace import goal, judged_fraction
from winticket.report.reading import pace, pruned_levels, question_of, time_outcome
from winticket.report.validation import against_the_verdict
from winticket.results import Document, LearningCurve

ALONE = (
    " Each density is tested alone, by an exact signed-rank test{level} that is not corrected for the number of "
    "densities: if there is no effect, about one test in twenty shows one by chance."
)


def against_density(metric: Metric) -> str:
    """The name of the figure of the metric, and of its files."""
    return "accuracy_against_density" if metric.is_accuracy else "metric_against_density"


def captions(document: Document, curves: Sequence[LearningCurve] = ()) -> dict[str, str]:
    """The caption of every figure, by the figure's name."""
    question, metric = question_of(document), metric_of(document)
    margin, alpha = question.get("margin_pp"), question.get("alpha")
    alone = ALONE.format(level="" if alpha is None else f" at {100 * alpha:g} %")
    tried = pruned_levels(document)
    of_pace = alone if any(pace(level) is not None for level in tried) else ""
    of_stops = (
        " The title's sooner and later come from a test paired by replicate, not from whether bands overlap."
        + alone
        if any(time_outcome(level) is not None for level in tried)
        else ""
    )
    match = (
        ""
        if margin is None
        else f" To match, it is not enough that a ticket's mean is {metric.good_side} the dotted line: the bound of "
        "its "
        f"paired difference to the dense network must be above −{_spelt(metric, margin)}, as the next figure shows."
    )
    return {
        against_density(metric): f"Test {metric.name} after the last training step{_direction(metric)}. "
        "Filled markers "
        f"show the densities at which the verdict claims a winning ticket. {_arrow(metric)}{match}",
        "difference_against_density": "The verdict rests on these tests. Each point is the mean over replicates of the "
        f"difference of test {metric.plural}, formed within each replicate and before rounding. {_sign(metric)}The "
        "line below each point ends at the bound that its test compares with the dotted line: at the test's "
        "confidence, the true mean is above this bound. A filled point has its whole line above the dotted one, so "
        "what the panel asks for is shown. For an open point, it is not shown, or the opposite is.",
        "pace_against_density": f"Median number of steps until the validation {metric.name} first reaches "
        f"{goal(document, judged_fraction(document))}. The bands, which need six replicates, are 95 % intervals. "
        "Lower means sooner. A marker is missing if half of the replicates or more never reach that "
        f"{metric.name}; the band "
        f"then ends at the last step.{of_pace}",
        "early_stop_against_density": "Training step at which the validation loss is lowest. Lower means sooner."
        f"{of_stops} A marker is missing if, in most replicates, the loss was lowest at the last step.",
        "learning_curves": f"Validation {metric.name} during training, with 95 % bands. Each density has a panel; the "
        f"dense network is the same in all of them. The axis of steps is logarithmic{_stretched(metric)} "
        f"{against_the_verdict(document, curves)}".strip(),
        "layer_densities": "Share of each layer's weights that the tickets keep, against the share in the whole "
        "network. A layer on the dotted line keeps as large a share as the whole network; a layer above it keeps a "
        "larger one.",
    }


def _spelt(metric: Metric, margin: float) -> str:
    if metric.relative:
        return metric.margin(margin)
    return (
        f"{margin:g} {'percentage points' if metric.scale.points == 'pp' else metric.scale.points}".rstrip()
    )


def _direction(metric: Metric) -> str:
    return "" if metric.higher else "; lower is better"


def _sign(metric: Metric) -> str:
    return "" if metric.higher else "It is positive if the ticket is better. "


def _arrow(metric: Metric) -> str:
    """What an arrow at the end of a line says."""
    side, arrow = ("below", "↓") if metric.higher else ("above", "↑")
    example = "92" if metric.scale.unit == "%" else "9.2"
    unit = f" {metric.scale.unit}".rstrip()
    return (
        f"An arrow such as {arrow}{example} says that a line continues {side} the axis, to {example}{unit}."
    )


def _stretched(metric: Metric) -> str:
    """How the axis of values is stretched, and what is cut off."""
    worse = "Lower" if metric.higher else "Higher"
    if not math.isfinite(metric.scale.perfect):
        return f". {worse} {metric.plural} are cut off."
    if metric.scale.unit == "%" and metric.higher:
        ratios = "are equal ratios of errors: from 97 to 98 % is as far as from 70 to 80 %"
    elif metric.scale.perfect == 0:
        ratios = "are equal ratios"
    else:
        ratios = f"are equal ratios of the distance to the best possible value, {metric.value(metric.scale.perfect)}"
    return (
        f", and equal distances on the axis of {metric.plural} {ratios}. {worse} {metric.plural} are cut off."
    )
