"""What a criterion may see."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

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

NETWORK, DATA, TRAINING, RANDOM = "network", "data", "training", "random"


def needs(
    *what: str, rounds: int = 1, allocate: str = "layerwise", also: Sequence[str] = (), in_layer: str = ""
) -> Callable[[C], C]:
    """Mark a criterion by what it needs beside weights and mask, and by how its paper uses it.

    `what`: `NETWORK`, `DATA`; `TRAINING` to have gone before; `RANDOM`, numbers from the generator. `rounds` is over
    how many rounds, of exponentially falling density, its paper prunes a network at initialisation. `allocate` is the
    allocation of its paper and the default beside it (`criterion.usual_allocate`), `also` names others that its paper
    uses. `in_layer` names the criterion that ranks the weights of one layer in the same way.
    """

    def mark(criterion: C) -> C:
        marks = {
            "needs": frozenset(what),
            "rounds": rounds,
            "usual_allocate": allocate,
            "also": tuple(also),
            "in_layer": in_layer,
        }
        for name, value in marks.items():
            setattr(criterion, name, value)
        return criterion

    return mark


def needed(criterion: Criterion) -> frozenset[str]:
    """What a criterion needs beside weights and mask; nothing unless it says so."""
    return frozenset(_marked(criterion, "needs", ()))


def rounds_at_init(criterion: Criterion) -> int:
    """Rounds that its paper takes to prune at initialisation."""
    return int(_marked(criterion, "rounds", 1))


def usual_allocate(criterion: Criterion) -> str:
    """The name of the allocation that its paper uses; layerwise unless it says another."""
    return str(_marked(criterion, "usual_allocate", "layerwise"))


def _marked(criterion: Criterion, name: str, default: Any) -> Any:
    """What was said of a criterion by `needs`, also of one whose options were filled in by `functools.partial`."""
    while isinstance(criterion, partial):
        criterion = criterion.func
    return getattr(criterion, name, default)


def scores_units(criterion: Criterion) -> bool:
    """Whether it gives all weights of an output unit one score, so that only whole units can go."""
    return usual_allocate(criterion) == "units"
