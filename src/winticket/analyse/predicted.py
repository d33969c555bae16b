"""What stored networks predict for the test examples of their replicates: computed once, for several analyses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from winticket.analyse.facts import Cells, NothingToAnalyseError, part, present
from winticket.analyse.networks import last, outputs, parts
from winticket.data import rows_tested
from winticket.run import Task
from winticket.stages import Setup
from winticket.ticket import Failed, Trajectory

REVISION = 1

Predicted = Mapping[str, Tensor]
"""Of one network: example, label, predicted, confidence, loss; all [N]."""
Networks = Mapping[int, Predicted]
"""Predictions by number of the replicate."""


def predictions(setup: Setup, stack: Sequence[Trajectory | Failed]) -> dict[int, dict[str, Tensor]]:
    """What each network of a stack predicts for its replicate's test examples, by number of the replicate.

    example     int64 [N], the examples' rows in the dataset; replicates with test sets of their own have different ones
    label, predicted  int64 [N], classes
    confidence  float32 [N], probability of the predicted class
    loss        float32 [N], negative log of the label's probability

    Every character of a text is an example. Failed replicates are left out.
    """
    module, info, found = setup.module(), setup.facts(), {}
    for number, path in present(stack):
        test, state = parts(setup, number).test, last(path)
        logits = outputs(module, state.weights, state.buffers, test.x)
        rows = rows_tested(info, seed=setup.split_seed(number), test=setup.test)
        found[number] = {
            "example": _rows(rows, test.y),
            **predicted_from(logits, test.y),
        }
    return found


def predicted_from(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Labels, predictions, confidences and losses [N] from logits [..., classes] and labels [...]."""
    flat, label = logits.reshape(-1, logits.shape[-1]).double(), labels.reshape(-1)
    log = torch.log_softmax(flat, -1)
    best = log.max(-1)
    return {
        "label": label,
        "predicted": best.indices,
        "confidence": best.values.exp().float(),
        "loss": -log.gather(1, label[:, None]).squeeze(1).float(),
    }


def _rows(rows: Tensor, labels: Tensor) -> Tensor:
    """The row of every example; of the characters of a text, their number if all texts follow one another."""
    if labels.ndim == 1:
        return rows
    length = labels[0].numel()
    return (rows[:, None] * length + torch.arange(length)).flatten()


def planned_predictions(cells: Cells, arm: str, level: int, replicates: int) -> dict[str, Task]:
    """The tasks of the predictions of an arm's finished stacks at a level, by number of the first replicate."""
    return {
        str(stack.label["first"]): part(predictions, cells.setup, stack, name="predictions")
        for stack in cells.stacks(level, arm, replicates=replicates)
    }


def beside_dense(cells: Cells, arm: str, level: int, replicates: int) -> list[tuple[Task, Task]]:
    """Predictions of the dense networks and of an arm, for the stacks of which both have finished."""
    dense = planned_predictions(cells, "dense", 0, replicates)
    there = planned_predictions(cells, arm, level, replicates)
    return [(dense[first], task) for first, task in there.items() if first in dense]


def require(parts: Sequence[Any]) -> None:
    """NothingToAnalyseError if there is no part."""
    if not parts:
        raise NothingToAnalyseError("no dense networks and tickets of the same replicates have finished")
