"""Evaluation on the grid: validation data at every point, test data at the two points that results are reported at.

At the early points of the grid only the first few hundred validation examples are evaluated, which bounds what a fine
grid costs: some fifty points of 500 examples, about 150 steps in batches of 60.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from winticket.ticket import Curve
from winticket.train import stacked
from winticket.train.feed import Data, Part

COLUMNS = (
    "train_loss",
    "validation_loss",
    "validation_accuracy",
    "pace_accuracy",
    "test_loss",
    "test_accuracy",
)
MEASURED = 4  # columns known at every point, before those of test data
PACE_EXAMPLES = 500
LEAST_EXAMPLES = 100  # of examples that want many answers each, whose answers are alike
EVALUATION_ROWS = (
    480  # examples per evaluation batch: fills the kernels, fits the cache, no multiple of its ways
)
LEAST_ROWS = 16  # where each example wants many answers

Tensors = Mapping[str, Tensor]


def evaluate(
    module: nn.Module,
    weights: Tensors,
    buffers: Tensors,
    part: Part,
    *,
    how: str = "auto",
    own: bool = False,
) -> tuple[Tensor, Tensor]:
    """Mean loss [S] and accuracy [S] (fractions, float64) of a stack on every example of `part`.

    Over every answer where an example wants several. With `own`, each replicate has examples of its own.
    """
    was_training = module.training
    module.eval()
    device = next(iter(weights.values())).device
    count = len(next(iter(weights.values())))
    examples, *several = part.y.shape[1:] if own else part.y.shape
    answers = examples * prod(several)
    at_once = max(LEAST_ROWS, EVALUATION_ROWS // prod(several))
    loss = torch.zeros(count, dtype=torch.float64, device=device)
    correct = torch.zeros(count, dtype=torch.int64, device=device)
    with torch.inference_mode():
        for at in range(0, examples, at_once):
            rows = slice(at, at + at_once)
            x, y = ((t[:, rows] if own else t[rows]).to(device) for t in (part.x, part.y))
            x = stacked.channels_last(module, x, how)
            lifted = stacked.scores(module, weights, buffers, x, y, how=how, own=own)
            summed, right = lifted.call(weights, buffers, x, y)
            loss += summed
            correct += right
    module.train(was_training)
    return (loss / answers).cpu(), (correct.double() / answers).cpu()


class Rows(NamedTuple):
    """Some examples of a part."""

    x: Tensor
    y: Tensor


def pace_examples(part: Part, *, own: bool = False) -> int:
    """How many of `part`'s first examples are evaluated at every point of the grid."""
    count, *several = part.y.shape[1:] if own else part.y.shape
    return min(count, max(LEAST_EXAMPLES, PACE_EXAMPLES // prod(several)))


@dataclass
class Curves:
    """The curves of a stack of `count`, and each replicate's weights and buffers where its validation loss was least.

    With `own`, replicates have data of their own.

    Test data are not looked at on the way: that would cost most of the evaluation, for numbers that decide nothing.
    """

    count: int
    own: bool = False
    rows: list[Tensor] = field(default_factory=list)
    """Per point, [S, 5]: training loss, validation loss and accuracy, pace accuracy, and the loss on whatever was
    evaluated, which tells a network that diverged from one that was not measured."""
    least: Tensor = field(init=False)
    """[S], the lowest validation loss so far."""
    point: Tensor = field(init=False)
    """[S], the point that it was at."""
    weights: dict[str, Tensor] = field(default_factory=dict)
    buffers: dict[str, Tensor] = field(default_factory=dict)

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
        """Add a point; `losses` [T, S] are those of the steps since the one before.

        Unless `whole`, only the examples that pace is read from are evaluated, and validation loss and accuracy are
        nan where there are more. Of the early stop the weights are kept, in the form `kept` where that is given.
        """
        training = torch.full((self.count,), torch.nan, dtype=torch.float64)
        if losses is not None:
            training = losses.double().mean(0).cpu()

        def measured(part: Part) -> tuple[Tensor, Tensor]:
            return evaluate(module, weights, {**buffers, **indices}, part, how=how, own=self.own)

        first, rest = self._parts(data.validation)
        seen, pace = loss, accuracy = measured(first)
        if rest is not None and whole:
            further = measured(rest)
            some, others = (part.y.numel() // (self.count if self.own else 1) for part in (first, rest))
            seen = loss = (some * loss + others * further[0]) / (some + others)
            # Right answers are counted: a share of exactly k of n stays that.
            accuracy = (some * accuracy + others * further[1]).round() / (some + others)
        elif rest is not None:
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

    def _parts(self, part: Part) -> tuple[Part, Part | None]:
        """The examples that pace is read from, and the others where there are any."""
        count = pace_examples(part, own=self.own)
        if count == part.y.shape[self.own]:
            return part, None
        if self.own:
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

        `early` computes with the weights that were kept of the early stop, where `module` does not.
        """
        last = len(self.rows) - 1
        test = torch.full((last + 1, self.count, 2), torch.nan, dtype=torch.float64)
        test[last] = torch.stack(
            evaluate(module, weights, {**buffers, **indices}, data.test, how=how, own=self.own), 1
        )
        if bool((self.point != last).any()):
            extra = indices if early is None else {}
            found = evaluate(
                early or module, self.weights, {**self.buffers, **extra}, data.test, how=how, own=self.own
            )
            sooner = self.point != last
            test[self.point[sooner], sooner.nonzero().flatten()] = torch.stack(found, 1)[sooner]
        return torch.cat([torch.stack(self.rows)[..., :MEASURED], test], 2)


def curve(table: Tensor, grid: Sequence[int]) -> Curve:
    """One replicate's part of the table, [G, COLUMNS]."""
    columns: dict[str, Any] = {name: table[:, c].clone() for c, name in enumerate(COLUMNS)}
    return Curve(step=torch.tensor(grid, dtype=torch.int64), **columns)
