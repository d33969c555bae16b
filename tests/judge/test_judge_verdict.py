"""The decision: outcomes, sequences, failed trainings, margins, the gate, time, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from scipy import stats

from winticket.judge import Level, Verdict, gate, judge
from winticket.judge.crosschecks import disagreements
from winticket.judge.gate import confidence

# Ten deviations with mean 0 and sd .3 pp: differences are chosen, not drawn.
WIGGLE = (0.4, -0.4, 0.3, -0.3, 0.2, -0.2, 0.35, -0.35, 0.1, -0.1)


def level(
    density: float,
    *,
    ticket: float = 0.0,
    without: str | None = None,
    reinit: float = 1.0,
    random: float = 1.5,
    n: int = 10,
    wiggle: float = 1.0,
) -> Level:
    """A level in pp: the ticket's mean over dense (98 %), and its advantage over each control."""
    ours = tuple(0.98 + (ticket + wiggle * w) / 100 for w in WIGGLE[:n])
    accuracy: dict[str, tuple[float | None, ...]] = {"dense": (0.98,) * n, "ticket": ours}
    for arm, behind in (("reinit", reinit), ("random", random)):
        if arm != without:
            accuracy[arm] = tuple(0.98 + (ticket - behind) / 100 for _ in range(n))
    return Level(density, accuracy)


def with_arm(level: Level, arm: str, values: Sequence[float | None]) -> Level:
    return dataclasses.replace(level, accuracy={**level.accuracy, arm: tuple(values)})


def failing(level: Level, arm: str, *positions: int) -> Level:
    values = level.accuracy[arm]
    return with_arm(level, arm, [None if i in positions else x for i, x in enumerate(values)])


# Light pruning is trivial, the middle wins, heavy pruning falls behind: the usual picture.
USUAL = [
    level(0.8, reinit=0.0, random=0.0),
    level(0.4, ticket=0.1),
    level(0.2, ticket=0.0),
    level(0.1, ticket=-0.1),
    level(0.05, ticket=-2.0),
]


def test_won_where_both_families_of_tests_claim() -> None:
    verdict = judge(USUAL)
    assert (verdict.outcome, verdict.density, verdict.kind) == ("won", 0.1, "winning ticket")
    assert verdict.claimed == (0.4, 0.2, 0.1)
    assert [x.matched for x in verdict.levels] == [True, True, True, True, False]
    assert [x.nontrivial for x in verdict.levels] == [False, True, True, True, True]
    assert [x.kind for x in verdict.levels] == [
        "matching, trivially sparse",
        *["winning ticket"] * 3,
        "not matching",
    ]
    assert verdict.replicates_needed is None
    assert verdict.reason.startswith("Won: the ticket with 10.0 % of the weights matches the dense network (")
    assert (
        "(difference -0.10 pp, above -0.33 with 97.8 % confidence; limit -0.5) and beats both controls"
        in verdict.reason
    )  # sd .3064/√10 · t(.9775; 9) = .2254
    assert "The tickets at 40.0 % and 20.0 % win as well." in verdict.reason


def test_the_order_of_the_levels_given_and_a_dense_level_change_nothing() -> None:
    verdict = judge(USUAL)
    dense = Level(1.0, {"dense": (0.98,) * 10})
    again = judge([*reversed(USUAL), dense])
    assert again.levels[1:] == verdict.levels
    assert (again.reason, again.claimed, again.margins) == (verdict.reason, verdict.claimed, verdict.margins)
    assert (again.levels[0].density, again.levels[0].kind, again.levels[0].accuracy) == (1.0, "dense", None)


def test_accuracy_is_tested_at_half_of_what_the_first_look_may_spend() -> None:
    # t(.955; 9) = 1.899 and t(.9775; 9) = 2.326: a margin of 2 standard errors passes alpha = .1 and not .05.
    error = math.sqrt(sum(w * w for w in WIGGLE) / 9) / math.sqrt(10)
    only = [level(0.2, ticket=-0.5 + 2 * error)]
    assert judge(only, alpha=0.05).outcome == "inconclusive"
    assert judge(only, alpha=0.1).outcome == "won"
    check = judge(only).levels[0].accuracy
    assert check is not None
    assert check.test_level == pytest.approx(0.0225)
    assert check.null == -0.005
    assert check.bound == pytest.approx((-0.5 + 2 * error - 2.326 * error) / 100, abs=1e-5)


def test_matching_stops_at_its_first_failure_from_the_densest() -> None:
    verdict = judge([level(0.5), level(0.3, ticket=-0.45), level(0.2)])
    assert verdict.claimed == (0.5,)
    assert [x.matched for x in verdict.levels] == [True, False, False]
    assert verdict.levels[2].kind == "winning ticket"  # taken alone; not claimed


def test_a_level_where_the_controls_are_not_beaten_stands_in_no_others_way() -> None:
    verdict = judge([level(0.5), level(0.3, reinit=0.05), level(0.2)])
    assert verdict.claimed == (0.5, 0.2)
    collapsing = judge([level(0.5), level(0.3), level(0.01, ticket=-60, reinit=0.0, random=0.0)])
    assert (collapsing.outcome, collapsing.claimed) == ("won", (0.5, 0.3))


def test_controls_are_held_to_the_level_at_which_holm_ended() -> None:
    # Three levels at .0225: two p-values near 0 pass at .0225/3 and /2, the third is left with all of it.
    checks = judge([level(0.5), level(0.3), level(0.2, reinit=0.21)]).levels
    assert [x.nontrivial for x in checks] == [True, True, False]
    assert [x.beats_reinit.test_level for x in checks if x.beats_reinit] == [pytest.approx(0.0225)] * 3
    # Two that are not beaten: the first of them is held to .0225/2.
    checks = judge([level(0.5), level(0.3, reinit=0.23), level(0.2, reinit=0.21)]).levels
    assert [x.nontrivial for x in checks] == [True, False, False]
    assert [x.beats_reinit.test_level for x in checks if x.beats_reinit] == [pytest.approx(0.0225 / 2)] * 3


def test_both_controls_must_be_beaten() -> None:
    structure = judge([level(0.5, reinit=0.0), level(0.2, reinit=0.0)])
    assert (structure.outcome, structure.kind) == ("inconclusive", "winning structure")
    assert "A winning structure" in structure.reason
    assert (
        "If the ticket has a lead over the same mask with new initial weights, it is below 0.5 pp at 50.0 % and 20.0 %."
        in structure.reason
    )
    trivial = judge([level(0.5, reinit=0.0, random=0.0)])
    assert (trivial.outcome, trivial.kind) == ("inconclusive", "matching, trivially sparse")
    odd = judge([level(0.5, random=0.0)])
    assert (odd.outcome, odd.kind) == ("inconclusive", "matching")
    below = judge([level(0.5, random=-0.3)])
    assert (below.outcome, below.kind) == ("not won", "matching")
    assert (
        "the ticket is below a random mask with the same number of weights per layer at 50.0 %"
        in below.reason
    )


def test_not_won_names_what_was_refuted_where() -> None:
    verdict = judge([level(0.5, reinit=-0.3), level(0.2, ticket=-2.5)])
    assert (verdict.outcome, verdict.density, verdict.replicates_needed) == ("not won", None, None)
    assert "the ticket is more than 0.5 pp below the dense network at 20.0 % (-2.50 pp)" in verdict.reason
    assert "the ticket is below the same mask with new initial weights at 50.0 % (-0.30 pp)" in verdict.reason
    assert judge([level(0.5, ticket=-2.5)]).kind == "not matching"
    both = judge([level(0.5, ticket=-2.5), level(0.2, ticket=-3.0)])
    assert "below the dense network at 50.0 % and 20.0 % (at 50.0 %: -2.50 pp)" in both.reason


def test_inconclusive_says_how_many_replicates_would_decide() -> None:
    verdict = judge([level(0.2, ticket=-0.25, n=6)])
    assert verdict.outcome == "inconclusive"
    assert verdict.replicates_needed is not None
    assert verdict.replicates_needed > 6
    assert f"About {verdict.replicates_needed} replicates in total, or " in verdict.reason
    assert " with another --seed, would decide the verdict with 80 % power" in verdict.reason
    sure = judge([level(0.2, ticket=-0.3, n=10)])
    # Both worked out in the next test.
    assert (sure.outcome, sure.replicates_needed, sure.replicates_fresh) == ("inconclusive", 40, 22)
    assert (
        "About 40 replicates in total, or 22 in a new experiment with another --seed, would decide the verdict"
        in sure.reason
    )


def test_replicates_needed_follow_from_the_weakest_check_on_the_way() -> None:
    from scipy import stats

    sd = math.sqrt(sum(w * w for w in WIGGLE) / 9)
    effect = 0.2 / sd

    def reached(n: int, level: float) -> float:
        return float(stats.nct.sf(stats.t.ppf(1 - level, n - 1), n - 1, effect * math.sqrt(n)))

    # The second look may spend a twentieth of .05, a first one nine tenths, and each family of tests half of that.
    assert reached(40, 0.00125) >= 0.8 > reached(39, 0.00125)
    assert reached(22, 0.0225) >= 0.8 > reached(21, 0.0225)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_under_five_replicates_nothing_is_decided(n: int) -> None:
    for each in (level(0.2, ticket=1, n=n), level(0.2, ticket=-50, n=n)):
        verdict = judge([each])
        assert (verdict.outcome, verdict.kind, verdict.density) == ("inconclusive", "undecided", None)
        assert verdict.replicates_needed == 5  # nothing is extrapolated
        assert {point.outcome for point in verdict.margins.curve} == {"inconclusive"}
        json.dumps(verdict.as_json(), allow_nan=False)


def test_equal_differences_are_spread_by_the_step_between_accuracies() -> None:
    # Dense right on all of 450, the ticket on 448, six times: once an interval from −.44 to −.44, and a win.
    runs = {"dense": (1.0,) * 6, "ticket": (448 / 450,) * 6, "reinit": (0.9,) * 6, "random": (0.9,) * 6}
    for test_examples in (450, None):
        verdict = judge([Level(0.1, {arm: tuple(x) for arm, x in runs.items()})], test_examples=test_examples)
        check = verdict.levels[0].accuracy
        assert check is not None
        assert verdict.outcome == "inconclusive"
        # One step as the sd: −.444 ± t(.975; 5) · .2222/√6.
        assert check.ci == pytest.approx((-0.004444 - 0.002332, -0.004444 + 0.002332), abs=1e-6)
        assert verdict.accuracy_step == pytest.approx(1 / 450)
    # As far within the margin and with as little spread, on a test set that resolves it.
    fine = {**runs, "ticket": (0.9956,) * 6}
    assert judge([Level(0.1, fine)], test_examples=10_000).outcome == "won"


def test_without_a_grid_equal_accuracies_meet_the_exact_floor() -> None:
    # 1/π lies on no test set's grid: the sign-flip floor decides, 2⁻⁵ > .0225 ≥ 2⁻⁶.
    odd = 1 / math.pi
    runs = {"dense": odd, "ticket": odd + 0.001, "reinit": 0.2, "random": 0.2}
    for n, outcome in ((5, "inconclusive"), (6, "won")):
        assert judge([Level(0.1, {arm: (x,) * n for arm, x in runs.items()})]).outcome == outcome


@pytest.mark.parametrize("dropped", ["reinit", "random"])
def test_a_missing_control_is_reported_and_never_won(dropped: str) -> None:
    verdict = judge([level(0.5, without=dropped), level(0.2, without=dropped)])
    assert verdict.outcome == "inconclusive"
    assert (
        "did not run at every density. Without it, nothing shows that the ticket is better" in verdict.reason
    )
    assert "Run this control." in verdict.reason
    assert (verdict.kind, verdict.levels[0].kind) == ("matching, controls missing",) * 2
    assert getattr(verdict.levels[0], f"beats_{dropped}") is None
    json.dumps([x.as_json() for x in verdict.levels], allow_nan=False)
    # What is there can still refute.
    assert judge([level(0.5, ticket=-3, without=dropped)]).outcome == "not won"
    with pytest.raises(ValueError, match=f"level of density 0.5 has no arm {dropped}; it has dense, ticket"):
        judge([level(0.5, without=dropped)], arms_expected=["reinit", "random"])


def test_a_failed_ticket_cannot_be_dropped() -> None:
    verdict = judge([failing(level(0.2), "ticket", 3)])
    check = verdict.levels[0].accuracy
    assert check is not None
    assert verdict.outcome == "inconclusive"
    assert (check.passed, check.pairs, check.replicates, dict(check.failed)) == (
        False,
        9,
        10,
        {"ticket": 1, "dense": 0},
    )
    assert check.estimate == pytest.approx(0.003 / 9)  # the finished nine: without the −.3 pp of position 3
    assert any(
        "Failed trainings count against the ticket in the comparison with the dense network at 20.0 % (1 ticket)"
        in w
        for w in verdict.warnings
    )
    assert judge([failing(level(0.2), "ticket", 0, 1, 2, 3, 4)]).outcome == "not won"
    gone = judge([failing(level(0.2), "ticket", *range(10))])
    assert gone.outcome == "not won"
    json.dumps([gone.as_json(), gone.levels[0].as_json()], allow_nan=False)


@pytest.mark.parametrize("n", [5, 6, 10])
def test_where_nothing_trained_nothing_is_known(n: int) -> None:
    lost = level(0.2, n=n)
    for arm in ("ticket", "dense", "reinit", "random"):
        lost = failing(lost, arm, *range(n))
    verdict = judge([lost])
    assert (verdict.outcome, verdict.replicates_needed) == ("inconclusive", None)
    assert "No dense network finished" in verdict.learned.sentence


def test_failed_references_neither_help_nor_hurt_beyond_their_bounds() -> None:
    # Nine controls lost: nothing is known of them, so the ticket is neither shown better nor shown worse.
    verdict = judge([failing(level(0.2), "random", *range(9))])
    check = verdict.levels[0].beats_random
    assert check is not None
    assert (check.passed, check.refuted, verdict.outcome) == (False, False, "inconclusive")
    # All dense runs lost: the ticket has nothing to match.
    lost = judge([failing(level(0.2), "dense", *range(10))]).levels[0].accuracy
    assert lost is not None
    assert (lost.passed, lost.refuted, lost.estimate, lost.ci) == (False, False, None, None)


def test_margins_curve_and_smallest() -> None:
    verdict = judge(USUAL, margin_pp=0.5)
    # The lower limits: Δ − .2254 pp, so at Δ = 0 the smallest margin is .225, at +.1 .125.
    by_level = dict(verdict.margins.by_level)
    assert by_level[0.4] == pytest.approx(0.1254, abs=1e-4)
    assert by_level[0.1] == pytest.approx(0.3254, abs=1e-4)
    assert verdict.margins.smallest_pp == pytest.approx(0.2254, abs=1e-4)  # the way to .4 leads over .8
    curve = {point.margin_pp: (point.outcome, point.density) for point in verdict.margins.curve}
    assert curve == {
        0.1: ("inconclusive", None),
        0.2: ("inconclusive", None),
        0.5: ("won", 0.1),
        1.0: ("won", 0.1),
    }
    assert verdict.margins.smallest_pp is not None
    for step, outcome in ((-1e-6, "inconclusive"), (1e-6, "won")):
        assert judge(USUAL, margin_pp=verdict.margins.smallest_pp + step).outcome == outcome
    assert 0.3 in {point.margin_pp for point in judge(USUAL, margin_pp=0.3).margins.curve}
    superior = judge([level(0.2, ticket=1.2)])
    assert superior.margins.smallest_pp == 0.0
    check = superior.levels[0].accuracy
    assert check is not None
    assert check.p_superior < 1e-6


def test_disagreement_between_the_tests_is_flagged() -> None:
    odd = [0.98 + x / 100 for x in (0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, -6.0)]
    verdict = judge([with_arm(level(0.2), "ticket", odd)])
    check = verdict.levels[0].accuracy
    assert check is not None
    assert (check.passed, check.disagreement()) == (False, ("trimmed mean",))
    begins = (
        "At 20.0 % the t test, which decides, does not show that the ticket matches the dense network (p = "
    )
    (note,) = (w for w in verdict.notes if w.startswith(begins))
    assert "Holm" not in note, "the dense network is compared by a fixed sequence"
    assert ". Two other tests cross-check this: the trimmed-mean test shows it (p " in note
    assert " and the sign-flip test does not show it (p = " in note
    assert "To show it, p must be at most 0.0225. The verdict " in note
    assert any("cannot reach the level 0.0225 with 5" in w for w in judge([level(0.2, n=5)]).notes)


def test_wins_rest_on_the_matches_at_higher_densities_too() -> None:
    """Densities are tested in a fixed sequence: without the match at 80 %, nothing sparser could have been claimed."""

    def level_at(density: float, *, claimed: bool, disagrees: str) -> Any:
        def check(name: str) -> Any:
            found = ("trimmed mean",) if name == disagrees else ()
            about = {"p": 0.01, "p_trimmed": 0.04, "p_sign_flip": 0.01, "test_level": 0.0225, "passed": True}
            reference = name.removeprefix("beats_")
            return SimpleNamespace(**about, reference=reference, disagreement=lambda: found)

        checks = {name: check(name) for name in ("accuracy", "beats_reinit", "beats_random")}
        return SimpleNamespace(density=density, claimed=claimed, **checks)

    levels = [
        level_at(0.8, claimed=False, disagrees="accuracy"),
        level_at(0.64, claimed=False, disagrees="beats_random"),
        level_at(0.2, claimed=True, disagrees="accuracy"),
        level_at(0.1, claimed=False, disagrees="accuracy"),
    ]
    verdict: Any = SimpleNamespace(claimed=(0.2,), levels=levels)
    first, second = disagreements(verdict, bearing=True)
    assert first.startswith("At 80.0 %")
    assert first.endswith("The wins at lower densities rest on this match, too, so they are less certain.")
    assert second.startswith("At 20.0 %")
    assert second.endswith("The verdict stands, but it is less certain at this density.")
    others = disagreements(verdict, bearing=False)
    assert [text[:9] for text in others] == ["At 64.0 %", "At 10.0 %"]
    assert all(text.endswith("so the verdict does not rest on it.") for text in others)


def steps(ticket: Sequence[float | None], dense: Sequence[float | None]) -> Level:
    return dataclasses.replace(
        level(0.2, n=len(ticket)), early_stop_step={"ticket": tuple(ticket), "dense": tuple(dense)}
    )


@pytest.mark.parametrize(
    ("ticket", "dense", "outcome", "p_faster", "ratio"),
    [
        ([100] * 5, [200] * 5, "faster", 1 / 32, 0.5),
        ([200] * 5, [100] * 5, "slower", 1.0, 2.0),
        ([100] * 5, [100] * 5, "as fast", 1.0, 1.0),
        ([None] * 5, [100] * 5, "slower", 1.0, None),
        ([0] * 5, [100] * 5, "slower", 1.0, None),  # never better than its start
        ([None] * 5, [None] * 5, "as fast", 1.0, 1.0),
        ([100] * 4, [200] * 4, None, 1 / 16, 0.5),
        # |log ratio| ranks: the failure 5, four ties of 2.5 below; W+ = 5, and P(W+ ≤ 5) = 7/16 by hand:
        # without the 5: sums of k · 2.5 ≤ 5 for k = 0, 1, 2 (11 of 16), with it k = 0 (1 of 16).
        ([None, 100, 100, 100, 100], [100, 200, 200, 200, 200], "as fast", 12 / 32, 0.5),
    ],
)
def test_time(
    ticket: list[float | None],
    dense: list[float | None],
    outcome: str | None,
    p_faster: float,
    ratio: float | None,
) -> None:
    checks = judge([steps(ticket, dense)], grid=20).levels[0]
    assert checks.time is not None
    assert checks.time.outcome == outcome
    assert checks.time.p_faster == pytest.approx(p_faster)
    assert checks.time.ratio == (None if ratio is None else pytest.approx(ratio))
    document = checks.as_json()
    assert document["time"] == outcome
    assert document["time_detail"] is not None
    assert (
        document["time_detail"]["resolution"]
        == "steps are known to within one evaluation interval of 20 steps"
    )
    json.dumps(document, allow_nan=False)


def test_time_absent_is_none() -> None:
    document = judge([level(0.2)]).levels[0].as_json()
    assert (document["time"], document["time_detail"], document["accuracy_at_early_stop"]) == (
        None,
        None,
        None,
    )


def test_accuracy_at_the_early_stop_is_reported_and_never_decides() -> None:
    bad = {"dense": (0.98,) * 10, "ticket": (0.5,) * 10}
    verdict = judge([dataclasses.replace(level(0.2), accuracy_at_early_stop=bad)])
    check = verdict.levels[0].accuracy_at_early_stop
    assert check is not None
    assert (verdict.outcome, check.passed, check.refuted) == ("won", False, True)


DENSE = tuple(0.98 + w / 100 for w in WIGGLE)


def test_gate() -> None:
    enough = gate(DENSE, tuple(x + 0.001 for x in reversed(DENSE)))
    assert (enough.enough, enough.replicates, enough.failed) == (True, 10, 0)
    assert enough.gain == pytest.approx(0.001)
    assert enough.ci is not None
    # The upper end of the 90 % interval is the one-sided bound at 95 %.
    assert f"gains +0.10 pp, below {100 * enough.ci[1]:+.2f} with 95 % confidence, so" in enough.sentence
    assert "so it was trained enough for a margin of 0.5 pp" in enough.sentence
    short = gate(DENSE, tuple(x + 0.015 for x in DENSE))
    assert short.enough is False
    assert short.ci is not None
    assert (
        f"gains +1.50 pp, above {100 * short.ci[0]:+.2f} with 95 % confidence, so it was not"
        in short.sentence
    )
    assert "so it was not trained enough for a margin of 0.5 pp. Train it longer" in short.sentence
    assert gate(DENSE, tuple(x + 0.004 for x in reversed(DENSE))).enough is None
    open_ = gate(DENSE, [x + 0.004 for x in DENSE[::-1]])
    assert open_.ci is not None
    low, high = (f"{100 * end:+.2f}" for end in open_.ci)
    assert (
        f"gains +0.40 pp, between {low} and {high} with 90 % confidence. That does not show" in open_.sentence
    )
    few = gate(DENSE[:4], DENSE[:4])
    assert few.enough is None
    assert (
        "With fewer than 5 replicates, no interval counts as showing that the gain is below the margin of 0.5 pp"
        in few.sentence
    )
    assert gate((None, *DENSE[1:]), DENSE).enough is None
    lost = gate(DENSE, (None,) * 10)
    assert lost.gain is None
    assert lost.sentence.startswith("No replicate finished both the dense network's training and")
    for one in (enough, short):
        json.dumps(one.as_json(), allow_nan=False)
    with pytest.raises(ValueError, match="10 dense and 9 doubled dense accuracies"):
        gate(DENSE, DENSE[:9])


def test_gains_that_agree_by_chance_are_not_certain() -> None:
    """Six gains of 2 of 450 answers: their sd of 0 is taken for the step, .22 pp, so t(5) = .0556 / (.222 / √6)."""
    dense, doubled = (446 / 450,) * 6, (448 / 450,) * 6
    gain = gate(dense, doubled, test_examples=450)
    assert gain.enough is None
    assert gain.p == pytest.approx(float(stats.t.sf(0.0556 / (0.2222 / math.sqrt(6)), 5)), abs=1e-3)
    assert gain.ci is not None
    assert gain.ci[1] - gain.ci[0] == pytest.approx(2 * 2.015 / 450 / math.sqrt(6), rel=1e-3)
    # Read off the accuracies if the number is not given: 223/225 and 224/225.
    assert gate(dense, doubled).enough is None


def test_the_gate_speaks_in_the_verdict() -> None:
    short = gate(DENSE, tuple(x + 0.015 for x in DENSE))
    verdict = judge(USUAL, trained_enough=short)
    assert verdict.outcome == "won"
    assert verdict.reason.endswith(short.sentence)
    assert short.sentence in verdict.warnings
    fine = judge(USUAL, trained_enough=gate(DENSE, DENSE))
    assert fine.warnings == ()
    assert "We did not check whether the dense network was trained enough" in judge(USUAL).warnings[0]


def test_json_holds_the_documents_keys() -> None:
    verdict = judge(USUAL)
    document = json.loads(json.dumps(verdict.as_json(), allow_nan=False))
    assert {"outcome", "density", "reason", "replicates_needed"} <= set(document)
    assert (document["outcome"], document["density"], document["claimed"]) == ("won", 0.1, [0.4, 0.2, 0.1])
    checks = json.loads(json.dumps(verdict.levels[0].as_json(), allow_nan=False))
    assert {"accuracy", "beats_reinit", "beats_random", "time", "time_detail"} <= set(checks)
    assert {"estimate", "ci", "p", "p_sign_flip", "p_trimmed_mean"} <= set(checks["accuracy"])


def refuse(levels: list[Level], match: str, **options: object) -> None:
    with pytest.raises(ValueError, match=match):
        judge(levels, **options)  # type: ignore[arg-type]


def test_every_bound_is_given_with_the_confidence_of_its_test() -> None:
    """Against dense 1 − .0225; against the controls the level at which Holm's procedure ended, here of 1 and of 5."""
    one, five = judge([level(0.2)]), judge(USUAL)
    assert one.reason.count("with 97.8 % confidence") == 3
    control = five.levels[3].beats_reinit
    assert control is not None
    assert control.test_level == 0.0225  # every level but the densest is beaten: .0225 / 1
    assert confidence(0.045 / 2 / 16) == "99.9 %"
    assert [confidence(level) for level in (0.05, 0.00375, 0.00008)] == ["95 %", "99.6 %", "99.992 %"]
    assert control.bound is not None
    assert f"above {100 * control.bound:+.2f} with 97.8 % confidence)" in five.reason


def test_bad_input_is_refused_with_its_level_and_arm() -> None:
    good = level(0.2)
    refuse([], "0 levels and none of density below 1")
    refuse([Level(1.0, good.accuracy)], "1 levels and none of density below 1")
    refuse([good, good], "density 0.2 is given twice")
    for density in (0.0, -0.1, 1.5, math.nan):
        refuse([Level(density, good.accuracy)], r"is not in \(0, 1\]")
    refuse([Level(0.2, {"dense": (0.9,)})], "level of density 0.2 has no arm ticket; it has dense")
    refuse([Level(0.2, {"dense": (), "ticket": ()})], "no replicates")
    refuse([with_arm(good, "reinit", [0.9] * 9)], "accuracy of arm reinit has 9 values for 10 replicates")
    refuse([good, level(0.1, n=9)], "level of density 0.1: accuracy of arm dense has 9 values for 10")
    refuse([with_arm(good, "reinit", [98.0] * 10)], "arm reinit holds 98.0; accuracies are fractions")
    refuse([with_arm(good, "reinit", [math.nan] * 10)], "arm reinit holds nan")
    refuse([with_arm(good, "shuffle", [0.9] * 10)], "unknown arm 'shuffle'")
    for margin in (0, -1, math.nan, 101):
        refuse([good], "margin .* pp is not above 0", margin_pp=margin)
    for alpha in (0, 0.5, 1, math.nan):
        refuse([good], "alpha .* is not between 0 and 0.5", alpha=alpha)
    refuse([good], "evaluation grid of 0 steps", grid=0)
    refuse([good], "0 test examples", test_examples=0)
    for rate in (0.0, 1.5, math.nan):
        refuse([good], "commonest class's rate is", commonest=rate)
    lossy = dataclasses.replace(good, train_loss={"dense": (math.inf,) * 10})
    refuse([lossy], "train_loss of arm dense holds inf")
    refuse([good], "unknown arms expected: rand", arms_expected=["rand"])


def test_verdict_is_frozen() -> None:
    verdict: Verdict = judge(USUAL)
    with pytest.raises(dataclasses.FrozenInstanceError):
        verdict.outcome = "not won"  # type: ignore[misc]


def test_a_small_advantage_that_is_shown_is_not_refuted() -> None:
    # +.25 ± .22 over re-init: above 0 and below the margin. Superiority counts, so only matching is open.
    verdict = judge([level(0.2, ticket=-0.45, reinit=0.25)])
    check = verdict.levels[0].beats_reinit
    assert check is not None
    assert (check.passed, check.refuted, verdict.levels[0].refuted) == (True, False, False)
    assert verdict.outcome == "inconclusive"


def test_smallest_margin_covers_the_way_down() -> None:
    verdict = judge([level(0.8, ticket=0.1, reinit=0.0), level(0.4, ticket=-0.1)])
    assert verdict.margins.smallest_pp == pytest.approx(0.3254, abs=1e-4)


def test_neighbouring_densities_are_written_as_a_range() -> None:
    open_ = judge([level(d, reinit=0.004) for d in (0.8, 0.6, 0.5, 0.2)])
    assert open_.reason == " ".join(open_.sentences)
    won = judge([level(d) for d in (0.8, 0.6, 0.5, 0.2)])
    assert won.outcome == "won"
    assert "The tickets at 80.0 to 50.0 % win as well." in won.sentences
