"""Criteria from gradients of the loss, or of the flow through the network.

Batches are weighted by their number of examples (of answers, if an example has several), so it makes no difference how
a loader cuts the same examples into batches. Under a loss of the user's, or the model's own, they are weighted by their
number of examples; that makes no difference either if the loss is a mean over examples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.parametrize import ParametrizationList

from winticket.criteria.batches import Inputs, each_tensor, equal_parts, tensors_in
from winticket.criteria.evidence import DATA, NETWORK, Evidence, needs
from winticket.ticket import Mask, Scores

REVISION = 2

TEMPERATURE = 200.0
"""GraSP divides logits by this (Wang et al. 2020, the authors' pruner/GraSP.py)."""
PART = 64
"""Examples per gradient that `taylor` squares (Molchanov et al. 2019, the default of their main.py)."""

SHOWN = 8
"""A message names at most so many rows of a weight."""

_UNITS_FIRST = (_ConvNd, nn.Bilinear, ParametrizationList)
"""Layers whose weights may have three dimensions although an input does not choose along the first."""
_WAYS_OUT = "exclude it, or give more examples (batches=...) if the criterion uses any"

Weights = dict[str, Tensor]
Influence = list[Tensor | None]
"""A tensor per eligible weight in the mask's order; None if the computation does not use the weight."""


@needs(NETWORK, DATA, allocate="global_top")
def snip(e: Evidence) -> Scores:
    """Connection sensitivity: s = |w · ∂L/∂w|, L the mean loss over all examples.

    Lee et al. 2019 (SNIP). The network runs in evaluation mode, as in the authors' snip/prune.py (is_train: False).
    They also divide by the sum of all scores, which does not change the ranking and is omitted here.

    >>> weights = {"weight": torch.tensor([[1.0, -2.0], [0.5, 0.0]])}
    >>> batch = torch.tensor([[1.0, 0.0]]), torch.tensor([0])
    >>> snip(Evidence.of(weights, network=nn.Linear(2, 2, bias=False), batches=[batch]))
    {'weight': tensor([[0.3775, 0.0000],
            [0.1888, 0.0000]], dtype=torch.float64)}
    """
    weights = e.weights()
    gradients = _reached(e, _gradients(e, weights))
    return e.of_eligible((w * g).abs() for w, g in zip(_eligible(e, weights), gradients, strict=True))


@needs(NETWORK, DATA, mode="training", allocate="global_top")
def foresight(e: Evidence) -> Scores:
    """Foresight connection sensitivity: s = |θ · ∂L/∂(θ⊙m)|, the gradient that of the network under the mask m.

    De Jorge et al. 2021 (Progressive Skeletonization, arXiv:2006.09081). A weight outside the mask is scored by
    its unpruned value θ in `e.now`, so that it may come back. In training mode, as their pruning/pruning_algos.py,
    where `snip` takes evaluation mode. No criterion to choose by name: where masks only shrink, what a pruned weight
    scores does not matter, and it would be `snip` in another mode.
    """
    gradients = _reached(e, _gradients(e, e.weights()))
    whole = [e.now.weights[name] for name in e.mask.keep]
    return e.of_eligible((w.to(g.dtype) * g).abs() for w, g in zip(whole, gradients, strict=True))


@needs(NETWORK, DATA, mode="training", allocate="global_top")
def grasp(e: Evidence) -> Scores:
    """Gradient signal preservation: s = w · (H g), for the loss at temperature 200.

    Wang et al. 2020 (GraSP), the authors' pruner/GraSP.py. The weights with the highest -w · Hg are pruned first, since
    removing them raises the norm of the gradient most. The network runs in training mode, as theirs does, so BatchNorm
    uses the statistics of each batch. The authors draw new Linear weights for the scoring; here, the network's are
    used. The temperature divides the logits of the cross-entropy; any other loss is used as it is, without temperature.

    >>> weights = {"weight": torch.tensor([[1.0, -2.0], [0.5, 0.0]])}
    >>> batch = torch.tensor([[1.0, 0.0]]), torch.tensor([0])
    >>> scores = grasp(Evidence.of(weights, network=nn.Linear(2, 2, bias=False), batches=[batch]))
    >>> scores["weight"].sign()
    tensor([[-1.,  0.],
            [ 1.,  0.]], dtype=torch.float64)
    """
    weights = e.weights()
    leaves = _eligible(e, weights)
    fixed = _reached(e, _gradients(e, weights, temperature=TEMPERATURE))
    products = [torch.zeros_like(w) for w in leaves]
    for number, (batch, share) in enumerate(zip(e.examples(), e.shares(e.examples()), strict=True)):
        if not share:
            continue
        loss = e.mean_loss(weights, batch, temperature=TEMPERATURE, draw=number)
        gradients = torch.autograd.grad(loss, leaves, create_graph=True, materialize_grads=True)
        flow = torch.stack([(f * g).sum() for f, g in zip(fixed, gradients, strict=True)]).sum()
        for product, part in zip(
            products, torch.autograd.grad(flow, leaves, materialize_grads=True), strict=True
        ):
            product.add_(part, alpha=share)
    return e.of_eligible(w * hg for w, hg in zip(leaves, products, strict=True))


@needs(NETWORK, rounds=100, allocate="global_top")
def synflow(e: Evidence) -> Scores:
    """Synaptic flow: s = |w · ∂R/∂w|, with R = 1ᵀ f(1) for the network whose weights are |w|. It needs no data.

    Tanaka et al. 2020 (SynFlow), the authors' Pruners/pruners.py. At initialisation it prunes over 100 rounds of
    exponentially falling density, in float64 and in evaluation mode. Buffers are made positive too, as in their code.
    In a network that reads tokens, token embeddings are replaced by ones. Embeddings of positions keep their values,
    since a LayerNorm lets no constant through.

    >>> network = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False))
    >>> weights = {"0.weight": torch.tensor([[1.0, -2.0], [3.0, 0.0]]), "1.weight": torch.tensor([[1.0, -2.0]])}
    >>> batch = torch.zeros(1, 2), torch.tensor([0])  # only its shape matters
    >>> synflow(Evidence.of(weights, network=network, batches=[batch]))
    {'0.weight': tensor([[1., 2.],
            [6., 0.]], dtype=torch.float64), '1.weight': tensor([[3., 6.]], dtype=torch.float64)}
    """
    weights = e.weights()
    flow = _reached(e, _flow(e, weights), again=_flow)
    return e.of_eligible((w * g).abs() for w, g in zip(_eligible(e, weights), flow, strict=True))


@needs(NETWORK, DATA, mode="training", allocate="global_top")
def taylor(e: Evidence) -> Scores:
    """First-order Taylor: s = (w · ∂L/∂w)², averaged over batches of at most 64 examples.

    Molchanov et al. 2019 (Importance Estimation for Neural Network Pruning), for single weights. As in the authors'
    main.py, which collects scores during training, the network runs in training mode and each batch's gradient is
    squared separately. The square depends on the size of the batch, so the examples are first cut into batches of equal
    size, whatever batches they came in.

    >>> weights = {"weight": torch.tensor([[1.0, -2.0], [0.5, 0.0]])}
    >>> batch = torch.tensor([[1.0, 0.0]]), torch.tensor([0])
    >>> taylor(Evidence.of(weights, network=nn.Linear(2, 2, bias=False), batches=[batch]))
    {'weight': tensor([[0.1425, 0.0000],
            [0.0356, 0.0000]], dtype=torch.float64)}
    """
    weights = e.weights()
    leaves = _eligible(e, weights)
    squares: Influence = [None] * len(leaves)
    parts = equal_parts(e.examples(), PART)
    for number, (part, share) in enumerate(zip(parts, e.shares(parts), strict=True)):
        if share:
            gradients = _gradient(e.mean_loss(weights, part, draw=number), leaves)
            _add(squares, [None if g is None else g**2 for g in gradients], share)
    return e.of_eligible(w.detach() ** 2 * s for w, s in zip(leaves, _reached(e, squares), strict=True))


@needs(NETWORK, DATA, allocate="global_top")
def fisher(e: Evidence) -> Scores:
    """Optimal brain damage with the empirical Fisher diagonal: s = ½ w² · mean over examples of (∂Lᵢ/∂w)².

    LeCun et al. 1990 (Optimal Brain Damage), with the second derivative replaced as in Theis et al. 2018. The network
    runs in evaluation mode, since BatchNorm cannot compute statistics from one example.

    >>> weights = {"weight": torch.tensor([[1.0, -2.0], [0.5, 0.0]])}
    >>> batch = torch.tensor([[1.0, 0.0]]), torch.tensor([0])
    >>> fisher(Evidence.of(weights, network=nn.Linear(2, 2, bias=False), batches=[batch]))
    {'weight': tensor([[0.0713, 0.0000],
            [0.0178, 0.0000]], dtype=torch.float64)}
    """
    weights = e.weights()
    leaves = _eligible(e, weights)
    squares: Influence = [None] * len(leaves)
    counted = e.single_examples()
    for example in counted:
        gradients = _gradient(e.mean_loss(weights, example), leaves)
        _add(squares, [None if g is None else g**2 for g in gradients], 1 / len(counted))
    return e.of_eligible(0.5 * w**2 * s for w, s in zip(leaves, _reached(e, squares), strict=True))


def _eligible(e: Evidence, weights: Weights) -> list[Tensor]:
    return [weights[name] for name in e.mask.keep]


def _gradients(e: Evidence, weights: Weights, *, temperature: float = 1.0) -> Influence:
    """∂L/∂w of each eligible weight, L the mean loss over all answers of all batches."""
    leaves = _eligible(e, weights)
    total: Influence = [None] * len(leaves)
    for number, (batch, share) in enumerate(zip(e.examples(), e.shares(e.examples()), strict=True)):
        if share:
            loss = e.mean_loss(weights, batch, temperature=temperature, draw=number)
            _add(total, _gradient(loss, leaves), share)
    return total


def _gradient(loss: Tensor, leaves: Sequence[Tensor]) -> Influence:
    if not loss.requires_grad:  # it uses none of them
        return [None] * len(leaves)
    return list(torch.autograd.grad(loss, leaves, allow_unused=True))


def _add(total: Influence, parts: Influence, share: float) -> None:
    for i, part in enumerate(parts):
        if part is not None:
            before = total[i]
            total[i] = share * part if before is None else before + share * part


def _flow(e: Evidence, weights: Weights) -> Influence:
    """∂R/∂|w| of each eligible weight."""
    positive = {name: w.detach().abs().requires_grad_(name in e.mask.keep) for name, w in weights.items()}
    buffers = {n: b.abs() if b.is_floating_point() else b for n, b in e.now.buffers.items()}
    changed, ones = replace(e, now=replace(e.now, buffers=buffers)), _ones(e.one())
    if all(t.is_floating_point() for t in tensors_in(ones)):
        return _gradient(changed.logits(positive, ones).sum(), _eligible(e, positive))
    masked = {id(p) for name, p in e.module().named_parameters() if name in e.mask.keep}
    with _embedding_ones(e.module(), masked) as looked_up:
        output = changed.logits(positive, ones).sum()
    if not looked_up and not any(t.is_floating_point() for t in tensors_in(ones)):
        raise ValueError(
            f"the inputs of {type(e.module()).__name__} are whole numbers, but none of its Embedding layers reads "
            "them; synflow replaces embeddings by ones, so it cannot score this network"
        )
    return _gradient(output, _eligible(e, positive))


def _ones(inputs: Inputs) -> Inputs:
    """Ones for all inputs but truth values, since True may hide a position, and labels, which change no logit."""

    def ones(t: Tensor) -> Tensor:
        return t if t.dtype == torch.bool else torch.ones_like(t)

    if isinstance(inputs, Mapping):
        return {n: part if n.startswith("label") else each_tensor(ones, part) for n, part in inputs.items()}
    made: Inputs = each_tensor(ones, inputs)
    return made


@contextmanager
def _embedding_ones(network: nn.Module, masked: set[int]) -> Iterator[list[nn.Module]]:
    """Within the block, an Embedding that reads only token 1 returns ones [..., width]; the list collects these layers.

    If the Embedding's weight is itself scored, it returns the sum of its rows, as for an input of all tokens at once.
    """
    looked_up: list[nn.Module] = []
    with ExitStack() as stack:
        for layer in network.modules():
            if isinstance(layer, nn.Embedding):
                scored = id(layer.weight) in masked

                def ones(
                    layer: nn.Embedding,
                    inputs: tuple[Tensor, ...],
                    named: dict[str, Tensor],
                    output: Tensor,
                    scored: bool = scored,
                ) -> Tensor:
                    (tokens,) = (*inputs, *named.values())
                    if bool((tokens != 1).any()):  # not tokens but positions or segment types
                        return output
                    looked_up.append(layer)
                    return layer.weight.sum(0).expand_as(output) if scored else torch.ones_like(output)

                stack.callback(layer.register_forward_hook(ones, with_kwargs=True).remove)
        yield looked_up


def _reached(
    e: Evidence, influence: Influence, *, again: Callable[[Evidence, Weights], Influence] = _gradients
) -> list[Tensor]:
    """The influences, after a check that the input reaches every weight.

    Raises ValueError with the names of weights that no input reaches: weights that the computation does not use, and
    weights whose influence is 0 throughout. Their scores would all be 0, so position would decide. A weight
    that only the mask cuts off is accepted: `again` finds its influence with the pruned weights restored. Rows of
    embeddings, and experts stacked in one tensor, are checked one by one.
    """
    by_name = dict(zip(e.mask.keep, influence, strict=True))
    if unused := [name for name, part in by_name.items() if part is None]:
        raise ValueError(
            f"no input reaches {', '.join(unused)}: the network computes without it, so its weights cannot be ranked; "
            f"{_WAYS_OUT}"
        )
    silent = _silent(e, by_name)
    if silent and e.mask.count() < e.mask.total():
        unpruned = _silent(e, _unpruned(e, again))
        both = {name: silent[name] & unpruned[name] for name in silent.keys() & unpruned.keys()}
        silent = {name: both[name] for name in silent if name in both and bool(both[name].any())}
    if silent:
        raise ValueError(
            f"no input reaches {', '.join(_shown(name, rows) for name, rows in silent.items())}: the gradient of all "
            f"its weights is exactly 0, so they cannot be ranked; {_WAYS_OUT}"
        )
    return [part for part in influence if part is not None]


def _silent(e: Evidence, influence: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
    """By weight, the rows without any influence, bool [rows]: if no row has any, or if an input chooses among rows."""
    chosen, silent = _chosen_rows(e.module()), {}
    for name, part in influence.items():
        rows = torch.ones(len(e.mask.keep[name]), dtype=torch.bool) if part is None else ~_any(part)
        if not bool(rows.all()):
            rows &= chosen.get(name, torch.zeros(()).bool())
        if bool(rows.any()):
            silent[name] = rows
    return silent


def _any(part: Tensor) -> Tensor:
    return (part != 0).reshape(len(part), -1).any(1)


def _chosen_rows(module: nn.Module) -> dict[str, Tensor]:
    """The rows that an input chooses among, bool [rows]: tokens of an embedding, experts stacked in one parameter.

    A row for padding is not among them, since it is never trained.
    """
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    rows = {}
    for layer in module.modules():
        for parameter in layer.parameters(recurse=False):
            every = torch.ones(parameter.shape[:1], dtype=torch.bool)
            if isinstance(layer, nn.Embedding | nn.EmbeddingBag):
                if layer.padding_idx is not None:
                    every[layer.padding_idx] = False
                rows[names[id(parameter)]] = every
            elif parameter.ndim == 3 and not isinstance(layer, _UNITS_FIRST):
                rows[names[id(parameter)]] = every
    return rows


def _shown(name: str, rows: Tensor) -> str:
    """A weight's name, followed by its row numbers unless all rows are meant."""
    if bool(rows.all()):
        return name
    numbers = rows.nonzero().squeeze(1).tolist()
    more = f" and {len(numbers) - SHOWN} more" if len(numbers) > SHOWN else ""
    return f"{name} (rows {', '.join(map(str, numbers[:SHOWN]))}{more} of {len(rows)})"


def _unpruned(e: Evidence, again: Callable[[Evidence, Weights], Influence]) -> dict[str, Tensor | None]:
    """The influences with pruned weights restored to their initial values."""
    weights = {
        name: torch.where(e.mask.keep[name], w, e.start.weights[name]) if name in e.mask.keep else w
        for name, w in e.now.weights.items()
    }
    whole = replace(
        e, now=replace(e.now, weights=weights), mask=Mask.full({n: weights[n] for n in e.mask.keep})
    )
    return dict(zip(e.mask.keep, again(whole, whole.weights()), strict=True))
