"""Pace: how many training steps an arm takes to an accuracy, and whether that is sooner than the dense network.

The target is a share of what the dense network of the same replicate ends at, and a run reaches it at the first point
of the evaluation grid where its accuracy is as high. Both are read from validation data, as every choice is: test data
are for the last number alone, and curves on them would be a second look. The early stop, the step of least validation
loss, says something else: a rate that is annealed keeps the loss falling to the end, whatever was learned by then.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import stats

from winticket import results
from winticket.judge.checks import MIN_REPLICATES
from winticket.judge.statistics import hodges_lehmann, signed_rank

FRACTIONS = (0.9, 0.95, 0.98, 0.99, 1.0)
"""Targets, as shares of the dense network's final accuracy: where it ends at 98 %, accuracies of 88.2 to 98 %.

Shares of accuracy rather than multiples of its error, so that they mean the same where networks end at 60 % and at
98 %. A share that is no better than guessing is reached by every arm at once, and tells none apart.
"""
JUDGED_FRACTION = 0.95
"""The one that is called sooner, alike or later: fixed beforehand, and low enough that sparse networks reach it too."""

Steps = Sequence[int | None]
Outcome = Literal["sooner", "alike", "later"]


@dataclass(frozen=True)
class Pace:
    """One arm's steps to one target, beside the dense network's.

    steps: by replicate, None where the target was not reached or the run failed. never: those of them that had a
    target, which a replicate whose dense network failed has not. median and ci (95 %, by order statistics) count a run
    that never got there as later than any other: the median is None where it is such a run, an interval's upper end
    where no run bounds it. ratio and ratio_ci: the Hodges-Lehmann ratio of steps to the dense network's with its 95 %
    interval, None likewise. outcome: by the exact signed-rank test, one-sided at `alpha` each way and uncorrected over
    densities and targets, "sooner" or "later" where that is shown and "alike" where neither is, which says that no
    difference was shown; None under 5 replicates. The dense network has neither ratio nor outcome.
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


def pace_against_dense(
    steps: Steps,
    dense: Steps,
    *,
    fraction: float,
    alpha: float,
    has_target: Sequence[bool],
    itself: bool = False,
) -> Pace:
    """An arm's steps to `fraction` of the dense network's final accuracy, compared with the dense network's own.

    All by replicate, paired by position; `itself` where the arm is the dense network. A run that failed or never
    reached the target ranks behind all that did; two of a pair that both did are a tie, and so is a replicate whose
    dense network failed, since there was no target.
    """
    if not len(steps) == len(dense) == len(has_target):
        raise ValueError(
            f"steps of {len(steps)} runs, {len(dense)} dense networks and {len(has_target)} targets; they are "
            "paired by replicate, and a run that did not get there is None"
        )
    ours, theirs = ([math.inf if s is None else s for s in runs] for runs in (steps, dense))
    with_target = [s for s, there in zip(ours, has_target, strict=True) if there]
    median, ci = _median(with_target)
    shared: dict[str, Any] = {
        "fraction": fraction,
        "steps": tuple(steps),
        "never": with_target.count(math.inf),
        "median": median,
        "ci": ci,
    }
    if itself:
        return Pace(**shared, outcome=None, ratio=None, ratio_ci=None, p_sooner=None, p_later=None, ties=None)
    ratios = np.array(
        [_log_ratio(a, b) if there else 0.0 for a, b, there in zip(ours, theirs, has_target, strict=True)]
    )
    test = signed_rank(ratios)
    centre, interval = hodges_lehmann(ratios)
    outcome: Outcome | None = "alike"
    if len(ours) < MIN_REPLICATES:
        outcome = None
    elif test.p_less <= alpha:
        outcome = "sooner"
    elif test.p_greater <= alpha:
        outcome = "later"
    return Pace(
        **shared,
        outcome=outcome,
        ratio=_number(math.exp(centre)),
        ratio_ci=None if interval is None else _ends(math.exp(interval[0]), math.exp(interval[1])),
        p_sooner=test.p_less,
        p_later=test.p_greater,
        ties=test.zeros,
    )


def uninformative_early_stop(stops: Mapping[str, Steps], last: int) -> str | None:
    """Why early-stop steps say nothing about speed here, in a sentence; None where they may.

    Where more than half of the runs of ticket or dense network that finished have their least validation loss at the
    last step, the loss was still falling when training ended, and the step is the length of the training.
    """
    for arm, name in (("ticket", "ticket"), ("dense", "dense network")):
        finished = [s for s in stops.get(arm, ()) if s is not None]
        at_end = finished.count(last)
        if 2 * at_end > len(finished):
            return (
                f"left out: in {at_end} of {len(finished)} runs of the {name} the validation loss was lowest at the "
                f"last step, {last}, so the early stop is where training ended and tells no speed"
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
    """The median, and its 95 % interval from order statistics: exact whatever the distribution; None under n = 6.

    values may hold inf. The interval is (x_(k), x_(n+1-k)) with the largest k for which the chance that fewer than k of
    n values lie on one side of the median, P(Binomial(n, 1/2) < k), is at most .025. Hollander & Wolfe, Nonparametric
    Statistical Methods, section 3.6.
    """
    if not values:
        return None, None
    ordered = sorted(values)
    n = len(ordered)
    middle = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    k = int(np.count_nonzero(stats.binom.cdf(np.arange(n), n, 0.5) <= 0.025))
    return _number(middle), _ends(ordered[k - 1], ordered[n - k]) if k else None


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _ends(low: float, high: float) -> tuple[float, float | None] | None:
    """An interval whose upper end is None where nothing bounds it; None where nothing is known of the lower either."""
    return (float(low), _number(high)) if math.isfinite(low) else None
