"""Dead units: the units that a mask of whole units has pruned, and the parameters that die with them.

A dead unit should be as good as absent. Its bias, the scale and shift of the BatchNorm after it and every weight that
reads it are 0, so the network computes as if these units were cut out. The module's graph (`torch.fx`) shows which
parameters those are. Units are followed through everything that treats them one by one: activations, pooling,
BatchNorm, dropout, flatten, sums (a channel of a residual sum is dead only if every summand's is) and concatenation.
Beyond anything else (LayerNorm, attention, a reshape) units are not followed, and nothing counts as dead.
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
    """A mask, with the layout of its weights."""

    @property
    def keep(self) -> Mapping[str, Tensor]: ...

    @property
    def layout(self) -> Mapping[str, Layout]: ...


def takes_whole_units(mask: Keeping) -> bool:
    """True if the mask keeps every unit either whole or not at all, and prunes at least one.

    >>> from winticket.ticket import Mask
    >>> takes_whole_units(Mask({"fc": torch.tensor([[True, True], [False, False]])}))
    True
    >>> takes_whole_units(Mask({"fc": torch.tensor([[True, False], [True, True]])}))
    False
    """
    some = False
    for name, keep in mask.keep.items():
        unit = mask.layout.get(name, PLAIN).by_unit(keep).flatten(1)
        kept = unit.any(1)
        if not bool((unit.all(1) | ~kept).all()):
            return False
        some = some or not bool(kept.all())
    return some


def dead_parameters(module: nn.Module, mask: Keeping) -> dict[str, Tensor]:
    """The parameters that die with dead units: name -> bool of the parameter's shape, True for values that must be 0.

    They include weights that read dead units, although the mask keeps those. If the module's graph cannot be traced,
    only the dead units' own biases are included. The result is empty unless the mask takes whole units: under any other
    mask, a unit without weights is the constant that its bias gives.

    >>> from winticket.ticket import Mask
    >>> module = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    >>> keep = {"0.weight": torch.tensor([[True, True], [False, False]]), "2.weight": torch.tensor([[True, True]])}
    >>> dead_parameters(module, Mask(keep))
    {'0.bias': tensor([False,  True]), '2.weight': tensor([[False,  True]])}
    """
    keep, laid_out = dict(mask.keep), layouts(module)
    if not takes_whole_units(_Mask(keep, laid_out)):
        return {}
    walk = _Walk(module, keep, laid_out)
    graph = traced(module)
    if isinstance(graph, str):
        walk.biases()
    else:
        walk.through(graph)
    return walk.agreed()


def zeroed(weights: Mapping[str, Tensor], dead: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights, with the values that are True in `dead` set to 0. Tensors without such values are not copied.

    >>> zeroed({"fc.bias": torch.tensor([1.0, 2.0])}, {"fc.bias": torch.tensor([False, True])})
    {'fc.bias': tensor([1., 0.])}
    """
    return {
        name: w.masked_fill(dead[name].to(w.device), 0) if name in dead else w for name, w in weights.items()
    }


def effective_count(module: nn.Module, mask: Keeping) -> int:
    """The number of kept weights without those that read dead units: what is left once dead units are cut out.

    >>> from winticket.ticket import Mask
    >>> module = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    >>> keep = {"0.weight": torch.tensor([[True, True], [False, False]]), "2.weight": torch.tensor([[True, True]])}
    >>> Mask(keep).count(), effective_count(module, Mask(keep))
    (4, 3)
    """
    dead = dead_parameters(module, mask)
    return sum(int((keep & ~dead[n]).sum() if n in dead else keep.sum()) for n, keep in mask.keep.items())


def why_untraceable(module: nn.Module) -> str:
    """The reason why dead units of this module cannot be followed beyond a BatchNorm; empty if they can.

    >>> why_untraceable(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
    ''
    """
    normalised = any(isinstance(m, _BatchNorm | _InstanceNorm) and m.affine for m in module.modules())
    graph = traced(module) if normalised else ""
    return graph if isinstance(graph, str) else ""


class _Mask:
    def __init__(self, keep: Mapping[str, Tensor], layout: Mapping[str, Layout]) -> None:
        self.keep, self.layout = keep, layout


def traced(module: nn.Module) -> fx.Graph | str:
    """The module's graph, or the reason why it cannot be traced.

    >>> [node.op for node in traced(nn.Sequential(nn.ReLU())).nodes]
    ['placeholder', 'call_module', 'output']
    """
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
    """Follows dead units from layer to layer, and notes the parameters that die with them."""

    def __init__(self, module: nn.Module, keep: Mapping[str, Tensor], layout: Mapping[str, Layout]) -> None:
        self.module, self.keep, self.layout = module, keep, layout
        self.parameters = dict(module.named_parameters())
        self.names = {id(parameter): name for name, parameter in self.parameters.items()}
        self.notes: dict[str, list[Tensor | None]] = {}  # per parameter, one for each use; None: not known
        self.streams: dict[fx.Node, Stream | None] = {}

    def agreed(self) -> dict[str, Tensor]:
        """The values of each parameter that are dead in every use of it."""
        dead = {}
        for name, notes in self.notes.items():
            known = [note for note in notes if note is not None]
            if len(known) == len(notes) and bool((in_all := torch.stack(known).all(0)).any()):
                dead[name] = in_all
        return dead

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
        for parameter in layer.parameters():  # units are not followed through other kinds of layers
            self.note(parameter, None)
        return read.through(layer) if read else None

    def weight(self, layer: nn.Linear | _ConvNd) -> tuple[str, Tensor]:
        """The parameter that is the layer's weight, or that it is computed from, with its name (or "")."""
        parametrized = getattr(layer, "parametrizations", {})
        parts = (
            dict(parametrized["weight"].named_parameters(recurse=False))
            if "weight" in parametrized
            else layer._parameters
        )
        for name in ("weight", "original1", "original", "weight_orig", "weight_v"):
            if (parameter := parts.get(name)) is not None:
                return self.names.get(id(parameter), ""), parameter
        return "", layer.weight

    def taken(self, layer: nn.Linear | _ConvNd) -> Tensor:
        """The units that the mask leaves without any weight, bool [units]."""
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
            by_group = inputs.view(groups, 1, -1, 1)  # the inputs that the units of a group read
            each = by_group.expand(groups, len(units) // groups, *units.shape[1:])
            self.note(weight, layout.from_units(each.reshape(units.shape), weight))
            if units.shape[1] == 1 and groups > 1:  # depthwise: a unit dies with its only input
                taken = taken | inputs.repeat_interleave(len(units) // groups)
        self.note(layer.bias, taken)
        return Stream(taken, spatial)

    def normalised(self, layer: _BatchNorm | _InstanceNorm, read: Stream | None) -> Stream | None:
        dead = read.into(layer.num_features, read.spatial) if read else None
        self.note(layer.weight, dead)
        self.note(layer.bias, dead)
        return None if dead is None or read is None else Stream(dead, read.spatial)
