"""Criteria for whole filters, neurons and attention heads: all weights of one get its score.

Use them with an allocation that keeps them whole: `allocate.units`, for which the output layer is to be excluded, or
`allocate.structures`. An allocation that chooses single weights is refused: among equal scores it would prune by
position, and whole classes too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from winticket.criteria.evidence import DATA, NETWORK, Evidence, needs
from winticket.ticket import Scores, members
from winticket.units import traced

REVISION = 2

_NORMALISED = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@needs(allocate="units")
def l1_units(e: Evidence) -> Scores:
    """The sum of a filter's absolute weights. Li et al. 2017 (Pruning Filters for Efficient ConvNets).

    >>> l1_units(Evidence.of({"fc": torch.tensor([[3.0, -4.0], [0.0, 1.0]])}))
    {'fc': tensor([[7., 7.],
            [1., 1.]], dtype=torch.float64)}
    """
    return _spread(e, {name: _rows(e, name).abs().sum(1) for name in e.mask.keep})


@needs(allocate="units")
def l2_units(e: Evidence) -> Scores:
    """The Euclidean norm of a filter's weights. Li et al. 2017, as an alternative to the sum of absolute weights.

    >>> l2_units(Evidence.of({"fc": torch.tensor([[3.0, -4.0], [0.0, 1.0]])}))
    {'fc': tensor([[5., 5.],
            [1., 1.]], dtype=torch.float64)}
    """
    return _spread(e, {name: _rows(e, name).norm(dim=1) for name in e.mask.keep})


@needs(allocate="units")
def geometric_median(e: Evidence) -> Scores:
    """A filter's summed distance to the other filters of its layer; those near the geometric median can be replaced.

    He et al. 2019 (Filter Pruning via Geometric Median), eq. 5. Filters that are already pruned do not count, and score
    0.

    >>> geometric_median(Evidence.of({"fc": torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])}))["fc"][:, 0]
    tensor([6.0000, 9.2426, 5.2426], dtype=torch.float64)
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
    """The scale |γ| of the BatchNorm that follows a layer.

    Liu et al. 2017 (Network Slimming), who rank the channels of all layers together; `units` ranks them layer by layer.
    Raises ValueError if no BatchNorm with a scale follows an eligible layer directly: exclude that layer.

    >>> network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    >>> weights = {name: p.detach() for name, p in network.named_parameters()} | {"1.weight": torch.tensor([0.5, -2.0])}
    >>> batchnorm_scale(Evidence.of(weights, network=network))
    {'0.weight': tensor([[0.5000, 0.5000],
            [2.0000, 2.0000]], dtype=torch.float64)}
    """
    after = _batchnorms(e.module())
    lacking = [name for name in e.mask.keep if name not in after]
    if lacking:
        raise ValueError(
            f"batchnorm_scale needs a BatchNorm with weights right after each layer, but {', '.join(lacking)} has "
            "none; exclude it, or use l1_units"
        )
    return _spread(e, {name: e.now.weights[after[name]].double().abs() for name in e.mask.keep})


@needs(NETWORK, DATA, allocate="structures")
def head_importance(e: Evidence) -> Scores:
    """How much the loss depends on each attention head: mean over examples of |∂L/∂ξ|, ξ = 1 a factor on its output.

    Michel, Levy & Neubig 2019 (Are Sixteen Heads Really Better than One?), eq. 2. Hidden neurons and tokens of an
    embedding are scored in the same way (`winticket.units.structures`). The head's output enters the network through
    columns of one layer, so ∂L/∂ξ is the sum of w · ∂L/∂w over these. The paper divides the scores of a layer by their
    norm, which does not change the order within it. The network runs in evaluation mode. Weights that belong to no
    structure score 0. Raises ValueError if none does, or only some of a structure's weights may be pruned.

    >>> from winticket.models import build
    >>> network = build("chargpt-1-32", input_shape=(4,), classes=5, generator_seed=0, tokens=True)
    >>> weights = {name: p.detach() for name, p in network.named_parameters()}
    >>> batch = torch.tensor([[0, 1, 2, 3]]), torch.tensor([[1, 2, 3, 4]])
    >>> from winticket import models, units
    >>> from winticket.ticket import Mask, State
    >>> names = [n for n in models.eligible(network) if n != "head.weight"]
    >>> mask = Mask.full({n: weights[n] for n in names}, layout=units.layouts(network))
    >>> state = State(weights, {}, {}, 0)
    >>> e = Evidence(state, state, mask, torch.Generator(), network, batches=[batch])
    >>> scores = head_importance(e)["layers.0.attention.query.weight"]
    >>> scores.unique().numel()  # one for each of the two heads
    2
    """
    found = members(e.mask)
    if not found:
        raise ValueError(
            "head_importance scores attention heads and hidden neurons, but none of the weights that may be pruned "
            "belongs to one; a module of yours declares its own in prunable_structures"
        )
    weights = e.weights()
    # The layers that read a part's output; an embedding's rows are read by nothing else.
    reading = {
        structure: tuple(n for n in names if e.mask.layout[n].by_inputs) or names
        for structure, names in found.items()
    }
    leaves = {n: weights[n] for names in reading.values() for n in names}
    total = {
        structure: torch.zeros(e.mask.layout[names[0]].parts, dtype=torch.float64)
        for structure, names in reading.items()
    }
    counted = e.single_examples()
    for example in counted:
        slopes = torch.autograd.grad(
            e.mean_loss(weights, example), list(leaves.values()), materialize_grads=True
        )
        products = {
            n: (w.detach() * g).cpu().double() for (n, w), g in zip(leaves.items(), slopes, strict=True)
        }
        for structure, names in reading.items():
            blocks = [e.mask.layout[n].by_part(products[n]).sum(1) for n in names]
            total[structure] += torch.stack(blocks).sum(0).abs() / len(counted)
    scores = {n: torch.zeros(keep.shape, dtype=torch.float64) for n, keep in e.mask.keep.items()}
    for structure, names in found.items():
        for n in names:
            layout, like = e.mask.layout[n], e.mask.keep[n]
            each = total[structure][:, None].expand(layout.by_part(like).shape)
            scores[n] = layout.from_parts(each, like).clone()
    return scores


def _rows(e: Evidence, name: str) -> Tensor:
    """A layer's alive weights by output unit, float64 [units, rest]."""
    weight = e.now.weights[name].double().masked_fill(~e.mask.keep[name], 0)
    return e.mask.laid_out(name).by_unit(weight).flatten(1)


def _spread(e: Evidence, units: dict[str, Tensor]) -> Scores:
    """The score of each unit as the score of all its weights."""
    spread = {}
    for name, score in units.items():
        layout, like = e.mask.laid_out(name), e.mask.keep[name]
        each = score.view(-1, 1, 1).expand(layout.by_unit(like).shape)
        spread[name] = layout.from_units(each, like).clone()
    return spread


def _batchnorms(module: nn.Module) -> dict[str, str]:
    """Name of a layer's weight -> name of the weight of the BatchNorm that is the only reader of the layer's output."""
    layers = dict(module.named_modules())
    graph, followers = traced(module), {}
    if isinstance(graph, str):
        raise ValueError(  # noqa: TRY004 - the string is a reason, and the fault is in the user's model
            f"batchnorm_scale needs the model's graph to know which BatchNorm follows a layer, but {graph}; "
            "use l1_units"
        )
    for node in graph.nodes:
        users = list(node.users)
        if node.op != "call_module" or len(users) != 1 or users[0].op != "call_module":
            continue
        follower = layers[str(users[0].target)]
        if isinstance(follower, _NORMALISED) and follower.affine:
            followers[f"{node.target}.weight"] = f"{users[0].target}.weight"
    return followers
