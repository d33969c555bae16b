"""The verdict in plain sentences: what was shown, what was not, and what would decide."""

from __future__ import annotations

from winticket.judge.checks import MIN_REPLICATES
from winticket.judge.reason_not_won import inconclusive, not_won
from winticket.judge.reason_won import won
from winticket.judge.record import Verdict
from winticket.objective import ACCURACY


def explain(verdict: Verdict) -> tuple[str, ...]:
    """The reason, one thought per element: first what was shown, then what was not, and cautions last."""
    if not verdict.learned.learned:
        sentences = _not_learned(verdict)
    else:
        sentences = {"won": won, "not won": not_won, "inconclusive": inconclusive}[verdict.outcome](verdict)
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
