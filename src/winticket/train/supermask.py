"""Learning which weights to keep while none of them changes: every eligible weight has a score, and scores are trained.

A step's forward pass sees the weights at their start under a mask made from the scores; what reaches a masked weight
as gradient goes on to its score, times the weight (the straight-through estimator).
"""

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
                    _start(learning, name, w[0], torch.Generator().manual_seed(s.derive("scores", name)))
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
            chosen = torch.rand_like(score) < torch.sigmoid(score)
            weights[name].copy_(torch.where(chosen, self.frozen[name], 0))

    def settle(self, weights: Mapping[str, Tensor]) -> None:
        """Make the weights those under the mask that counts."""
        for name, keep in self.keep().items():
            weights[name].copy_(torch.where(keep, self.frozen[name], 0))

    def keep(self) -> dict[str, Tensor]:
        """The mask that counts, bool [S, *shape] per weight, with exactly the asked-for count in each."""
        found = {}
        for name, score in self.scores.items():
            flat = (score.abs() if self.learning.kind == "top" else score).flatten(1)
            best = flat.topk(self.learning.counts[name], sorted=False).indices
            found[name] = torch.zeros_like(flat, dtype=torch.bool).scatter_(1, best, True).view(score.shape)
        return found

    def masks(self) -> list[Mask]:
        """The same, replicate by replicate, on the CPU."""
        keep = {name: k.cpu() for name, k in self.keep().items()}
        count = len(next(iter(keep.values())))
        return [Mask({name: k[r].clone() for name, k in keep.items()}) for r in range(count)]

    def of_scores(self, gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Gradients by the scores, from those by the masked weights."""
        through = {name: gradients[name] * frozen for name, frozen in self.frozen.items()}
        if self.learning.kind == "top":  # what the straight-through estimator reaches is |score|
            return {name: g * self.scores[name].sign() for name, g in through.items()}
        chance = {name: torch.sigmoid(score) for name, score in self.scores.items()}
        return {name: g * chance[name] * (1 - chance[name]) for name, g in through.items()}


def _start(learning: Learning, name: str, weight: Tensor, generator: torch.Generator) -> Tensor:
    drawn = torch.rand(weight.shape, generator=generator) * 2 - 1
    if learning.kind == "top":
        return drawn / math.sqrt(weight[0].numel())
    density = learning.counts[name] / weight.numel()
    # A hair of noise, so that the mask that counts is drawn from all places at the start.
    return math.log(density / (1 - density)) + 1e-3 * drawn if density < 1 else drawn.fill_(20.0)
