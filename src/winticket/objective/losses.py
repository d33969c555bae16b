"""What networks minimise, by task: functions of outputs and targets that return the mean over a batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]
"""Outputs [B, ...] and targets y [B, ...] -> the mean loss of the batch, a scalar."""


def cross_entropy(outputs: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean cross-entropy of logits [B, ..., K] against classes y [B, ...]; `weights` [K] weigh each answer's class.

    A weighted mean is divided by the number of answers, so a batch's loss does not depend on which classes it has.

    >>> cross_entropy(torch.zeros(3, 2), torch.tensor([0, 1, 1]))
    tensor(0.6931)
    """
    losses = -torch.log_softmax(outputs, -1).gather(-1, y.unsqueeze(-1)).squeeze(-1)
    return losses.mean() if weights is None else (losses * weights.to(outputs)[y]).mean()


def position_cross_entropy(outputs: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean cross-entropy over all positions: logits [B, K, ...], classes y [B, ...].

    >>> position_cross_entropy(torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4, dtype=torch.int64))
    tensor(1.0986)
    """
    return cross_entropy(outputs.movedim(1, -1), y, weights)


def squared_error(outputs: Tensor, y: Tensor) -> Tensor:
    """Mean squared error of outputs [B, K] against numbers y [B, K].

    >>> squared_error(torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1))
    tensor(5.)
    """
    return ((outputs - y) ** 2).mean()


def absolute_error(outputs: Tensor, y: Tensor) -> Tensor:
    """Mean absolute error of outputs [B, K] against numbers y [B, K].

    >>> absolute_error(torch.tensor([[1.0], [-3.0]]), torch.zeros(2, 1))
    tensor(2.)
    """
    return (outputs - y).abs().mean()


def huber(outputs: Tensor, y: Tensor) -> Tensor:
    """Mean Huber loss (Huber 1964) of outputs [B, K] against numbers y [B, K], whose quadratic part ends at 1.

    >>> huber(torch.tensor([[0.5], [3.0]]), torch.zeros(2, 1))
    tensor(1.3125)
    """
    return F.smooth_l1_loss(outputs, y.to(outputs))


def binary_cross_entropy(outputs: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean binary cross-entropy of logits [B, K] against labels y [B, K] of 0 and 1; `weights` [K] weigh the ones.

    >>> binary_cross_entropy(torch.zeros(2, 3), torch.ones(2, 3))
    tensor(0.6931)
    """
    return F.binary_cross_entropy_with_logits(
        outputs, y.to(outputs), pos_weight=None if weights is None else weights.to(outputs)
    )


BY_TASK: dict[str, dict[str, Callable[..., Tensor]]] = {
    "classification": {"cross-entropy": cross_entropy},
    "next-token": {"cross-entropy": cross_entropy},
    "segmentation": {"cross-entropy": position_cross_entropy},
    "regression": {
        "squared-error": squared_error,
        "absolute-error": absolute_error,
        "huber": huber,
    },
    "multi-label": {"binary-cross-entropy": binary_cross_entropy},
}
"""The losses of each task by name, the usual one first."""
