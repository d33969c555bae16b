"""Supermasks: every eligible weight has a score; training updates the scores, and no weight changes.

The forward pass uses the start weights under a mask made from the scores. The gradient by a masked weight, times the
weight, is taken as the gradient by its score (the straight-through estimator).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from winticket.ticket import Mask, Seeds

Kind = Literal["top", "sampled"]


@dataclass(frozen=True)
class Learning:
    """How masks are made from scores; `counts` is the number of weights kept in each eligible layer.

    "top" keeps the weights of largest |score|; scores are first drawn uniformly within ±1/√fan-in (Ramanujan et al.
    2020, and their code). "sampled" keeps each weight, during training, with probability sigmoid(score), which starts
    at the layer's density (in Zhou et al. 2019, §5.1, at one half). Its final mask keeps the weights of largest score.

    >>> Learning("top", {"fc.weight": 40})
    Learning(kind='top', counts={'fc.weight': 40})
    """

    kind: Kind
    counts: Mapping[str, int]


class Supermask:
    """The scores of a stack, [S, *shape] per weight, and the frozen weights. The scores are written in place.

    >>> start = {"fc.weight": torch.arange(1.0, 7).view(1, 2, 3)}
    >>> supermask = Supermask(Learning("top", {"fc.weight": 2}), start, [Seeds(0, 0)])
    >>> supermask.masks()[0].count()
    2
    """

    def __init__(self, learning: Learning, frozen: Mapping[str, Tensor], seeds: Sequence[Seeds]) -> None:
        self.learning = learning
        self.frozen = {name: frozen[name].clone() for name in learning.counts}

        def drawn(name: str, weight: Tensor, seed: int) -> Tensor:
            return first_scores(learning.kind, weight, count=learning.counts[name], seed=seed)

        self.scores = {
            name: torch.stack([drawn(name, w[0], s.derive("scores", name)) for s in seeds]).to(w)
            for name, w in self.frozen.items()
        }

    def put(self, weights: Mapping[str, Tensor]) -> None:
        """Write the weights that the next forward pass uses: the frozen weights under this step's mask."""
        if self.learning.kind == "top":
            self.settle(weights)
            return
        for name, score in self.scores.items():
            weights[name].copy_(torch.where(sampled(score), self.frozen[name], 0))

    def settle(self, weights: Mapping[str, Tensor]) -> None:
        """Write the frozen weights under the final mask."""
        for name, keep in self.keep().items():
            weights[name].copy_(torch.where(keep, self.frozen[name], 0))

    def keep(self) -> dict[str, Tensor]:
        """The final mask, bool [S, *shape] per weight, which keeps exactly `learning.counts` of each."""
        return {
            name: best_scores(self.learning.kind, score, count=self.learning.counts[name])
            for name, score in self.scores.items()
        }

    def masks(self) -> list[Mask]:
        """The final mask of each replicate, on the CPU."""
        keep = {name: k.cpu() for name, k in self.keep().items()}
        count = len(next(iter(keep.values())))
        return [Mask({name: k[r].clone() for name, k in keep.items()}) for r in range(count)]

    def of_scores(self, gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Gradients by the scores, from the gradients by the masked weights."""
        return {
            name: straight_through(
                self.learning.kind, gradients[name], weight=frozen, score=self.scores[name]
            )
            for name, frozen in self.frozen.items()
        }


def best_scores(kind: Kind, score: Tensor, *, count: int) -> Tensor:
    """The final mask, bool of the shape of `score` [S, ...]: the `count` best scores of each replicate.

    The best are the largest by size for "top", the largest by value for "sampled".
    """
    flat = (score.abs() if kind == "top" else score).flatten(1)
    best = flat.topk(count, sorted=False).indices
    return torch.zeros_like(flat, dtype=torch.bool).scatter_(1, best, True).view(score.shape)


def sampled(score: Tensor) -> Tensor:
    """A mask drawn from torch's global generator, bool: each weight is kept with probability sigmoid(score)."""
    return torch.rand_like(score) < torch.sigmoid(score)


def straight_through(kind: Kind, gradient: Tensor, *, weight: Tensor, score: Tensor) -> Tensor:
    """The gradient by the score, in the score's dtype, from the gradient by the masked weight; all of one shape."""
    through = gradient.to(score.dtype) * weight.to(score.dtype)
    if kind == "top":  # the estimator gives the gradient by |score|
        return through * score.sign()
    chance = torch.sigmoid(score)
    return through * chance * (1 - chance)


def first_scores(kind: Kind, weight: Tensor, *, count: int, seed: int) -> Tensor:
    """Scores of a weight [out, ...] before training, float32 on the CPU; the mask will keep `count` weights."""
    drawn = torch.rand(weight.shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    if kind == "top":
        return drawn / math.sqrt(weight[0].numel())
    density = count / weight.numel()
    # A little noise, so that the mask before any training is drawn from all positions.
    if 0 < density < 1:
        return math.log(density / (1 - density)) + 1e-3 * drawn
    return drawn.fill_(20.0 if density else -20.0)
