"""Criteria that look at weights alone: where they are and where they started.

Zhou et al. 2019 (Deconstructing Lottery Tickets) compare them; formulas, and signed variants, as in
the authors' get_weight_init.py, where a weight of the wrong sign scores 0 (here, magnitude breaks that tie).
"""

from __future__ import annotations

import torch
from torch import Tensor

from winticket.criteria.evidence import RANDOM, TRAINING, Evidence, needs
from winticket.ticket import Scores

REVISION = 2

_TIE = 1e-9


@needs()
def magnitude(e: Evidence) -> Scores:
    """Weight magnitude after training: s = |w|.

    Frankle & Carbin 2019, §2: the weights of smallest magnitude at the end of training are pruned. Zhou et al. call it
    large_final.
    """
    return {name: e.now.weights[name].abs() for name in e.mask.keep}


@needs()
def small_final(e: Evidence) -> Scores:
    """The opposite of `magnitude`: s = -|w|. Zhou et al. 2019."""
    return {name: -score for name, score in magnitude(e).items()}


@needs()
def large_init(e: Evidence) -> Scores:
    """Magnitude at the start: s = |w₀|. Zhou et al. 2019."""
    return {name: e.start.weights[name].abs() for name in e.mask.keep}


@needs()
def small_init(e: Evidence) -> Scores:
    """s = -|w₀|. Zhou et al. 2019."""
    return {name: -score for name, score in large_init(e).items()}


@needs()
def large_init_large_final(e: Evidence) -> Scores:
    """Large at the start and at the end: the lower of a weight's two ranks in its layer, as a share of the alive ones.

    Zhou et al. 2019. The authors cut off as many by either; keeping the best by the lower rank is that.
    """
    return _both(e, large_init(e), magnitude(e))


@needs()
def small_init_small_final(e: Evidence) -> Scores:
    """Small at the start and at the end, the lower of the two ranks. Zhou et al. 2019."""
    return _both(e, small_init(e), small_final(e))


@needs(TRAINING)
def magnitude_increase(e: Evidence) -> Scores:
    """How much a weight has grown: s = |w| - |w₀|. Zhou et al. 2019."""
    before = large_init(e)
    return {name: score - before[name] for name, score in magnitude(e).items()}


@needs(TRAINING)
def movement(e: Evidence) -> Scores:
    """How far a weight has moved: s = |w - w₀|. Zhou et al. 2019."""
    return {name: (e.now.weights[name] - e.start.weights[name]).abs() for name in e.mask.keep}


@needs(allocate="global_top", in_layer="magnitude")
def lamp(e: Evidence) -> Scores:
    """Squared magnitude over that of all weights of the layer at least as large: s = w² / Σ_{v ≥ w} v².

    Lee et al. 2021 (Layer-adaptive Sparsity for the Magnitude-based Pruning). Within a layer the order is that of
    `magnitude`; it makes layers comparable, so layers compete (global_top). Ties go by position.
    """
    scores = {}
    for name, size in magnitude(e).items():
        square = size.double().masked_fill(~e.mask.keep[name], 0).reshape(-1) ** 2
        order = torch.sort(square, descending=True, stable=True).indices
        share = square[order] / square[order].cumsum(0).clamp(min=torch.finfo(torch.float64).tiny)
        scores[name] = torch.empty_like(square).scatter_(0, order, share).view(size.shape)
    return scores


@needs()
def large_final_same_sign(e: Evidence) -> Scores:
    """`magnitude` of weights that kept their sign; others 0. Zhou et al. 2019, the authors' get_weight_init.py."""
    return _signed(e, magnitude(e), same=True)


@needs(TRAINING)
def large_final_diff_sign(e: Evidence) -> Scores:
    """`magnitude` of weights that changed their sign; others 0. Zhou et al. 2019, the authors' get_weight_init.py."""
    return _signed(e, magnitude(e), same=False)


@needs(TRAINING)
def magnitude_increase_same_sign(e: Evidence) -> Scores:
    """`magnitude_increase` of weights that kept their sign; others 0. Zhou et al. 2019, authors' get_weight_init.py."""
    return _signed(e, magnitude_increase(e), same=True)


@needs(TRAINING)
def magnitude_increase_diff_sign(e: Evidence) -> Scores:
    """`magnitude_increase` of weights that changed sign; others 0. Zhou et al. 2019, authors' get_weight_init.py."""
    return _signed(e, magnitude_increase(e), same=False)


@needs(RANDOM)
def random(e: Evidence) -> Scores:
    """Uniform noise: the floor that every criterion has to beat.

    Frankle et al. 2021 (Pruning Neural Networks at Initialization), "the trivial baseline of random pruning".
    """
    return {name: torch.rand(keep.shape, generator=e.generator) for name, keep in e.mask.keep.items()}


def _signed(e: Evidence, scores: Scores, *, same: bool) -> Scores:
    """Scores of weights whose sign is right; of the others 0, less so little that magnitude breaks the tie.

    Most of a layer may have the wrong sign. Were they equal, their position would decide which of them stay.
    """
    sizes = magnitude(e)
    most = max((float(size.max()) for size in sizes.values() if size.numel()), default=0.0) or 1.0
    wrong = {
        name: (e.now.weights[name].sign() == e.start.weights[name].sign()) != same for name in e.mask.keep
    }
    return {
        name: torch.where(wrong[name], _TIE * (sizes[name] / most - 1), score)
        for name, score in scores.items()
    }


def _both(e: Evidence, one: Scores, two: Scores) -> Scores:
    return {
        name: torch.minimum(_ranks(one[name], keep), _ranks(two[name], keep))
        for name, keep in e.mask.keep.items()
    }


def _ranks(score: Tensor, keep: Tensor) -> Tensor:
    """Each weight's rank among the alive of its layer, in (0, 1], the largest 1; pruned ones 0. Ties by position."""
    alive = keep.reshape(-1).nonzero().squeeze(1)
    order = torch.sort(score.reshape(-1)[alive], stable=True, descending=True).indices
    ranks = torch.zeros(keep.numel(), dtype=torch.float64)
    ranks[alive[order]] = torch.arange(len(alive), 0, -1, dtype=torch.float64) / max(1, len(alive))
    return ranks.view(keep.shape)
