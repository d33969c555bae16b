"""How soon tickets learn: the section of the one-page summary."""

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
    """The target that a ticket has to reach, in words."""
    fraction = judged_fraction(document)
    return "its early stop" if fraction is None else f"{100 * fraction:g} % of the dense network's accuracy"


def how_soon(document: Document) -> str:
    """The section on steps to an accuracy; empty if the document has no such numbers."""
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
        f"Median number of steps to {goal(document)} (the final validation accuracy of the same replicate). The dense "
        f"network itself: {pace_cell(dense, fraction)}. In brackets: the ratio to the dense network's steps with its "
        "95 % interval, and sooner or later if an exact signed-rank test shows it. A replicate that never reaches the "
        "target ranks last."
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
