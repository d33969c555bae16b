"""What networks are judged by, by task: functions of the outputs and targets of a whole split, each with its scale."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from winticket.objective.scale import ACCURACY, Better, Scale

LARGEST_LOSS = 700.0
AT_ONCE = 1 << 22
"""Logits that are in float64 at a time (32 MiB)."""


class Metric(Protocol):
    """Outputs [N, ...] and targets y [N, ...] of a whole split -> one number; `scale` says what the number means."""

    scale: Scale

    def __call__(self, outputs: Tensor, y: Tensor, /) -> float: ...


def metric(
    name: str,
    *,
    better: Better = "higher",
    unit: str = "",
    low: float = -math.inf,
    high: float = math.inf,
) -> Callable[[Callable[[Tensor, Tensor], float]], Metric]:
    """Declare a function of yours as a metric: what its number is called, which direction is good, unit and range.

    The function receives the outputs [N, ...] and targets y [N, ...] of all examples of a split, on the CPU, and
    returns a float. unit: see `winticket.objective.Scale`; "%" for a fraction that is written as a percentage.

    >>> import torch
    >>> @metric("share within 1 mm", unit="%", low=0.0, high=1.0)
    ... def within(outputs: torch.Tensor, y: torch.Tensor) -> float:
    ...     return float(((outputs - y).abs() <= 1).double().mean())
    >>> within.scale.name
    'share within 1 mm'
    """
    scale = Scale(name, better, unit, low, high)

    def declare(function: Callable[[Tensor, Tensor], float]) -> Metric:
        declared: Any = function
        declared.scale = scale
        return cast("Metric", declared)

    return declare


@metric(ACCURACY.name, unit="%", low=0.0, high=1.0)
def accuracy(outputs: Tensor, y: Tensor) -> float:
    """The share of answers whose largest logit is the right class: logits [N, ..., K], classes y [N, ...].

    >>> accuracy(torch.eye(3), torch.tensor([0, 1, 1]))
    0.6666666666666666
    """
    return float((outputs.argmax(-1) == y).double().mean())


@metric("balanced accuracy", unit="%", low=0.0, high=1.0)
def balanced_accuracy(outputs: Tensor, y: Tensor) -> float:
    """The mean over the classes in y [N, ...] of the share of each that is recognised; logits [N, ..., K].

    Brodersen et al. 2010, The balanced accuracy and its posterior distribution.

    >>> balanced_accuracy(torch.eye(2)[[0, 0, 0, 0]], torch.tensor([0, 0, 0, 1]))
    0.5
    """
    right = (outputs.argmax(-1) == y).flatten().double()
    classes = y.flatten()
    seen = torch.bincount(classes).double()
    found = torch.bincount(classes, weights=right)
    return float((found[seen > 0] / seen[seen > 0]).mean())


@metric("perplexity", better="lower", low=1.0)
def perplexity(outputs: Tensor, y: Tensor) -> float:
    """exp of the mean cross-entropy over all answers: logits [N, ..., K], classes y [N, ...].

    >>> round(perplexity(torch.zeros(2, 4), torch.tensor([0, 3])), 6)
    4.0
    """
    return exponential(surprise(outputs, y))


def surprise(outputs: Tensor, y: Tensor) -> Tensor:
    """The cross-entropy of every answer, float64 [N, ...]: logits [N, ..., K], classes y [N, ...].

    It is nan where a logit is not finite. Only a few examples are in float64 at a time, since K may be large.

    >>> surprise(torch.zeros(1, 2, 4), torch.tensor([[0, 3]])).exp().round(decimals=9).tolist()
    [[4.0, 4.0]]
    """
    at_once = max(1, AT_ONCE // max(1, outputs[:1].numel()))
    parts = []
    for begin in range(0, len(y), at_once):
        some, answers = outputs[begin : begin + at_once], y[begin : begin + at_once]
        losses = -torch.log_softmax(some.double(), -1).gather(-1, answers.unsqueeze(-1)).squeeze(-1)
        parts.append(losses.where(some.isfinite().all(-1), math.nan))
    return torch.cat(parts)


def exponential(surprises: Tensor) -> float:
    """The perplexity of answers with these cross-entropies, float64 [N, ...]: exp of their mean; nan if one is nan.

    >>> exponential(torch.zeros(2, dtype=torch.float64))
    1.0
    """
    # Of a network that has all but diverged, the mean may be so large that its exponential is no float64.
    mean = float(surprises.mean())
    return mean if math.isnan(mean) else math.exp(min(mean, LARGEST_LOSS))


ByAnswer = tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor], float]]
"""A metric in two parts: outputs and targets -> a number for every answer; those of all answers -> the metric."""
BY_ANSWER: dict[object, ByAnswer] = {perplexity: (surprise, exponential)}
"""Metrics that need one number for every answer and not all outputs, which may be large: one for each token."""


@metric("RMSE", better="lower", low=0.0)
def rmse(outputs: Tensor, y: Tensor) -> float:
    """The root of the mean squared error of outputs [N, K] against numbers y [N, K].

    >>> rmse(torch.tensor([[3.0], [4.0]]), torch.zeros(2, 1)) == 12.5**0.5
    True
    """
    return math.sqrt(float(((outputs.double() - y.double()) ** 2).mean()))


@metric("MAE", better="lower", low=0.0)
def mae(outputs: Tensor, y: Tensor) -> float:
    """The mean absolute error of outputs [N, K] against numbers y [N, K].

    >>> mae(torch.tensor([[3.0], [-4.0]]), torch.zeros(2, 1))
    3.5
    """
    return float((outputs.double() - y.double()).abs().mean())


@metric("R²", high=1.0)
def r2(outputs: Tensor, y: Tensor) -> float:
    """The share of the variance of y [N, K] that outputs [N, K] explain: the mean over targets of 1 − SSE / SST.

    It is negative for outputs that are worse than the mean of y. A target without any variance counts as not
    explained, 0, as long as there are others; nan if there are none.

    >>> round(r2(torch.tensor([[0.0], [1.0], [2.5]]), torch.tensor([[0.0], [1.0], [2.0]])), 3)
    0.875
    """
    y = y.double()
    error = ((outputs.double() - y) ** 2).sum(0)
    total = ((y - y.mean(0)) ** 2).sum(0)
    if not bool((total > 0).any()):
        return math.nan
    return float(torch.where(total > 0, 1 - error / total.clamp_min(1e-300), torch.zeros_like(total)).mean())


@metric("average precision", unit="%", low=0.0, high=1.0)
def average_precision(outputs: Tensor, y: Tensor) -> float:
    """Mean average precision over the labels: scores [N, K], labels y [N, K] of 0 and 1 (scikit-learn's definition).

    Labels that no example has are left out; nan if there is no other.

    >>> round(average_precision(torch.tensor([[3.0], [2.0], [1.0]]), torch.tensor([[1.0], [0.0], [1.0]])), 4)
    0.8333
    """
    from sklearn.metrics import average_precision_score

    present = (y > 0.5).any(0)
    if not bool(present.any()):
        return math.nan
    return float(average_precision_score(y[:, present].numpy() > 0.5, outputs[:, present].double().numpy()))


@metric("mean IoU", unit="%", low=0.0, high=1.0)
def mean_iou(outputs: Tensor, y: Tensor) -> float:
    """Mean intersection over union of the classes that occur in y or in the answers: logits [N, K, ...], y [N, ...].

    Intersections and unions are summed over the whole split (Long et al. 2015, section 5).

    >>> mean_iou(torch.tensor([[[2.0, 0.0]], [[0.0, 1.0]]]).movedim(0, 1), torch.tensor([[0, 0]]))
    0.25
    """
    classes = outputs.shape[1]
    answers, y = outputs.argmax(1).flatten(), y.flatten()
    pairs = torch.bincount(classes * y + answers, minlength=classes * classes).view(classes, classes).double()
    both = pairs.diagonal()
    either = pairs.sum(0) + pairs.sum(1) - both
    return float((both[either > 0] / either[either > 0]).mean())


@metric("pixel accuracy", unit="%", low=0.0, high=1.0)
def position_accuracy(outputs: Tensor, y: Tensor) -> float:
    """The share of positions whose largest logit is the right class: logits [N, K, ...], classes y [N, ...].

    >>> position_accuracy(torch.zeros(1, 2, 2, 2), torch.tensor([[[0, 0], [0, 1]]]))
    0.75
    """
    return float((outputs.argmax(1) == y).double().mean())


BY_TASK: dict[str, dict[str, Metric]] = {
    "classification": {
        "accuracy": accuracy,
        "balanced-accuracy": balanced_accuracy,
        "perplexity": perplexity,
    },
    "next-token": {"accuracy": accuracy, "perplexity": perplexity},
    "segmentation": {"iou": mean_iou, "accuracy": position_accuracy},
    "regression": {"rmse": rmse, "mae": mae, "r2": r2},
    "multi-label": {"average-precision": average_precision},
}
"""The metrics of each task by name, the usual one first."""
