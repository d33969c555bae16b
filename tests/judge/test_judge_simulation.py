"""The verdict's own error rates, on whole experiments whose truth is known."""

from __future__ import annotations

import math

import pytest

from winticket.judge import judge
from winticket.judge.looks import share
from winticket.judge.sequences import _together
from winticket.judge.simulate import (
    DIGITS,
    Noise,
    Scenario,
    as_levels,
    boundary_truths,
    decisions,
    draw,
    rates,
    truth,
)
from winticket.judge.statistics import power, replicates_for

DENSITIES = tuple(0.8**k for k in range(1, 13))
NULLS = boundary_truths(len(DENSITIES))
NONE = (0.0,) * 12


def false_wins(null: str, *, noise: Noise, correlation: float, replicates: int, experiments: int) -> float:
    scenario = Scenario(DENSITIES, NULLS[null], correlation=correlation, noise=noise)
    return rates(scenario, replicates=replicates, experiments=experiments, seed=11).false_win


def allowed(experiments: int) -> float:
    """5 % and three Monte-Carlo standard errors."""
    return 0.05 + 3 * math.sqrt(0.05 * 0.95 / experiments)


@pytest.mark.parametrize("noise", ["normal", "t3"])
@pytest.mark.parametrize("null", NULLS)
def test_false_wins_stay_under_five_percent(null: str, noise: Noise) -> None:
    result = false_wins(null, noise=noise, correlation=0.5, replicates=8, experiments=4000)
    assert result <= allowed(4000)


@pytest.mark.parametrize("lead", [0.05, 0.2, 1.0])
@pytest.mark.parametrize("replicates", [5, 10, 30])
def test_a_true_winner_is_not_denied(lead: float, replicates: int) -> None:
    """However small the lead over the controls: a refutation needs the ticket to be shown below one, at alpha/2."""
    every = truth(ticket=NONE, over_reinit=(lead,) * 12, over_random=(lead,) * 12)
    for scenario in (
        Scenario(DENSITIES, every),
        Scenario(DENSITIES[:1], {arm: mean[:1] for arm, mean in every.items()}),
    ):
        assert scenario.winners(margin=0.005).all()
        result = rates(scenario, replicates=replicates, experiments=4000, seed=3)
        assert result.false_not_won <= allowed(4000)


def test_the_bound_is_used_not_wasted() -> None:
    result = false_wins(
        "trivial above, inferior below", noise="normal", correlation=0.5, replicates=10, experiments=4000
    )
    assert result >= 0.03


def test_the_simulation_judges_as_judge_does() -> None:
    scenario = Scenario(
        DENSITIES,
        truth(
            ticket=tuple(0.2 - 0.1 * k for k in range(12)),
            over_reinit=tuple(0.08 * k for k in range(12)),
            over_random=tuple(0.1 * k for k in range(12)),
        ),
    )
    drawn = draw(scenario, replicates=7, experiments=40, seed=5)
    claimed = decisions(drawn, margin_pp=0.5, alpha=0.05 * share(1)).claimed
    assert 0 < claimed.any(axis=-1).sum() < 40
    for i in range(40):
        verdict = judge(as_levels(scenario, drawn, i))
        expected = tuple(d for d, won in zip(DENSITIES, claimed[i], strict=True) if won)
        assert verdict.claimed == expected
        assert verdict.outcome == "won" if expected else verdict.outcome != "won"


def single(effect: float, noise: Noise = "normal") -> Scenario:
    """One level, truly equal to dense, δ = .5 pp, far above its controls."""
    accuracy = truth(ticket=(0.0,), over_reinit=(5.0,), over_random=(5.0,))
    return Scenario((0.2,), accuracy, sd_pp=0.5 / effect, noise=noise)


@pytest.mark.parametrize(("effect", "replicates"), [(0.5, 27), (0.75, 13), (1.0, 8), (1.5, 5)])
def test_whole_experiments_have_the_published_power(effect: float, replicates: int) -> None:
    # The table is for one test at .05, which each check gets here. Under 5 replicates none wins.
    alpha = 0.1 / share(1)
    result = rates(single(effect), replicates=replicates, experiments=4000, seed=2, alpha=alpha)
    assert result.win == pytest.approx(power(effect, replicates), abs=4 * math.sqrt(0.16 / 4000))
    assert rates(single(4.0), replicates=4, experiments=100, seed=2, alpha=0.1).win == 0


def test_replicates_needed_give_their_power_at_the_level_used() -> None:
    n = replicates_for(1.0, alpha=0.025)
    assert n == 10
    result = rates(single(1.0), replicates=n, experiments=4000, seed=3, alpha=0.05 / share(1))
    assert result.win >= 0.8 - 3 * math.sqrt(0.16 / 4000)


def test_digits_is_won_at_density_012_or_less() -> None:
    drawn = draw(DIGITS, replicates=10, experiments=4000, seed=1)
    claimed = decisions(drawn, margin_pp=0.5, alpha=0.05 * share(1)).claimed
    small = claimed[:, [d <= 0.12 for d in DIGITS.densities]].any(axis=-1)
    assert small.mean() >= 0.99
    result = rates(DIGITS, replicates=10, experiments=4000, seed=1)
    by_density = dict(zip(DIGITS.densities, result.claimed, strict=True))
    assert by_density[0.09] >= 0.95
    assert by_density[0.031] <= 0.01  # 1 pp below dense


LOOKS = (5, 10, 15, 20, 25, 30)


@pytest.mark.parametrize("null", ["ticket at minus the margin", "trivial above, inferior below"])
def test_looking_again_spends_no_more_than_five_percent(null: str) -> None:
    """At the same level at every look, six looks take 16 %."""
    scenario = Scenario(DENSITIES[:6], boundary_truths(6)[null])
    result = rates(scenario, replicates=LOOKS, experiments=4000, seed=7)
    assert result.false_win <= allowed(4000)
    drawn = draw(scenario, replicates=30, experiments=4000, seed=7)
    careless = [
        decisions({a: v[..., :n] for a, v in drawn.items()}, margin_pp=0.5, alpha=0.05).claimed.any(axis=-1)
        for n in LOOKS
    ]
    assert (careless[0] | careless[1] | careless[2] | careless[3] | careless[4] | careless[5]).mean() > 0.06


@pytest.mark.parametrize("test_examples", [100, 450])
@pytest.mark.parametrize("noise", ["normal", "sampled"])
def test_coarse_test_sets_keep_the_level(noise: Noise, test_examples: int) -> None:
    accuracy = boundary_truths(6)["trivial above, inferior below"]
    scenario = Scenario(DENSITIES[:6], accuracy, sd_pp=0.15, noise=noise)
    for n in (5, 8):
        result = rates(scenario, replicates=n, experiments=3000, seed=n, test_examples=test_examples)
        assert result.false_win <= allowed(3000)


def test_a_collapsing_level_costs_next_to_nothing() -> None:
    means = {arm: (*mean, 0.9842 if arm == "dense" else 0.15) for arm, mean in DIGITS.accuracy.items()}
    collapsing = Scenario((*DIGITS.densities, 0.02), means)
    for n in (5, 10):
        without, with_one = (
            rates(scenario, replicates=n, experiments=4000, seed=n).win for scenario in (DIGITS, collapsing)
        )
        assert with_one >= without - 0.05


def test_rare_collapses_are_beyond_any_test_of_means() -> None:
    """One ticket in twenty falls by ten points, so the mean is at the margin; five replicates mostly see none."""
    every = Scenario((0.2,), truth(ticket=(0.0,), over_reinit=(2.0,), over_random=(2.0,)), collapse=0.05)
    assert not every.winners(margin=0.005).any()
    five, twenty = (rates(every, replicates=n, experiments=4000, seed=4).false_win for n in (5, 20))
    assert 0.5 < five < 0.8  # 0.95⁵ = .77 see none
    assert twenty < 0.36 + 3 * math.sqrt(0.25 / 4000)  # 0.95²⁰ = .36


@pytest.mark.evidence
@pytest.mark.parametrize("noise", ["normal", "t3"])
@pytest.mark.parametrize("replicates", [5, 10, 20])
@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.95])
@pytest.mark.parametrize("null", NULLS)
def test_false_wins_over_many_truths(null: str, correlation: float, replicates: int, noise: Noise) -> None:
    result = false_wins(null, noise=noise, correlation=correlation, replicates=replicates, experiments=10_000)
    assert result <= allowed(10_000)


@pytest.mark.evidence
@pytest.mark.parametrize("null", NULLS)
def test_a_skewed_ticket_costs_a_bounded_part_of_the_level(null: str) -> None:
    # Known limit: an exponential lower tail in the ticket alone makes .05 about .07.
    result = false_wins(null, noise="skewed", correlation=0.5, replicates=10, experiments=10_000)
    assert result <= 0.08


def test_all_checks_of_a_way_pass_together() -> None:
    """Three checks at one level, each a standard deviation from its boundary: ten give each 80 %, more give all."""
    effects = [1.0, 1.0, 1.0]
    n = _together([(effect, 0.025) for effect in effects], {})
    assert n is not None
    assert n > 10
    lost = [sum(1 - power(e, k, alpha=0.025) for e in effects) for k in (n - 1, n)]
    assert lost[1] <= 0.2 < lost[0]
    every = Scenario((0.5,), truth(ticket=(0.0,), over_reinit=(0.5,), over_random=(0.5,)), sd_pp=0.5)
    won = rates(every, replicates=n, experiments=4000, seed=5, alpha=0.05 / share(1)).win
    assert won >= 0.8 - 3 * math.sqrt(0.16 / 4000)
    assert _together([(1.0, 0.025), (0.0, 0.025)], {}) is None
    assert _together([(math.inf, 0.025), (math.inf, 0.025)], {}) == 6  # 2⁻⁶ < .025
