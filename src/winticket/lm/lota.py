"""Lottery Ticket Adaptation (LoTA): the weights that full tuning changes most, rewound, and trained alone.

Panda, Isik, Qi, Koyejo, Weissman & Mittal 2024, "Lottery Ticket Adaptation: Mitigating Destructive Interference in
LLMs" (arXiv 2406.16797): tune all weights (mask calibration), keep the largest of the task vector, which is tuned minus
start (mask extraction), then train these alone from the start (sparse adaptation). As in the authors' code
(`save_mask.py`), the matrices of attention and feed-forward compete in one ranking, and everything else is frozen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from winticket.allocate import global_top, layerwise
from winticket.lm.blocks import find_blocks, linear_layers, weight_of
from winticket.ticket import Mask
from winticket.units.layout import layout_of


def every_weight(model: nn.Module) -> Mask:
    """The mask that keeps all weights of the linear layers in a model's blocks; the model may have no storage.

    Raises ValueError as `winticket.lm.blocks.find_blocks` does.

    >>> every_weight(nn.ModuleDict({"layers": nn.ModuleList([nn.Sequential(nn.Linear(2, 3))])})).layers()
    {'layers.0.0.weight': (6, 6)}
    """
    blocks, keep, layouts = find_blocks(model), {}, {}
    for number, block in enumerate(blocks.modules):
        for name, layer in linear_layers(block).items():
            weight = f"{blocks.name(number)}.{name}.weight"
            keep[weight] = torch.ones(weight_of(layer).shape, dtype=torch.bool)
            layouts[weight] = layout_of(layer)
    return Mask(keep, layouts)


def check_quotas(mask: Mask, *, density: float | None, rank: int | None) -> None:
    """ValueError if more weights are to be trained than a mask keeps.

    >>> check_quotas(Mask({"w": torch.ones(2, 3, dtype=torch.bool)}), density=None, rank=2)
    Traceback (most recent call last):
    ValueError: --lota-rank 2 trains 10 weights of w, which has 6
    """
    if density is not None and density > mask.density():
        raise ValueError(
            f"--lota {density:g} is more than the density {mask.density():.4g} of the mask; pruned weights stay 0"
        )
    for name, (kept, _) in mask.layers().items() if rank is not None else ():
        count = (rank or 0) * sum(mask.keep[name].shape)
        if count > kept:
            which = "has" if kept == mask.keep[name].numel() else "keeps"
            raise ValueError(f"--lota-rank {rank} trains {count} weights of {name}, which {which} {kept}")


def copied(model: nn.Module) -> dict[str, Tensor]:
    """A copy of every parameter, by its name."""
    return {name: one.detach().clone() for name, one in model.named_parameters()}


@torch.no_grad()
def rewind(model: nn.Module, start: Mapping[str, Tensor]) -> None:
    """Give every parameter the bits that it has in `start`."""
    for name, parameter in model.named_parameters():
        parameter.copy_(start[name])


@torch.no_grad()
def largest_changes(
    model: nn.Module, start: Mapping[str, Tensor], mask: Mask, *, density: float | None, rank: int | None
) -> Mask:
    """The weights of largest |task vector|, which is the model minus its start, among those that a mask keeps.

    density: the share of all weights of the mask that is chosen, in one ranking over all layers. rank: instead, r for
    r · (inputs + outputs) of each layer, as many as a low-rank update of rank r trains and as PEFT's SHiRA holds.
    Counts are exact, and of equal changes the first are chosen.

    >>> layer = nn.Linear(3, 1)
    >>> start = {"weight": layer.weight.detach() - torch.tensor([[0.1, -0.3, 0.2]]), "bias": layer.bias.detach()}
    >>> mask = Mask({"weight": torch.tensor([[True, True, True]])})
    >>> largest_changes(layer, start, mask, density=1 / 3, rank=None).keep["weight"]
    tensor([[False,  True, False]])
    """
    scores = {name: (model.get_parameter(name) - start[name]).abs() for name in mask.keep}
    if rank is None:
        return global_top(scores, mask, density=1.0 if density is None else density)
    shares = {name: rank * sum(keep.shape) / keep.numel() for name, keep in mask.keep.items()}
    return layerwise(scores, mask, density=shares)


class Chosen(nn.Module):
    """A weight of which some elements are trained, and the others are what they are.

    >>> chosen = Chosen(torch.tensor([[1.0, 2.0]]), torch.tensor([[False, True]]))
    >>> chosen.values.data += 1
    >>> chosen(torch.tensor([[1.0, 2.0]])).tolist()
    [[1.0, 3.0]]
    """

    at: Tensor

    def __init__(self, weight: Tensor, keep: Tensor) -> None:
        super().__init__()
        at = keep.to(weight.device).flatten().nonzero().flatten()
        self.register_buffer("at", at, persistent=False)
        self.values = nn.Parameter(weight.detach().flatten()[at].clone())

    def forward(self, weight: Tensor) -> Tensor:
        """The weight with the trained elements in their positions."""
        return weight.flatten().scatter(0, self.at, self.values).view(weight.shape)


@contextmanager
def only(model: nn.Module, mask: Mask) -> Iterator[list[nn.Parameter]]:
    """While it lasts, the weights that a mask keeps are the only ones that can be trained, and are yielded.

    Those of a layer are a parameter of their own, so an optimiser has state for them alone. Afterwards the weights are
    in their layers; all other elements have the same bits as before.

    >>> layer = nn.Linear(3, 2)
    >>> with only(nn.Sequential(layer), Mask({"0.weight": torch.eye(2, 3, dtype=torch.bool)})) as values:
    ...     [one.numel() for one in values]
    [2]
    """
    model.requires_grad_(requires_grad=False)
    owners = []
    for name, keep in mask.keep.items():
        path, _, attribute = name.rpartition(".")
        owner, weight = model.get_submodule(path), model.get_parameter(name)
        chosen = Chosen(weight, keep)
        parametrize.register_parametrization(owner, attribute, chosen)
        owners.append((owner, attribute, chosen))
    try:
        yield [chosen.values for _, _, chosen in owners]
    finally:
        for owner, attribute, _ in owners:
            parametrize.remove_parametrizations(owner, attribute, leave_parametrized=True)


@torch.no_grad()
def check_unchanged(model: nn.Module, start: Mapping[str, Tensor], trained: Mask) -> int:
    """How many numbers of a model were not trained.

    start: all parameters before, in a type that holds the model's exactly. Raises RuntimeError, with the parameter, if
    a number that was not to be trained has other bits than before.

    >>> layer = nn.Linear(2, 1)
    >>> before = copied(layer)
    >>> layer.bias.data += 1
    >>> check_unchanged(layer, before, Mask({"weight": torch.ones(1, 2, dtype=torch.bool)}))
    Traceback (most recent call last):
    RuntimeError: 1 numbers of bias changed, and they were not to be trained
    """
    unchanged = 0
    for name, parameter in model.named_parameters():
        bits = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[parameter.element_size()]
        same = parameter.view(bits) == start[name].to(parameter.dtype).view(bits)
        if name in trained.keep:
            same = same[~trained.keep[name]]
        if not bool(same.all()):
            raise RuntimeError(
                f"{int((~same).sum())} numbers of {name} changed, and they were not to be trained"
            )
        unchanged += same.numel()
    return unchanged
