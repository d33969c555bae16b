"""Masks that change while a stack trains: the protocol of the rules that decide them, and the dense gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call

from winticket.objective import LossAndMetric
from winticket.ticket import Mask, State, Ticket
from winticket.train.stacked import cross_entropy, in_a_row

Gradient = Callable[[], Mapping[str, Tensor]]
"""Returns the gradient of the next batch's loss by every parameter, pruned weights too: name -> tensor."""


class Changes(Protocol):
    """When the mask changes, and to what. `change` is called once per replicate and must be pure."""

    def steps(self, start: int, end: int) -> Sequence[int]:
        """The steps, between `start` and `end` exclusive, after which the mask changes."""
        ...

    def change(self, ticket: Ticket, now: State, gradient: Gradient) -> Mask:
        """The next mask. `ticket` has the current mask; `now` has the weights after `now.step` steps, pruned ones 0.

        A weight that is new in the mask starts at 0, and so do its values in the optimiser's state.
        """
        ...


def dense_gradient(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    buffers: Mapping[str, Tensor],
    x: Tensor,
    y: Tensor,
    *,
    objective: LossAndMetric | None = None,
) -> dict[str, Tensor]:
    """The gradient of one network's loss by every parameter, pruned weights too; by default, of the cross-entropy.

    x is [B, ...]; y is [B], or [B, T] if each example has T answers. The module runs in training mode; its weights,
    buffers and mode stay as they are. A parameter that the loss does not depend on gets zeros.

    >>> x, y = torch.tensor([[1.0, 2.0]]), torch.tensor([0])
    >>> dense_gradient(nn.Linear(2, 2, bias=False), {"weight": torch.zeros(2, 2)}, {}, x, y)
    {'weight': tensor([[-0.5000, -1.0000],
            [ 0.5000,  1.0000]])}
    """
    leaves = {name: w.detach().clone().requires_grad_() for name, w in weights.items()}
    copies = {name: b.clone() for name, b in buffers.items()}
    was_training = module.training
    module.train()
    with torch.enable_grad():
        logits = functional_call(module, (leaves, copies), (x.clone(),))
        loss = objective.loss(logits, y) if objective else cross_entropy(*in_a_row(logits, y)).mean()
        gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    module.train(was_training)
    return {
        name: torch.zeros_like(w) if g is None else g
        for (name, w), g in zip(leaves.items(), gradients, strict=True)
    }
