"""Criteria for whole filters and neurons: every weight of one output unit has the unit's score.

They go with an allocation that keeps units whole: `allocate.units`, which is what they take if none is given, with the
output layer left out. With one that takes weights singly, equal scores would prune by position, and whole classes with
it; that is refused.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from winticket.criteria.evidence import NETWORK, Evidence, needs
from winticket.ticket import Scores
from winticket.units import traced

REVISION = 2

_NORMALISED = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@needs(allocate="units")
def l1_units(e: Evidence) -> Scores:
    """The sum of a filter's absolute weights. Li et al. 2017 (Pruning Filters for Efficient ConvNets)."""
    return _spread(e, {name: _rows(e, name).abs().sum(1) for name in e.mask.keep})


@needs(allocate="units")
def l2_units(e: Evidence) -> Scores:
    """The Euclidean norm of a filter's weights. Li et al. 2017, beside the sum of absolute weights."""
    return _spread(e, {name: _rows(e, name).norm(dim=1) for name in e.mask.keep})


@needs(allocate="units")
def geometric_median(e: Evidence) -> Scores:
    """A filter's summed distance to the others of its layer: those near the geometric median can be replaced.

    He et al. 2019 (Filter Pruning via Geometric Median), eq. 5. Filters that are pruned already are none of the layer's
    any more, and score 0.
    """
    scores = {}
    for name in e.mask.keep:
        rows, layout = _rows(e, name), e.mask.laid_out(name)
        alive = layout.by_unit(e.mask.keep[name]).flatten(1).any(1)
        scores[name] = rows.new_zeros(len(rows))
        scores[name][alive] = torch.cdist(rows[alive], rows[alive]).sum(1)
    return _spread(e, scores)


@needs(NETWORK, allocate="units")
def batchnorm_scale(e: Evidence) -> Scores:
    """|γ| of the BatchNorm that follows a layer.

    Liu et al. 2017 (Network Slimming), who rank the channels of all layers together; `units` ranks those of each
    layer. ValueError where a layer that is to be pruned has none: exclude it.
    """
    after = _batchnorms(e.module())
    lacking = [name for name in e.mask.keep if name not in after]
    if lacking:
        raise ValueError(
            f"batchnorm_scale needs a BatchNorm with weights right after each layer, and {', '.join(lacking)} has "
            "none; exclude it, or take l1_units"
        )
    return _spread(e, {name: e.now.weights[after[name]].double().abs() for name in e.mask.keep})


def _rows(e: Evidence, name: str) -> Tensor:
    """A layer's alive weights by output unit, float64 [units, rest]."""
    weight = e.now.weights[name].double().masked_fill(~e.mask.keep[name], 0)
    return e.mask.laid_out(name).by_unit(weight).flatten(1)


def _spread(e: Evidence, units: dict[str, Tensor]) -> Scores:
    """A score per unit as a score per weight."""
    spread = {}
    for name, score in units.items():
        layout, like = e.mask.laid_out(name), e.mask.keep[name]
        each = score.view(-1, 1, 1).expand(layout.by_unit(like).shape)
        spread[name] = layout.from_units(each, like).clone()
    return spread


def _batchnorms(module: nn.Module) -> dict[str, str]:
    """Name of a layer's weight -> name of the weight of the BatchNorm that alone reads the layer's output."""
    layers = dict(module.named_modules())
    graph, found = traced(module), {}
    if isinstance(graph, str):
        raise ValueError(  # noqa: TRY004 - it is the reason, and of the user's model
            f"batchnorm_scale reads off the model's graph which BatchNorm follows a layer, and {graph}; take l1_units"
        )
    for node in graph.nodes:
        users = list(node.users)
        if node.op != "call_module" or len(users) != 1 or users[0].op != "call_module":
            continue
        follower = layers[str(users[0].target)]
        if isinstance(follower, _NORMALISED) and follower.affine:
            found[f"{node.target}.weight"] = f"{users[0].target}.weight"
    return found
