"""Dead units: those that a mask of whole units has taken, and what goes with them.

Such a unit is to be as good as absent. Its bias and the scale and shift of the BatchNorm behind it are 0, and so is
every weight that reads it, so that the network is the one with these units cut out. Which parameters those are is read
off the module's graph (`torch.fx`), through whatever treats units one by one: activations, pooling, BatchNorm, dropout,
flatten, sums (a channel of a residual sum is dead only if all that is added there is), concatenation. Beyond anything
else (LayerNorm, attention, a reshape) units are not followed, and nothing is said to be dead.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm

from winticket.trouble import of_the_machine
from winticket.units.layout import PLAIN, Layout, layouts
from winticket.units.stream import Stream, passed


class Keeping(Protocol):
    """A mask."""

    @property
    def keep(self) -> Mapping[str, Tensor]: ...

    @property
    def layout(self) -> Mapping[str, Layout]: ...


def whole(mask: Keeping) -> bool:
    """Whether the mask keeps every unit whole or not at all, and some not at all."""
    some = False
    for name, keep in mask.keep.items():
        unit = mask.layout.get(name, PLAIN).by_unit(keep).flatten(1)
        kept = unit.any(1)
        if not bool((unit.all(1) | ~kept).all()):
            return False
        some = some or not bool(kept.all())
    return some


def gone(module: nn.Module, mask: Keeping) -> dict[str, Tensor]:
    """What dead units take along: for parameters by name, bool in their shape, True where they are to be 0.

    Only under a mask of whole units; under any other a unit without weights is a constant that its bias gives, as it
    always was, and nothing is gone. Weights that read dead units are among it, though the mask keeps them. Where the
    module's graph cannot be read, the dead units' own biases alone are.
    """
    known, here = dict(mask.keep), layouts(module)
    if not whole(_Mask(known, here)):
        return {}
    walk = _Walk(module, known, here)
    graph = traced(module)
    if isinstance(graph, str):
        walk.biases()
    else:
        walk.through(graph)
    return walk.gone()


def zeroed(weights: Mapping[str, Tensor], gone: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A copy of the mapping `weights` with what is gone 0; the others are the same tensors."""
    return {
        name: w.masked_fill(gone[name].to(w.device), 0) if name in gone else w for name, w in weights.items()
    }


def effective_count(module: nn.Module, mask: Keeping) -> int:
    """The kept weights that do not merely read dead units: what is left of the mask once those are cut out."""
    lost = gone(module, mask)
    return sum(int((keep & ~lost[n]).sum() if n in lost else keep.sum()) for n, keep in mask.keep.items())


def unknown(module: nn.Module) -> str:
    """Why dead units of this module cannot be followed beyond a BatchNorm, in words; "" where they can."""
    normalised = any(isinstance(m, _BatchNorm | _InstanceNorm) and m.affine for m in module.modules())
    graph = traced(module) if normalised else ""
    return graph if isinstance(graph, str) else ""


class _Mask:
    def __init__(self, keep: Mapping[str, Tensor], layout: Mapping[str, Layout]) -> None:
        self.keep, self.layout = keep, layout


def traced(module: nn.Module) -> fx.Graph | str:
    """The module's graph, or in words why there is none."""
    signature = inspect.signature(type(module).forward)
    defaults = {
        name: p.default
        for name, p in signature.parameters.items()
        if p.default is None or isinstance(p.default, bool)
    }
    try:
        return fx.Tracer().trace(module, concrete_args=defaults or None)
    except Exception as error:
        if of_the_machine(error):
            raise
        first = (str(error).strip().splitlines() or [""])[0]
        return f"its graph cannot be traced ({type(error).__name__}: {first})"


class _Walk:
    """Follows dead units from layer to layer and notes what they take along."""

    def __init__(self, module: nn.Module, keep: Mapping[str, Tensor], layout: Mapping[str, Layout]) -> None:
        self.module, self.keep, self.layout = module, keep, layout
        self.parameters = dict(module.named_parameters())
        self.names = {id(parameter): name for name, parameter in self.parameters.items()}
        self.notes: dict[str, list[Tensor | None]] = {}  # of a parameter, by every use of it; None: not known
        self.streams: dict[fx.Node, Stream | None] = {}

    def gone(self) -> dict[str, Tensor]:
        """What every use of a parameter agrees on."""
        found = {}
        for name, notes in self.notes.items():
            known = [note for note in notes if note is not None]
            if len(known) == len(notes) and bool((both := torch.stack(known).all(0)).any()):
                found[name] = both
        return found

    def note(self, parameter: Any, dead: Tensor | None) -> None:
        if isinstance(parameter, nn.Parameter) and id(parameter) in self.names:
            self.notes.setdefault(self.names[id(parameter)], []).append(dead)

    def biases(self) -> None:
        for layer in self.module.modules():
            if isinstance(layer, nn.Linear | _ConvNd):
                self.note(layer.bias, self.taken(layer))

    def through(self, graph: fx.Graph) -> None:
        for node in graph.nodes:
            if node.op == "get_attr":
                self.streams[node] = None
                self.note(self.parameters.get(str(node.target)), None)  # used outside a layer
            elif node.op == "call_module":
                layer = self.module.get_submodule(str(node.target))
                read = (
                    self.streams.get(node.args[0])
                    if node.args and isinstance(node.args[0], fx.Node)
                    else None
                )
                self.streams[node] = self.layer(layer, read)
            else:
                self.streams[node] = passed(node, self.streams)

    def layer(self, layer: nn.Module, read: Stream | None) -> Stream | None:
        if isinstance(layer, nn.Linear | _ConvNd):
            return self.product(layer, read)
        if isinstance(layer, _BatchNorm | _InstanceNorm):
            return self.normalised(layer, read)
        for parameter in layer.parameters():  # of another kind of layer, whose units are not followed
            self.note(parameter, None)
        return read.through(layer) if read else None

    def weight(self, layer: nn.Linear | _ConvNd) -> tuple[str, Tensor]:
        """The parameter that is the layer's weight, or that it is made from, with its name (or "")."""
        made = getattr(layer, "parametrizations", {})
        parts = (
            dict(made["weight"].named_parameters(recurse=False)) if "weight" in made else layer._parameters
        )
        for name in ("weight", "original1", "original", "weight_orig", "weight_v"):
            if (found := parts.get(name)) is not None:
                return self.names.get(id(found), ""), found
        return "", layer.weight

    def taken(self, layer: nn.Linear | _ConvNd) -> Tensor:
        """The units that the mask leaves no weight, bool [units]."""
        name, _ = self.weight(layer)
        size = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
        if name not in self.keep:
            return torch.zeros(size, dtype=torch.bool)
        return ~self.layout.get(name, PLAIN).by_unit(self.keep[name].cpu()).flatten(1).any(1)

    def product(self, layer: nn.Linear | _ConvNd, read: Stream | None) -> Stream:
        taken, inputs = self.taken(layer), None
        spatial = 0 if isinstance(layer, nn.Linear) else len(layer.kernel_size)
        if read is not None:
            size = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
            inputs = read.into(size, spatial)
        groups = 1 if isinstance(layer, nn.Linear) else layer.groups
        name, weight = self.weight(layer)
        if inputs is None:
            self.note(weight, None)
        else:
            layout = self.layout.get(name, PLAIN)
            units = layout.by_unit(weight.detach())
            by_group = inputs.view(groups, 1, -1, 1)  # what the units of a group read
            each = by_group.expand(groups, len(units) // groups, *units.shape[1:])
            self.note(weight, layout.from_units(each.reshape(units.shape), weight))
            if units.shape[1] == 1 and groups > 1:  # depthwise: a unit without its one input goes with it
                taken = taken | inputs.repeat_interleave(len(units) // groups)
        self.note(layer.bias, taken)
        return Stream(taken, spatial)

    def normalised(self, layer: _BatchNorm | _InstanceNorm, read: Stream | None) -> Stream | None:
        dead = read.into(layer.num_features, read.spatial) if read else None
        self.note(layer.weight, dead)
        self.note(layer.bias, dead)
        return None if dead is None or read is None else Stream(dead, read.spatial)
