"""The gate before any verdict: was the dense network trained enough to be a fair reference?"""

from __future__ import annotations

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
    """Does doubling the training budget gain the dense network less than the margin?

    dense, dense_doubled: accuracies as fractions, paired by replicate, None = failed. Enough when the gain is
    shown below margin_pp (percentage points) by a one-sided t test at `alpha`; not enough when it is shown
    above; open otherwise, and always under 5 replicates. A failed dense run scores 0 and a failed doubled run
    1 against the claim, and 0 for it. test_examples: as in `judge`.

    Raises ValueError if the sequences differ in length or are empty, or margin or alpha are out of range.
    """
    n = len(dense)
    if n == 0 or n != len(dense_doubled):
        raise ValueError(
            f"{n} dense and {len(dense_doubled)} doubled dense accuracies; give one pair per replicate, "
            "with None for a failed run"
        )
    require_margin_and_alpha(margin_pp, alpha)
    margin = margin_pp / 100
    step = accuracy_step((dense, dense_doubled), test_examples=test_examples)
    worst, best = (differences(dense, dense_doubled, worst_for_ours=ours) for ours in (True, False))
    p = float(t_test(worst, null=-margin, floor=step).p_greater)
    below = float(t_test(best, null=-margin, floor=step).p_less)
    enough: bool | None = None
    if n >= MIN_REPLICATES:
        enough = True if p <= alpha else False if below <= alpha else None
    gains = finished(dense_doubled, dense)
    gain = float(np.mean(gains)) if gains else None
    ci = mean_interval(gains, level=1 - 2 * alpha, floor=step)
    between = "" if ci is None else f" ({100 - 200 * alpha:g} % interval {interval(ci)})"
    found = "" if gain is None else f" gains {points(gain)}{between}"
    ending = {
        True: f": trained enough for a margin of {margin_pp:g} pp",
        False: f": not trained enough for a margin of {margin_pp:g} pp. Train longer before judging tickets",
        None: f". That does not show that the gain is below the margin of {margin_pp:g} pp, so the dense network may "
        "not be trained enough",
    }[enough]
    if n < MIN_REPLICATES:
        ending = (
            f". With fewer than {MIN_REPLICATES} replicates no interval counts as showing that the gain is below the "
            f"margin of {margin_pp:g} pp, that is, that the network was trained enough"
        )
    return TrainedEnough(
        enough=enough,
        gain=gain,
        ci=ci,
        replicates=n,
        failed=n - len(gains),
        margin_pp=margin_pp,
        alpha=alpha,
        p=p,
        sentence=f"Doubling the dense network's training{found or ' left no finished pair'}{ending}.",
    )


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


def interval(ci: tuple[float, float]) -> str:
    return f"{_signed(ci[0])} to {_signed(ci[1])}"


def _signed(fraction: float) -> str:
    return f"{round(100 * fraction, 2) + 0.0:+.2f}"  # + 0.0 turns a rounded -0.0 into 0.0
