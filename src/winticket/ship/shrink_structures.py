"""Remove attention heads, hidden neurons and tokens that a mask has cut off, before the network's graph is read.

A head cannot be followed through the graph, but its module says which weights it has (`winticket.units.structures`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from winticket.units import Structure, layouts, structures


class FewTokens(nn.Embedding):
    """An embedding without the rows of some tokens; for these it gives zeros.

    weight: [rows, width]. numbers: int64 [tokens], the row of each token, -1 for a token without one.

    >>> few = FewTokens(torch.tensor([[5.0, 6.0]]), torch.tensor([-1, 0, -1]))
    >>> few(torch.tensor([1, 2])).tolist()
    [[5.0, 6.0], [0.0, 0.0]]
    """

    numbers: Tensor

    def __init__(self, weight: Tensor, numbers: Tensor, *, requires_grad: bool = True) -> None:
        super().__init__(weight.shape[0], weight.shape[1], _weight=weight)
        self.weight.requires_grad_(requires_grad)
        self.register_buffer("numbers", numbers)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [...] -> [..., width]."""
        row = self.numbers[x]
        return nn.functional.embedding(row.clamp(min=0), self.weight) * (row >= 0).unsqueeze(-1)


@dataclass
class Cut:
    """What `cut_structures` has removed.

    maps: "LAYER.units" and "LAYER.inputs" -> int64, what each layer keeps. notes: what was kept all the same, and why.
    """

    maps: dict[str, Tensor] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@torch.no_grad()
def cut_structures(module: nn.Module, *masks: dict[str, Tensor], recognised: bool = False) -> Cut:
    """Remove the parts of structures whose output nothing reads from `module` and from the masks, in place.

    masks: bool, by name of the weight; the first one decides. A part is removed if it keeps no weight in the layers
    that read its output, so the outputs stay the same. One part of each structure is kept. recognised: whether to cut
    modules, too, that do not state their structures; then the outputs are to be compared.

    >>> from winticket.models import build
    >>> network = build("chargpt-1-32", input_shape=(4,), classes=5, generator_seed=0, tokens=True)
    >>> keep = {"layers.0.attention.out.weight": torch.arange(32).expand(32, 32) < 16}  # the first of two heads
    >>> cut = cut_structures(network, keep)
    >>> network.layers[0].attention.heads, network.layers[0].attention.query.weight.shape
    (1, torch.Size([16, 32]))
    """
    cut, laid_out = Cut(), layouts(module)
    names = {id(p): name for name, p in module.named_parameters()}
    for one in structures(module):
        reading = [layer for layer, by_inputs in one.weights() if by_inputs]
        if (
            not (one.stated or recognised)
            or not reading
            or any(type(layer) not in (nn.Linear, nn.Embedding) for layer, _ in one.weights())
        ):
            continue
        alive = torch.zeros(one.parts, dtype=torch.bool)
        for layer in reading:
            name = names[id(layer.weight)]
            kept = masks[0].get(name)
            alive |= True if kept is None else laid_out[name].by_part(kept.cpu()).any(1)
        if not bool(alive.any()):
            alive[0] = True
            cut.notes.append(
                f"One of the {one.kind} of {one.path or 'the network'} is kept, since none cannot be."
            )
        if not bool(alive.all()):
            _remove(module, one, alive, cut, masks)
    return cut


def _remove(
    module: nn.Module,
    one: Structure,
    alive: Tensor,
    cut: Cut,
    masks: tuple[dict[str, Tensor], ...],
) -> None:
    names = {id(p): name for name, p in module.named_parameters()}
    for layer, by_inputs in one.weights():
        name = names[id(layer.weight)]
        tokens = isinstance(layer, nn.Embedding)
        axis = int(by_inputs and not tokens)
        size = layer.weight.shape[axis]
        positions = torch.arange(size).view(one.parts, -1)[alive].flatten()
        for mask in masks:
            if name in mask:
                mask[name] = mask[name].index_select(axis, positions.to(mask[name].device))
        path = name.rpartition(".")[0]
        cut.maps[f"{path}.{'inputs' if by_inputs else 'units'}"] = positions
        weight = layer.weight.detach().index_select(axis, positions.to(layer.weight.device))
        if tokens:
            numbers = torch.full((size,), -1, dtype=torch.int64)
            numbers[positions] = torch.arange(len(positions))
            small = FewTokens(weight, numbers, requires_grad=layer.weight.requires_grad)
            module.set_submodule(path, small.train(layer.training))
        else:
            _narrow(layer, weight, positions, by_inputs=by_inputs)
    for owner, name, each in one.counts:
        setattr(owner, name, each * int(alive.sum()))


def _narrow(layer: Any, weight: Tensor, positions: Tensor, *, by_inputs: bool) -> None:
    layer.weight = nn.Parameter(weight, requires_grad=layer.weight.requires_grad)
    layer.out_features, layer.in_features = weight.shape
    if layer.bias is not None and not by_inputs:
        bias = layer.bias.detach()[positions.to(layer.bias.device)]
        layer.bias = nn.Parameter(bias, requires_grad=layer.bias.requires_grad)
