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
"""How much of the way from the commonest class's rate to 1 a network must have gone to have learned anything."""
BEHIND = 0.02
FAR_BEHIND = 0.10
"""How far (fractions) dense may lie behind its own tickets: if its training explains the gap, and in any case."""
_EXPLAINS = 0.05


@dataclass(frozen=True)
class Learned:
    """Whether the dense network learned enough to be anybody's reference; `sentence` says why not.

    `commonest` is the accuracy of always answering the commonest class (None: not known), `unlearned` the replicates
    whose dense network is near it, `behind` by how much (a fraction) the dense network lies under its own tickets at
    the density where that is most; None where it is not behind.
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
    """Did the dense network learn? Where not, no claim is made of its tickets.

    dense: test accuracies (fractions) per replicate, None = failed; levels: the pruned ones, whose tickets it is held
    against. It did not learn where

    * a replicate's accuracy is near `commonest`: less than a tenth of the way from there to 1, or within two standard
      errors of guessing on `test_examples`; or
    * it lies 2 points or more under its own tickets and its training explains that: its training loss ended above
      theirs, though it has all of their weights and more, or twice the steps gain half of the gap; or
    * it lies 10 points or more under its own tickets, whatever the reason.

    >>> levels = [Level(0.1, {"dense": (0.125,) * 5, "ticket": (0.96,) * 5})]
    >>> has_learned((0.125,) * 5, levels, commonest=0.102).learned
    False
    """
    there = [value for value in dense if value is not None]
    mean = float(np.mean(there)) if there else None
    unlearned = _near(dense, commonest, test_examples)
    behind = _behind(levels, trained_enough)
    sentence = ""
    if mean is None:
        sentence = "No dense network finished its training, so there is nothing to match."
    elif unlearned:
        sentence = _near_words(dense, unlearned, commonest or 0.0)
    elif behind is not None:
        sentence = (
            f"The dense network did not learn as its own tickets do: it ends {100 * behind[0]:.2f} pp below those "
            f"with {100 * behind[1]:.1f} % of its weights, {behind[2]}."
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


def _near_words(dense: Sequence[float | None], unlearned: tuple[int, ...], commonest: float) -> str:
    accuracies = [value for at in unlearned if (value := dense[at]) is not None]
    mean = 100 * float(np.mean(accuracies))
    which = (
        "The dense network did not learn"
        if len(unlearned) == len(dense)
        else f"The dense network did not learn in {len(unlearned)} of {len(dense)} replicates"
    )
    return (
        f"{which}: it ends at {mean:.1f} %, and always answering the commonest class gives "
        f"{100 * commonest:.1f} %."
    )


def _behind(levels: Sequence[Level], trained_enough: TrainedEnough | None) -> tuple[float, float, str] | None:
    """(gap, density, explanation) at the level where dense is furthest behind its tickets."""
    worst: tuple[float, float, str] | None = None
    for level in levels:
        pairs = finished(level.accuracy["ticket"], level.accuracy["dense"])
        gap = float(np.mean(pairs)) if pairs else 0.0
        if gap < BEHIND or (worst is not None and gap <= worst[0]):
            continue
        why = _explanation(level, gap, trained_enough)
        if why is None and gap >= FAR_BEHIND:
            why = "which only a failed training explains"
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
        return f"and twice the steps gain it {points(gain)}"
    return None
