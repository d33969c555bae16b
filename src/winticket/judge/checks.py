"""One level's checks: what is compared, how failed runs count, and what each comparison shows.

All comparisons are paired within the replicate: position i of every sequence is the same initialisation seed,
mask search, data order and test set.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from winticket import results
from winticket.judge.statistics import (
    EXACT_FLIPS,
    Array,
    hodges_lehmann,
    mean_interval,
    sign_flip_p,
    signed_rank,
    t_test,
    trimmed_p,
)

MIN_REPLICATES = 5
CONTROLS = ("reinit", "random")
Runs = Mapping[str, tuple[float | None, ...]]


@dataclass(frozen=True)
class Level:
    """What was measured at one density; every sequence is per replicate, paired by position, None = failed.

    accuracy: arm -> test accuracies as fractions, at the same number of training steps for every arm; arms
    are "dense", "ticket" and, unless they were dropped, "reinit" and "random". early_stop_step: arm -> step
    of the minimum validation loss. accuracy_at_early_stop: arm -> test accuracy at that step (reported, never
    decisive). train_loss: arm -> loss on training data at the end, by which a dense network is recognised that
    its training left behind its own tickets.
    """

    density: float
    accuracy: Runs
    early_stop_step: Runs = field(default_factory=dict)
    accuracy_at_early_stop: Runs = field(default_factory=dict)
    train_loss: Runs = field(default_factory=dict)


@dataclass(frozen=True)
class Check:
    """Does the ticket's mean accuracy exceed the reference's by more than `null` (all fractions)?

    `estimate`, `ci` (two-sided, 1 − alpha) and `sd` describe the `pairs` in which both runs finished. `bound` and the
    p-values count the failed runs too, each at the accuracy that is worst for the ticket's claim. `p`
    (Student's t, the sd at least the step between two accuracies) decides, one-sided at `test_level`, which for the
    controls is the level that Holm's procedure came to; it passes exactly where `bound`, the one-sided lower limit
    of the difference at that level, is above `null`. `p_sign_flip` and `p_trimmed` stand beside it.
    `refuted`: the data show the claim to be wrong, by the same test in the other direction.
    `smallest_margin_pp`: the smallest margin at which the ticket would have counted as not inferior (only
    against "dense").
    """

    reference: str
    null: float
    test_level: float
    replicates: int
    pairs: int
    failed: Mapping[str, int]
    estimate: float | None
    ci: tuple[float, float] | None
    bound: float | None
    sd: float | None
    p: float
    p_sign_flip: float
    p_trimmed: float
    p_superior: float
    p_refuted: float
    passed: bool
    refuted: bool
    smallest_margin_pp: float | None

    def disagreement(self) -> tuple[str, ...]:
        """The tests that decide otherwise than t; one that cannot reach the level at this n is not asked."""
        others = [("trimmed mean", self.p_trimmed)]
        if self.sign_flip_resolves():
            others.append(("sign-flip", self.p_sign_flip))
        return tuple(name for name, p in others if (p <= self.test_level) != self.passed)

    def sign_flip_resolves(self) -> bool:
        return 0.5**self.replicates <= self.test_level

    def as_json(self) -> results.Check:
        return {
            "reference": self.reference,
            "null_pp": 100 * self.null,
            "passed": self.passed,
            "refuted": self.refuted,
            "estimate": self.estimate,
            "ci": None if self.ci is None else list(self.ci),
            "bound": self.bound,
            "sd": self.sd,
            "replicates": self.replicates,
            "pairs": self.pairs,
            "failed": dict(self.failed),
            "test_level": self.test_level,
            "p": self.p,
            "p_sign_flip": self.p_sign_flip,
            "sign_flip": "exact" if self.replicates <= EXACT_FLIPS else "monte carlo",
            "p_trimmed_mean": self.p_trimmed,
            "p_superior": self.p_superior,
            "p_refuted": self.p_refuted,
            "disagreement": list(self.disagreement()),
            "smallest_margin_pp": self.smallest_margin_pp,
        }


@dataclass(frozen=True)
class TimeCheck:
    """Early-stop steps, ticket against dense: exact signed-rank on log(ticket / dense).

    outcome: "faster" or "slower" when shown one-sided at `alpha` (each direction, uncorrected over
    densities), "as fast" when neither is, which says that no difference was shown; None under 5 replicates, and
    where the dense network did not learn. ratio: the Hodges–Lehmann ticket/dense ratio with its 95 % interval; None
    where it is not a finite number.
    """

    outcome: Literal["faster", "as fast", "slower"] | None
    alpha: float
    ratio: float | None
    ratio_ci: tuple[float, float] | None
    p_faster: float
    p_slower: float
    replicates: int
    ties: int
    never_reached: Mapping[str, int]
    grid: int | None

    def resolution(self) -> str:
        if self.grid is None:
            return "the evaluation grid was not stated"
        return f"steps are known to within one evaluation interval of {self.grid} steps"

    def as_json(self) -> results.TimeDetail:
        return {
            "ratio": self.ratio,
            "ratio_ci": None if self.ratio_ci is None else list(self.ratio_ci),
            "p_faster": self.p_faster,
            "p_slower": self.p_slower,
            "alpha": self.alpha,
            "replicates": self.replicates,
            "ties": self.ties,
            "never_reached": dict(self.never_reached),
            "grid": self.grid,
            "resolution": self.resolution(),
        }


@dataclass(frozen=True)
class TrainedEnough:
    """Does doubling the dense network's budget gain less than the margin? None: the data leave it open.

    gain and ci (two-sided, 1 − 2·alpha, so that its upper end is the one-sided test) are fractions over the
    pairs that finished.
    """

    enough: bool | None
    gain: float | None
    ci: tuple[float, float] | None
    replicates: int
    failed: int
    margin_pp: float
    alpha: float
    p: float
    sentence: str

    def as_json(self) -> results.TrainedEnough:
        return {
            "enough": self.enough,
            "gain": self.gain,
            "ci": None if self.ci is None else list(self.ci),
            "replicates": self.replicates,
            "failed": self.failed,
            "margin_pp": self.margin_pp,
            "alpha": self.alpha,
            "p": self.p,
            "sentence": self.sentence,
        }


def differences(
    ours: Sequence[float | None], theirs: Sequence[float | None], *, worst_for_ours: bool = True
) -> Array:
    """Paired differences [n] in which failed runs are scored, not dropped.

    A failed run of ours scores 0: a ticket that does not train is no winner. What a lost reference would have shown is
    not known: it scores 1 where the worst case for our claim is wanted, and 0 where the best case is, so that a
    claim that passes would have passed whatever it had shown, and one refuted would have been refuted. (Worst-rank
    scores: Lachin 1999; bounds: Manski.)
    """
    lost = 1.0 if worst_for_ours else 0.0
    return np.array(
        [(0.0 if a is None else a) - (lost if b is None else b) for a, b in zip(ours, theirs, strict=True)],
        dtype=np.float64,
    )


def finished(ours: Sequence[float | None], theirs: Sequence[float | None]) -> list[float]:
    """Differences of the pairs in which both runs finished."""
    return [a - b for a, b in zip(ours, theirs, strict=True) if a is not None and b is not None]


def smallest_margin(worst: Array, *, test_level: float, step: float) -> float | None:
    """Smallest margin (fraction) at which `worst` [n] is not inferior; 0 if superior, None if none is."""
    test = t_test(worst, null=0.0, floor=step)
    if test.p_greater <= test_level:
        return 0.0
    bound = lower_bound(worst, level=test_level, step=step)
    return None if bound is None else max(0.0, -bound)


def lower_bound(worst: Array, *, level: float, step: float) -> float | None:
    """One-sided lower limit of the mean of `worst` [n] at `level`; None where no spread can be estimated."""
    interval = mean_interval(worst.tolist(), level=1 - 2 * level, floor=step)
    if interval is None or (interval[0] == interval[1] and 0.5 ** len(worst) > level):
        return None
    return max(interval[0], -1.0)


def compare(
    runs: Runs,
    reference: str,
    *,
    null: float,
    alpha: float,
    test_level: float,
    refute_level: float,
    step: float = 0.0,
    ours: str = "ticket",
) -> Check | None:
    """The check of `ours` against `reference`, one-sided at `test_level`; None where the reference was not run.

    null: the difference to exceed, −δ for accuracy and 0 for a control; the claim is refuted when the mean is shown, at
    `refute_level`, to lie below it. alpha: of the two-sided interval. step: between two possible accuracies.
    """
    if reference not in runs or ours not in runs:
        return None
    a, b = runs[ours], runs[reference]
    worst, best = differences(a, b), differences(a, b, worst_for_ours=False)
    pairs = finished(a, b)
    p = float(t_test(worst, null=null, floor=step).p_greater)
    p_refuted = float(t_test(best, null=null, floor=step).p_less)
    enough = len(a) >= MIN_REPLICATES
    passed = enough and p <= test_level
    margin, ci = None, mean_interval(pairs, level=1 - alpha, floor=step)
    if enough and reference == "dense":
        margin = smallest_margin(worst, test_level=test_level, step=step)
    return Check(
        reference=reference,
        null=null,
        test_level=test_level,
        replicates=len(a),
        pairs=len(pairs),
        failed={ours: sum(x is None for x in a), reference: sum(x is None for x in b)},
        estimate=float(np.mean(pairs)) if pairs else None,
        ci=None if ci is None else (max(ci[0], -1.0), min(ci[1], 1.0)),  # no difference lies beyond
        bound=lower_bound(worst, level=test_level, step=step),
        sd=float(np.std(pairs, ddof=1)) if len(pairs) > 1 else None,
        p=p,
        p_sign_flip=sign_flip_p(worst, null=null),
        p_trimmed=trimmed_p(worst, null=null, floor=step),
        p_superior=float(t_test(worst, null=0.0, floor=step).p_greater),
        p_refuted=p_refuted,
        passed=passed,
        refuted=enough and not passed and p_refuted <= refute_level,
        smallest_margin_pp=None if margin is None else 100 * margin,
    )


def time_check(steps: Runs, *, alpha: float, grid: int | None) -> TimeCheck | None:
    """Early-stop steps of ticket and dense compared; None where either was not recorded.

    A run that failed is ranked worst (log ratio ±∞), and so is one whose validation loss never improved on
    its start (step 0). If both of a pair did, the pair is a tie.
    """
    if "ticket" not in steps or "dense" not in steps:
        return None
    a, b = ([step if step else math.inf for step in steps[arm]] for arm in ("ticket", "dense"))
    ratios = np.array([0.0 if x == y else math.log(x) - math.log(y) for x, y in zip(a, b, strict=True)])
    test = signed_rank(ratios)
    centre, interval = hodges_lehmann(ratios)
    outcome: Literal["faster", "as fast", "slower"] | None = "as fast"
    if len(a) < MIN_REPLICATES:
        outcome = None
    elif test.p_less <= alpha:
        outcome = "faster"
    elif test.p_greater <= alpha:
        outcome = "slower"
    bounded = interval is not None and all(math.isfinite(end) for end in interval)
    return TimeCheck(
        outcome=outcome,
        alpha=alpha,
        ratio=math.exp(centre) if math.isfinite(centre) else None,
        ratio_ci=(math.exp(interval[0]), math.exp(interval[1])) if interval is not None and bounded else None,
        p_faster=test.p_less,
        p_slower=test.p_greater,
        replicates=len(a),
        ties=test.zeros,
        never_reached={"ticket": a.count(math.inf), "dense": b.count(math.inf)},
        grid=grid,
    )
