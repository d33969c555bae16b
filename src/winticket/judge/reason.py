"""The verdict in plain sentences: what was shown, what was not, and what would decide."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from winticket.judge.checks import MIN_REPLICATES, Check
from winticket.judge.collapse import unseen_rate
from winticket.judge.crosschecks import CONTROL_CHECKS, NAMES, disagreements, percent
from winticket.judge.frame import Margin
from winticket.judge.record import LevelChecks, Verdict
from winticket.judge.words import Words, confidence
from winticket.objective import ACCURACY


def explain(verdict: Verdict) -> tuple[str, ...]:
    """The reason, one thought per element: first what was shown, then what was not, and cautions last."""
    if not verdict.learned.learned:
        sentences = _not_learned(verdict)
    else:
        sentences = {"won": _won, "not won": _not_won, "inconclusive": _inconclusive}[verdict.outcome](
            verdict
        )
        sentences += _looks(verdict)
    gate = verdict.trained_enough
    if verdict.learned.learned and gate is not None and gate.enough is not True:
        sentences.append(gate.sentence)
    return tuple(sentences)


def _not_learned(verdict: Verdict) -> list[str]:
    good = "accurate" if verdict.scale == ACCURACY else "good"
    return [
        f"Inconclusive: {verdict.learned.sentence[:1].lower()}{verdict.learned.sentence[1:]}",
        f"So no claim is made about its tickets, however {good} they are. Lower the learning rate or train longer, "
        "then run again.",
    ]


def _won(verdict: Verdict) -> list[str]:
    best = next(level for level in verdict.levels if level.density == verdict.density)
    if best.claimed_earlier:
        sentences = _won_earlier(verdict, best)
    else:
        sentences = [
            f"Won: the ticket with {percent(best.density)} of the weights matches the dense network "
            f"({_against_dense(best.accuracy, verdict)}) and beats both controls: "
            f"{NAMES['reinit']} (by {_difference(best.beats_reinit)}) and {NAMES['random']} "
            f"(by {_difference(best.beats_random)}).",
        ]
    others = [density for density in verdict.claimed if density != best.density]
    if others:
        who = "ticket" if len(others) == 1 else "tickets"
        sentences.append(
            f"The {who} at {_list(others, verdict)} {'wins' if len(others) == 1 else 'win'} as well."
        )
    return [*sentences, *_unseen(verdict, best)]


def _won_earlier(verdict: Verdict, best: LevelChecks) -> list[str]:
    margin, alpha = verdict.margin_pp, verdict.alpha
    earlier = verdict.spending.earlier
    look = next(
        look
        for look in earlier
        if look.shows(best.density, margin_pp=margin, alpha=alpha, relative=verdict.relative)
    )
    return [
        f"Won: an earlier verdict on these networks, from {look.replicates} replicates, showed that the ticket with "
        f"{percent(best.density)} of the weights matches the dense network and beats both controls. That claim stands.",
        f"The {verdict.replicates} replicates of this verdict do not contradict it. They do not show it again at the "
        "stricter level to which a repeated verdict is held (against the dense network: "
        f"{_against_dense(best.accuracy, verdict)}).",
    ]


def _unseen(verdict: Verdict, best: LevelChecks) -> list[str]:
    """What no test of means can see: collapses that are possible but happened in no replicate."""
    if any(one.density == best.density and one.arm == "ticket" for one in verdict.collapsed):
        return []
    failed = 0 if best.accuracy is None else best.accuracy.failed["ticket"]
    if failed:
        return []  # the warnings count them
    n, share, limit = verdict.replicates, 100 * unseen_rate(verdict.replicates), verdict.collapse_limit
    below = (
        ""
        if limit is None
        else f", that is, ended {_worse_than(limit, verdict)}, far from the median of these {n}"
    )
    return [
        f"None of the {n} tickets at {percent(best.density)} collapsed{below}. Rarer collapses remain possible: "
        f"{n} replicates rule out only rates above {share:.0f} % (95 % confidence)."
    ]


def _worse_than(limit: float, verdict: Verdict) -> str:
    """Below 96.0 % test accuracy; above a test RMSE of 3.142 mm."""
    scale = verdict.scale
    side = "below" if scale.better == "higher" else "above"
    if scale.unit == "%":
        return f"{side} {scale.value(limit, 1)} test {scale.name}"
    return f"{side} a test {scale.name} of {scale.value(limit)}"


def _not_won(verdict: Verdict) -> list[str]:
    """Every pruned level, with the comparison that refutes a win there."""
    grounds: tuple[tuple[str, Callable[[LevelChecks], Check | None]], ...] = (
        (_far_below("the ticket", verdict), lambda x: x.accuracy),
        (f"the ticket is {Words(verdict.scale).below} {NAMES['reinit']}", lambda x: x.beats_reinit),
        (f"the ticket is {Words(verdict.scale).below} {NAMES['random']}", lambda x: x.beats_random),
    )
    parts = []
    for text, pick in grounds:
        refuted = [level for level in _pruned(verdict) if (check := pick(level)) and check.refuted]
        if refuted:
            densest = _difference(pick(refuted[0]), bound=False)
            first = f"at {percent(refuted[0].density)}: " if len(refuted) > 1 else ""
            parts.append(f"{text} at {_list([x.density for x in refuted], verdict)} ({first}{densest})")
    return [f"Not won: {'; '.join(parts)}.", *_structure(verdict)]


def _far_below(ticket: str, verdict: Verdict) -> str:
    """The ticket is more than 0.5 pp below the dense network; more than 2 % worse than it."""
    words = verdict.words
    how = f"{verdict.margin_pp:g} %" if verdict.relative else words.margin(verdict.margin_pp)
    return f"{ticket} is more than {how} {words.below} the dense network"


def _inconclusive(verdict: Verdict) -> list[str]:
    n = verdict.replicates
    if n < MIN_REPLICATES:
        return [
            f"Inconclusive: {n} {'replicate is' if n == 1 else 'replicates are'} too few to decide anything, whatever "
            f"the numbers. Use at least {MIN_REPLICATES}.",
        ]
    pruned = _pruned(verdict)
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
        *([] if _leads_are_notes(verdict) else _small(verdict)),
        *_needed(verdict),
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
            f"({_difference(stop.accuracy, bound=False)})."
        )
    else:
        what = "that it still does" if matched else "that the ticket matches the dense network"
        ends = f"we could not show {what} at {at} ({_against_dense(stop.accuracy, verdict)})."
    return f"{shown}, but {ends}" if matched else ends


def _controls(verdict: Verdict, pruned: Sequence[LevelChecks]) -> list[str]:
    """The densities at which the ticket beats both controls; and what is open at the last one at which it matches."""
    beaten = [level.density for level in pruned if level.nontrivial]
    shown = [f"The ticket beats both controls at {_list(beaten, verdict)}."] if beaten else []
    matched = [level for level in pruned if level.matched]
    if not matched:
        return shown
    level = matched[-1]
    open_ = [
        f"{NAMES[arm]} (difference {_difference(check)})"
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
    densities = [x.density for x in _pruned(verdict) if x.matched and x.kind == "winning structure"]
    at = f" at {_list(densities, verdict)}" if densities else ""
    return [
        f"A winning structure{at}: the ticket matches the dense network and beats a random mask, but we could not show "
        "that it beats its own mask re-initialised."
    ]


def _leads_are_notes(verdict: Verdict) -> bool:
    """True if more replicates would decide. If none would, small leads explain why and belong to the reason."""
    return verdict.replicates_needed is not None and verdict.replicates >= MIN_REPLICATES


def _small(verdict: Verdict) -> list[str]:
    """Leads that are shown to be below the margin: no refutation, but worth knowing before running more."""
    sentences = []
    for arm, pick in CONTROL_CHECKS.items():
        densities = [
            level.density
            for level in _pruned(verdict)
            if level.matched
            and (check := pick(level))
            and not check.passed
            and check.ci
            and check.ci[1] < _margin(verdict)
        ]
        if densities:
            sentences.append(
                f"If the ticket has a lead over {NAMES[arm]}, it is below {verdict.words.margin(verdict.margin_pp)} at "
                f"{_list(densities, verdict)}."
            )
    return sentences


def _margin(verdict: Verdict) -> float:
    """The margin in the metric's own unit; of a share, that of the dense network's mean."""
    margin = Margin.of(verdict.margin_pp, verdict.scale, relative=verdict.relative)
    return margin.typical((verdict.learned.accuracy,))


def _needed(verdict: Verdict) -> list[str]:
    """How many replicates would decide; or, if no number would, what to run instead."""
    if verdict.replicates_needed is not None:
        fresh = verdict.replicates_fresh
        other = "" if fresh is None else f", or {fresh} in a new experiment with another --seed,"
        return [
            f"About {verdict.replicates_needed} replicates in total{other} would decide it with 80 % power if the "
            "true differences are the ones measured here."
        ]
    alone = [level.density for level in _pruned(verdict) if level.kind == "winning ticket"]
    if not alone:
        return [
            "If the true differences are the ones measured here, no practical number of replicates decides this."
        ]
    return [
        f"At {_list(alone, verdict)} every test passes, but nothing can be claimed there because a denser level does "
        "not match. To confirm it, run a new experiment with another --seed whose densities start there."
    ]


def _looks(verdict: Verdict) -> list[str]:
    spending = verdict.spending
    if spending.look == 1 or verdict.replicates < MIN_REPLICATES:
        return []
    earlier = ", ".join(str(look.replicates) for look in spending.earlier)
    return [
        f"This is verdict number {spending.look} on these networks (earlier ones: {earlier} replicates). Every verdict "
        f"is another chance of a false win, so this one is allowed a chance of {100 * spending.alpha:.2g} %; all "
        f"verdicts so far add up to {100 * spending.spent:.3g} % of the {100 * verdict.alpha:g} % allowed in total."
    ]


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
    pruned = _pruned(verdict)
    for name, title in _TITLES.items():
        warnings += _failures(title, [(x.density, check) for x in pruned if (check := getattr(x, name))])
    warnings += _collapsed(verdict, bearing=True)
    return (*warnings, *disagreements(verdict, bearing=True))


def notes(verdict: Verdict) -> tuple[str, ...]:
    """What is worth knowing but bears on no claim: other collapses and disagreements, and limits of the tests."""
    remarks = _collapsed(verdict, bearing=False)
    if _leads_are_notes(verdict):
        remarks += _small(verdict)
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


def _difference(check: Check | None, *, bound: bool = True) -> str:
    """+0.04 pp, above -0.55 with 97.8 % confidence: the bound is the test's, so it lies where the test decides."""
    if check is None:
        return "not run"
    if check.estimate is None:
        return "unknown: no replicate finished both trainings"
    failed = sum(check.failed.values())
    words, estimate, low = Words(check.scale), check.estimate, check.bound
    if check.relative is not None and check.relative.estimate is not None and check.reference == "dense":
        words, estimate, low = (
            Words(check.scale, relative=True),
            check.relative.estimate,
            check.relative.bound,
        )
    text = words.difference(estimate)
    if bound and low is not None:
        text += f", {words.low(low)} with {confidence(check.test_level)} confidence"
    return text + (f", {failed} failed" if failed else "")


def _against_dense(check: Check | None, verdict: Verdict) -> str:
    """difference +0.04 pp, above -0.55 with 97.8 % confidence; limit -0.5."""
    return f"difference {_difference(check)}; limit {verdict.words.limit(verdict.margin_pp)}"


def _list(densities: Sequence[float], verdict: Verdict) -> str:
    """The densities; three or more neighbouring levels become a range: 80.2 to 33.3 % and 17.3 %."""
    order = sorted((level.density for level in verdict.levels), reverse=True)
    ranges: list[list[float]] = []
    for density in sorted(densities, reverse=True):
        if ranges and order.index(density) == order.index(ranges[-1][-1]) + 1:
            ranges[-1].append(density)
        else:
            ranges.append([density])
    *parts, last = (
        part
        for each in ranges
        for part in (
            map(percent, each)
            if len(each) < 3
            else [f"{percent(each[0]).removesuffix(' %')} to {percent(each[-1])}"]
        )
    )
    return f"{', '.join(parts)} and {last}" if parts else last


def _pruned(verdict: Verdict) -> list[LevelChecks]:
    return [level for level in verdict.levels if level.density < 1]
