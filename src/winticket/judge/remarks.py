"""Warnings that bear on the claim of a verdict, and notes that bear on none."""

from __future__ import annotations

from collections.abc import Sequence

from winticket.judge.checks import MIN_REPLICATES, Check
from winticket.judge.crosschecks import NAMES, disagreements, percent
from winticket.judge.phrases import pruned_levels
from winticket.judge.reason_needed import leads_are_notes, small_leads
from winticket.judge.record import Verdict


def warn(verdict: Verdict) -> tuple[str, ...]:
    """What bears on the claim: doubts about the dense network, failures, collapses, tests that disagree."""
    warnings = []
    if verdict.trained_enough is None:
        warnings.append(
            "We did not check whether the dense network was trained enough. The check takes one more training per "
            "replicate, for twice the steps."
        )
    elif verdict.trained_enough.enough is not True:
        warnings.append(verdict.trained_enough.sentence)
    pruned = pruned_levels(verdict)
    for name, title in _TITLES.items():
        warnings += _failures(title, [(x.density, check) for x in pruned if (check := getattr(x, name))])
    warnings += _collapsed(verdict, bearing=True)
    return (*warnings, *disagreements(verdict, bearing=True))


def notes(verdict: Verdict) -> tuple[str, ...]:
    """What is worth knowing but bears on no claim: other collapses and disagreements, and limits of the tests."""
    remarks = _collapsed(verdict, bearing=False)
    if leads_are_notes(verdict):
        remarks += small_leads(verdict)
    if verdict.replicates >= MIN_REPLICATES:
        remarks += disagreements(verdict, bearing=False)
    if verdict.replicates >= MIN_REPLICATES and 0.5**verdict.replicates > verdict.spending.alpha / 2:
        floor = 0.5**verdict.replicates
        remarks.append(
            f"The sign-flip test cannot reach the level {verdict.spending.alpha / 2:.3g} with {verdict.replicates} "
            f"replicates (its smallest p-value is {floor:.3f}), so it cannot cross-check the t tests."
        )
    return tuple(remarks)


_TITLES = {
    "accuracy": "the comparison with the dense network",
    "beats_reinit": f"the comparison with {NAMES['reinit']}",
    "beats_random": f"the comparison with {NAMES['random']}",
}


def _failures(title: str, checks: Sequence[tuple[float, Check]]) -> list[str]:
    lost = [
        f"{percent(density)} ({', '.join(f'{k} {arm}' for arm, k in check.failed.items() if k)})"
        for density, check in checks
        if any(check.failed.values())
    ]
    if not lost:
        return []
    return [
        f"Failed trainings count against the ticket in {title} at {', '.join(lost)}. The estimates and intervals "
        "there describe only the replicates in which both trainings finished."
    ]


def _collapsed(verdict: Verdict, *, bearing: bool) -> list[str]:
    """Every collapsed replicate; the dense network's and those at claimed densities bear on the claim."""
    return [
        f"Replicate {one.replicate + 1} collapsed ({one.arm} at {percent(one.density)}): its {verdict.scale.name} is "
        f"{verdict.scale.value(one.accuracy)}, and the median of its arm is {verdict.scale.value(one.others)}."
        for one in verdict.collapsed
        if (one.arm == "dense" or one.density in verdict.claimed) == bearing
    ]
