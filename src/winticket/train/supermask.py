"""Learning which weights to keep while none of them changes: every eligible weight has a score, and scores are trained.

A step's forward pass sees the weights at their start under a mask made from the scores; what reaches a masked weight
as gradient goes on to its score, times the weight (the straight-through estimator).
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
    """How masks are made: `counts` weights are kept of each eligible layer.

    "top": those of the largest |score|, from scores drawn uniformly within ±1/√fan-in (Ramanujan et al. 2020, and
    their code). "sampled": in training each weight is kept with probability sigmoid(score), which begins at the layer's
    density (Zhou et al. 2019, §5.1, where it begins at one half); what counts is the mask of the largest scores.
    """

    kind: Kind
    counts: Mapping[str, int]


class Supermask:
    """The scores of a stack, [S, *shape] per weight, and the weights that they choose from; written in place."""

    def __init__(self, learning: Learning, frozen: Mapping[str, Tensor], seeds: Sequence[Seeds]) -> None:
        self.learning = learning
        self.frozen = {name: frozen[name].clone() for name in learning.counts}
        self.scores = {
            name: torch.stack(
                [
                    first_scores(
                        learning.kind, w[0], count=learning.counts[name], seed=s.derive("scores", name)
                    )
                    for s in seeds
                ]
            ).to(w)
            for name, w in self.frozen.items()
        }

    def put(self, weights: Mapping[str, Tensor]) -> None:
        """Make the weights those that the next forward pass sees."""
        if self.learning.kind == "top":
            self.settle(weights)
            return
        for name, score in self.scores.items():
            weights[name].copy_(torch.where(sampled(score), self.frozen[name], 0))

    def settle(self, weights: Mapping[str, Tensor]) -> None:
        """Make the weights those under the mask that counts."""
        for name, keep in self.keep().items():
            weights[name].copy_(torch.where(keep, self.frozen[name], 0))

    def keep(self) -> dict[str, Tensor]:
        """The mask that counts, bool [S, *shape] per weight, with exactly the asked-for count in each."""
        found = {}
        for name, score in self.scores.items():
            found[name] = best_scores(self.learning.kind, score, count=self.learning.counts[name])
        return found

    def masks(self) -> list[Mask]:
        """The same, replicate by replicate, on the CPU."""
        keep = {name: k.cpu() for name, k in self.keep().items()}
        count = len(next(iter(keep.values())))
        return [Mask({name: k[r].clone() for name, k in keep.items()}) for r in range(count)]

    def of_scores(self, gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Gradients by the scores, from those by the masked weights."""
        return {
            name: straight_through(
                self.learning.kind, gradients[name], weight=frozen, score=self.scores[name]
            )
            for name, frozen in self.frozen.items()
        }


def best_scores(kind: Kind, score: Tensor, *, count: int) -> Tensor:
    """The mask that counts, bool of the shape of `score` [S, ...]: the `count` largest of each replicate."""
    flat = (score.abs() if kind == "top" else score).flatten(1)
    best = flat.topk(count, sorted=False).indices
    return torch.zeros_like(flat, dtype=torch.bool).scatter_(1, best, True).view(score.shape)


def sampled(score: Tensor) -> Tensor:
    """A mask drawn from torch's global generator, bool: each weight is kept with probability sigmoid(score)."""
    return torch.rand_like(score) < torch.sigmoid(score)


def straight_through(kind: Kind, gradient: Tensor, *, weight: Tensor, score: Tensor) -> Tensor:
    """The gradient by the score, and of its type, from that by the masked weight; all of one shape."""
    through = gradient.to(score.dtype) * weight.to(score.dtype)
    if kind == "top":  # what the straight-through estimator reaches is |score|
        return through * score.sign()
    chance = torch.sigmoid(score)
    return through * chance * (1 - chance)


def first_scores(kind: Kind, weight: Tensor, *, count: int, seed: int) -> Tensor:
    """Scores of a weight [out, ...] before any training, float32 on the CPU; `count` weights are to be kept."""
    drawn = torch.rand(weight.shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    if kind == "top":
        return drawn / math.sqrt(weight[0].numel())
    density = count / weight.numel()
    # A hair of noise, so that the mask that counts is drawn from all places at the start.
    if 0 < density < 1:
        return math.log(density / (1 - density)) + 1e-3 * drawn
    return drawn.fill_(20.0 if density else -20.0)
