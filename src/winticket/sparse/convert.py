"""A network for a stack of masks, some of whose layers hold their kept weights alone."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from winticket.sparse.choices import Tuning
from winticket.sparse.layers import INDICES, SparseConv2d, SparseLinear, window_of
from winticket.sparse.reach import live
from winticket.sparse.structure import Structure, structure

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Converted:
    """The module that trains instead of a network: `module`, with `indices` [S, ...] among its buffers.

    In it, the weights of the layers in `structures` are [S, P]; `pack` and `unpack` convert from and to the dense form.
    """

    module: nn.Module
    structures: Mapping[str, Structure] = field(default_factory=dict)
    indices: Mapping[str, Tensor] = field(default_factory=dict)
    idle: Mapping[str, int] = field(default_factory=dict)
    """For each sparse layer, the number of kept weights, over all replicates, that are skipped as without effect."""

    def pack(self, tensors: Mapping[str, Tensor]) -> Tensors:
        """Dense [S, *shape] to values [S, P] for each sparse layer's weight; names may have a prefix "slot/"."""
        return {
            name: s.pack(value) if (s := self._of(name, value)) else value for name, value in tensors.items()
        }

    def unpack(self, tensors: Mapping[str, Tensor]) -> Tensors:
        """The inverse of `pack`; pruned positions are 0."""
        return {
            name: s.unpack(value) if (s := self._of(name, value)) else value
            for name, value in tensors.items()
        }

    def _of(self, name: str, value: Tensor) -> Structure | None:
        return self.structures.get(name.rpartition("/")[2]) if value.ndim > 1 else None


def candidates(module: nn.Module) -> dict[str, nn.Module]:
    """The layers that could be sparse, by their weight's name.

    These are plain Linear and Conv2d layers in float32 that share no parameter with another layer, and convolutions
    among them have no groups, no dilation, and zeros as padding.

    >>> list(candidates(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=2))))
    ['0.weight']
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
    """True if a layer behaves as its class does: no hooks, no parametrisation, no weight shared with another layer."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return not any(getattr(layer, h) for h in hooks) and all(
        seen[id(p)] == 1 for p in layer.parameters(recurse=False)
    )


def convert(
    module: nn.Module,
    keep: Mapping[str, Tensor],
    names: Iterable[str],
    *,
    tunings: Mapping[str, Tuning] | None = None,
) -> Converted:
    """`module` with the layers of the weights `names` made sparse, for masks `keep` [S, *shape].

    `tunings` are what was measured of layers, by weight: from them follow the blocks in which products read operands. A
    layer without one reads its operand whole.

    >>> module = nn.Sequential(nn.Linear(2, 2))
    >>> converted = convert(module, {"0.weight": torch.tensor([[[True, False], [False, True]]])}, ["0.weight"])
    >>> converted.pack({"0.weight": torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])})
    {'0.weight': tensor([[1., 4.]])}
    """
    chosen = tuple(sorted(names))
    if not chosen:
        return Converted(module)
    effective = live(module, keep)
    structures, indices, idle = {}, {}, {}
    for name in chosen:
        original = module.get_submodule(name.removesuffix(".weight"))
        numbered = window_of(original).numbered() if isinstance(original, nn.Conv2d) else None
        blocks = None
        if tuned := (tunings or {}).get(name):
            blocks = tuned.blocks(float(effective[name].double().mean()))
        structures[name] = structure(keep[name], effective[name], columns_in=numbered, blocks=blocks)
        idle[name] = int((keep[name] & ~effective[name]).sum())
        layer = name.removesuffix(".weight")
        indices.update({f"{layer}.{index}": getattr(structures[name], index) for index in INDICES})
    return Converted(_module(module, chosen), structures, indices, idle)


_made: WeakKeyDictionary[nn.Module, dict[tuple[str, ...], nn.Module]] = WeakKeyDictionary()


def _module(module: nn.Module, names: tuple[str, ...]) -> nn.Module:
    """One module for each choice of layers, so that its traces can be reused; the masks are in the buffers."""
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
