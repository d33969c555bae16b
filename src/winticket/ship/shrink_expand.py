"""A shrunk network, or tensors of its shapes, back in the shapes of the original."""

from __future__ import annotations

import copy
from collections.abc import Mapping

from torch import Tensor, nn

from winticket.loops.wrapped import bare
from winticket.ship.shrink_rewrite import Select
from winticket.units import layout_of


def expand(
    small: nn.Module | Mapping[str, Tensor], maps: Mapping[str, Tensor], *, like: nn.Module
) -> nn.Module:
    """A network of the class and shapes of `like` that computes what the shrunk network does, also after training.

    small: what `compact` returned for a network like `like`, or a copy of it, or its state dict. maps: its
    `Compact.maps`. Weights are at their positions in the original, and 0 elsewhere. Constants that were folded stay in
    the biases; a layer of `like` without a bias gets one if the shrunk layer has one. `like` itself does not change.
    Raises ValueError if maps and networks do not belong together.

    >>> import torch, winticket
    >>> from winticket.ship import expand
    >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)).eval()
    >>> mask = winticket.Mask({"0.weight": torch.tensor([[True, True], [False, False], [False, True]])})
    >>> small = winticket.compact(model, mask, example=torch.zeros(1, 2))
    >>> whole = expand(small, small.maps, like=model)
    >>> (whole[0].weight != 0).int().tolist()
    [[1, 1], [0, 0], [0, 1]]
    >>> x = torch.randn(5, 2)
    >>> torch.allclose(whole(x), small(x), atol=1e-6)
    True
    """
    whole = copy.deepcopy(bare(like))
    if isinstance(small, nn.Module):
        small = bare(small)
        selected = {name for name, part in small.named_modules() if isinstance(part, Select)}
        tensors = {n: t for n, t in small.state_dict().items() if n.rpartition(".")[0] not in selected}
        training = small.training
    else:  # the positions of `Select`, which no layer of the original has
        layers = {name for name, _ in whole.named_modules()}
        tensors = {n: t for n, t in small.items() if not _is_selection(n, layers)}
        training = False
    tensors = {n: t for n, t in tensors.items() if not _numbers_tokens(n, whole)}
    for name, value in expanded(tensors, maps, like=whole).items():
        path, _, attribute = name.rpartition(".")
        layer = whole.get_submodule(path)
        if isinstance(old := getattr(layer, attribute, None), nn.Parameter):
            setattr(layer, attribute, nn.Parameter(value, requires_grad=old.requires_grad))
        elif attribute == "bias" and old is None:
            layer.register_parameter("bias", nn.Parameter(value))
        else:
            layer._buffers[attribute] = value
    whole.train(training)
    return whole


def _is_selection(name: str, layers: set[str]) -> bool:
    path, _, attribute = name.rpartition(".")
    return attribute == "positions" and path not in layers


def _numbers_tokens(name: str, whole: nn.Module) -> bool:
    """Whether a tensor says which tokens have rows in a `FewTokens`, which an embedding of the original has not."""
    path, _, attribute = name.rpartition(".")
    layers = dict(whole.named_modules())
    return attribute == "numbers" and isinstance(layers.get(path), nn.Embedding)


def expanded(
    tensors: Mapping[str, Tensor], maps: Mapping[str, Tensor], *, like: nn.Module
) -> dict[str, Tensor]:
    """Weights, buffers or masks of a shrunk network in the shapes of the original; 0 or False where it has nothing.

    A running variance is 1 there, so that nothing is divided by 0. Raises ValueError if a tensor has no place in
    `like`, or another shape than the maps say.

    >>> import torch
    >>> from winticket.ship import expanded
    >>> maps = {"fc.units": torch.tensor([1]), "fc.inputs": torch.tensor([0, 2])}
    >>> like = nn.Sequential()
    >>> like.add_module("fc", nn.Linear(3, 2))
    >>> expanded({"fc.weight": torch.tensor([[5.0, 6.0]])}, maps, like=like)["fc.weight"]
    tensor([[0., 0., 0.],
            [5., 0., 6.]])
    """
    return {name: _expanded(name, value, maps, like) for name, value in tensors.items()}


def _expanded(name: str, value: Tensor, maps: Mapping[str, Tensor], like: nn.Module) -> Tensor:
    path, _, attribute = name.rpartition(".")
    try:
        layer = like.get_submodule(path)
    except AttributeError:
        raise ValueError(f"the original has no layer {path!r}, but the shrunk network has {name}") from None
    shape, positions = _place(layer, attribute, path, maps)
    if shape is None:
        raise ValueError(f"the original has nothing called {name}, but the shrunk network has")
    small = list(shape)
    for dim, kept in positions.items():
        if bool((kept >= shape[dim]).any()):
            raise ValueError(
                f"the maps of {path} have number {int(kept.max())}, but {name} has {shape[dim]} there"
            )
        small[dim] = len(kept)
    if list(value.shape) != small:
        raise ValueError(
            f"{name} has shape {tuple(value.shape)}, but by the maps it should have {tuple(small)}"
        )
    fill = 1 if attribute == "running_var" else 0
    for dim, kept in positions.items():
        target = [*value.shape]
        target[dim] = shape[dim]
        value = value.new_full(target, fill).index_copy_(dim, kept.to(value.device), value)
    return value.clone()


def _place(
    layer: nn.Module, attribute: str, path: str, maps: Mapping[str, Tensor]
) -> tuple[tuple[int, ...] | None, dict[int, Tensor]]:
    """The shape that a tensor has in the original, and for each dimension that was cut the positions that are left."""
    units, inputs = maps.get(f"{path}.units"), maps.get(f"{path}.inputs")
    first = layout_of(layer).inputs_first
    old, weight = getattr(layer, attribute, None), getattr(layer, "weight", None)
    if isinstance(old, Tensor):
        shape: tuple[int, ...] | None = tuple(old.shape)
    elif attribute == "bias" and isinstance(weight, Tensor):  # added, because a constant was folded into it
        shape = (weight.shape[1 if first else 0],)
    else:
        shape = None
    if not shape:
        return shape, {}
    cut = {0: units} if attribute != "weight" else {0: inputs, 1: units} if first else {0: units, 1: inputs}
    return shape, {dim: kept for dim, kept in cut.items() if kept is not None}
