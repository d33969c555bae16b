"""Pace: how many training steps an arm takes to an accuracy, and whether that is sooner than the dense network.

The target is a fraction of the final accuracy of the dense network of the same replicate. A training reaches it at the
first point of the evaluation grid at which its accuracy is as high. Both are read from validation data, as every choice
is: test data are kept for the final accuracies, and curves on them would be a second look. The early stop, the step
of least validation loss, answers another question: with an annealed learning rate the loss keeps falling to the end,
whatever was learned by then.

If networks are judged by another metric, the target is a fraction of the way from the best constant answer's value to
the dense network's final one (`target`). A fraction of the value itself would mean nothing for an RMSE, of which less
is better, or for a metric whose zero is no worst value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from winticket import results
from winticket.judge.checks import MIN_REPLICATES
from winticket.judge.statistics import Array, hodges_lehmann, signed_rank
from winticket.objective import ACCURACY, Scale

FRACTIONS = (0.9, 0.95, 0.98, 0.99, 1.0)
"""Targets, as fractions of the dense network's final accuracy: if that is 98 %, accuracies of 88.2 to 98 %.

They are fractions of the accuracy and not multiples of the error, so that they mean the same for networks that end at
60 % and at 98 %. A target that is no better than guessing is reached by every arm at once and distinguishes none.
"""
JUDGED_FRACTION = 0.95
"""The target that is judged sooner, alike or later: fixed beforehand, and low enough for sparse networks to reach."""

Steps = Sequence[int | None]
Outcome = Literal["sooner", "alike", "later"]


@dataclass(frozen=True)
class Pace:
    """One arm's steps to one target, compared with the dense network's.

    steps: by replicate; None if the training failed or never reached the target. never: how many of these had a
    target, which a replicate has only if its dense network finished. A training that never got there counts as later
    than any other. So `median` is None if it falls on such a training, and the upper end of `ci` (95 %, by order
    statistics) is None if no training bounds it. ratio, ratio_ci: Hodges–Lehmann ratio of the steps to the dense
    network's with its 95 % interval; None likewise.

    outcome: "sooner" or "later" if the exact signed-rank test shows it, one-sided at `alpha` in each direction and
    without a correction for the number of densities and targets. "alike" means only that neither was shown. None with
    fewer than 5 replicates. The dense network has neither ratio nor outcome.

    >>> from winticket.judge import pace_against_dense
    >>> pace_against_dense([40] * 6, [80] * 6, fraction=0.95, alpha=0.05, has_target=[True] * 6).outcome
    'sooner'
    """

    fraction: float
    steps: tuple[int | None, ...]
    never: int
    median: float | None
    ci: tuple[float, float | None] | None
    outcome: Outcome | None
    ratio: float | None
    ratio_ci: tuple[float, float | None] | None
    p_sooner: float | None
    p_later: float | None
    ties: int | None

    def as_json(self) -> results.StepsTo:
        return {
            "steps": list(self.steps),
            "never": self.never,
            "median": self.median,
            "ci": None if self.ci is None else list(self.ci),
            "outcome": self.outcome,
            "ratio": self.ratio,
            "ratio_ci": None if self.ratio_ci is None else list(self.ratio_ci),
            "p_sooner": self.p_sooner,
            "p_later": self.p_later,
            "ties": self.ties,
        }


def target(
    final: float, fraction: float, *, scale: Scale = ACCURACY, constant: float | None = None
) -> float | None:
    """The value at which an arm has come `fraction` of the way of a dense network that ended at `final`.

    For accuracy, that is a fraction of the accuracy. For any other metric, it is constant + fraction · (final −
    constant), with the value that the best constant answer reaches; None if that is not known or if the dense network
    ended no better than it, so that there is no way to go.

    >>> round(target(0.98, 0.95), 4)
    0.931
    >>> target(2.0, 0.75, scale=Scale("RMSE", "lower", "mm", 0.0), constant=10.0)
    4.0
    """
    if scale == ACCURACY:
        return fraction * final
    if constant is None or scale.gain(constant, final) <= 0:
        return None
    return constant + fraction * (final - constant)


def first_step(
    steps: Sequence[int], values: Sequence[float], goal: float, *, scale: Scale = ACCURACY
) -> int | None:
    """The first of `steps` at which a curve's value is at least as good as `goal`; None if none is.

    steps, values: the points of the curve, in order. Rounding alone never decides: a billionth of the goal does not
    count.

    >>> first_step([0, 10, 20, 30], [9.0, 4.1, 4.0, 3.0], 4.0, scale=Scale("RMSE", "lower", "mm", 0.0))
    20
    """
    rounding = 1e-9 * abs(goal)
    reached = (at for at, value in zip(steps, values, strict=True) if scale.gain(goal, value) >= -rounding)
    return next(reached, None)


def pace_against_dense(
    steps: Steps,
    dense: Steps,
    *,
    fraction: float,
    alpha: float,
    has_target: Sequence[bool],
    itself: bool = False,
) -> Pace:
    """An arm's steps to `fraction` of the dense network's final accuracy, compared with the dense network's steps.

    For another metric than accuracy, the fraction is of the way from the best constant answer (`target`).

    steps, dense, has_target: by replicate, paired by position. itself: the arm is the dense network. A training that
    failed or never reached the target ranks behind all that did. A pair in which neither reached it is a tie, and so is
    a replicate without a target, because its dense network failed. Raises ValueError if the lengths differ.

    >>> from winticket.judge import pace_against_dense
    >>> pace = pace_against_dense([40, 50, None], [80, 100, 90], fraction=0.95, alpha=0.05, has_target=[True] * 3)
    >>> pace.median, pace.never, pace.outcome
    (50.0, 1, None)
    """
    if not len(steps) == len(dense) == len(has_target):
        raise ValueError(
            f"steps of {len(steps)} trainings, {len(dense)} dense networks and {len(has_target)} targets; they are "
            "paired by replicate, and a training that did not reach its target is None"
        )
    ours, theirs = ([math.inf if s is None else s for s in arm] for arm in (steps, dense))
    targeted = [s for s, target in zip(ours, has_target, strict=True) if target]
    median, ci = _median(targeted)
    pace = Pace(
        fraction, tuple(steps), targeted.count(math.inf), median, ci, None, None, None, None, None, ties=None
    )
    if itself:
        return pace
    pairs = zip(ours, theirs, has_target, strict=True)
    return _compared(pace, np.array([_log_ratio(a, b) if target else 0.0 for a, b, target in pairs]), alpha)


def _compared(pace: Pace, log_ratios: Array, alpha: float) -> Pace:
    """The pace with what the test and the estimate say of log(steps / dense steps) [n]."""
    test = signed_rank(log_ratios)
    centre, ends = hodges_lehmann(log_ratios)
    outcome: Outcome | None = "alike"
    if len(log_ratios) < MIN_REPLICATES:
        outcome = None
    elif test.p_less <= alpha:
        outcome = "sooner"
    elif test.p_greater <= alpha:
        outcome = "later"
    return replace(
        pace,
        outcome=outcome,
        ratio=_number(math.exp(centre)),
        ratio_ci=None if ends is None else _ends(math.exp(ends[0]), math.exp(ends[1])),
        p_sooner=test.p_less,
        p_later=test.p_greater,
        ties=test.zeros,
    )


def uninformative_early_stop(stops: Mapping[str, Steps], last: int) -> str | None:
    """Why early-stop steps say nothing about speed here, in a sentence; None if they may say something.

    stops: arm -> early-stop step by replicate, None = failed; last: the last step of the training. They say nothing if
    the validation loss is lowest at the last step in more than half of the finished trainings of the ticket or of the
    dense network. The loss was then still falling, and the early stop is merely the length of the training.

    >>> from winticket.judge import uninformative_early_stop
    >>> uninformative_early_stop({"ticket": [800, 800, 700], "dense": [300, 400, 300]}, 800)[:60]
    'not compared: in 2 of 3 trainings of the ticket the validati'
    """
    for arm, name in (("ticket", "ticket"), ("dense", "dense network")):
        finished = [s for s in stops.get(arm, ()) if s is not None]
        at_end = finished.count(last)
        if 2 * at_end > len(finished):
            return (
                f"not compared: in {at_end} of {len(finished)} trainings of the {name} the validation loss was lowest "
                f"at the last step, {last}, so the early stop is the end of the training and says nothing about speed"
            )
    return None


def _log_ratio(ours: float, theirs: float) -> float:
    if ours == theirs:
        return 0.0
    if ours == math.inf or theirs == 0:
        return math.inf
    if theirs == math.inf or ours == 0:
        return -math.inf
    return math.log(ours) - math.log(theirs)


def _median(values: Sequence[float]) -> tuple[float | None, tuple[float, float | None] | None]:
    """The median and its 95 % interval from order statistics, which is exact for any distribution; None if n < 6.

    values may hold inf. The interval is (x_(k), x_(n+1-k)) with the largest k such that the chance of fewer than k of n
    values on one side of the median, P(Binomial(n, 1/2) < k), is at most .025. Hollander & Wolfe, Nonparametric
    Statistical Methods, section 3.6.
    """
    if not values:
        return None, None
    from scipy import special  # takes a third of a second to import, and most commands judge nothing

    ordered = sorted(values)
    n = len(ordered)
    middle = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    k = int(np.count_nonzero(special.bdtr(np.arange(n), n, 0.5) <= 0.025))
    return _number(middle), _ends(ordered[k - 1], ordered[n - k]) if k else None


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _ends(low: float, high: float) -> tuple[float, float | None] | None:
    """The interval, its upper end None if nothing bounds it; None if nothing bounds the lower end either."""
    return (float(low), _number(high)) if math.isfinite(low) else None
