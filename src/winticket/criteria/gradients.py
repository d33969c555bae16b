"""Criteria from gradients and activations: what the loss, or the flow through the network, says of a weight."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from winticket.criteria.evidence import DATA, NETWORK, Evidence, needs
from winticket.ticket import Scores

REVISION = 1

TEMPERATURE = 200.0
"""What GraSP divides logits by (Wang et al. 2020, the authors' pruner/GraSP.py)."""


@needs(NETWORK, DATA, allocate="global_top")
def snip(e: Evidence) -> Scores:
    """Connection sensitivity: s = |w · ∂L/∂w|, the gradient summed over the batches.

    Lee et al. 2019 (SNIP). Their division by the sum of all scores leaves the order as it is, and is left out.
    """
    weights = e.weights()
    gradients = _gradients(e, weights)
    return e.of_eligible((w * g).abs() for w, g in zip(_eligible(e, weights), gradients, strict=True))


@needs(NETWORK, DATA, allocate="global_top")
def grasp(e: Evidence) -> Scores:
    """Gradient signal preservation: s = w · (H g), of the loss at temperature 200.

    Wang et al. 2020 (GraSP), the authors' pruner/GraSP.py. The weights of the highest -w · Hg, whose removal raises the
    norm of the gradient most, go first. g is the gradient summed over the batches.
    """
    weights = e.weights()
    leaves = _eligible(e, weights)
    fixed = _gradients(e, weights, temperature=TEMPERATURE)
    products = [torch.zeros_like(w) for w in leaves]
    for batch in e.examples():
        loss = e.loss(weights, batch, temperature=TEMPERATURE)
        gradients = torch.autograd.grad(loss, leaves, create_graph=True, materialize_grads=True)
        flow = torch.stack([(f * g).sum() for f, g in zip(fixed, gradients, strict=True)]).sum()
        for product, part in zip(
            products, torch.autograd.grad(flow, leaves, materialize_grads=True), strict=True
        ):
            product.add_(part)
    return e.of_eligible(w * hg for w, hg in zip(leaves, products, strict=True))


@needs(NETWORK, rounds=100, allocate="global_top")
def synflow(e: Evidence) -> Scores:
    """Synaptic flow: s = w · ∂R/∂w with R = 1ᵀ f(1) of the network whose weights are |w|; no data.

    Tanaka et al. 2020 (SynFlow), the authors' Pruners/pruners.py. At initialisation over 100 rounds of exponentially
    falling density, in float64. Buffers are made positive as well, as there.
    """
    weights = {name: w.detach().abs().requires_grad_(name in e.mask.keep) for name, w in e.weights().items()}
    buffers = {n: b.abs() if b.is_floating_point() else b for n, b in e.now.buffers.items()}
    positive = replace(e, now=replace(e.now, buffers=buffers))
    flow = positive.logits(weights, torch.ones_like(e.one())).sum()
    leaves = _eligible(e, weights)
    gradients = torch.autograd.grad(flow, leaves, materialize_grads=True)
    return e.of_eligible(w * g for w, g in zip(leaves, gradients, strict=True))


@needs(NETWORK, DATA, allocate="global_top")
def taylor(e: Evidence) -> Scores:
    """First-order Taylor: s = (w · ∂L/∂w)², averaged over batches.

    Molchanov et al. 2019 (Importance Estimation for Neural Network Pruning), for single weights.
    """
    weights = e.weights()
    leaves = _eligible(e, weights)
    total = [torch.zeros_like(w) for w in leaves]
    for batch in e.examples():
        gradients = torch.autograd.grad(e.loss(weights, batch), leaves, materialize_grads=True)
        for kept, w, g in zip(total, leaves, gradients, strict=True):
            kept.add_((w.detach() * g) ** 2 / len(e.examples()))
    return e.of_eligible(total)


@needs(NETWORK, DATA, allocate="global_top")
def fisher(e: Evidence) -> Scores:
    """Optimal brain damage with the empirical Fisher diagonal: s = ½ w² · mean over examples of (∂Lᵢ/∂w)².

    LeCun et al. 1990 (Optimal Brain Damage), the second derivative replaced as in Theis et al. 2018.
    """
    weights = e.weights()
    leaves = _eligible(e, weights)
    total, count = [torch.zeros_like(w) for w in leaves], 0
    for x, y in e.examples():
        for i in range(len(y)):
            loss = e.loss(weights, (x[i : i + 1], y[i : i + 1]))
            gradients = torch.autograd.grad(loss, leaves, materialize_grads=True)
            for kept, g in zip(total, gradients, strict=True):
                kept.add_(g**2)
        count += len(y)
    return e.of_eligible(0.5 * w**2 * f / count for w, f in zip(leaves, total, strict=True))


@needs(NETWORK, DATA, allocate="constant_fan_in", also=("n_of_m",))
def wanda(e: Evidence) -> Scores:
    """Weight times the norm of its input: s[o, i] = |w[o, i]| · ‖Xᵢ‖₂ over all examples.

    Sun et al. 2024 (Wanda), the authors' lib/prune.py. There compared within each output row, as constant_fan_in does,
    or within groups (n_of_m). Of a convolution, Xᵢ are the pixels that a weight meets, borders included.
    """
    module = e.module()
    owners = {name: module.get_submodule(name.rpartition(".")[0]) for name in e.mask.keep}
    squares = {
        name: torch.zeros(w[0].shape, dtype=torch.float64)
        for name, w in e.now.weights.items()
        if name in owners
    }

    def watch(name: str) -> object:
        def see(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            squares[name] += _met(layer, inputs[0].detach())

        return owners[name].register_forward_pre_hook(see)

    handles = [watch(name) for name in owners]
    try:
        with torch.no_grad():
            for x, _ in e.examples():
                e.logits(e.weights(), x)
    finally:
        for handle in handles:
            handle.remove()  # type: ignore[attr-defined]
    masked = e.mask.apply(e.now.weights)
    return {name: masked[name].double().abs() * squares[name].sqrt() for name in e.mask.keep}


def _met(layer: nn.Module, x: Tensor) -> Tensor:
    """Σ x² over what each weight of one output row meets, in the shape of the weight's row."""
    if isinstance(layer, nn.Linear):
        return (x.double() ** 2).reshape(-1, x.shape[-1]).sum(0)
    plain = isinstance(layer, nn.Conv2d) and layer.groups == 1 and layer.padding_mode == "zeros"
    if isinstance(layer, nn.Conv2d) and plain and not isinstance(layer.padding, str):
        patches = nn.functional.unfold(
            x.double() ** 2, layer.kernel_size, layer.dilation, layer.padding, layer.stride
        )
        return patches.sum((0, 2)).view(layer.weight[0].shape)
    raise ValueError(f"wanda knows Linear and Conv2d layers without groups, padded by zeros, not {layer}")


def _eligible(e: Evidence, weights: dict[str, Tensor]) -> list[Tensor]:
    return [weights[name] for name in e.mask.keep]


def _gradients(e: Evidence, weights: dict[str, Tensor], *, temperature: float = 1.0) -> list[Tensor]:
    """∂L/∂w of each eligible weight, summed over the batches."""
    leaves = _eligible(e, weights)
    total = [torch.zeros_like(w) for w in leaves]
    for batch in e.examples():
        loss = e.loss(weights, batch, temperature=temperature)
        for kept, g in zip(total, torch.autograd.grad(loss, leaves, materialize_grads=True), strict=True):
            kept.add_(g)
    return total
