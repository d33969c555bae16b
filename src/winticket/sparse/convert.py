"""A network over a stack of masks, with some of its layers holding their kept weights alone."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from winticket.sparse.layers import INDICES, SparseConv2d, SparseLinear, window_of
from winticket.sparse.reach import live
from winticket.sparse.structure import Structure, structure

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Converted:
    """What trains in place of a network: `module`, with `indices` [S, ...] among its buffers.

    The weights of the layers in `structures` are [S, P] in it; `pack` and `unpack` go between that and the dense form.
    """

    module: nn.Module
    structures: Mapping[str, Structure] = field(default_factory=dict)
    indices: Mapping[str, Tensor] = field(default_factory=dict)
    idle: Mapping[str, int] = field(default_factory=dict)
    """For each sparse layer, kept weights (over all replicates) that cannot have an effect and are left out."""

    def pack(self, tensors: Mapping[str, Tensor]) -> Tensors:
        """Dense [S, *shape] to values [S, P], where the name, or what follows its "slot/", is a sparse layer's."""
        return {
            name: s.pack(value) if (s := self._of(name, value)) else value for name, value in tensors.items()
        }

    def unpack(self, tensors: Mapping[str, Tensor]) -> Tensors:
        """The way back; pruned positions are 0."""
        return {
            name: s.unpack(value) if (s := self._of(name, value)) else value
            for name, value in tensors.items()
        }

    def _of(self, name: str, value: Tensor) -> Structure | None:
        return self.structures.get(name.rpartition("/")[2]) if value.ndim > 1 else None


def candidates(module: nn.Module) -> dict[str, nn.Module]:
    """The layers that could be sparse, by their weight's name: plain Linear and Conv2d layers that share nothing.

    Without groups, dilation or padding other than zeros, in float32.
    """
    seen: dict[int, int] = {}
    for layer in module.modules():
        for parameter in layer.parameters(recurse=False):
            seen[id(parameter)] = seen.get(id(parameter), 0) + 1
    return {
        f"{name}.weight": layer
        for name, layer in module.named_modules()
        if name
        and _known(layer)
        and layer.get_parameter("weight").dtype == torch.float32
        and _plain(layer, seen)
    }


def _known(layer: nn.Module) -> bool:
    if type(layer) is nn.Conv2d:
        simple = layer.groups == 1 and layer.dilation == (1, 1) and layer.padding_mode == "zeros"
        return simple and not isinstance(layer.padding, str)
    return type(layer) is nn.Linear


def _plain(layer: nn.Module, seen: Mapping[int, int]) -> bool:
    """Whether a layer does what its class does: no hooks, no parametrisation, no weight shared with another."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return not any(getattr(layer, h) for h in hooks) and all(
        seen[id(p)] == 1 for p in layer.parameters(recurse=False)
    )


def convert(module: nn.Module, keep: Mapping[str, Tensor], names: Iterable[str]) -> Converted:
    """`module` with the layers of the weights `names` sparse, for masks `keep` [S, *shape]."""
    chosen = tuple(sorted(names))
    if not chosen:
        return Converted(module)
    effective = live(module, keep)
    structures, indices, idle = {}, {}, {}
    for name in chosen:
        original = module.get_submodule(name.removesuffix(".weight"))
        numbered = window_of(original).numbered() if isinstance(original, nn.Conv2d) else None
        structures[name] = structure(keep[name], effective[name], columns_in=numbered)
        idle[name] = int((keep[name] & ~effective[name]).sum())
        layer = name.removesuffix(".weight")
        indices.update({f"{layer}.{index}": getattr(structures[name], index) for index in INDICES})
    return Converted(_module(module, chosen), structures, indices, idle)


_made: WeakKeyDictionary[nn.Module, dict[tuple[str, ...], nn.Module]] = WeakKeyDictionary()


def _module(module: nn.Module, names: tuple[str, ...]) -> nn.Module:
    """One object for a choice of layers, so that its traces are kept; the masks are in the buffers."""
    made = _made.setdefault(module, {})
    if names not in made:
        clone = copy.deepcopy(module)
        for name in names:
            path = name.removesuffix(".weight")
            owner, _, attribute = path.rpartition(".")
            setattr(clone.get_submodule(owner), attribute, sparse_layer(clone.get_submodule(path)))
        made[names] = clone
    made[names].train(module.training)
    return made[names]


def sparse_layer(layer: nn.Module) -> nn.Module:
    """The sparse counterpart of a candidate."""
    if isinstance(layer, nn.Linear):
        return SparseLinear(layer)
    if isinstance(layer, nn.Conv2d):
        return SparseConv2d(layer)
    raise TypeError(f"there is no sparse counterpart of {type(layer).__name__}")
