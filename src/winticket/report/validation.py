"""Validation data beside the verdict's test data: what learning curves end at, and why the two may differ."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from winticket.report.metric import Metric, metric_of
from winticket.report.reading import data_of, dense_arm, density_percent, is_in, pruned_levels, won_at
from winticket.results import Document, LearningCurve, Level


def against_the_verdict(document: Document, curves: Sequence[LearningCurve]) -> str:
    """Say how far ticket and dense network are apart on validation data, beside test data, which decide.

    At the smallest winning density, or the sparsest one; without curves or checks, only that test data decide.
    """
    always = "Test data, which are other examples, decide the verdict."
    tried = pruned_levels(document)
    if not tried:
        return always
    at = won_at(document) or tried[-1]["density"]
    level = next((level for level in tried if is_in(level["density"], (at,))), None)
    found = None if level is None else _differences(document, level, curves)
    if found is None:
        return always
    validation, test = found
    metric = metric_of(document)
    write = partial(_signed, metric)
    mean, low, high = _mean(validation)
    apart = _mean(validation - test)
    data = data_of(document)
    few = "" if data is None else f", with {data['validation']} examples each"
    agree = (
        f"the difference between these two numbers may be chance ({write(apart[0])}, 95 % interval {write(apart[1])} "
        f"to {write(apart[2])})"
        if apart[1] <= 0 <= apart[2]
        else f"the two sets of examples differ by more than chance explains ({write(apart[0])}, 95 % interval "
        f"{write(apart[1])} to {write(apart[2])})"
    )
    return (
        f"{always} At {density_percent(at)} of the weights, {_subject(metric)} is {write(mean)}"
        f"{_unit(metric)} on validation data (95 % interval {write(low)} to {write(high)}; {len(validation)} "
        f"replicates{few}) and {write(float(np.mean(test)))} on test data; {agree}."
    )


def _differences(
    document: Document, level: Level, curves: Sequence[LearningCurve]
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Gain of the ticket over dense by replicate, in the metric's points: (validation, test).

    None for fewer than two replicates.
    """
    last: dict[str, dict[int, float]] = {"dense": {}, "ticket": {}}
    for curve in curves:
        arm, density = curve["arm"], 1.0 if curve["arm"] == "dense" else level["density"]
        if arm in last and is_in(curve["density"], (density,)):
            value = curve["validation_accuracy"][-1]
            if value is not None:
                last[arm][curve["replicate"]] = value
    dense = dense_arm(document)
    if dense is None:
        return None
    pairs = [
        (last["ticket"][n] - last["dense"][n], ours - theirs)
        for n, (ours, theirs) in enumerate(
            zip(level["arms"]["ticket"].get("accuracies", ()), dense.get("accuracies", ()), strict=False)
        )
        if n in last["ticket"] and n in last["dense"] and ours is not None and theirs is not None
    ]
    if len(pairs) < 2:
        return None
    scale = metric_of(document).scale
    validation, test = scale.factor * scale.sign * np.array(pairs).T
    return validation, test


def _mean(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean and 95 % t interval."""
    from scipy import special  # takes a third of a second to import, and most commands write no page

    mean, count = float(values.mean()), len(values)
    half = float(special.stdtrit(count - 1, 0.975) * values.std(ddof=1) / count**0.5)
    return mean, mean - half, mean + half


def _subject(metric: Metric) -> str:
    difference = metric.minus("the ticket", "the dense network")
    return difference if metric.higher else f"{difference}, which is positive if the ticket is better,"


def _unit(metric: Metric) -> str:
    return " percentage points" if metric.scale.points == "pp" else f" {metric.scale.points}".rstrip()


def _signed(metric: Metric, points: float) -> str:
    return metric.signed(points).replace("-", "−")
