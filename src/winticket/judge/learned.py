"""The first gate: a dense network that did not learn proves nothing about its tickets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from winticket import results
from winticket.judge.checks import Level, TrainedEnough, finished
from winticket.judge.gate import points
from winticket.judge.statistics import t_test

LEARNED_SHARE = 0.1
"""The share of the way from the commonest class's rate to 1 that a network must cover to have learned anything."""
BEHIND = 0.02
FAR_BEHIND = 0.10
"""How far (fractions) the dense network may lie behind its tickets: if its training explains the gap, and ever."""
_EXPLAINS = 0.05


@dataclass(frozen=True)
class Learned:
    """Whether the dense network learned enough to be a reference for anything; `sentence` says why not.

    accuracy: its mean (a fraction); None if no training finished. commonest: the accuracy of always predicting the
    commonest class; None if not known. unlearned: the replicates whose dense network is near that, counted from 0.
    behind: the largest gap (a fraction) by which the dense network lies below its own tickets, at the density of that
    gap; None if the gap is no reason against it.

    >>> from winticket.judge import has_learned
    >>> has_learned((0.98, 0.97, 0.11), [], commonest=0.1).unlearned
    (2,)
    """

    learned: bool
    accuracy: float | None
    commonest: float | None
    unlearned: tuple[int, ...]
    behind: float | None
    sentence: str

    def as_json(self) -> results.Learned:
        return {
            "learned": self.learned,
            "accuracy": self.accuracy,
            "commonest": self.commonest,
            "unlearned": list(self.unlearned),
            "behind": self.behind,
            "sentence": self.sentence,
        }


def has_learned(
    dense: Sequence[float | None],
    levels: Sequence[Level],
    *,
    commonest: float | None = None,
    test_examples: int | None = None,
    trained_enough: TrainedEnough | None = None,
) -> Learned:
    """Did the dense network learn? If not, no claim is made about its tickets.

    dense: test accuracies (fractions) per replicate, None = failed. levels: the pruned ones, whose tickets it is
    compared with. test_examples: how many a test accuracy is measured on. It did not learn if

    * a replicate's accuracy is near `commonest`: less than a tenth of the way from that to 1, or within two standard
      errors of guessing on `test_examples`; or
    * it lies 2 points or more below its own tickets and its training explains that: its training loss ended above
      theirs, although it has all of their weights and more, or twice the steps gain at least half of the gap; or
    * it lies 10 points or more below its own tickets, whatever the reason.

    >>> from winticket.judge import Level, has_learned
    >>> levels = [Level(0.1, {"dense": (0.125,) * 5, "ticket": (0.96,) * 5})]
    >>> has_learned((0.125,) * 5, levels, commonest=0.102).learned
    False
    """
    accuracies = [value for value in dense if value is not None]
    mean = float(np.mean(accuracies)) if accuracies else None
    unlearned = _near(dense, commonest, test_examples)
    behind = _behind(levels, trained_enough)
    sentence = ""
    if mean is None:
        sentence = "No dense network finished its training, so there is nothing to match."
    elif unlearned:
        sentence = _near_sentence(dense, unlearned, commonest or 0.0)
    elif behind is not None:
        gap, density, why = behind
        sentence = (
            f"The dense network did not learn as much as its own tickets: it ends {100 * gap:.2f} pp below the tickets "
            f"with {100 * density:.1f} % of its weights, {why}."
        )
    return Learned(not sentence, mean, commonest, unlearned, None if behind is None else behind[0], sentence)


def _near(
    dense: Sequence[float | None], commonest: float | None, test_examples: int | None
) -> tuple[int, ...]:
    if commonest is None:
        return ()
    noise = 2 * math.sqrt(commonest * (1 - commonest) / test_examples) if test_examples else 0.0
    limit = commonest + max(LEARNED_SHARE * (1 - commonest), noise)
    return tuple(at for at, value in enumerate(dense) if value is not None and value < limit)


def _near_sentence(dense: Sequence[float | None], unlearned: tuple[int, ...], commonest: float) -> str:
    accuracies = [value for at in unlearned if (value := dense[at]) is not None]
    mean = 100 * float(np.mean(accuracies))
    which = (
        "The dense network did not learn"
        if len(unlearned) == len(dense)
        else f"The dense network did not learn in {len(unlearned)} of {len(dense)} replicates"
    )
    return (
        f"{which}: its accuracy is {mean:.1f} %, and always predicting the commonest class gives "
        f"{100 * commonest:.1f} %."
    )


def _behind(levels: Sequence[Level], trained_enough: TrainedEnough | None) -> tuple[float, float, str] | None:
    """(gap, density, explanation) of the level with the largest gap that has an explanation."""
    worst: tuple[float, float, str] | None = None
    for level in levels:
        pairs = finished(level.accuracy["ticket"], level.accuracy["dense"])
        gap = float(np.mean(pairs)) if pairs else 0.0
        if gap < BEHIND or (worst is not None and gap <= worst[0]):
            continue
        why = _explanation(level, gap, trained_enough)
        if why is None and gap >= FAR_BEHIND:
            why = "a gap that only a failed training explains"
        if why is not None:
            worst = (gap, level.density, why)
    return worst


def _explanation(level: Level, gap: float, trained_enough: TrainedEnough | None) -> str | None:
    losses = level.train_loss
    if "dense" in losses and "ticket" in losses:
        excess = np.array(finished(losses["dense"], losses["ticket"]))
        if len(excess) > 1 and float(t_test(excess, null=0.0).p_greater) <= _EXPLAINS:
            return "and its training loss ends above theirs"
    gain = None if trained_enough is None else trained_enough.gain
    if gain is not None and gain >= gap / 2:
        return f"and training it for twice the steps gains {points(gain)}"
    return None
