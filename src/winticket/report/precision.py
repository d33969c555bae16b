"""What a precision other than float32 changed, and whether this processor gains by it, in a sentence or two."""

from __future__ import annotations

from winticket.report.metric import Metric, metric_of
from winticket.report.reading import ends, question_of
from winticket.results import Document, PrecisionEffect


def precision_sentence(document: Document) -> str | None:
    """Return what the precision changed in the dense network, and a note if it gains no time. None in float32."""
    precision = question_of(document).get("precision") or "float32"
    if precision == "float32":
        return None
    effect = document.get("precision_effect")
    changed = (
        f"trained in {precision}; what this changes was not measured (--no-precision-check)"
        if effect is None
        else _effect(effect, metric_of(document))
    )
    return f"Precision: {changed}.{_without_gain(document, precision)}"


def _effect(effect: PrecisionEffect, metric: Metric) -> str:
    precision, count = effect["precision"], sum(d is not None for d in effect["differences"])
    if effect["difference"] is None:
        return f"trained in {precision}; what this changes is not known, since no replicate finished in both precisions"
    between = ends(effect["difference_ci"])
    low_to_high = (
        "no interval"
        if between is None
        else "95 % interval {} to {}".format(*(_points(metric, end) for end in between))
    )
    replicates = "1 replicate" if count == 1 else f"{count} replicates"
    return (
        f"{precision} changed the dense network's test {metric.name} by {_points(metric, effect['difference'])}"
        f"{_unit(metric)} ({low_to_high}; {replicates} trained in float32 as well)"
    )


def _points(metric: Metric, gain: float) -> str:
    """A change of the metric as it is, up or down; the document has it as a gain."""
    points = metric.shown(metric.scale.sign * gain)
    if metric.scale.unit == "%":
        points = round(points, 2)
    return metric.signed(points).replace("-", "−") if points else metric.number(0.0)


def _unit(metric: Metric) -> str:
    return " percentage points" if metric.scale.points == "pp" else f" {metric.scale.points}".rstrip()


def _without_gain(document: Document, precision: str) -> str:
    environment = document.get("environment") or {}
    on_cpu = environment.get("device") == "cpu"
    if precision != "bf16" or not on_cpu or environment.get("instructions for bf16") != "none":
        return ""
    return " This processor has no instructions for bfloat16, so that bf16 saves no time here."
