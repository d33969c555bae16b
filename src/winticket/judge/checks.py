"""One level's checks: what is compared, how failed trainings count, and what each comparison shows.

All comparisons are paired within the replicate: position i of every sequence has the same initialisation seed,
mask search, data order and test set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from winticket import results
from winticket.judge.frame import ACCURACIES, ByArm, Frame, Values, contrast
from winticket.judge.ratio import Relative, ratio_limit
from winticket.judge.statistics import (
    EXACT_FLIPS,
    Array,
    mean_interval,
    sign_flip_p,
    t_test,
    trimmed_p,
)
from winticket.objective import ACCURACY, Scale

MIN_REPLICATES = 5
CONTROLS = ("reinit", "random")


@dataclass(frozen=True)
class Level:
    """What was measured at one density.

    Every sequence has one value per replicate, paired by position; None stands for a failed training.

    density: kept / eligible weights, in (0, 1]. accuracy: arm -> test accuracies (fractions) after the same number of
    training steps in every arm; the arms are "dense", "ticket" and, unless they were dropped, "reinit" and "random".
    If networks are judged by another metric, `accuracy` holds its values on the test data, as they were measured and in
    the metric's own unit: an RMSE is a positive number of which less is better.
    early_stop_step: arm -> step of the least validation loss. accuracy_at_early_stop: arm -> test accuracy at that
    step, which is reported and never decides. train_loss: arm -> final loss on the training data; it shows when
    training left a dense network behind its own tickets.

    >>> from winticket.judge import Level
    >>> Level(0.1, {"dense": (0.98, 0.97), "ticket": (0.98, None)}).accuracy["ticket"]
    (0.98, None)
    """

    density: float
    accuracy: ByArm
    early_stop_step: ByArm = field(default_factory=dict)
    accuracy_at_early_stop: ByArm = field(default_factory=dict)
    train_loss: ByArm = field(default_factory=dict)


@dataclass(frozen=True)
class Check:
    """Is the ticket's mean accuracy better than the reference's by more than `null`? Accuracies are fractions.

    All differences are gains, positive if the ticket is better, in the unit of `scale`, the metric. Only `estimate`,
    `ci` (two-sided, 1 − alpha) and `sd` are restricted to the `pairs` in which both trainings finished. `bound` and the
    p-values count failed trainings too, each at the accuracy that is worst for the ticket.

    p: of Student's t test, whose sd is at least the step between two accuracies. It decides, one-sided at
    `test_level`; for a control, that is the level at which Holm's procedure ended. passed: `bound`, the one-sided
    lower limit of the difference at that level, is above `null`. p_sign_flip, p_trimmed: cross-checks by other tests.
    refuted: the same t test in the other direction shows that the claim is wrong. smallest_margin_pp: the smallest
    margin at which the ticket would have counted as not inferior; only if the reference is "dense".

    relative: the same as shares of the dense network's mean, if the margin is such a share. It decides then; `null` is
    a share as well, and `bound` does not say what passed.

    >>> from winticket.judge import Level, judge
    >>> dense = (0.97, 0.98, 0.96, 0.97, 0.98)
    >>> level = Level(0.1, {"dense": dense, "ticket": dense, "reinit": (0.9,) * 5, "random": (0.9,) * 5})
    >>> check = judge([level]).levels[0].beats_reinit
    >>> check.passed, round(check.estimate, 3), round(check.bound, 3)
    (True, 0.072, 0.059)
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
    scale: Scale = ACCURACY
    relative: Relative | None = None

    def disagreement(self) -> tuple[str, ...]:
        """Names of the tests that contradict the t test, of those that can reach the level with so many replicates."""
        others = [("trimmed mean", self.p_trimmed)]
        if self.sign_flip_resolves():
            others.append(("sign-flip", self.p_sign_flip))
        return tuple(name for name, p in others if (p <= self.test_level) != self.passed)

    def sign_flip_resolves(self) -> bool:
        """True if the smallest p-value of the sign-flip test, 2⁻ⁿ, reaches the level."""
        return 0.5**self.replicates <= self.test_level

    def as_json(self) -> results.Check:
        document: results.Check = {
            "reference": self.reference,
            "null_pp": (self.scale.factor if self.relative is None else 100) * self.null,
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
        if self.relative is not None:
            document["relative"] = self.relative.as_json()
        return document


@dataclass(frozen=True)
class TrainedEnough:
    """Does training the dense network for twice the steps gain less than the margin? See `gate`.

    enough: None if the data leave it open. gain and ci are fractions over the pairs that finished, positive if twice
    the steps are better, and in the metric's own unit if that is not accuracy; ci is two-sided at 1 − 2·alpha, so that
    its upper end is the limit of the one-sided test. sentence: the answer in words.

    >>> from winticket.judge import gate
    >>> gate((0.97,) * 5, (0.99,) * 5, test_examples=1000).enough
    False
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
    ours: Values, theirs: Values, *, worst_for_ours: bool = True, frame: Frame = ACCURACIES
) -> Array:
    """Paired differences ours − theirs [n] of values in the frame, in which failed trainings get a value.

    A failed training of ours counts as the worst end of the range (accuracy 0): a ticket that does not train is no
    winner. What a failed reference would have reached is unknown. It counts as the best end (accuracy 1) for the worst
    case of our claim and as the worst end for the best case. So the mean that is tested is never above the one that
    the reference would have given, whatever that had reached, and a false claim is no likelier than without failures;
    likewise for a claim that is refuted. (Worst-rank scores: Lachin 1999; bounds: Manski.) `frame_of` says what counts
    if a metric has no such end.
    """
    lost = frame.perfect if worst_for_ours else frame.worst
    return np.array(
        [
            (frame.worst if a is None else a) - (lost if b is None else b)
            for a, b in zip(ours, theirs, strict=True)
        ],
        dtype=np.float64,
    )


def finished(ours: Values, theirs: Values) -> list[float]:
    """Differences of the pairs in which both trainings finished."""
    return [a - b for a, b in zip(ours, theirs, strict=True) if a is not None and b is not None]


def smallest_margin(
    worst: Array, *, test_level: float, step: float, span: float = 1.0, dense: Array | None = None
) -> float | None:
    """The smallest margin at which `worst` [n] is not inferior; 0 if superior, None if there is none.

    A fraction; with `dense` [n], a share of its mean.
    """
    test = t_test(worst, null=0.0, floor=step)
    if test.p_greater <= test_level:
        return 0.0
    if dense is not None:
        bound = ratio_limit(worst, dense, level=test_level, floor=step)
    else:
        bound = lower_bound(worst, level=test_level, step=step, span=span)
    return None if bound is None else max(0.0, -bound)


def lower_bound(worst: Array, *, level: float, step: float, span: float = 1.0) -> float | None:
    """One-sided lower limit of the mean of `worst` [n] at `level`; None if no spread can be estimated.

    span: the largest possible difference, below which no limit lies.
    """
    interval = mean_interval(worst.tolist(), level=1 - 2 * level, floor=step)
    if interval is None or (interval[0] == interval[1] and 0.5 ** len(worst) > level):
        return None
    return max(interval[0], -span)


def compare(
    accuracy: ByArm,
    reference: str,
    *,
    null: float,
    alpha: float,
    test_level: float,
    refute_level: float,
    step: float = 0.0,
    ours: str = "ticket",
    frame: Frame = ACCURACIES,
    relative: bool = False,
) -> Check | None:
    """The check of `ours` against `reference`, one-sided at `test_level`; None if the reference was not run.

    accuracy, null, step: in `frame`. null: the difference to exceed, −margin for the dense network and 0 for a control;
    if `relative`, a share of the reference's mean. The claim is refuted if the mean is shown at `refute_level` to lie
    below it. alpha: of the two-sided interval. step: between two accuracies.
    """
    if reference not in accuracy or ours not in accuracy:
        return None
    a, b = accuracy[ours], accuracy[reference]
    worst, best, theirs = _tested(a, b, frame, relative=relative)
    tested, boundary = contrast(worst, theirs[0], null)
    refuting, _ = contrast(best, theirs[1], null)
    pairs = finished(a, b)
    p = float(t_test(tested, null=boundary, floor=step).p_greater)
    p_refuted = float(t_test(refuting, null=boundary, floor=step).p_less)
    enough = len(a) >= MIN_REPLICATES
    bound = lower_bound(worst, level=test_level, step=step, span=frame.span)
    margin = None
    if enough and reference == "dense":
        margin = smallest_margin(worst, test_level=test_level, step=step, span=frame.span, dense=theirs[0])
    return Check(
        reference=reference,
        null=null if relative else null * frame.unit,
        test_level=test_level,
        replicates=len(a),
        pairs=len(pairs),
        failed={ours: a.count(None), reference: b.count(None)},
        estimate=frame.gain(float(np.mean(pairs))) if pairs else None,
        ci=_within(mean_interval(pairs, level=1 - alpha, floor=step), frame),
        bound=None if bound is None else bound * frame.unit,
        sd=frame.gain(float(np.std(pairs, ddof=1))) if len(pairs) > 1 else None,
        p=p,
        p_sign_flip=sign_flip_p(tested, null=boundary),
        p_trimmed=trimmed_p(tested, null=boundary, floor=step),
        p_superior=float(t_test(worst, null=0.0, floor=step).p_greater),
        p_refuted=p_refuted,
        passed=enough and p <= test_level,
        refuted=enough and p > test_level and p_refuted <= refute_level,
        smallest_margin_pp=None if margin is None else _in_points(margin, frame, relative=relative),
        scale=frame.scale,
        relative=Relative.of(a, b, frame, (worst, theirs[0]), level=test_level, floor=step),
    )


def _tested(
    ours: Values, theirs: Values, frame: Frame, *, relative: bool
) -> tuple[Array, Array, tuple[Array | None, Array | None]]:
    """Differences [n] in the worst and in the best case for ours; if `relative`, the reference's values in both."""
    worst, best = (differences(ours, theirs, worst_for_ours=case, frame=frame) for case in (True, False))
    if not relative:
        return worst, best, (None, None)
    return worst, best, (frame.measured(theirs, frame.perfect), frame.measured(theirs, frame.worst))


def _within(interval: tuple[float, float] | None, frame: Frame) -> tuple[float, float] | None:
    """A framed interval as gains; no difference is larger than the metric's span."""
    if interval is None:
        return None
    return max(interval[0], -frame.span) * frame.unit, min(interval[1], frame.span) * frame.unit


def _in_points(margin: float, frame: Frame, *, relative: bool) -> float:
    """A framed margin in the unit of differences; a share in percent."""
    return 100 * margin if relative else frame.scale.factor * (margin * frame.unit)
