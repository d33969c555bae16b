"""Criteria that need weights alone: their current values w and their initial values w₀.

Zhou et al. 2019 (Deconstructing Lottery Tickets) compare them. Formulas and signed variants follow the authors'
get_weight_init.py, which scores a weight of the wrong sign 0; here, magnitude breaks that tie.
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

    >>> magnitude(Evidence.of({"fc": torch.tensor([[1.0, -3.0]])}))
    {'fc': tensor([[1., 3.]])}
    """
    return {name: e.now.weights[name].abs() for name in e.mask.keep}


@needs()
def small_final(e: Evidence) -> Scores:
    """The opposite of `magnitude`: s = -|w|. Zhou et al. 2019.

    >>> small_final(Evidence.of({"fc": torch.tensor([[1.0, -3.0]])}))
    {'fc': tensor([[-1., -3.]])}
    """
    return {name: -score for name, score in magnitude(e).items()}


@needs()
def large_init(e: Evidence) -> Scores:
    """Magnitude at initialisation: s = |w₀|. Zhou et al. 2019.

    >>> large_init(Evidence.of({"fc": torch.tensor([[1.0, -3.0]])}, start={"fc": torch.tensor([[2.0, -1.0]])}))
    {'fc': tensor([[2., 1.]])}
    """
    return {name: e.start.weights[name].abs() for name in e.mask.keep}


@needs()
def small_init(e: Evidence) -> Scores:
    """The opposite of `large_init`: s = -|w₀|. Zhou et al. 2019.

    >>> small_init(Evidence.of({"fc": torch.tensor([[1.0, -3.0]])}, start={"fc": torch.tensor([[2.0, -1.0]])}))
    {'fc': tensor([[-2., -1.]])}
    """
    return {name: -score for name, score in large_init(e).items()}


@needs()
def large_init_large_final(e: Evidence) -> Scores:
    """Large before and after training: the lower of a weight's two ranks in its layer, as a share of the alive weights.

    The ranks are those by |w₀| and by |w|, and the largest weight has rank 1. Zhou et al. 2019. The authors cut off
    equal shares by both; keeping the weights with the best lower rank gives the same.

    >>> weights, start = torch.tensor([[1.0, -3.0, 2.0, 4.0]]), torch.tensor([[4.0, -3.0, 2.0, 1.0]])
    >>> large_init_large_final(Evidence.of({"fc": weights}, start={"fc": start}))
    {'fc': tensor([[0.2500, 0.7500, 0.5000, 0.2500]], dtype=torch.float64)}
    """
    return _both(e, large_init(e), magnitude(e))


@needs()
def small_init_small_final(e: Evidence) -> Scores:
    """Small before and after training: the lower of the ranks by -|w₀| and by -|w|. Zhou et al. 2019.

    >>> weights, start = torch.tensor([[1.0, -3.0, 2.0, 4.0]]), torch.tensor([[4.0, -3.0, 2.0, 1.0]])
    >>> small_init_small_final(Evidence.of({"fc": weights}, start={"fc": start}))
    {'fc': tensor([[0.2500, 0.5000, 0.7500, 0.2500]], dtype=torch.float64)}
    """
    return _both(e, small_init(e), small_final(e))


@needs(TRAINING)
def magnitude_increase(e: Evidence) -> Scores:
    """How much a weight has grown: s = |w| - |w₀|. Zhou et al. 2019.

    >>> weights, start = torch.tensor([[1.0, -3.0]]), torch.tensor([[2.0, -1.0]])
    >>> magnitude_increase(Evidence.of({"fc": weights}, start={"fc": start}))
    {'fc': tensor([[-1.,  2.]])}
    """
    before = large_init(e)
    return {name: score - before[name] for name, score in magnitude(e).items()}


@needs(TRAINING)
def movement(e: Evidence) -> Scores:
    """How far a weight has moved: s = |w - w₀|. Zhou et al. 2019.

    >>> weights, start = torch.tensor([[1.0, -3.0]]), torch.tensor([[2.0, 1.0]])
    >>> movement(Evidence.of({"fc": weights}, start={"fc": start}))
    {'fc': tensor([[1., 4.]])}
    """
    return {name: (e.now.weights[name] - e.start.weights[name]).abs() for name in e.mask.keep}


@needs(allocate="global_top", in_layer="magnitude")
def lamp(e: Evidence) -> Scores:
    """A weight's square over the sum of the squares at least as large in its layer: s = w² / Σ_{v ≥ w} v².

    Lee et al. 2021 (Layer-adaptive Sparsity for the Magnitude-based Pruning). Within a layer it ranks weights as
    `magnitude` does. It makes scores comparable between layers, so layers compete (global_top). Ties break by position.

    >>> lamp(Evidence.of({"fc": torch.tensor([[1.0, -3.0]])}))
    {'fc': tensor([[0.1000, 1.0000]], dtype=torch.float64)}
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
    """`magnitude` of weights that kept their sign; others 0. Zhou et al. 2019, the authors' get_weight_init.py.

    >>> weights, start = torch.tensor([[1.0, -3.0]]), torch.tensor([[2.0, 1.0]])
    >>> large_final_same_sign(Evidence.of({"fc": weights}, start={"fc": start}))
    {'fc': tensor([[1., 0.]])}
    """
    return _signed(e, magnitude(e), same=True)


@needs(TRAINING)
def large_final_diff_sign(e: Evidence) -> Scores:
    """`magnitude` of weights that changed their sign; others 0. Zhou et al. 2019, the authors' get_weight_init.py.

    The tie among the others is broken by magnitude: their scores are below 0 by at most 1e-9.

    >>> weights, start = torch.tensor([[1.0, -3.0]]), torch.tensor([[2.0, 1.0]])
    >>> large_final_diff_sign(Evidence.of({"fc": weights}, start={"fc": start}))
    {'fc': tensor([[-6.6667e-10,  3.0000e+00]])}
    """
    return _signed(e, magnitude(e), same=False)


@needs(TRAINING)
def magnitude_increase_same_sign(e: Evidence) -> Scores:
    """`magnitude_increase` of weights that kept their sign; others 0. Zhou et al. 2019, authors' get_weight_init.py.

    >>> weights, start = torch.tensor([[5.0, -3.0]]), torch.tensor([[2.0, 1.0]])
    >>> magnitude_increase_same_sign(Evidence.of({"fc": weights}, start={"fc": start}))["fc"].round(decimals=3)
    tensor([[3., -0.]])
    """
    return _signed(e, magnitude_increase(e), same=True)


@needs(TRAINING)
def magnitude_increase_diff_sign(e: Evidence) -> Scores:
    """`magnitude_increase` of weights that changed sign; others 0. Zhou et al. 2019, authors' get_weight_init.py.

    >>> weights, start = torch.tensor([[5.0, -3.0]]), torch.tensor([[2.0, 1.0]])
    >>> magnitude_increase_diff_sign(Evidence.of({"fc": weights}, start={"fc": start}))["fc"].round(decimals=3)
    tensor([[0., 2.]])
    """
    return _signed(e, magnitude_increase(e), same=False)


@needs(RANDOM)
def random(e: Evidence) -> Scores:
    """Uniform noise: the floor that every criterion must beat.

    Frankle et al. 2021 (Pruning Neural Networks at Initialization), "the trivial baseline of random pruning".

    >>> scores = random(Evidence.of({"fc": torch.tensor([[1.0, -3.0]])}, seed=0))
    >>> scores["fc"].shape, bool((scores["fc"] < 1).all())
    (torch.Size([1, 2]), True)
    """
    return {name: torch.rand(keep.shape, generator=e.generator) for name, keep in e.mask.keep.items()}


def _signed(e: Evidence, scores: Scores, *, same: bool) -> Scores:
    """The scores of weights with the right sign; the others get just under 0, so that magnitude breaks the tie.

    Most of a layer may have the wrong sign. If their scores were equal, position would decide which of them stay.
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
    """Each weight's rank among the alive weights of its layer, in (0, 1]: 1 for the largest, 0 for pruned weights.

    Ties break by position.
    """
    alive = keep.reshape(-1).nonzero().squeeze(1)
    order = torch.sort(score.reshape(-1)[alive], stable=True, descending=True).indices
    ranks = torch.zeros(keep.numel(), dtype=torch.float64)
    ranks[alive[order]] = torch.arange(len(alive), 0, -1, dtype=torch.float64) / max(1, len(alive))
    return ranks.view(keep.shape)
