"""Pruning one matrix of weights [units, inputs] by what reached it: magnitude, Wanda and SparseGPT."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from winticket.allocate import constant_fan_in, layerwise, n_of_m
from winticket.ticket import Mask


@dataclass(frozen=True)
class Pattern:
    """At most n of every m consecutive inputs of a unit are kept, such as 2:4.

    >>> Pattern.of("2:4"), Pattern.of("2:4").density
    (Pattern(n=2, m=4), 0.5)
    """

    n: int
    m: int

    @classmethod
    def of(cls, text: str) -> Pattern:
        """The pattern that a text such as "2:4" names. Raises ValueError for any other text."""
        n, _, m = text.partition(":")
        if not (n.isdecimal() and m.isdecimal() and 1 <= int(n) <= int(m)):
            raise ValueError(
                f"pattern {text!r} is not n:m with 1 <= n <= m, such as 2:4, which keeps 2 of every 4 inputs"
            )
        return cls(int(n), int(m))

    @property
    def density(self) -> float:
        """Share of the weights that it keeps."""
        return self.n / self.m

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"


@dataclass(frozen=True)
class Target:
    """What to keep of a matrix, and how SparseGPT does it.

    density: share of the weights, in (0, 1]. pattern: instead of it. blocksize: the inputs for which SparseGPT chooses
    weights at a time. percdamp: what it adds to the Hessian's diagonal, as a share of the diagonal's mean.
    """

    density: float
    pattern: Pattern | None = None
    blocksize: int = 128
    percdamp: float = 0.01


def magnitude(weight: Tensor, target: Target) -> Tensor:
    """Keep the weights of largest |w| in the whole matrix: bool [units, inputs].

    The baseline of Sun et al. 2024 (Wanda; `prune_magnitude` of the authors' lib/prune.py), with exact counts: of equal
    weights the first are kept.

    >>> magnitude(torch.tensor([[3.0, -4.0], [1.0, 2.0]]), Target(0.5)).tolist()
    [[True, True], [False, False]]
    """
    return _chosen(weight.abs(), target, layerwise)


def wanda(weight: Tensor, norms: Tensor, target: Target) -> Tensor:
    """Keep, in each row, the weights of largest |w[i, j]| * ||X_j||: bool [units, inputs].

    Sun et al. 2024 (Wanda), equation 1 and algorithm 1. norms: [inputs], the Euclidean norm of each input over all
    tokens of the calibration text. Each row keeps equally many weights; of equal scores the first are kept.

    >>> wanda(torch.tensor([[3.0, -4.0], [1.0, 2.0]]), torch.tensor([2.0, 1.0]), Target(0.5)).tolist()
    [[True, False], [True, False]]
    """
    return _chosen(weight.abs() * norms, target, constant_fan_in)


def _chosen(scores: Tensor, target: Target, allocate: Callable[..., Mask]) -> Tensor:
    named = {"weight": scores}
    if target.pattern is not None:
        mask = n_of_m(named, Mask.full(named), density=target.pattern.density, m=target.pattern.m)
    else:
        mask = allocate(named, Mask.full(named), density=target.density)
    return mask.keep["weight"]


def sparsegpt(weight: Tensor, hessian: Tensor, target: Target) -> tuple[Tensor, Tensor]:
    """Prune inputs from left to right and let the later ones make up for it: weights, and bool [units, inputs].

    Frantar & Alistarh 2023 (SparseGPT), algorithm 1. hessian: [inputs, inputs], 2/n times the sum of x xᵀ over the
    tokens of n windows. When a weight w[i, j] goes, the rest of its row changes by -w[i, j] / [H⁻¹]ⱼⱼ · [H⁻¹]ⱼ (the
    Optimal Brain Surgeon's update, equation 3), with H restricted to the inputs from j on; row j of the upper Cholesky
    factor U of H⁻¹ holds that inverse's: [H⁻¹]ⱼ = Uⱼⱼ Uⱼ. Weights are chosen for `blocksize` inputs at a time, those of
    least w² / [H⁻¹]ⱼⱼ going first; for a pattern, for m inputs at a time. An input that is always 0 gets the weight 0.
    Counts are exact over the matrix as a whole; of equal scores the first are kept. Raises ValueError if the damped H
    is not positive definite.

    >>> weight, hessian = torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0, 1.0], [1.0, 2.0]])
    >>> pruned, keep = sparsegpt(weight, hessian, Target(0.5, percdamp=0.0))
    >>> pruned.tolist(), keep.tolist()  # the second input makes up for the first: 2 + 1/2
    ([[0.0, 2.5]], [[False, True]])
    """
    left = weight.clone()
    upper = _factor(left, hessian, target.percdamp)
    keep = torch.ones_like(weight, dtype=torch.bool)
    rows, inputs = weight.shape
    for start in range(0, inputs, target.blocksize):
        end = min(start + target.blocksize, inputs)
        block, factor = left[:, start:end].clone(), upper[start:end, start:end]
        if target.pattern is None:
            # Rounded over all inputs so far, so that the counts of the blocks add up to the matrix's.
            kept = _count(target.density, rows * end) - _count(target.density, rows * start)
            keep[:, start:end] = _largest(block.square() / factor.diagonal().square(), kept)
        errors = _swept(block, factor, keep[:, start:end], target.pattern)
        left[:, start:end] = block
        left[:, end:] -= errors @ upper[start:end, end:]
    return left.masked_fill(~keep, 0), keep


def _factor(weight: Tensor, hessian: Tensor, percdamp: float) -> Tensor:
    """The upper Cholesky factor of the damped Hessian's inverse; weights of inputs that are always 0 become 0."""
    damped = hessian.clone()
    diagonal = damped.diagonal()
    dead = diagonal == 0
    diagonal[dead] = 1
    weight[:, dead] = 0
    diagonal += percdamp * diagonal.mean()
    try:
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
        factor: Tensor = torch.linalg.cholesky(inverse, upper=True)
    except RuntimeError as error:  # LinAlgError among them
        raise ValueError(
            "the Hessian of a layer's inputs cannot be inverted; give more calibration text (--samples) or damp it "
            f"more (--percdamp, now {percdamp:g})"
        ) from error
    return factor


def _swept(block: Tensor, factor: Tensor, keep: Tensor, pattern: Pattern | None) -> Tensor:
    """Prune the inputs of a block in turn, in place, and return what each error was: [units, inputs of the block]."""
    errors = torch.zeros_like(block)
    for at in range(block.shape[1]):
        if pattern is not None and at % pattern.m == 0:
            group = slice(at, at + pattern.m)
            scores = block[:, group].square() / factor.diagonal()[group].square()
            keep[:, group] = n_of_m(
                {"w": scores}, Mask.full({"w": scores}), density=pattern.density, m=pattern.m
            ).keep["w"]
        errors[:, at] = block[:, at].masked_fill(keep[:, at], 0) / factor[at, at]
        # Not the input itself: it is exactly 0 if pruned, and as it was if kept.
        block[:, at + 1 :] -= errors[:, at, None] * factor[at, at + 1 :]
        block[:, at].masked_fill_(~keep[:, at], 0)
    return errors


def _count(density: float, total: int) -> int:
    return int(density * total + 0.5)


def _largest(scores: Tensor, count: int) -> Tensor:
    chosen = torch.zeros(scores.numel(), dtype=torch.bool)
    chosen[torch.sort(scores.flatten(), descending=True, stable=True).indices[:count]] = True
    return chosen.view(scores.shape)
