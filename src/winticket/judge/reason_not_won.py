"""Why no ticket is shown to win: what is refuted, and what could not be shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from winticket.judge.checks import MIN_REPLICATES, Check
from winticket.judge.crosschecks import CONTROL_CHECKS, NAMES, percent
from winticket.judge.phrases import against_dense, difference, listed, pruned_levels
from winticket.judge.reason_needed import leads_are_notes, replicates_needed, small_leads
from winticket.judge.record import LevelChecks, Verdict
from winticket.judge.words import Words


def not_won(verdict: Verdict) -> list[str]:
    """Every pruned level, with the comparison that refutes a win there."""
    grounds: tuple[tuple[str, Callable[[LevelChecks], Check | None]], ...] = (
        (_far_below("the ticket", verdict), lambda x: x.accuracy),
        (f"the ticket is {Words(verdict.scale).below} {NAMES['reinit']}", lambda x: x.beats_reinit),
        (f"the ticket is {Words(verdict.scale).below} {NAMES['random']}", lambda x: x.beats_random),
    )
    parts = []
    for text, pick in grounds:
        refuted = [level for level in pruned_levels(verdict) if (check := pick(level)) and check.refuted]
        if refuted:
            densest = difference(pick(refuted[0]), bound=False)
            first = f"at {percent(refuted[0].density)}: " if len(refuted) > 1 else ""
            parts.append(f"{text} at {listed([x.density for x in refuted], verdict)} ({first}{densest})")
    return [f"Not won: {'; '.join(parts)}.", *_structure(verdict)]


def _far_below(ticket: str, verdict: Verdict) -> str:
    """The ticket is more than 0.5 pp below the dense network; more than 2 % worse than it."""
    words = verdict.words
    how = f"{verdict.margin_pp:g} %" if verdict.relative else words.margin(verdict.margin_pp)
    return f"{ticket} is more than {how} {words.below} the dense network"


def inconclusive(verdict: Verdict) -> list[str]:
    """What was shown, what was not, and what would decide."""
    n = verdict.replicates
    if n < MIN_REPLICATES:
        return [
            f"Inconclusive: {n} {'replicate is' if n == 1 else 'replicates are'} too few to decide anything, whatever "
            f"the numbers. Use at least {MIN_REPLICATES}.",
        ]
    pruned = pruned_levels(verdict)
    missing = [arm for arm, pick in CONTROL_CHECKS.items() if any(pick(level) is None for level in pruned)]
    if missing:
        return [
            f"Inconclusive: {' and '.join(NAMES[arm] for arm in missing)} did not run at every density. Without "
            f"{'it' if len(missing) == 1 else 'them'}, nothing shows that the ticket is better than any other network "
            f"that is equally sparse. Run {'this control' if len(missing) == 1 else 'both controls'}.",
            *_structure(verdict),
        ]
    return [
        f"Inconclusive: {_matching(verdict, pruned)}",
        *_controls(verdict, pruned),
        *_structure(verdict),
        *([] if leads_are_notes(verdict) else small_leads(verdict)),
        *replicates_needed(verdict),
    ]


def _matching(verdict: Verdict, pruned: Sequence[LevelChecks]) -> str:
    """The smallest density down to which the ticket matches, and what stops the claim there."""
    matched = [level for level in pruned if level.matched]
    stop = next((level for level in pruned if not level.matched), None)
    shown = (
        f"the ticket matches the dense network down to {percent(matched[-1].density)} of the weights"
        if matched
        else ""
    )
    if stop is None:
        return f"{shown}, the sparsest level tried."
    at = percent(stop.density)
    if stop.accuracy is not None and stop.accuracy.refuted:
        ends = (
            f"at {at} {_far_below('it' if matched else 'the ticket', verdict)} "
            f"({difference(stop.accuracy, bound=False)})."
        )
    else:
        what = "that it still does" if matched else "that the ticket matches the dense network"
        ends = f"we could not show {what} at {at} ({against_dense(stop.accuracy, verdict)})."
    return f"{shown}, but {ends}" if matched else ends


def _controls(verdict: Verdict, pruned: Sequence[LevelChecks]) -> list[str]:
    """The densities at which the ticket beats both controls; and what is open at the last one at which it matches."""
    beaten = [level.density for level in pruned if level.nontrivial]
    shown = [f"The ticket beats both controls at {listed(beaten, verdict)}."] if beaten else []
    matched = [level for level in pruned if level.matched]
    if not matched:
        return shown
    level = matched[-1]
    open_ = [
        f"{NAMES[arm]} (difference {difference(check)})"
        for arm, pick in CONTROL_CHECKS.items()
        if (check := pick(level)) and not check.passed
    ]
    if not open_:
        return shown
    return [
        *shown,
        f"At {percent(level.density)}, we could not show that the ticket beats {' or '.join(open_)}.",
    ]


def _structure(verdict: Verdict) -> list[str]:
    if verdict.kind != "winning structure":
        return []
    densities = [x.density for x in pruned_levels(verdict) if x.matched and x.kind == "winning structure"]
    at = f" at {listed(densities, verdict)}" if densities else ""
    return [
        f"A winning structure{at}: the ticket matches the dense network and beats a random mask, but we could not show "
        "that it beats its own mask with new initial weights."
    ]
