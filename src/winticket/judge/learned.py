"""The first gate: a dense network that did not learn proves nothing about its tickets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from winticket import results
from winticket.judge.checks import Level, TrainedEnough, finished
from winticket.judge.frame import Values
from winticket.judge.inputs import constant_of
from winticket.judge.statistics import t_test
from winticket.judge.words import Words
from winticket.objective import ACCURACY, Scale

LEARNED_SHARE = 0.1
"""The share of the way from the best constant answer to a perfect one that a network must cover to have learned."""
BEHIND = 0.02
FAR_BEHIND = 0.10
"""How far the dense network may lie behind its tickets: if its training explains the gap, and ever.

Shares of the metric's range, so points of accuracy; or of the way from the constant answer to the dense network's mean.
"""
_EXPLAINS = 0.05


@dataclass(frozen=True)
class Learned:
    """Whether the dense network learned enough to be a reference for anything; `sentence` says why not.

    accuracy: its mean (a fraction, or in the metric's unit); None if no training finished. commonest: the value of the
    best constant answer, which for accuracy is always the commonest class; None if not known. unlearned: the replicates
    whose dense network is near that, counted from 0. behind: the largest gap by which the dense network is worse than
    its own tickets, at the density of that gap; None if the gap is no reason against it.

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
    dense: Values,
    levels: Sequence[Level],
    *,
    constant: float | None = None,
    commonest: float | None = None,
    test_examples: int | None = None,
    trained_enough: TrainedEnough | None = None,
    scale: Scale = ACCURACY,
) -> Learned:
    """Did the dense network learn? If not, no claim is made about its tickets.

    dense: test accuracies (fractions) per replicate, None = failed. levels: the pruned ones, whose tickets it is
    compared with. test_examples: how many a test accuracy is measured on. constant: the accuracy of the best constant
    answer, also called `commonest`, because that is to predict the commonest class. It did not learn if

    * a replicate's accuracy is near `constant`: less than a tenth of the way from that to 1, or within two standard
      errors of guessing on `test_examples`; or
    * it lies 2 points or more below its own tickets and its training explains that: its training loss ended above
      theirs, although it has all of their weights and more, or twice the steps gain at least half of the gap; or
    * it lies 10 points or more below its own tickets, whatever the reason.

    For another metric (`scale`), the tenth is of the way from `constant` to the best end of its range or, if it has
    none, of the size of `constant`; there is no clause on guessing. Points are hundredths of the range or, if it has no
    two ends, of the way from `constant` to the dense network's mean; without a `constant`, they are not known, and the
    dense network is not called behind. Raises ValueError for both `constant` and `commonest`.

    >>> from winticket.judge import Level, has_learned
    >>> levels = [Level(0.1, {"dense": (0.125,) * 5, "ticket": (0.96,) * 5})]
    >>> has_learned((0.125,) * 5, levels, commonest=0.102).learned
    False
    """
    constant = constant_of(constant, commonest, scale)
    accuracies = [value for value in dense if value is not None]
    mean = float(np.mean(accuracies)) if accuracies else None
    unlearned = _near(dense, constant, test_examples, scale)
    way = _way(mean, constant, scale)
    behind = None if way is None else _behind(levels, trained_enough, way, scale)
    sentence = ""
    if mean is None:
        sentence = "No dense network finished its training, so there is nothing to match."
    elif unlearned:
        sentence = _near_sentence(dense, unlearned, constant or 0.0, scale)
    elif behind is not None:
        gap, density, why = behind
        sentence = (
            f"The dense network did not learn as much as its own tickets: it ends {_gap(gap, scale)} the tickets "
            f"with {100 * density:.1f} % of its weights, {why}."
        )
    return Learned(not sentence, mean, constant, unlearned, None if behind is None else behind[0], sentence)


def _near(dense: Values, constant: float | None, test_examples: int | None, scale: Scale) -> tuple[int, ...]:
    if constant is None:
        return ()
    noise = 0.0
    if scale == ACCURACY and test_examples:
        noise = 2 * math.sqrt(constant * (1 - constant) / test_examples)
    way = abs(scale.perfect - constant) if math.isfinite(scale.perfect) else abs(constant)
    limit = scale.sign * constant + max(LEARNED_SHARE * way, noise)
    return tuple(at for at, value in enumerate(dense) if value is not None and scale.sign * value < limit)


def _way(mean: float | None, constant: float | None, scale: Scale) -> float | None:
    """What gaps behind tickets are shares of; None if that is not known."""
    if scale.bounded:
        return scale.high - scale.low
    return None if mean is None or constant is None else abs(constant - mean)


def _gap(gap: float, scale: Scale) -> str:
    """5.25 pp below; 0.25 mm worse than."""
    return f"{Words(scale).amount(gap)} {Words(scale).below}"


def _near_sentence(dense: Values, unlearned: tuple[int, ...], constant: float, scale: Scale) -> str:
    accuracies = [value for at in unlearned if (value := dense[at]) is not None]
    digits = 1 if scale.unit == "%" else None
    mean, reached = (scale.value(value, digits) for value in (float(np.mean(accuracies)), constant))
    which = (
        "The dense network did not learn"
        if len(unlearned) == len(dense)
        else f"The dense network did not learn in {len(unlearned)} of {len(dense)} replicates"
    )
    answer = "always predicting the commonest class" if scale == ACCURACY else "the best constant answer"
    return f"{which}: its {scale.name} is {mean}, and {answer} gives {reached}."


def _behind(
    levels: Sequence[Level], trained_enough: TrainedEnough | None, way: float, scale: Scale
) -> tuple[float, float, str] | None:
    """(gap, density, explanation) of the level with the largest gap that has an explanation."""
    worst: tuple[float, float, str] | None = None
    for level in levels:
        pairs = finished(level.accuracy["ticket"], level.accuracy["dense"])
        gap = scale.sign * float(np.mean(pairs)) if pairs else 0.0
        if gap <= 0 or gap < BEHIND * way or (worst is not None and gap <= worst[0]):
            continue
        why = _explanation(level, gap, trained_enough, scale)
        if why is None and gap >= FAR_BEHIND * way:
            why = "a gap that only a failed training explains"
        if why is not None:
            worst = (gap, level.density, why)
    return worst


def _explanation(level: Level, gap: float, trained_enough: TrainedEnough | None, scale: Scale) -> str | None:
    losses = level.train_loss
    if "dense" in losses and "ticket" in losses:
        excess = np.array(finished(losses["dense"], losses["ticket"]))
        if len(excess) > 1 and float(t_test(excess, null=0.0).p_greater) <= _EXPLAINS:
            return "and its training loss ends above theirs"
    gain = None if trained_enough is None else trained_enough.gain
    if gain is not None and gain >= gap / 2:
        words = Words(scale)
        does = "gains" if words.signed else f"makes its {scale.name}"
        return f"and training it for twice the steps {does} {words.difference(gain)}"
    return None
