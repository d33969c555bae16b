"""What was shown of a ticket that has won, and what remains possible."""

from __future__ import annotations

from winticket.judge.collapse import unseen_rate
from winticket.judge.crosschecks import NAMES, percent
from winticket.judge.phrases import against_dense, difference, listed
from winticket.judge.record import LevelChecks, Verdict


def won(verdict: Verdict) -> list[str]:
    """The sparsest winning ticket, with the comparisons that show it, and the other ones."""
    best = next(level for level in verdict.levels if level.density == verdict.density)
    if best.claimed_earlier:
        sentences = _won_earlier(verdict, best)
    else:
        sentences = [
            f"Won: the ticket with {percent(best.density)} of the weights matches the dense network "
            f"({against_dense(best.accuracy, verdict)}) and beats both controls: "
            f"{NAMES['reinit']} (by {difference(best.beats_reinit)}) and {NAMES['random']} "
            f"(by {difference(best.beats_random)}).",
        ]
    others = [density for density in verdict.claimed if density != best.density]
    if others:
        who = "ticket" if len(others) == 1 else "tickets"
        sentences.append(
            f"The {who} at {listed(others, verdict)} {'wins' if len(others) == 1 else 'win'} as well."
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
        f"{against_dense(best.accuracy, verdict)}).",
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
