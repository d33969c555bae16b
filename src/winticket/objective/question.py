"""Objective: the task, loss and metric of an experiment as plain values; and as functions, for the data at hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from winticket.importing import object_named
from winticket.objective import losses, metrics
from winticket.objective.losses import Loss
from winticket.objective.metrics import Metric
from winticket.objective.scale import Scale
from winticket.text import nearest

TASKS = tuple(losses.BY_TASK)
BALANCED = "balanced"
_WEIGHED = ("classification", "segmentation", "multi-label")


@dataclass(frozen=True)
class Objective:
    """What a network is trained for and judged by, as plain values.

    task: one of TASKS. loss, metric: a name of the task (`losses.BY_TASK`, `metrics.BY_TASK`; default: its first), or
    `package.module:function` for one of yours: `loss(outputs, y)` returns the mean of a batch, and `metric(outputs, y)`
    the value of a whole split, declared by `winticket.metric`. class_weights: "balanced" weighs each class by one over
    its frequency among the training examples. unit: of the targets of a regression, for RMSE and MAE. source: a hash of
    the user's code, so that an edit makes new results.

    >>> Objective("regression").named()
    ('squared-error', 'rmse')
    >>> Objective("regression", metric="rsme")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: regression has no metric 'rsme' (did you mean 'rmse'?); possible: rmse, mae, r2, or ...
    """

    task: str = "classification"
    loss: str | None = None
    metric: str | None = None
    class_weights: str | None = None
    unit: str = ""
    source: str | None = None

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ValueError(
                f"task is {self.task!r}{nearest(self.task, TASKS)}; possible: {', '.join(TASKS)}"
            )
        for what, known in (("loss", losses.BY_TASK[self.task]), ("metric", metrics.BY_TASK[self.task])):
            name = getattr(self, what)
            if name is not None and ":" not in name and name not in known:
                raise ValueError(
                    f"{self.task} has no {what} {name!r}{nearest(name, known)}; possible: {', '.join(known)}, or "
                    "package.module:function"
                )
        if self.class_weights not in (None, BALANCED):
            raise ValueError(f"class_weights is {self.class_weights!r}; it is {BALANCED!r}, or left out")
        if self.class_weights and (self.task not in _WEIGHED or ":" in (self.loss or "")):
            raise ValueError(
                f"class_weights {self.class_weights} goes with the losses of {', '.join(_WEIGHED)}; leave it out here"
            )
        if self.unit and self.task != "regression":
            raise ValueError(f"unit {self.unit!r} is for numbers, but the task is {self.task}; leave it out")

    @property
    def usual(self) -> bool:
        """True for classes or tokens, cross-entropy and accuracy, which training and evaluation compute fastest."""
        return (
            self.task in ("classification", "next-token")
            and self.named() == ("cross-entropy", "accuracy")
            and self.class_weights is None
        )

    def named(self) -> tuple[str, str]:
        """The names of loss and metric, defaults filled in."""
        first = next(iter(losses.BY_TASK[self.task])), next(iter(metrics.BY_TASK[self.task]))
        return self.loss or first[0], self.metric or first[1]

    def scale(self) -> Scale:
        """The scale of the metric. Raises ValueError for a function of yours that is not declared as a metric."""
        scale = self.metric_function().scale
        return replace(scale, unit=self.unit) if self.unit and scale.name in ("RMSE", "MAE") else scale

    def metric_function(self) -> Metric:
        """The metric; errors as of `scale`."""
        name = self.named()[1]
        if ":" not in name:
            return metrics.BY_TASK[self.task][name]
        function: Any = _imported(name, "metric")
        if not isinstance(getattr(function, "scale", None), Scale):
            raise ValueError(  # noqa: TRY004 - a wrong request, as all others here
                f"metric {name!r} does not say what its number is called and which direction is good; put "
                '@winticket.metric("NAME", better="lower") above the function'
            )
        return cast("Metric", function)

    def loss_function(self) -> Callable[..., Tensor]:
        """The loss, without its weights."""
        name = self.named()[0]
        return _imported(name, "loss") if ":" in name else losses.BY_TASK[self.task][name]

    def users(self) -> tuple[str, ...]:
        """The functions that come from modules of the user."""
        return tuple(name for name in self.named() if ":" in name)


@dataclass(frozen=True)
class LossAndMetric:
    """An objective as functions for one dataset: what training minimises, and what evaluation returns.

    key: distinguishes what is traced. Numbers are trained in units of their training standard deviation, `spread` [K],
    around their training mean, `centre` [K], which the built-in losses expect; metrics see the numbers' own unit.
    outputs: how many an answer has, K; 0 if that is not known.
    """

    objective: Objective
    key: tuple[object, ...]
    loss: Loss
    metric: Metric
    centre: Tensor | None = None
    spread: Tensor | None = None
    outputs: int = 0

    @property
    def one_answer(self) -> bool:
        """True if each example has one answer, which may consist of several numbers or labels."""
        return self.objective.task in ("classification", "regression", "multi-label")

    def trained(self, y: Tensor) -> Tensor:
        """Targets [..., K] as the loss sees them."""
        return (
            y if self.centre is None or self.spread is None else (y - self.centre.to(y)) / self.spread.to(y)
        )

    def score(self, outputs: Tensor, y: Tensor) -> float:
        """The metric of outputs [N, ...] against targets y [N, ...], both as the loss sees them."""
        if self.centre is not None and self.spread is not None:
            outputs, y = (t * self.spread.to(t) + self.centre.to(t) for t in (outputs, y))
        return float(self.metric(outputs, y))

    def needed(self, outputs: Tensor, y: Tensor) -> Tensor:
        """What the metric needs of outputs [N, ..., K] against targets y [N, ...]: a number for each answer, or all."""
        parts = metrics.BY_ANSWER.get(self.metric)
        return outputs if parts is None else parts[0](outputs, y)

    def score_needed(self, needed: Tensor, y: Tensor) -> float:
        """The metric of what `needed` returned for all examples, and their targets; nan if outputs were not finite."""
        parts = metrics.BY_ANSWER.get(self.metric)
        if not bool(needed.isfinite().all()):
            return math.nan
        return self.score(needed, y) if parts is None else parts[1](needed)

    def constant(self, y: Tensor, *, outputs: int) -> float:
        """The metric of the best answer that ignores the input: for targets y, as the data have them, of a split.

        It knows the commonest class of y, or the shares of its classes and labels, or the mean of its numbers.
        """
        answer = constant_outputs(self.objective.task, y, outputs)
        return float(self.metric(answer, y))


def functions(objective: Objective, y: Tensor, *, outputs: int) -> LossAndMetric:
    """The objective's functions, for training targets y [N, ...] and so many outputs (classes, labels or numbers)."""
    loss, metric = objective.loss_function(), objective.metric_function()
    centre = spread = None
    numbers: tuple[object, ...] = ()
    if objective.task == "regression" and objective.users()[:1] != objective.named()[:1]:
        centre, spread = y.double().mean(0).float(), y.double().std(0, correction=0).float()
        spread = torch.where(spread > 0, spread, torch.ones_like(spread))
    if objective.class_weights:
        weights = balanced_weights(objective.task, y, outputs)
        loss = partial(loss, weights=weights)
        numbers = tuple(weights.tolist())
    return LossAndMetric(objective, (objective, numbers), loss, metric, centre, spread, outputs)


def noise_targets(task: str, rows: int, outputs: int, shape: Sequence[int]) -> Tensor:
    """Targets of `rows` examples of `shape`, for trying a loss on noise: every class in turn, or zeros and ones."""
    turns = torch.arange(rows) % max(outputs, 2)
    if task in ("regression", "multi-label"):
        return (turns % 2).float().unsqueeze(1).expand(rows, outputs).contiguous()
    if task == "segmentation":
        return (turns % outputs).view(rows, *(1 for _ in shape[1:])).expand(rows, *shape[1:]).contiguous()
    return turns % outputs


def balanced_weights(task: str, y: Tensor, outputs: int) -> Tensor:
    """Weights [K] for K classes or labels of training targets y [N, ...], float32.

    A class has N / (K n_k) for n_k of N answers, K being the classes that occur, so that their mean over the answers is
    1 (King & Zeng 2001; scikit-learn calls it balanced). Of a label, a presence weighs as much as it
    is absent per presence.

    >>> balanced_weights("classification", torch.tensor([0, 0, 0, 1]), 2)
    tensor([0.6667, 2.0000])
    """
    if task == "multi-label":
        present = y.double().mean(0)
        return ((1 - present) / present.clamp_min(1 / len(y))).float()
    counts = torch.bincount(y.flatten(), minlength=outputs).double()
    return (y.numel() / (int((counts > 0).sum()) * counts.clamp_min(1))).float()


def constant_outputs(task: str, y: Tensor, outputs: int) -> Tensor:
    """The same outputs for every example of y [N, ...], as a network that ignores its input would best give them."""
    if task == "regression":
        return y.double().mean(0, keepdim=True).expand(y.shape).float()
    if task == "multi-label":
        shares = y.double().mean(0, keepdim=True).clamp(1e-6, 1 - 1e-6)
        return torch.logit(shares).expand(y.shape).float()
    shares = torch.bincount(y.flatten(), minlength=outputs).double() / y.numel()
    logits = shares.clamp_min(1e-12).log().float().expand(*y.shape, outputs)
    return logits.movedim(-1, 1) if task == "segmentation" else logits


def _imported(name: str, what: str) -> Callable[..., Tensor]:
    try:
        function = object_named(name)
    except ValueError as error:
        raise ValueError(f"{what} {error}") from error.__cause__
    if not callable(function):
        raise ValueError(  # noqa: TRY004 - a wrong request, as all others here
            f"{what} {name!r} is {type(function).__name__}, which cannot be called"
        )
    return function


def check_functions(made: LossAndMetric, shape: Sequence[int], y: Tensor, tested: Tensor) -> None:
    """Try loss and metric: on blank outputs [N, *shape] for training targets y [N, ...], and on the test targets.

    Raises ValueError, with the cause, if they fail, if the loss is not one finite number that depends on the outputs,
    or if the metric of the best constant answer is not finite or outside its declared range.
    """
    loss, metric = made.objective.named()
    outputs = torch.zeros(len(y), *shape, requires_grad=True)
    try:
        value = made.loss(outputs, made.trained(y))
        gradient = _gradient(value, outputs)
    except Exception as error:
        raise ValueError(f"loss {loss!r} fails on outputs {tuple(outputs.shape)}: {error}") from error
    if not bool(value.isfinite()) or not bool(gradient.isfinite().all()):
        raise ValueError(
            f"loss {loss!r} or its gradient is not finite on outputs of 0, so nothing could be trained"
        )
    try:
        reached = made.constant(
            tested, outputs=shape[-1] if made.objective.task == "next-token" else shape[0]
        )
    except Exception as error:
        raise ValueError(f"metric {metric!r} fails on test targets {tuple(tested.shape)}: {error}") from error
    scale = made.metric.scale
    if not scale.low <= reached <= scale.high:  # nor if it is nan
        raise ValueError(
            f"metric {metric!r} gives {reached} for the best constant answer on the test targets "
            f"{tuple(tested.shape)}, but is declared to lie in [{scale.low}, {scale.high}]"
        )


def _gradient(value: object, outputs: Tensor) -> Tensor:
    if not isinstance(value, Tensor) or value.ndim or not value.requires_grad:
        raise TypeError("it must return one number, the mean of the batch, that depends on the outputs")
    (gradient,) = torch.autograd.grad(value, outputs)
    return gradient
