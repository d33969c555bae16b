"""Masks that change while a stack trains: what decides them, and what it may look at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call

from winticket.ticket import Mask, State, Ticket
from winticket.train.stacked import cross_entropy, in_a_row

Gradient = Callable[[], Mapping[str, Tensor]]
"""The gradient of the next batch's loss by every parameter, pruned weights too: name -> tensor of its shape."""


class Changes(Protocol):
    """When the mask changes, and to what; `change` is called for every replicate on its own and is pure."""

    def steps(self, start: int, end: int) -> Sequence[int]:
        """The numbers of steps, above `start` and below `end`, after which the mask changes."""
        ...

    def change(self, ticket: Ticket, now: State, gradient: Gradient) -> Mask:
        """The mask to go on with. `ticket` has the mask so far, `now` the weights at step `now.step`, pruned ones 0.

        A weight that is new in the mask starts at 0, and so does its part of the optimiser's state.
        """
        ...


def dense_gradient(
    module: nn.Module, weights: Mapping[str, Tensor], buffers: Mapping[str, Tensor], x: Tensor, y: Tensor
) -> dict[str, Tensor]:
    """The gradient of one network's mean cross-entropy on x [B, ...], y [B], in training mode; nothing is written."""
    leaves = {name: w.detach().clone().requires_grad_() for name, w in weights.items()}
    copies = {name: b.clone() for name, b in buffers.items()}
    was_training = module.training
    module.train()
    with torch.enable_grad():
        logits = functional_call(module, (leaves, copies), (x.clone(),))
        loss = cross_entropy(*in_a_row(logits, y)).mean()
        found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    module.train(was_training)
    return {
        name: torch.zeros_like(w) if g is None else g
        for (name, w), g in zip(leaves.items(), found, strict=True)
    }
