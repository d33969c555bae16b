"""Verdicts in metrics other than accuracy: either direction, any unit, margins that are shares, failed trainings."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from winticket.judge import Check, Level, Look, Verdict, first_step, gate, has_learned, judge, target
from winticket.judge.checks import differences
from winticket.judge.collapse import collapse_limit, collapses
from winticket.judge.frame import frame_of
from winticket.judge.ratio import ratio_limit
from winticket.judge.statistics import sign_flip_p, t_test
from winticket.objective import ACCURACY, Scale

RMSE = Scale("RMSE", "lower", "mm", 0.0)
NEGATED = Scale("minus RMSE", "higher", "mm", high=0.0)
R2 = Scale("R²", high=1.0)
SCORE = Scale("score")
WIGGLE = (0.4, -0.4, 0.3, -0.3, 0.2, -0.2, 0.35, -0.35, 0.1, -0.1)
Values = tuple[float | None, ...]


def level(
    density: float = 0.2, *, behind: float = 0.0, lead: float = 3.0, n: int = 10, dense: float = 4.0
) -> Level:
    """RMSEs in mm: the ticket is `behind` by so much, sd .03, and `lead` better than its controls."""
    ours = tuple(dense + behind + 0.1 * w for w in WIGGLE[:n])
    arms: dict[str, Values] = {"dense": (dense,) * n, "ticket": ours}
    arms |= dict.fromkeys(("reinit", "random"), (dense + behind + lead,) * n)
    return Level(density, arms)


def with_arm(level: Level, arm: str, values: Sequence[float | None]) -> Level:
    return replace(level, accuracy={**level.accuracy, arm: tuple(values)})


def random_levels(seed: int, *, failures: bool = True) -> list[Level]:
    """RMSEs about 4 mm of all arms at three levels, from tickets that win to tickets that lose."""
    noise = np.random.default_rng(seed)
    n = int(noise.integers(5, 12))

    def arm(mean: float) -> Values:
        values = mean * np.exp(0.04 * noise.standard_normal(n))
        lost = noise.random(n) < 0.03 if failures else np.zeros(n, dtype=bool)
        return tuple(None if gone else float(v) for v, gone in zip(values, lost, strict=True))

    dense = arm(4.0)
    levels = []
    for density in (0.5, 0.3, 0.1):
        behind = float(noise.choice([-0.1, 0.0, 0.2, 1.0]))
        arms = {"dense": dense, "ticket": arm(4 + behind)}
        arms |= {
            control: arm(4 + behind + float(noise.choice([0.0, 0.3, 2.0])))
            for control in ("reinit", "random")
        }
        levels.append(Level(density, arms))
    return levels


def mapped(levels: Sequence[Level], change: Callable[[float], float]) -> list[Level]:
    return [
        replace(
            one,
            accuracy={
                arm: tuple(None if v is None else change(v) for v in values)
                for arm, values in one.accuracy.items()
            },
        )
        for one in levels
    ]


def checks(verdict: Verdict) -> list[Check]:
    names = ("accuracy", "beats_reinit", "beats_random")
    return [c for x, name in itertools.product(verdict.levels, names) if (c := getattr(x, name)) is not None]


def decided(verdict: Verdict) -> dict[str, Any]:
    """What must not depend on how the metric is written."""
    return {
        "outcome": (verdict.outcome, verdict.kind, verdict.claimed, verdict.learned.unlearned),
        "needed": (verdict.replicates_needed, verdict.replicates_fresh),
        "curve": [(point.outcome, point.density) for point in verdict.margins.curve],
        "flags": [(c.passed, c.refuted, c.disagreement()) for c in checks(verdict)],
        "collapsed": [(one.density, one.arm, one.replicate) for one in verdict.collapsed],
        "learned": verdict.learned.learned,
    }


def p_values(verdict: Verdict) -> list[float]:
    return [p for c in checks(verdict) for p in (c.p, c.p_sign_flip, c.p_trimmed, c.p_superior, c.p_refuted)]


def gains(verdict: Verdict) -> list[float]:
    return [x for c in checks(verdict) for x in (c.estimate, c.bound, c.sd, *(c.ci or ())) if x is not None]


@pytest.mark.parametrize("seed", range(12))
def test_less_is_better_is_more_is_better_of_the_negated_values(seed: int) -> None:
    levels = random_levels(seed)
    lower = judge(levels, scale=RMSE, margin_pp=0.3, constant=9.0)
    higher = judge(mapped(levels, lambda v: -v), scale=NEGATED, margin_pp=0.3, constant=-9.0)
    assert decided(lower) == decided(higher)
    assert p_values(lower) == p_values(higher)
    assert gains(lower) == gains(higher)
    mean = lower.learned.accuracy
    assert higher.learned.accuracy == (None if mean is None else pytest.approx(-mean))


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_the_unit_changes_no_decision(seed: int, relative: bool) -> None:
    """mm, m and nm; with a margin in that unit or in percent."""
    levels = random_levels(seed)
    first = judge(levels, scale=RMSE, margin_pp=5 if relative else 0.3, relative=relative, constant=9.0)
    for unit, factor in (("m", 1e-3), ("nm", 1e6), ("parsec", 1e-20)):
        other = judge(
            mapped(levels, lambda v, by=factor: v * by),  # type: ignore[misc]
            scale=replace(RMSE, unit=unit),
            margin_pp=5 if relative else 0.3 * factor,
            relative=relative,
            constant=9.0 * factor,
        )
        assert decided(other) == decided(first)
        assert p_values(other) == pytest.approx(p_values(first), rel=1e-6)
        assert gains(other) == pytest.approx([x * factor for x in gains(first)], rel=1e-9, abs=1e-12 * factor)


@pytest.mark.parametrize("seed", range(10))
def test_the_error_rate_is_judged_as_the_accuracy_is(seed: int) -> None:
    """On no grid, so that there is no step between accuracies; failed trainings count as the ends of both ranges."""
    levels = mapped(random_levels(seed), lambda v: min(max(1 - v / 40, 0.0), 1.0))
    accuracy = judge(levels, margin_pp=0.5, constant=0.1)
    error = judge(
        mapped(levels, lambda v: 1 - v),
        scale=Scale("error", "lower", "%", 0.0, 1.0),
        margin_pp=0.5,
        constant=0.9,
    )
    assert decided(error) == decided(accuracy)
    assert p_values(error) == pytest.approx(p_values(accuracy), rel=1e-6)
    assert gains(error) == pytest.approx(gains(accuracy), rel=1e-9, abs=1e-12)
    assert "below" not in error.reason.replace("it is below", "")


def test_outcomes_and_words_of_an_rmse() -> None:
    won = judge([level()], scale=RMSE, margin_pp=0.1, constant=10.0)
    assert (won.outcome, won.density) == ("won", 0.2)
    # sd .03064 and t(.9775; 9) = 2.326: the limit is .0225 mm worse.
    assert (
        "(difference 0 mm, at most 0.02254 mm worse with 97.8 % confidence; limit 0.1 mm worse)" in won.reason
    )
    assert "(by 3 mm better, at least 2.977 mm better with 97.8 % confidence)" in won.reason
    assert "ended above a test RMSE of 4." in won.reason
    lost = judge([level(behind=0.5)], scale=RMSE, margin_pp=0.1, constant=10.0)
    assert lost.outcome == "not won"
    assert (
        "the ticket is more than 0.1 mm worse than the dense network at 20.0 % (0.5 mm worse)" in lost.reason
    )
    open_ = judge([level(behind=0.09)], scale=RMSE, margin_pp=0.1, constant=10.0)
    assert open_.outcome == "inconclusive"
    assert (
        "could not show that the ticket matches the dense network at 20.0 % (difference 0.09 mm worse"
        in open_.reason
    )
    below = judge([level(lead=-1.0)], scale=RMSE, margin_pp=0.1, constant=10.0)
    assert (
        "the ticket is worse than the same mask with new initial weights at 20.0 % (1 mm worse)"
        in below.reason
    )
    small = judge([level(lead=0.0)], scale=RMSE, margin_pp=0.1, constant=10.0)
    assert "it is below 0.1 mm at 20.0 %" in small.reason + " ".join(small.notes)
    for verdict in (won, lost, open_, below, small):
        text = " ".join((verdict.reason, *verdict.warnings, *verdict.notes))
        assert " pp" not in text
        assert "accura" not in text
        json.dumps([verdict.as_json(), verdict.levels[0].as_json()], allow_nan=False)


def test_numbers_of_an_rmse_by_scipy() -> None:
    noise = np.random.default_rng(7)
    dense, ticket = (4 * np.exp(0.02 * noise.standard_normal(8)) for _ in range(2))
    arms = {"dense": dense, "ticket": ticket, "reinit": dense + 3, "random": dense + 2}
    one = Level(0.1, {arm: tuple(map(float, values)) for arm, values in arms.items()})
    check = judge([one], scale=RMSE, margin_pp=0.1).levels[0].accuracy
    assert check is not None
    assert check.estimate == pytest.approx(float(np.mean(dense - ticket)))
    assert check.p == pytest.approx(stats.ttest_1samp(dense - ticket, -0.1, alternative="greater").pvalue)
    assert check.p_refuted == pytest.approx(
        stats.ttest_1samp(dense - ticket, -0.1, alternative="less").pvalue
    )
    low, high = stats.ttest_1samp(dense - ticket, 0).confidence_interval(0.95)
    assert check.ci == pytest.approx((low, high))
    assert check.as_json()["null_pp"] == pytest.approx(-0.1)
    assert check.smallest_margin_pp is not None
    for step, passes in ((-1e-6, False), (1e-6, True)):
        again = judge([one], scale=RMSE, margin_pp=check.smallest_margin_pp + step).levels[0].accuracy
        assert again is not None
        assert again.passed == passes


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("scale", [RMSE, Scale("throughput", "higher", "", 0.0)])
def test_a_relative_margin_tests_the_contrast_of_each_pair(scale: Scale, seed: int) -> None:
    noise = np.random.default_rng(seed)
    dense, ticket = (4 * np.exp(0.03 * noise.standard_normal(9)) for _ in range(2))
    one = Level(0.1, {"dense": tuple(map(float, dense)), "ticket": tuple(map(float, ticket))})
    for percent in (0.5, 2.0, 5.0):
        verdict = judge([one], scale=scale, margin_pp=percent, relative=True)
        check = verdict.levels[0].accuracy
        assert check is not None
        assert check.relative is not None
        r = percent / 100
        contrast = (1 + r) * dense - ticket if scale.better == "lower" else ticket - (1 - r) * dense
        assert check.p == pytest.approx(stats.ttest_1samp(contrast, 0, alternative="greater").pvalue)
        assert check.p_refuted == pytest.approx(stats.ttest_1samp(contrast, 0, alternative="less").pvalue)
        assert check.relative.bound is not None
        assert check.passed == (check.relative.bound > -r)
        assert check.relative.estimate == pytest.approx(
            scale.sign * (ticket.mean() - dense.mean()) / dense.mean()
        )
        assert check.as_json()["null_pp"] == pytest.approx(-percent)
        assert verdict.as_json()["relative"] is True
        assert check.smallest_margin_pp is not None
        assert check.smallest_margin_pp == pytest.approx(max(0.0, -100 * check.relative.bound))


def test_the_limit_of_a_ratio_is_where_the_test_just_passes() -> None:
    noise = np.random.default_rng(0)
    for _ in range(200):
        n = int(noise.integers(3, 12))
        dense = 5 + noise.choice([0.1, 1.0, 3.0]) * noise.standard_normal(n)
        gains = noise.standard_normal(n) + noise.choice([0.0, 0.5]) * (dense - 5)
        limit = ratio_limit(gains, dense, level=0.0225)
        if limit is None:
            assert stats.ttest_1samp(dense, 0, alternative="greater").pvalue > 0.0225
            continue
        for step, passes in ((-1e-6, True), (1e-6, False)):
            p = stats.ttest_1samp(gains - (limit + step) * dense, 0, alternative="greater").pvalue
            assert (p <= 0.0225) == passes


def test_words_of_a_relative_margin() -> None:
    won = judge([level()], scale=RMSE, margin_pp=2, relative=True, constant=10.0)
    assert won.outcome == "won"
    assert "limit 2 % of the dense network's RMSE worse)" in won.reason
    # .02254 mm of 4 mm.
    assert ", at most 0.564 % worse with 97.8 % confidence" in won.reason
    lost = judge([level(behind=0.5)], scale=RMSE, margin_pp=2, relative=True, constant=10.0)
    assert "the ticket is more than 2 % worse than the dense network at 20.0 % (12.5 % worse)" in lost.reason
    accuracy = Level(0.1, dict.fromkeys(("dense", "ticket"), (0.9, 0.91, 0.92, 0.9, 0.91, 0.9)))
    said = judge([accuracy], margin_pp=2, relative=True).reason
    assert " pp" not in said


def test_a_share_of_nothing_is_no_margin() -> None:
    with pytest.raises(ValueError, match=r"density 0.2: the dense network's R² is -0.1, and a share of that"):
        judge(
            [with_arm(level(), "dense", (-0.1,) * 10)],
            scale=replace(R2, high=9.0),
            margin_pp=2,
            relative=True,
        )
    with pytest.raises(ValueError, match=r"dense network's R² is negative, .*relative=False"):
        gate((-0.1,) * 5, (0.1,) * 5, 2, scale=R2, relative=True)
    perfect = judge(
        [with_arm(level(), "dense", (0.0,) * 10)], scale=RMSE, margin_pp=2, relative=True, constant=9.0
    )
    assert perfect.outcome == "not won", "no RMSE is within 2 % of 0"
    json.dumps([perfect.as_json(), perfect.levels[0].as_json()], allow_nan=False)
    with pytest.raises(ValueError, match="100 % of the dense network's RMSE is not between 0 and 100 %"):
        judge([level()], scale=RMSE, margin_pp=100, relative=True)


def test_margins_of_two_kinds_are_not_compared() -> None:
    """A claim at 0.5 % shows nothing at .5 mm."""
    earlier = Look(5, 0.1, 0.05, (0.2,), relative=True)
    one = [level(behind=0.07)]
    assert judge(one, scale=RMSE, margin_pp=0.1, looks=[earlier], constant=10.0).outcome == "inconclusive"
    standing = judge(one, scale=RMSE, margin_pp=0.1, looks=[replace(earlier, relative=False)], constant=10.0)
    assert standing.outcome == "won"


def test_other_margins_are_multiples_in_a_unit_of_its_own() -> None:
    by_margin = {
        p.margin_pp: p.outcome for p in judge([level(behind=0.03)], scale=RMSE, margin_pp=0.1).margins.curve
    }
    assert by_margin == {0.02: "inconclusive", 0.04: "inconclusive", 0.1: "won", 0.2: "won"}
    shares = judge([level()], scale=RMSE, margin_pp=2, relative=True).margins.curve
    assert [p.margin_pp for p in shares] == [0.1, 0.2, 0.5, 1.0, 2.0]


def test_no_step_is_assumed_between_values_of_a_continuous_metric() -> None:
    """Multiples of .1 are no grid, and equal differences meet the sign-flip floor: 2⁻⁵ > .0225 ≥ 2⁻⁶."""
    for n, outcome in ((5, "inconclusive"), (6, "won")):
        arms = {"dense": 4.0, "ticket": 4.1, "reinit": 6.0, "random": 6.0}
        one = Level(0.1, {arm: (x,) * n for arm, x in arms.items()})
        verdict = judge([one], scale=RMSE, margin_pp=0.2, test_examples=100)
        assert verdict.outcome == outcome
        assert verdict.as_json()["accuracy_step"] is None


def test_what_failed_trainings_count_as() -> None:
    arms = [(3.0, 5.0), (None, 8.0)]

    def ends(scale: Scale, constant: float | None) -> tuple[float, float]:
        frame = frame_of(scale, arms, constant=constant)
        return scale.sign * frame.worst * frame.unit, scale.sign * frame.perfect * frame.unit

    assert ends(RMSE, 6.0) == (8.0, 0.0)  # the worst value observed is worse than the constant answer's
    assert ends(RMSE, 9.0) == (9.0, 0.0)
    assert ends(SCORE, 1.0) == (1.0, 8.0)  # the best value observed
    assert ends(Scale("score", low=-2.0, high=20.0), None) == (-2.0, 20.0)
    assert frame_of(ACCURACY, [(0.5, None)], constant=None).worst == 0.0
    with pytest.raises(ValueError, match=r"a training failed, and RMSE has no worst value .* `constant`"):
        frame_of(RMSE, arms, constant=None)
    with pytest.raises(ValueError, match="a training failed, and RMSE has no worst value"):
        judge([with_arm(level(), "ticket", (None, *(4.0,) * 9))], scale=RMSE, margin_pp=0.1)


@pytest.mark.parametrize("scale", [RMSE, SCORE, R2, Scale("loss", "lower")])
def test_whatever_a_failed_reference_would_have_reached_the_mean_tested_is_no_higher(scale: Scale) -> None:
    """So a claim is tested as if the reference had done its best; the sign-flip test would pass all the more."""
    noise = np.random.default_rng(3)
    for _ in range(100):
        ours = tuple(map(float, 0.5 + 0.1 * noise.standard_normal(7)))
        finished = list(map(float, 0.45 + 0.1 * noise.standard_normal(7)))
        theirs = (*finished[:5], None, None)
        frame = frame_of(scale, (ours, theirs), constant=0.9 if scale.better == "lower" else 0.0)
        worst = differences(frame.put(ours), frame.put(theirs), frame=frame)
        best = differences(frame.put(ours), frame.put(theirs), frame=frame, worst_for_ours=False)
        for _ in range(5):
            reached = frame.worst + (frame.perfect - frame.worst) * noise.random(2)
            whatever = worst.copy()
            whatever[5:] = np.array(frame.put(ours[5:])) - reached
            assert worst.mean() - 1e-12 <= whatever.mean() <= best.mean() + 1e-12
            assert sign_flip_p(whatever, null=-0.01) <= sign_flip_p(worst, null=-0.01)


def test_failed_references_make_false_wins_no_likelier() -> None:
    """Tickets at the margin below dense networks of which every eighth fails, though it would have been usual."""
    noise = np.random.default_rng(1)
    experiments, found = 3000, []
    for _ in range(experiments):
        dense, ticket = 4 + 0.1 * noise.standard_normal(8), 4.3 + 0.1 * noise.standard_normal(8)
        lost = noise.random(8) < 0.125
        left: Values = tuple(None if gone else float(v) for v, gone in zip(dense, lost, strict=True))
        frame = frame_of(RMSE, (left, tuple(map(float, ticket))), constant=10.0)
        found.append(
            differences(frame.put(tuple(map(float, ticket))), frame.put(left), frame=frame) * frame.unit
        )
    wins = (t_test(np.stack(found), null=-0.3).p_greater <= 0.0225).mean()
    assert 0.003 < wins <= 0.0225 + 3 * math.sqrt(0.0225 / experiments)


def test_a_failed_ticket_is_no_winner_and_an_all_failed_run_shows_nothing() -> None:
    one = with_arm(level(), "ticket", (None, *level().accuracy["ticket"][1:]))
    assert judge([one], scale=RMSE, margin_pp=0.1, constant=10.0).outcome == "inconclusive"
    for scale in (RMSE, SCORE, R2):
        nothing = Level(0.2, dict.fromkeys(("dense", "ticket", "reinit", "random"), (None,) * 6))
        verdict = judge([nothing], scale=scale, margin_pp=0.1, constant=0.5)
        assert verdict.outcome == "inconclusive"
        assert not any(check.passed or check.refuted for check in checks(verdict))
        json.dumps([verdict.as_json(), verdict.levels[0].as_json()], allow_nan=False)


def test_values_out_of_range_are_refused_with_the_range() -> None:
    with pytest.raises(ValueError, match=r"holds -1.0; values of RMSE are finite and from 0.0 to inf"):
        judge([with_arm(level(), "ticket", (-1.0,) * 10)], scale=RMSE, margin_pp=0.1)
    with pytest.raises(ValueError, match=r"the best constant answer reaches -3.0; give the value of RMSE"):
        judge([level()], scale=RMSE, margin_pp=0.1, constant=-3.0)
    with pytest.raises(ValueError, match=r"margin 0 mm is not above 0$"):
        judge([level()], scale=RMSE, margin_pp=0.0)
    with pytest.raises(ValueError, match="margin 2 is not above 0 and at most 1, the whole range"):
        judge([level()], scale=Scale("F1", low=0.0, high=1.0), margin_pp=2.0)
    with pytest.raises(ValueError, match="give `constant` alone"):
        judge([level()], scale=RMSE, margin_pp=0.1, commonest=0.1)


@pytest.mark.parametrize(
    ("scale", "constant", "just", "short"),
    [
        (RMSE, 10.0, 8.99, 9.01),  # a tenth of the way from 10 mm to 0
        (R2, 0.0, 0.101, 0.099),
        (Scale("return"), 50.0, 55.01, 54.99),  # no best value: a tenth of the constant answer's size
        (Scale("reward"), -50.0, -44.99, -45.01),
        (Scale("perplexity", "lower", "", 1.0), 101.0, 90.9, 91.1),
    ],
)
def test_learned_is_a_tenth_of_the_way_from_the_constant_answer(
    scale: Scale, constant: float, just: float, short: float
) -> None:
    assert has_learned((just,) * 5, [], constant=constant, scale=scale).learned
    not_learned = has_learned((just, short), [], constant=constant, scale=scale, test_examples=10)
    assert not_learned.unlearned == (1,)
    assert f"its {scale.name} is" in not_learned.sentence
    assert f"the best constant answer gives {scale.value(constant)}." in not_learned.sentence


def test_a_dense_network_behind_its_tickets() -> None:
    """Ten points are .6 mm here, a tenth of the way from 10 mm to 4."""
    levels = [level(behind=-0.7)]
    far = has_learned((4.0,) * 10, levels, constant=10.0, scale=RMSE)
    assert far.behind == pytest.approx(0.7)
    assert "it ends 0.7 mm worse than the tickets with 20.0 % of its weights, a gap that only" in far.sentence
    assert has_learned((4.0,) * 10, [level(behind=-0.5)], constant=10.0, scale=RMSE).learned
    assert has_learned((4.0,) * 10, levels, scale=RMSE).learned, "without a constant there is no yardstick"
    # Two points are .12 mm, if the training loss explains them.
    losses = {"dense": tuple(2 + w for w in WIGGLE), "ticket": tuple(0.5 + w / 2 for w in WIGGLE)}
    explained = [replace(level(behind=-0.2), train_loss=losses)]
    assert not has_learned((4.0,) * 10, explained, constant=10.0, scale=RMSE).learned
    short = gate(tuple(4 + w for w in WIGGLE), tuple(3 + w for w in WIGGLE), 0.1, scale=RMSE)
    told = has_learned((4.0,) * 10, [level(behind=-0.2)], constant=10.0, scale=RMSE, trained_enough=short)
    assert told.sentence.endswith("and training it for twice the steps makes its RMSE 1 mm better.")


def test_the_gate_in_another_metric() -> None:
    once = tuple(4 + 0.1 * w for w in WIGGLE)
    twice = tuple(3.98 - 0.1 * w for w in WIGGLE)
    answer = gate(once, twice, 0.2, scale=RMSE)
    gained = np.array(once) - np.array(twice)
    assert answer.gain == pytest.approx(0.02)
    assert answer.p == pytest.approx(stats.ttest_1samp(gained, 0.2, alternative="less").pvalue)
    assert answer.enough is True
    assert answer.sentence.startswith(
        "Training the dense network for twice the steps makes its RMSE 0.02 mm better, at most 0.05552 mm better with "
    )
    assert answer.sentence.endswith("so it was trained enough for a margin of 0.2 mm.")
    share = gate(once, twice, 2.0, scale=RMSE, relative=True)
    contrast = np.array(twice) - 0.98 * np.array(once)
    assert share.p == pytest.approx(stats.ttest_1samp(contrast, 0, alternative="greater").pvalue)
    assert share.enough is True
    assert "makes its RMSE 0.5 % better, at most 1.3" in share.sentence
    assert share.sentence.endswith("a margin of 2 % of the dense network's RMSE.")
    assert gate(once, tuple(v - 1 for v in twice), 0.2, scale=RMSE).enough is False
    assert gate(once, once, 0.2, scale=RMSE).sentence.startswith(
        "Training the dense network for twice the steps makes no difference to its RMSE, "
    )
    failed = gate((None, *once[1:]), twice, 0.2, scale=RMSE, constant=10.0)
    assert failed.enough is None
    assert "between" in failed.sentence


def test_a_collapse_is_on_the_worse_side() -> None:
    values = (4.0, 4.01, 3.99, 4.0, 9.0, 1.0)
    one = Level(0.2, {"dense": values, "ticket": values})
    (fallen,) = collapses(one, margin=0.1, scale=RMSE)
    assert (fallen.replicate, fallen.accuracy, fallen.others) == (4, 9.0, 4.0)
    assert collapse_limit(values[:4], margin=0.1, scale=RMSE) == pytest.approx(4.4)
    usual = level()
    ticket = (9.0, *usual.accuracy["ticket"][1:])
    verdict = judge([with_arm(usual, "ticket", ticket)], scale=RMSE, margin_pp=0.1, constant=10.0)
    assert any(
        "(ticket at 20.0 %): its RMSE is 9 mm, and the median of its arm is 4 mm." in note
        for note in verdict.notes
    ) or any("its RMSE is 9 mm" in note for note in verdict.notes)


def test_targets_of_pace_are_on_the_way_from_the_constant_answer() -> None:
    assert target(0.98, 0.9) == 0.9 * 0.98
    assert target(4.0, 0.5, scale=RMSE, constant=10.0) == 7.0
    assert target(0.8, 0.5, scale=R2, constant=0.0) == 0.4
    assert target(4.0, 0.5, scale=RMSE) is None
    assert target(11.0, 0.5, scale=RMSE, constant=10.0) is None, "it ended worse than the constant answer"
    curve = [10.0, 7.5, 7.0, 4.0]
    assert first_step([0, 10, 20, 30], curve, 7.0, scale=RMSE) == 20
    assert first_step([0, 10, 20, 30], curve, 3.9, scale=RMSE) is None
    end = target(4.0, 1.0, scale=RMSE, constant=0.1 + 0.2 + 9.9)
    assert end is not None
    assert first_step([0, 10, 20, 30], curve, end, scale=RMSE) == 30
