"""Evaluation on the grid: validation data at every point, test data only at the two points that are reported.

Early points of the grid evaluate only the first few hundred validation examples, which bounds the cost of a fine grid:
some fifty points of 500 examples cost about as much as 150 steps in batches of 60.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from winticket.objective import LossAndMetric
from winticket.ticket import Curve
from winticket.train import stacked
from winticket.train.chain import Laid, readable, score
from winticket.train.feed import Data, Part

COLUMNS = (
    "train_loss",
    "validation_loss",
    "validation_accuracy",
    "pace_accuracy",
    "test_loss",
    "test_accuracy",
)
MEASURED = 4  # columns that every point has; the columns of test data follow
PACE_EXAMPLES = 500
LEAST_EXAMPLES = 100  # if each example has many answers, which resemble one another
# Examples per evaluation batch: enough to fill the kernels, few enough for the cache, no multiple of its ways.
EVALUATION_ROWS = 480
MOST_OUTPUTS = 1 << 24
"""Most outputs of an evaluation batch (64 MiB), of networks whose answers have tens of thousands each."""
LEAST_ROWS = 16  # per evaluation batch, if each example has many answers

Tensors = Mapping[str, Tensor]


def evaluate(
    module: nn.Module,
    weights: Tensors,
    buffers: Tensors,
    part: Part,
    *,
    how: str = "auto",
    per_replicate: bool = False,
    laid: Laid | None = None,
) -> tuple[Tensor, Tensor]:
    """Mean loss [S] and accuracy [S] (fractions, float64) of a stack on all examples of `part`.

    `weights` and `buffers` are name -> tensor [S, ...]. If an example has several answers, both are means over all
    answers. With `per_replicate`, `part` has a leading dimension and each replicate has its own examples. `how` is a
    recipe's `stacking`. The module runs in evaluation mode; its own mode stays as it was. `laid` keeps the examples in
    the form that the sparse kernels read, for the next evaluation.

    >>> weights = {"weight": torch.stack([torch.eye(2), -torch.eye(2)])}
    >>> examples = Rows(torch.eye(2), torch.tensor([0, 1]))
    >>> loss, accuracy = evaluate(nn.Linear(2, 2, bias=False), weights, {}, examples)
    >>> [round(value, 4) for value in loss.tolist()], accuracy.tolist()
    ([0.3133, 1.3133], [1.0, 0.0])
    """
    was_training = module.training
    module.eval()
    device = next(iter(weights.values())).device
    count = len(next(iter(weights.values())))
    examples, *several = part.y.shape[1:] if per_replicate else part.y.shape
    answers = examples * prod(several)
    at_once = max(LEAST_ROWS, EVALUATION_ROWS // prod(several))
    loss = torch.zeros(count, dtype=torch.float64, device=device)
    correct = torch.zeros(count, dtype=torch.int64, device=device)
    with torch.inference_mode():
        for at in range(0, examples, at_once):
            rows = slice(at, at + at_once)
            x, y = ((t[:, rows] if per_replicate else t[rows]).to(device) for t in (part.x, part.y))
            x = stacked.channels_last(module, x, how)
            lifted = stacked.evaluation(module, weights, buffers, x, y, how=how, per_replicate=per_replicate)
            if lifted.chain and not per_replicate and readable(part.x, part.y):
                loss, correct = score(lifted.chain, weights, buffers, part.x, part.y, laid=laid or Laid())
                break
            summed, right = lifted.call(weights, buffers, x, y)
            loss += summed
            correct += right
    module.train(was_training)
    return (loss / answers).cpu(), (correct.double() / answers).cpu()


def evaluate_outputs(
    module: nn.Module,
    weights: Tensors,
    buffers: Tensors,
    part: Part,
    *,
    objective: LossAndMetric,
    how: str = "auto",
    per_replicate: bool = False,
) -> tuple[Tensor, Tensor]:
    """Mean loss [S] (float64) of an objective over all examples of `part`, and what its metric needs of the outputs.

    Parameters as of `evaluate`. A metric is a function of all outputs [S, N, ..., K] together, on the CPU, and not a
    mean over batches; one that needs a number for each answer gets these numbers [S, N, ...].
    """
    was_training = module.training
    module.eval()
    device = next(iter(weights.values())).device
    examples, *several = part.y.shape[per_replicate:]
    answers = 1 if objective.one_answer else prod(several)
    at_once = max(LEAST_ROWS, EVALUATION_ROWS // answers)
    at_once = min(at_once, max(1, MOST_OUTPUTS // max(1, answers * objective.outputs)))
    loss, computed = torch.zeros(len(next(iter(weights.values()))), dtype=torch.float64), list[Tensor]()
    with torch.inference_mode():
        for at in range(0, examples, at_once):
            rows = slice(at, at + at_once)
            x, y = ((t[:, rows] if per_replicate else t[rows]).to(device) for t in (part.x, part.y))
            x = stacked.channels_last(module, x, how)
            lifted = stacked.outputs(
                module, weights, buffers, x, y, how=how, objective=objective, per_replicate=per_replicate
            )
            mean, some = lifted.call(weights, buffers, x, y)
            loss += mean.double().cpu() * (y.shape[per_replicate] / examples)
            some, answers_of = some.cpu(), y.cpu()
            needed = [
                objective.needed(one, answers_of[r] if per_replicate else answers_of)
                for r, one in enumerate(some)
            ]
            computed.append(torch.stack(needed) if needed else some)
    module.train(was_training)
    return loss, torch.cat(computed, 1)


def _scores(needed: Tensor, y: Tensor, objective: LossAndMetric, *, per_replicate: bool) -> Tensor:
    """The metric [S] (float64) of what it needs of the outputs [S, N, ...]; nan for a network that has diverged."""
    targets = y.cpu()
    values = [
        objective.score_needed(one, targets[r] if per_replicate else targets) for r, one in enumerate(needed)
    ]
    return torch.tensor(values, dtype=torch.float64)


class Rows(NamedTuple):
    """Some examples of a part."""

    x: Tensor
    y: Tensor


def pace_examples(part: Part, *, per_replicate: bool = False, alone: bool = False) -> int:
    """How many of `part`'s first examples every point of the grid evaluates: 500, or fewer if there are fewer.

    If each example has T answers, it is 500 / T but at least 100, since answers of one example resemble one another.
    alone: each example has one answer, however many numbers that consists of.

    >>> pace_examples(Rows(torch.zeros(2000, 8), torch.zeros(2000)))
    500
    >>> pace_examples(Rows(torch.zeros(2000, 8), torch.zeros(2000, 8)))
    100
    """
    count, *several = part.y.shape[1:] if per_replicate else part.y.shape
    return min(count, max(LEAST_EXAMPLES, PACE_EXAMPLES // (1 if alone else prod(several))))


@dataclass
class Curves:
    """The curves of a stack of `count`, and each replicate's weights and buffers at its least validation loss.

    With `per_replicate`, each replicate has its own data.

    Test data are not evaluated during training: that would cost most of the evaluation, for numbers that decide
    nothing.
    """

    count: int
    per_replicate: bool = False
    objective: LossAndMetric | None = None
    rows: list[Tensor] = field(default_factory=list)
    """Per point, [S, 5]: training loss, validation loss and accuracy, pace accuracy, and the loss on the examples that
    were evaluated, which distinguishes a network that diverged from one that was not measured."""
    least: Tensor = field(init=False)
    """[S], the lowest validation loss so far."""
    point: Tensor = field(init=False)
    """[S], the point with the lowest validation loss so far."""
    weights: dict[str, Tensor] = field(default_factory=dict)
    buffers: dict[str, Tensor] = field(default_factory=dict)
    laid: Laid = field(default_factory=Laid)

    def __post_init__(self) -> None:
        self.least = torch.full((self.count,), torch.inf, dtype=torch.float64)
        self.point = torch.zeros(self.count, dtype=torch.int64)

    def measure(
        self,
        module: nn.Module,
        weights: Tensors,
        buffers: Tensors,
        data: Data,
        losses: Tensor | None,
        *,
        indices: Tensors,
        how: str,
        kept: Tensors | None = None,
        whole: bool = True,
    ) -> None:
        """Add a point; `losses` [T, S] are the training losses of the steps since the previous point.

        With `whole` false, only the first `pace_examples` are evaluated; if there are others, validation loss and
        accuracy are nan. The weights at the lowest validation loss are kept, in the form of `kept` if that is given.
        """
        training = torch.full((self.count,), torch.nan, dtype=torch.float64)
        if losses is not None:
            training = losses.double().mean(0).cpu()

        first, rest = self._parts(data.validation)
        parts = [first] if rest is None or not whole else [first, rest]
        loss, accuracy, pace = self._scored(module, weights, {**buffers, **indices}, parts, how=how)
        seen = loss
        if rest is not None and not whole:
            loss = accuracy = torch.full_like(loss, torch.nan)
        better = loss < self.least
        self.least = torch.where(better, loss, self.least)
        self.point[better] = len(self.rows)
        self.rows.append(torch.stack([training, loss, accuracy, pace, seen], 1))
        for early, now in ((self.weights, weights if kept is None else kept), (self.buffers, buffers)):
            for name, value in now.items():
                if name not in early:
                    early[name] = value.detach().clone()
                elif bool(better.any()):
                    chosen = better.to(value.device)
                    early[name][chosen] = value.detach()[chosen]

    def _scored(
        self, module: nn.Module, weights: Tensors, buffers: Tensors, parts: Sequence[Part], *, how: str
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Loss and accuracy (or the objective's metric) on all `parts` together, and that of the first part; [S] each.

        An accuracy of several parts follows from theirs; a metric does not, so it is computed from all outputs.
        """
        split, objective = self.per_replicate, self.objective
        if objective is None:
            found = [
                evaluate(module, weights, buffers, part, how=how, per_replicate=split, laid=self.laid)
                for part in parts
            ]
            sizes = [part.y.numel() // (self.count if split else 1) for part in parts]
            (loss, pace), *further = found
            if not further:
                return loss, pace, pace
            loss, accuracy = (
                sum((size * one[column] for size, one in zip(sizes, found, strict=True)), torch.zeros(()))
                for column in (0, 1)
            )
            # Rounded to a whole count, so that k correct answers of n give exactly k / n.
            return loss / sum(sizes), accuracy.round() / sum(sizes), pace
        computed = [
            evaluate_outputs(
                module, weights, buffers, part, objective=objective, how=how, per_replicate=split
            )
            for part in parts
        ]
        scores = partial(_scores, objective=objective, per_replicate=split)
        (loss, outputs), *further = computed
        pace = scores(outputs, parts[0].y)
        if not further:
            return loss, pace, pace
        sizes = [one.shape[1] for _, one in computed]
        loss = sum((size * one for size, (one, _) in zip(sizes, computed, strict=True)), torch.zeros(()))
        y = torch.cat([part.y for part in parts], int(split))
        return loss / sum(sizes), scores(torch.cat([one for _, one in computed], 1), y), pace

    def _parts(self, part: Part) -> tuple[Part, Part | None]:
        """The examples of `pace_accuracy`, and the others; None if there are no others."""
        numbers = self.objective is not None and self.objective.one_answer
        count = pace_examples(part, per_replicate=self.per_replicate, alone=numbers)
        if count == part.y.shape[self.per_replicate]:
            return part, None
        if self.per_replicate:
            return Rows(part.x[:, :count], part.y[:, :count]), Rows(part.x[:, count:], part.y[:, count:])
        return Rows(part.x[:count], part.y[:count]), Rows(part.x[count:], part.y[count:])

    def finish(
        self,
        module: nn.Module,
        weights: Tensors,
        buffers: Tensors,
        data: Data,
        *,
        indices: Tensors,
        how: str,
        early: nn.Module | None = None,
    ) -> Tensor:
        """The whole table [G, S, COLUMNS], with test loss and accuracy at the early stop and at the last point.

        `early` is the module that computes with the early stop's weights, if `module` cannot.
        """

        def tested(network: nn.Module, weights: Tensors, buffers: Tensors) -> Tensor:
            loss, accuracy, _ = self._scored(network, weights, buffers, [data.test], how=how)
            return torch.stack([loss, accuracy], 1)

        last = len(self.rows) - 1
        test = torch.full((last + 1, self.count, 2), torch.nan, dtype=torch.float64)
        test[last] = tested(module, weights, {**buffers, **indices})
        sooner = self.point != last
        if bool(sooner.any()):
            extra = indices if early is None else {}
            at_early_stop = tested(early or module, self.weights, {**self.buffers, **extra})
            test[self.point[sooner], sooner.nonzero().flatten()] = at_early_stop[sooner]
        return torch.cat([torch.stack(self.rows)[..., :MEASURED], test], 2)


def curve(table: Tensor, grid: Sequence[int]) -> Curve:
    """The curve of one replicate, from its part of the table [G, COLUMNS]."""
    columns: dict[str, Any] = {name: table[:, c].clone() for c, name in enumerate(COLUMNS)}
    return Curve(step=torch.tensor(grid, dtype=torch.int64), **columns)
