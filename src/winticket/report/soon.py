"""How soon tickets learn, as the one-page summary has it."""

from __future__ import annotations

from html import escape

from winticket.report.elements import section, table
from winticket.report.pace import early_stops_left_out, judged_fraction, pace_cell
from winticket.report.reading import (
    arm_name,
    arms,
    dense_arm,
    density_percent,
    pruned_levels,
)
from winticket.results import Document


def goal(document: Document) -> str:
    """What a ticket is to reach, in words."""
    fraction = judged_fraction(document)
    return "its early stop" if fraction is None else f"{100 * fraction:g} % of the dense network's accuracy"


def how_soon(document: Document) -> str:
    """The section on steps to an accuracy; empty where the document has none."""
    fraction, dense = judged_fraction(document), dense_arm(document)
    if fraction is None or dense is None:
        return ""
    shown = [arm for arm in arms(document) if arm != "dense"]
    rows = [
        [escape(density_percent(level["density"]))]
        + [escape(pace_cell(level["arms"].get(arm), fraction)) for arm in shown]
        for level in pruned_levels(document)
    ]
    caption = (
        f"Steps to {goal(document)}, on validation data and of the same replicate's final one; dense itself: "
        f"{pace_cell(dense, fraction)}. Medians; in brackets the ratio to the dense network's steps with its 95 % "
        "interval, and sooner or later where an exact signed-rank test shows it. A run that never gets there ranks "
        "last."
    )
    ticket = [level["arms"]["ticket"] for level in pruned_levels(document)]
    fractions = list(dict.fromkeys(name for arm in ticket for name in arm.get("steps_to") or ()))
    others = [
        [escape(density_percent(level["density"]))]
        + [escape(pace_cell(level["arms"]["ticket"], float(name))) for name in fractions]
        for level in pruned_levels(document)
    ]
    all_targets = table(
        ["density", *(f"{100 * float(name):g} %" for name in fractions)],
        others,
        caption="The ticket, to other shares of the dense network's accuracy",
    )
    left_out = early_stops_left_out(document)
    note = f'<p class="note">{escape(left_out)}</p>' if left_out else ""
    every_arm = table(["density", *(arm_name(arm) for arm in shown)], rows, caption=caption)
    return section("How soon", every_arm, all_targets, note)
