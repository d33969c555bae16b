"""What would decide: how many replicates it takes, and which leads are too small to matter."""

from __future__ import annotations

from winticket.judge.checks import MIN_REPLICATES
from winticket.judge.crosschecks import CONTROL_CHECKS, NAMES
from winticket.judge.frame import Margin
from winticket.judge.phrases import listed, pruned_levels
from winticket.judge.record import Verdict


def leads_are_notes(verdict: Verdict) -> bool:
    """True if more replicates would decide. If none would, small leads explain why and belong to the reason."""
    return verdict.replicates_needed is not None and verdict.replicates >= MIN_REPLICATES


def small_leads(verdict: Verdict) -> list[str]:
    """Leads that are shown to be below the margin: no refutation, but worth knowing before running more."""
    sentences = []
    for arm, pick in CONTROL_CHECKS.items():
        densities = [
            level.density
            for level in pruned_levels(verdict)
            if level.matched
            and (check := pick(level))
            and not check.passed
            and check.ci
            and check.ci[1] < _margin(verdict)
        ]
        if densities:
            sentences.append(
                f"If the ticket has a lead over {NAMES[arm]}, it is below {verdict.words.margin(verdict.margin_pp)} at "
                f"{listed(densities, verdict)}."
            )
    return sentences


def _margin(verdict: Verdict) -> float:
    """The margin in the metric's own unit; of a share, that of the dense network's mean."""
    margin = Margin.of(verdict.margin_pp, verdict.scale, relative=verdict.relative)
    return margin.typical((verdict.learned.accuracy,))


def replicates_needed(verdict: Verdict) -> list[str]:
    """How many replicates would decide; or, if no number would, what to run instead."""
    if verdict.replicates_needed is not None:
        fresh = verdict.replicates_fresh
        other = "" if fresh is None else f", or {fresh} in a new experiment with another --seed,"
        return [
            f"About {verdict.replicates_needed} replicates in total{other} would decide the verdict with 80 % power if "
            "the true differences are the ones measured here."
        ]
    alone = [level.density for level in pruned_levels(verdict) if level.kind == "winning ticket"]
    if not alone:
        return [
            "If the true differences are the ones measured here, no practical number of replicates decides the verdict."
        ]
    return [
        f"At {listed(alone, verdict)} every test passes, but nothing can be claimed there because a denser level does "
        "not match. To confirm the win, run a new experiment with another --seed whose densities start there."
    ]
