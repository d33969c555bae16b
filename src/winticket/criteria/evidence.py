"""What a criterion may see."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from winticket.ticket import Mask, Scores, State

Batch = tuple[Tensor, Tensor]
"""Inputs x [B, ...] and classes y [B], or y [B, T] where an input wants T answers."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """The state to score, where its training began, the mask, and randomness of its own.

    Criteria that look at the network's computation are also given `network`, of whose weights only those in `now`
    count, with an `example` [1, ...] of its inputs, and, where they need data, `batches` of training examples. It
    computes as in evaluation (no dropout, BatchNorm with its running statistics), in float64, with pruned weights 0.
    """

    now: State
    start: State
    mask: Mask
    generator: torch.Generator
    network: nn.Module | None = None
    example: Tensor | None = None
    batches: Sequence[Batch] = ()

    def weights(self) -> dict[str, Tensor]:
        """All weights of `now` in float64, pruned ones 0; those under the mask are leaves that take gradients."""
        masked = self.mask.apply(self.now.weights)
        return {n: _double(w).detach().requires_grad_(n in self.mask.keep) for n, w in masked.items()}

    def module(self) -> nn.Module:
        """The network, in evaluation mode. ValueError where none was given."""
        if self.network is None:
            raise ValueError("this criterion looks at the network; give the evidence one (network=...)")
        return self.network.eval()

    def logits(self, weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """The network's output for x [B, ...] with these weights."""
        buffers = {name: _double(b) for name, b in self.now.buffers.items()}
        out: Tensor = functional_call(self.module(), ({**weights}, buffers), (_double(x),))
        return out

    def loss(self, weights: Mapping[str, Tensor], batch: Batch, *, temperature: float = 1.0) -> Tensor:
        """Mean cross-entropy over all answers of a batch, of logits divided by `temperature`."""
        x, y = batch
        logits = self.logits(weights, x) / temperature
        return F.cross_entropy(logits.flatten(0, -2), y.flatten())

    def one(self) -> Tensor:
        """An input [1, ...], for its shape and type. ValueError where none was given."""
        if self.example is None:
            raise ValueError("this criterion needs an input's shape; give the evidence one (example=...)")
        return self.example

    def examples(self) -> Sequence[Batch]:
        """The batches. ValueError where there are none."""
        if not self.batches:
            raise ValueError("this criterion needs training examples; give the evidence some (batches=...)")
        return self.batches

    def of_eligible(self, tensors: Iterable[Tensor | None]) -> Scores:
        """Tensors in the mask's order under the mask's names; None, of a weight without influence, as zeros."""
        return {
            name: torch.zeros(keep.shape, dtype=torch.float64) if t is None else t.detach()
            for (name, keep), t in zip(self.mask.keep.items(), tensors, strict=True)
        }


def _double(x: Tensor) -> Tensor:
    return x.double() if x.is_floating_point() else x


Criterion = Callable[[Evidence], Scores]
C = TypeVar("C", bound=Criterion)

NETWORK, DATA, TRAINING = "network", "data", "training"


def needs(*what: str, rounds: int = 1) -> Callable[[C], C]:
    """Mark a criterion by what it needs beside weights and mask: `NETWORK`, `DATA`; `TRAINING` to have gone before.

    `rounds` is over how many rounds, of exponentially falling density, its paper prunes a network at initialisation.
    """

    def mark(criterion: C) -> C:
        criterion.needs, criterion.rounds = frozenset(what), rounds  # type: ignore[attr-defined]
        return criterion

    return mark


def needed(criterion: Criterion) -> frozenset[str]:
    """What a criterion needs beside weights and mask; nothing unless it says so."""
    found: frozenset[str] = getattr(criterion, "needs", frozenset())
    return found


def rounds_at_init(criterion: Criterion) -> int:
    """Rounds that its paper takes to prune at initialisation."""
    return int(getattr(criterion, "rounds", 1))
