"""The gate before any verdict: was the dense network trained enough to be a fair reference?"""

from __future__ import annotations

import math

import numpy as np

from winticket.judge.checks import MIN_REPLICATES, TrainedEnough, differences, finished
from winticket.judge.coarse import accuracy_step
from winticket.judge.frame import Frame, Margin, Values, contrast, frame_of
from winticket.judge.ratio import ratio_limit
from winticket.judge.statistics import Array, mean_interval, t_test
from winticket.judge.words import Words, confidence
from winticket.objective import ACCURACY, Scale

__all__ = ["confidence", "gate", "require_margin_and_alpha"]


def gate(
    dense: Values,
    dense_doubled: Values,
    margin_pp: float = 0.5,
    *,
    alpha: float = 0.05,
    test_examples: int | None = None,
    scale: Scale = ACCURACY,
    relative: bool = False,
    constant: float | None = None,
) -> TrainedEnough:
    """Does training the dense network for twice the steps gain less than the margin?

    dense, dense_doubled: accuracies (fractions), paired by replicate, None = failed. A one-sided t test at `alpha`
    decides: trained enough if the gain is shown to be below `margin_pp` (percentage points), not enough if it is
    shown to be above. Otherwise, and always with fewer than 5 replicates, the question stays open. A failed dense
    training counts as accuracy 0. A failed doubled one counts as 1 in the test that shows the claim and as 0 in the
    test that refutes it. test_examples, scale, relative, constant: as in `judge`.

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
    require_margin_and_alpha(margin_pp, alpha, scale, relative=relative)
    if relative and any(value is not None and value < 0 for value in dense):
        raise ValueError(
            f"a dense network's {scale.name} is negative, and a share of that is no margin; give the margin in the "
            "metric's own unit (relative=False)"
        )
    step = accuracy_step((dense, dense_doubled), test_examples=test_examples) if scale == ACCURACY else 0.0
    frame = frame_of(scale, (dense, dense_doubled), constant=constant)
    margin = Margin.of(margin_pp, scale, relative=relative).framed(frame)
    once, twice = frame.put(dense), frame.put(dense_doubled)
    p, enough = _below(once, twice, frame, margin=margin, alpha=alpha, step=step, relative=relative)
    gains = finished(twice, once)
    gain = frame.gain(float(np.mean(gains))) if gains else None
    interval = mean_interval(gains, level=1 - 2 * alpha, floor=step)
    ci = None if interval is None else (interval[0] * frame.unit, interval[1] * frame.unit)
    words = Words(scale, relative)
    if relative and gains:
        said, ends = _shares(once, twice, frame, alpha=alpha, step=step)
        sentence = _measured(said, ends, alpha, enough, words)
    else:
        sentence = _measured(gain, ci, alpha, enough, words)
    sentence += _concluded(enough, n, words.margin(margin_pp))
    return TrainedEnough(enough, gain, ci, n, n - len(gains), margin_pp, alpha, p, sentence)


def _shares(
    once: Values, twice: Values, frame: Frame, *, alpha: float, step: float
) -> tuple[float, tuple[float, float] | None]:
    """The mean gain as a share of the dense network's mean, and its two-sided interval at 1 − 2·alpha."""
    pairs = [(a, b) for a, b in zip(once, twice, strict=True) if a is not None and b is not None]
    gains = np.array([b - a for a, b in pairs])
    dense = frame.measured([a for a, _ in pairs], frame.worst)
    low = ratio_limit(gains, dense, level=alpha, floor=step)
    high = ratio_limit(-gains, dense, level=alpha, floor=step)
    return float(gains.mean() / dense.mean()), None if low is None or high is None else (low, -high)


def _below(
    dense: Values,
    dense_doubled: Values,
    frame: Frame,
    *,
    margin: float,
    alpha: float,
    step: float,
    relative: bool,
) -> tuple[float, bool | None]:
    """p of the test that the gain is below the margin, and the answer: None if neither is shown."""
    own: Array | None = frame.measured(dense, frame.worst) if relative else None
    (worst, null), (best, _) = (
        contrast(differences(dense, dense_doubled, worst_for_ours=ours, frame=frame), own, -margin)
        for ours in (True, False)
    )
    p = float(t_test(worst, null=null, floor=step).p_greater)
    p_above = float(t_test(best, null=null, floor=step).p_less)
    if len(dense) < MIN_REPLICATES:
        return p, None
    return p, True if p <= alpha else False if p_above <= alpha else None


def _measured(
    gain: float | None, ci: tuple[float, float] | None, alpha: float, enough: bool | None, words: Words
) -> str:
    """The gain, with the end of its interval that the answer rests on; with both ends if there is no answer."""
    if gain is None:
        return "No replicate finished both the dense network's training and the one of twice the steps"
    sentence = f"Training the dense network for twice the steps {_does(gain, words)}"
    if ci is None:
        return sentence
    low, high = map(words.bare, ci)
    if enough is None:
        return f"{sentence}, between {low} and {high} with {100 - 200 * alpha:g} % confidence"
    bound = words.high(ci[1]) if enough else words.low(ci[0])
    return f"{sentence}, {bound} with {confidence(alpha)} confidence"


def _does(gain: float, words: Words) -> str:
    """What the longer training does: gains +0.10 pp; makes its RMSE 0.1 mm better; makes no difference to its RMSE."""
    if words.signed:
        return f"gains {words.difference(gain)}"
    if words.none(gain):
        return f"makes no difference to its {words.scale.name}"
    return f"makes its {words.scale.name} {words.difference(gain)}"


def _concluded(enough: bool | None, replicates: int, margin: str) -> str:
    if replicates < MIN_REPLICATES:
        return (
            f". With fewer than {MIN_REPLICATES} replicates, no interval counts as showing that the gain is below the "
            f"margin of {margin}, so it is open whether the network was trained enough."
        )
    if enough is None:
        return (
            f". That does not show that the gain is below the margin of {margin}, so the dense network may "
            "not have been trained enough."
        )
    if enough:
        return f", so it was trained enough for a margin of {margin}."
    return f", so it was not trained enough for a margin of {margin}. Train it longer before judging tickets."


def require_margin_and_alpha(
    margin_pp: float, alpha: float, scale: Scale = ACCURACY, *, relative: bool = False
) -> None:
    if relative:
        if not 0 < margin_pp < 100:
            raise ValueError(
                f"a margin of {margin_pp} % of the dense network's {scale.name} is not between 0 and 100 %"
            )
    elif scale.unit == "%" and not 0 < margin_pp <= 100:
        raise ValueError(
            f"margin {margin_pp} pp is not above 0 and at most 100 percentage points; 0.5 is usual"
        )
    elif scale.unit != "%" and not (0 < margin_pp <= scale.high - scale.low and math.isfinite(margin_pp)):
        raise ValueError(
            f"margin {Words(scale).margin(margin_pp)} is not above 0"
            + (
                f" and at most {scale.margin(scale.high - scale.low)}, the whole range"
                if scale.bounded
                else ""
            )
        )
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha {alpha} is not between 0 and 0.5; 0.05 is usual")
