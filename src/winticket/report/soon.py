"""How soon tickets learn: the section of the one-page summary."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from winticket.report.elements import section, table
from winticket.report.metric import metric_of
from winticket.report.pace import early_stops_left_out, judged_fraction, pace_cell, share
from winticket.report.reading import (
    arm_name,
    arms,
    dense_arm,
    density_percent,
    pace,
    pruned_levels,
    question_of,
)
from winticket.results import Arm, Document

ALL_EARLY = 12
"""Early in training, curves have a point at every step up to this one; see `winticket.train.Recipe.grid`."""


def how_soon(document: Document) -> str:
    """The section on steps to a value of the metric; empty if the document has no such numbers."""
    fraction, dense = judged_fraction(document), dense_arm(document)
    if fraction is None or dense is None:
        return ""
    shown, name = [arm for arm in arms(document) if arm != "dense"], metric_of(document).name
    tried = pruned_levels(document)
    judged = any(pace(level) for level in tried)
    test = " An exact signed-rank test decides sooner, later or alike." if judged else ""
    caption = (
        "The first line of a cell is the median number of steps until the validation "
        f"{name} reaches {share(document, fraction)} the final value of the same replicate's dense network. The dense "
        f"network itself needs {pace_cell(dense, fraction)[0]} steps.{test} The second line is the typical ratio to "
        "the dense network's steps, with its 95 % interval if there are six replicates or more."
    )
    every_arm = table(
        ["density", *(arm_name(arm) for arm in shown)],
        [_row(level["density"], [(level["arms"].get(arm), fraction) for arm in shown]) for level in tried],
        caption=caption,
    )
    keys = dict.fromkeys(key for level in tried for key in level["arms"]["ticket"].get("steps_to") or ())
    others = [float(key) for key in keys if float(key) != fraction]
    all_targets = table(
        ["density", *(f"{100 * other:g} %" for other in others)],
        [_row(x["density"], [(x["arms"]["ticket"], other) for other in others]) for x in tried],
        caption=_shares(document),
    )
    left_out = early_stops_left_out(document)
    notes = [
        " ".join((*_ratios(document, judged=judged), *_grid(document))),
        *([left_out] if left_out else []),
    ]
    return section(
        f"Steps to {share(document, fraction)} the dense network's validation {name}",
        every_arm,
        f"<details><summary>{escape(_title(others))}</summary>{all_targets}</details>",
        *(f'<p class="note">{escape(note)}</p>' for note in notes),
    )


def _shares(document: Document) -> str:
    metric = metric_of(document)
    if metric.is_accuracy:
        return "Each column is a share of the dense network's final validation accuracy."
    return (
        "Each column is a share of the way from the best constant answer to the dense network's final validation "
        f"{metric.name}."
    )


def _title(shares: Sequence[float]) -> str:
    return f"The ticket's steps to other shares: {', '.join(f'{100 * share:g}' for share in shares)} %"


def _row(density: float, cells: Sequence[tuple[Arm | None, float]]) -> list[str]:
    """The cells of a row, with the ratio on a line of its own."""
    lines = [[escape(line) for line in pace_cell(arm, fraction)] for arm, fraction in cells]
    quiet = [[first, *(f'<span class="no">{line}</span>' for line in others)] for first, *others in lines]
    return [escape(density_percent(density)), *("<br>".join(each) for each in quiet)]


def _ratios(document: Document, *, judged: bool) -> list[str]:
    """How the ratios are formed, and why they may seem to contradict the medians or the test."""
    alpha = question_of(document).get("alpha")
    level = "" if alpha is None else f" at {100 * alpha:g} %"
    test = (
        f"The test is one-sided{level}, and the interval leaves 2.5 % on either side, so “sooner” or “later” may "
        "appear beside an interval that contains 1."
    )
    sentences = [
        "A ratio is formed within each replicate; the typical one (Hodges-Lehmann estimate) is not the ratio of the "
        "two medians.",
        *([test] if judged else []),
    ]
    entries = [
        entry
        for level in pruned_levels(document)
        for arm in level["arms"].values()
        for entry in (arm.get("steps_to") or {}).values()
    ]
    if any(entry["never"] for entry in entries):
        sentences.append(
            "“(2 never)” means that two replicates never reach the target, and “never” alone that half or more do not. "
            "They count as slower than any other, so an interval may lack its upper end (≥), and a cell its ratio."
        )
    if any(entry["ratio"] == 0 for entry in entries):
        sentences.append(
            "0 × means that about three in ten replicates or more reach the target at step 0: the typical ratio "
            "is the median, over all pairs of replicates, of the geometric mean of their two ratios."
        )
    return sentences


def _grid(document: Document) -> list[str]:
    """At which steps the metric is measured; empty if the document does not say."""
    question = question_of(document)
    every, early = question.get("evaluate_every"), question.get("early_points")
    if every is None or early is None:
        return []
    regular = "every step" if every == 1 else f"every {every} steps"
    if every == 1 or not early:
        return [f"{metric_of(document).heading} is measured at {regular}."]
    return [
        f"{metric_of(document).heading} is measured at every step up to {ALL_EARLY}, then at growing distances, and in "
        f"the end {regular}."
    ]
