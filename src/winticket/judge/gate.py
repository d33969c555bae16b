"""The gate before any verdict: was the dense network trained enough to be a fair reference?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from winticket.judge.checks import MIN_REPLICATES, TrainedEnough, differences, finished
from winticket.judge.coarse import accuracy_step
from winticket.judge.statistics import mean_interval, t_test


def gate(
    dense: Sequence[float | None],
    dense_doubled: Sequence[float | None],
    margin_pp: float = 0.5,
    *,
    alpha: float = 0.05,
    test_examples: int | None = None,
) -> TrainedEnough:
    """Does training the dense network for twice the steps gain less than the margin?

    dense, dense_doubled: accuracies (fractions), paired by replicate, None = failed. A one-sided t test at `alpha`
    decides: trained enough if the gain is shown to be below `margin_pp` (percentage points), not enough if it is
    shown to be above. Otherwise, and always with fewer than 5 replicates, the question stays open. A failed dense
    training counts as accuracy 0. A failed doubled one counts as 1 in the test that shows the claim and as 0 in the
    test that refutes it. test_examples: as in `judge`.

    Raises ValueError if the sequences differ in length or are empty, or if `margin_pp` or `alpha` is out of range.

    >>> from winticket.judge import gate
    >>> gate((0.97, 0.98, 0.97, 0.98, 0.97), (0.97, 0.98, 0.97, 0.98, 0.97), test_examples=1000).sentence[-48:]
    'so it was trained enough for a margin of 0.5 pp.'
    """
    n = len(dense)
    if n == 0 or n != len(dense_doubled):
        raise ValueError(
            f"{n} dense and {len(dense_doubled)} doubled dense accuracies; give one pair per replicate, "
            "with None for a failed training"
        )
    require_margin_and_alpha(margin_pp, alpha)
    step = accuracy_step((dense, dense_doubled), test_examples=test_examples)
    p, enough = _below(dense, dense_doubled, margin=margin_pp / 100, alpha=alpha, step=step)
    gains = finished(dense_doubled, dense)
    gain = float(np.mean(gains)) if gains else None
    ci = mean_interval(gains, level=1 - 2 * alpha, floor=step)
    sentence = _measured(gain, ci, alpha, enough) + _concluded(enough, n, margin_pp)
    return TrainedEnough(enough, gain, ci, n, n - len(gains), margin_pp, alpha, p, sentence)


def _below(
    dense: Sequence[float | None],
    dense_doubled: Sequence[float | None],
    *,
    margin: float,
    alpha: float,
    step: float,
) -> tuple[float, bool | None]:
    """p of the test that the gain is below the margin, and the answer: None if neither is shown."""
    worst, best = (differences(dense, dense_doubled, worst_for_ours=ours) for ours in (True, False))
    p = float(t_test(worst, null=-margin, floor=step).p_greater)
    p_above = float(t_test(best, null=-margin, floor=step).p_less)
    if len(dense) < MIN_REPLICATES:
        return p, None
    return p, True if p <= alpha else False if p_above <= alpha else None


def _measured(gain: float | None, ci: tuple[float, float] | None, alpha: float, enough: bool | None) -> str:
    """The gain, with the end of its interval that the answer rests on; with both ends if there is no answer."""
    if gain is None:
        return "No replicate finished both the dense network's training and the one of twice the steps"
    sentence = f"Training the dense network for twice the steps gains {points(gain)}"
    if ci is None:
        return sentence
    low, high = map(_signed, ci)
    if enough is None:
        return f"{sentence}, between {low} and {high} with {100 - 200 * alpha:g} % confidence"
    bound = f"below {high}" if enough else f"above {low}"
    return f"{sentence}, {bound} with {confidence(alpha)} confidence"


def _concluded(enough: bool | None, replicates: int, margin_pp: float) -> str:
    if replicates < MIN_REPLICATES:
        return (
            f". With fewer than {MIN_REPLICATES} replicates, no interval counts as showing that the gain is below the "
            f"margin of {margin_pp:g} pp, so it is open whether the network was trained enough."
        )
    if enough is None:
        return (
            f". That does not show that the gain is below the margin of {margin_pp:g} pp, so the dense network may "
            "not have been trained enough."
        )
    if enough:
        return f", so it was trained enough for a margin of {margin_pp:g} pp."
    return f", so it was not trained enough for a margin of {margin_pp:g} pp. Train it longer before judging tickets."


def require_margin_and_alpha(margin_pp: float, alpha: float) -> None:
    if not 0 < margin_pp <= 100:
        raise ValueError(
            f"margin {margin_pp} pp is not above 0 and at most 100 percentage points; 0.5 is usual"
        )
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha {alpha} is not between 0 and 0.5; 0.05 is usual")


def points(fraction: float) -> str:
    """A difference of accuracies in percentage points, signed."""
    return f"{_signed(fraction)} pp"


def confidence(level: float) -> str:
    """The confidence of a one-sided bound, with as many digits as tell it from 100 %.

    >>> [confidence(level) for level in (0.05, 0.0225, 0.00375, 0.00008)]
    ['95 %', '97.8 %', '99.6 %', '99.992 %']
    """
    digits = max(1, math.ceil(-math.log10(100 * level)))
    return f"{round(100 * (1 - level), digits):.12g} %"


def _signed(fraction: float) -> str:
    return f"{round(100 * fraction, 2) + 0.0:+.2f}"  # + 0.0 turns a rounded -0.0 into 0.0
