"""Numbers by hand, by enumeration and by scipy for every test the verdict stands on."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from winticket.judge.statistics import (
    hodges_lehmann,
    mean_interval,
    power,
    replicates_for,
    sign_flip_p,
    signed_rank,
    t_test,
    trimmed_p,
)

SAMPLE = np.array([0.9, 2.1, -0.3, 1.4, 0.2, 3.0, 1.1, -0.8])


@pytest.mark.parametrize(("effect", "replicates"), [(0.5, 27), (0.75, 13), (1.0, 8), (1.5, 5), (2.0, 4)])
def test_published_replicates_for_80_percent_power(effect: float, replicates: int) -> None:
    assert replicates_for(effect, alpha=0.05) == replicates
    assert power(effect, replicates) >= 0.8 > power(effect, replicates - 1)


@pytest.mark.parametrize("effect", [0.5, 1.0, 2.0])
def test_power_by_simulation(effect: float) -> None:
    n = replicates_for(effect)
    assert n is not None
    draws = effect + np.random.default_rng(1).standard_normal((20_000, n))
    share = float((t_test(draws, null=0.0).p_greater <= 0.05).mean())
    # Four Monte-Carlo standard errors of a share near .8 in 20 000 draws.
    assert share == pytest.approx(power(effect, n), abs=4 * math.sqrt(0.16 / 20_000))


def test_no_number_of_replicates_helps_without_an_effect() -> None:
    assert replicates_for(0.0) is None
    assert replicates_for(-1.0) is None
    assert replicates_for(math.nan) is None
    assert replicates_for(1e-3) is None  # (1.645 + 0.842)² / 1e-6 is six million
    assert replicates_for(math.inf, alpha=0.025) == 6  # 2⁻⁶ is the first below .025


@pytest.mark.parametrize("null", [-0.5, 0.0, 1.0])
def test_t_is_scipys(null: float) -> None:
    ours = t_test(SAMPLE, null=null)
    assert ours.p_greater == pytest.approx(stats.ttest_1samp(SAMPLE, null, alternative="greater").pvalue)
    assert ours.p_less == pytest.approx(stats.ttest_1samp(SAMPLE, null, alternative="less").pvalue)


def test_t_takes_leading_axes_and_keeps_missing_rows_missing() -> None:
    stacked = np.stack([SAMPLE, SAMPLE - 1, np.full(8, np.nan)])
    p = t_test(stacked, null=0.0).p_greater
    assert p[0] == t_test(SAMPLE, null=0.0).p_greater
    assert p[1] == t_test(SAMPLE - 1, null=0.0).p_greater
    assert np.isnan(p[2])


@pytest.mark.parametrize(
    ("value", "greater", "less"), [(0.01, 2**-6, 1.0), (0.0, 1.0, 1.0), (-0.01, 1.0, 2**-6)]
)
def test_no_variance_falls_back_to_the_sign_flip(value: float, greater: float, less: float) -> None:
    same = np.full(6, value)
    test = t_test(same, null=0.0)
    assert (float(test.p_greater), float(test.p_less)) == (greater, less)
    assert trimmed_p(same, null=0.0) == greater
    assert sign_flip_p(same, null=0.0) == greater


def test_rounding_in_a_subtraction_is_no_variance() -> None:
    same = np.array([0.9, 0.7, 0.3, 0.1]) - np.array([0.905, 0.705, 0.305, 0.105])
    assert len(set(same.tolist())) > 1
    test = t_test(same, null=-0.005)
    assert (float(test.sd), float(test.p_greater), float(test.p_less)) == (0.0, 1.0, 1.0)


def test_sign_flip_by_hand() -> None:
    # Of the 8 sign choices of (1, 2, 3), sums ≥ 4 are +6 and +4 (−1 +2 +3).
    assert sign_flip_p(np.array([-1.0, 2.0, 3.0]), null=0.0) == 2 / 8
    assert sign_flip_p(np.array([1.0, 2.0, 3.0]), null=0.0) == 1 / 8
    assert sign_flip_p(np.array([2.0, 3.0, 4.0]), null=1.0) == 1 / 8


@pytest.mark.parametrize("n", [16, 17])
def test_sign_flip_is_scipys_permutation_test(n: int) -> None:
    values = np.random.default_rng(n).standard_normal(n) + 0.4
    reference = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", alternative="greater", n_resamples=2**n
    ).pvalue
    # Beyond 16 the 100 000 draws leave four standard errors of at most .0064.
    tolerance = 1e-12 if n == 16 else 4 * math.sqrt(reference * (1 - reference) / 100_000)
    assert sign_flip_p(values, null=0.0) == pytest.approx(reference, abs=tolerance)
    assert sign_flip_p(values, null=0.0) == sign_flip_p(values, null=0.0)


def test_sign_flip_leaves_the_global_generator_alone() -> None:
    np.random.seed(3)  # noqa: NPY002 - the global state is what is looked at
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    sign_flip_p(np.arange(20.0), null=0.0)
    assert np.random.random() == expected  # noqa: NPY002


def test_trimmed_mean_by_hand() -> None:
    # n = 5, g = 1: kept 1, 2, 3; winsorised 1, 1, 2, 3, 3 with sd 1; t = 2 · .6 · √5 / 1 on 2 degrees.
    p = trimmed_p(np.array([100.0, 2.0, 1.0, -50.0, 3.0]), null=0.0)
    assert p == pytest.approx(stats.t.sf(2 * 0.6 * math.sqrt(5), 2))


def test_trimmed_mean_is_scipys_interval_turned_round() -> None:
    values = np.random.default_rng(0).standard_normal(20)
    low, _ = stats.mstats.trimmed_mean_ci(values, limits=(0.2, 0.2), alpha=0.05)
    # At the lower end of the two-sided 95 % interval the one-sided p-value is .025.
    assert trimmed_p(values, null=float(low)) == pytest.approx(0.025, abs=1e-9)


def test_signed_rank_is_scipys_without_ties() -> None:
    ours = signed_rank(SAMPLE)
    assert ours.p_greater == pytest.approx(
        stats.wilcoxon(SAMPLE, alternative="greater", method="exact").pvalue
    )
    assert ours.p_less == pytest.approx(stats.wilcoxon(SAMPLE, alternative="less", method="exact").pvalue)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.sampled_from([-math.inf, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, math.inf]), min_size=1, max_size=8)
)
def test_signed_rank_is_the_enumeration_with_ties_zeros_and_failures(values: list[float]) -> None:
    ours = signed_rank(np.array(values))
    ranks = stats.rankdata(np.abs(values))
    nonzero = [r for r, v in zip(ranks, values, strict=True) if v != 0]
    observed = sum(r for r, v in zip(ranks, values, strict=True) if v > 0)
    sums = [
        sum(r for r, up in zip(nonzero, signs, strict=True) if up)
        for signs in itertools.product([False, True], repeat=len(nonzero))
    ]
    assert ours.p_greater == pytest.approx(np.mean([s >= observed for s in sums]))
    assert ours.p_less == pytest.approx(np.mean([s <= observed for s in sums]))


def test_signed_rank_counts_zeros_by_pratt() -> None:
    # The zero takes rank 1, then 2, 3, 4, all positive: one of 8 sign choices, as if the zero were dropped.
    assert signed_rank(np.array([0.0, 1.0, 2.0, 3.0])).p_greater == 1 / 8
    # Here it differs: with the zeros ranked, 3 4 5 6 and the −: W+ = 15, sums ≥ 15 are {3456, 456}.
    assert signed_rank(np.array([0.0, 0.0, -1.0, 2.0, 3.0, 4.0])).p_greater == 2 / 16
    nothing = signed_rank(np.zeros(5))
    assert (nothing.p_greater, nothing.p_less, nothing.zeros) == (1.0, 1.0, 5)


def test_hodges_lehmann_by_hand_and_with_failures() -> None:
    # Walsh averages of 1, 2, 6: 1, 1.5, 2, 3.5, 4, 6.
    assert hodges_lehmann(np.array([6.0, 1.0, 2.0])) == (2.75, None)
    centre, interval = hodges_lehmann(np.array([math.inf, 1.0, 2.0, 3.0, -math.inf]))
    assert (centre, interval) == (2.0, None)
    # n = 6: the only ends whose coverage reaches 95 % are the extremes (1 − 2/64 = 96.9 %).
    assert hodges_lehmann(np.arange(1.0, 7.0)) == (3.5, (1.0, 6.0))


def test_mean_interval_by_hand_and_of_finished_runs_only() -> None:
    # Mean 2, sd 1, t(.975; 2) = 4.302653, / √3.
    expected = (2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3))
    assert mean_interval([1.0, 2.0, 3.0]) == pytest.approx(expected, abs=1e-6)
    assert mean_interval([1.0, None, 2.0, 3.0]) == mean_interval([1.0, 2.0, 3.0])
    assert mean_interval([1.0, None]) is None
    assert mean_interval([]) is None
    assert mean_interval([0.5, 0.5]) == (0.5, 0.5)
    with pytest.raises(ValueError, match="interval level 95 is not between 0 and 1"):
        mean_interval([1.0, 2.0], level=95)
