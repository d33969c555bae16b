"""Steps to an accuracy: medians, intervals, ratios and tests, by hand and by scipy."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats

from winticket.judge import Pace, pace_against_dense, uninformative_early_stop

Steps = Sequence[int | None]
DENSE = (20, 30, 40, 50, 60, 70, 80, 90, 100, 110)


def pace(
    steps: Steps, dense: Steps = DENSE, has_target: Sequence[bool] | None = None, **options: Any
) -> Pace:
    targets = [True] * len(steps) if has_target is None else has_target
    return pace_against_dense(steps, dense, fraction=0.95, alpha=0.05, has_target=targets, **options)


@pytest.mark.parametrize(
    ("steps", "outcome", "ratio", "p_sooner"),
    [
        ([s // 2 for s in DENSE], "sooner", 0.5, 1 / 1024),
        ([2 * s for s in DENSE], "later", 2.0, 1.0),
        (DENSE, "alike", 1.0, 1.0),
        ([None] * 10, "later", None, 1.0),
        ([0] * 10, "sooner", 0.0, 1 / 1024),
    ],
)
def test_sooner_alike_and_later(steps: Steps, outcome: str, ratio: float | None, p_sooner: float) -> None:
    result = pace(steps)
    assert result.outcome == outcome
    assert result.ratio == (None if ratio is None else pytest.approx(ratio))
    assert result.p_sooner == pytest.approx(p_sooner)
    json.dumps(result.as_json(), allow_nan=False)


def test_trainings_that_never_get_there_rank_last_and_are_counted() -> None:
    """Four of ten half as soon and six never: behind all others, so later, whatever the four did."""
    some = pace([10, 15, 20, 25, None, None, None, None, None, None])
    assert (some.never, some.outcome, some.median) == (6, "later", None)
    # Ranks of |log ratio|: four ties below, of mean rank 2.5; six ties above, of 7.5. W+ = 45. The chance that the
    # sum is at least 45 under random signs, by listing all of them:
    sums = [sum(r for r, s in zip([2.5] * 4 + [7.5] * 6, signs, strict=True) if s) for signs in
            itertools.product((0, 1), repeat=10)]  # fmt: skip
    assert some.p_later == pytest.approx(sum(s >= 45 for s in sums) / 1024)
    one = pace([10, 15, 20, 25, 30, 35, 40, 45, 50, None])
    assert (one.never, one.outcome) == (1, "sooner")
    assert one.ratio == pytest.approx(0.5)


@pytest.mark.parametrize("seed", range(5))
def test_p_values_are_scipys(seed: int) -> None:
    """Without ties or zeros, the exact test of another implementation."""
    noise = np.random.default_rng(seed)
    ours = [int(s) for s in noise.choice(np.arange(10, 400), 10, replace=False)]
    result = pace(ours)
    logs = np.log(np.array(ours) / np.array(DENSE))
    assert result.p_sooner == pytest.approx(stats.wilcoxon(logs, alternative="less", method="exact").pvalue)
    assert result.p_later == pytest.approx(stats.wilcoxon(logs, alternative="greater", method="exact").pvalue)


def test_the_median_and_its_interval_by_hand() -> None:
    # P(Binomial(10, 1/2) <= 1) = 11/1024 <= .025 < 56/1024 = P(<= 2): the second and the ninth of ten values.
    result = pace(DENSE, itself=True)
    assert (result.median, result.ci) == (65, (30, 100))
    parts = result.as_json()
    assert {parts[name] for name in ("outcome", "ratio", "ratio_ci", "p_sooner", "p_later", "ties")} == {None}
    # Of six, 1/64 <= .025: the first and the last; of five, 1/32 is more, and there is no interval.
    assert pace(DENSE[:6], DENSE[:6], itself=True).ci == (20, 70)
    assert pace(DENSE[:5], DENSE[:5], itself=True).ci is None


def test_the_medians_interval_covers_in_19_of_20() -> None:
    """By simulation, a skewed distribution of median 1; the exact chance for n = 10 is 1 - 2 · 11/1024 = .9785."""
    noise = np.random.default_rng(0)
    hits = 0
    for _ in range(2000):
        steps = [int(s) for s in 1000 * np.exp(noise.standard_normal(10))]
        ends = pace(steps, steps, itself=True).ci
        assert ends is not None
        assert ends[1] is not None
        hits += ends[0] <= 1000 <= ends[1]
    assert abs(hits / 2000 - 0.9785) < 0.012  # three and a half standard errors


def test_intervals_that_nothing_bounds_have_no_upper_end() -> None:
    result = pace([40, 60, 80, 100, 120, 140, 160, None, None, None])
    document = result.as_json()
    assert (document["median"], document["ci"]) == (130, [60, None])
    assert document["ratio_ci"] == [pytest.approx(2.0), None]
    most = pace([20, *[None] * 9])
    assert (most.median, most.ci) == (None, None)


def test_a_replicate_without_a_target_is_a_tie_and_never_counted() -> None:
    """Its dense network failed, so what was to be reached is not known."""
    dense = [None, *DENSE[1:]]
    has_target = [False, *[True] * 9]
    result = pace([None, *(s // 2 for s in DENSE[1:])], dense, has_target)
    assert (result.never, result.ties, result.outcome) == (0, 1, "sooner")
    # Pratt: the zero takes rank 1 and leaves; nine signs are left.
    assert result.p_sooner == pytest.approx(1 / 512)
    assert pace([None] * 10, [None] * 10, [False] * 10).outcome == "alike"


def test_a_dense_network_that_misses_its_own_target_loses() -> None:
    result = pace([10] * 10, [None] * 10)
    assert (result.outcome, result.ratio) == ("sooner", 0.0)


def test_under_five_replicates_nothing_is_called() -> None:
    result = pace([1, 1, 1, 1], [100] * 4)
    assert (result.outcome, result.median, result.ci) == (None, 1, None)
    assert result.p_sooner == 1 / 16


def test_trainings_are_paired() -> None:
    with pytest.raises(ValueError, match="3 trainings, 10 dense networks and 3 targets"):
        pace([1, 2, 3])


@pytest.mark.parametrize(
    ("ticket", "dense", "begins"),
    [
        ([800] * 6 + [400] * 4, [300] * 10, "not compared: in 6 of 10 trainings of the ticket"),
        ([800] * 5 + [400] * 5, [300] * 10, None),  # half is not most
        ([400] * 10, [800] * 10, "not compared: in 10 of 10 trainings of the dense network"),
        ([800, 800, *[None] * 8], [300] * 10, "not compared: in 2 of 2 trainings of the ticket"),
        ([None] * 10, [None] * 10, None),
    ],
)
def test_early_stops_at_the_end_of_training_say_nothing_about_speed(
    ticket: Steps, dense: Steps, begins: str | None
) -> None:
    reason = uninformative_early_stop({"ticket": ticket, "dense": dense, "reinit": [800] * 10}, 800)
    assert reason is None if begins is None else reason is not None and reason.startswith(begins)


def test_infinite_ratios_never_reach_the_document() -> None:
    for ours, theirs in itertools.product((0, 5, None), repeat=2):
        text = json.dumps(pace([ours] * 6, [theirs] * 6).as_json(), allow_nan=False)
        assert str(math.inf) not in text
