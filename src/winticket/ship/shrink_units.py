"""Which units each value of a network holds, and which values read which: the graph, as shrinking sees it.

A unit is a number. Units that a sum ties together have one number, so they are removed together or not at all. A value
whose units are not followed (behind attention, LayerNorm, a reshape) has no entry in `Reading.features`; whatever it is
computed from is kept.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.instancenorm import _InstanceNorm

from winticket.ship.shrink_graph import Values
from winticket.units import layout_of
from winticket.units.stream import COMBINED, SPATIAL, SPATIAL_CALLS, UNITWISE, UNITWISE_CALLS

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
PRODUCTS = (nn.Linear, *CONVOLUTIONS, *TRANSPOSED)
_RESHAPES = ("flatten", "view", "reshape", "squeeze", "unsqueeze")
_REDUCTIONS = ("mean", "sum", "amax", "amin")


@dataclass(frozen=True)
class Features:
    """The units of a value: `units`, int64 [features], along dimension `dim`. A unit may have several features."""

    units: Tensor
    dim: int


@dataclass(frozen=True)
class Flow:
    """Features of a value that are computed from features of another one, each from one.

    Feature `into[i]` of the value comes from feature `out_of[i]` of `source`.
    """

    source: fx.Node
    out_of: Tensor
    into: Tensor


@dataclass(frozen=True)
class Product:
    """A Linear or Conv layer at its node. keep: bool [units, inputs, positions], the weights that are not pruned."""

    path: str
    layer: nn.Module
    source: fx.Node
    keep: Tensor

    @property
    def depthwise(self) -> bool:
        return getattr(self.layer, "groups", 1) > 1

    @property
    def transposed(self) -> bool:
        return isinstance(self.layer, _ConvTransposeNd)

    @property
    def even(self) -> bool:
        """True if a constant input adds the same constant at every position: nothing is padded with zeros."""
        if not isinstance(self.layer, _ConvNd):
            return True
        padded = any(self.layer._reversed_padding_repeated_twice)
        return not self.transposed and (not padded or self.layer.padding_mode != "zeros")


@dataclass
class Reading:
    """The graph, as shrinking sees it."""

    graph: fx.Graph
    values: Values
    features: dict[fx.Node, Features] = field(default_factory=dict)
    flows: dict[fx.Node, list[Flow]] = field(default_factory=dict)
    products: dict[fx.Node, Product] = field(default_factory=dict)
    vectors: dict[fx.Node, str] = field(default_factory=dict)
    """Layers with one value per unit, such as BatchNorm, by path."""
    inputs: set[fx.Node] = field(default_factory=set)
    """What the network is given, possibly reshaped: some of its features can be selected."""
    opaque: dict[fx.Node, str] = field(default_factory=dict)
    """Operations that need every feature of what they read, in words."""
    spatial: set[fx.Node] = field(default_factory=set)
    """Operations over positions, which may change a constant at the border or with the size of an image."""
    reshaped: set[fx.Node] = field(default_factory=set)
    parents: list[int] = field(default_factory=list)

    def new(self, size: int) -> Tensor:
        first = len(self.parents)
        self.parents.extend(range(first, first + size))
        return torch.arange(first, first + size)

    def root(self, unit: int) -> int:
        while self.parents[unit] != unit:
            self.parents[unit] = self.parents[self.parents[unit]]
            unit = self.parents[unit]
        return unit

    def tie(self, one: Tensor, two: Tensor) -> None:
        for a, b in set(zip(one.tolist(), two.tolist(), strict=True)):
            low, high = sorted((self.root(a), self.root(b)))
            self.parents[high] = low

    def settle(self) -> None:
        """Give every feature the number under which its unit is tied."""
        roots = torch.tensor([self.root(unit) for unit in range(len(self.parents))], dtype=torch.int64)
        self.features = {n: Features(roots[f.units], f.dim) for n, f in self.features.items()}


def read(graph: fx.Graph, module: nn.Module, keep: Mapping[str, Tensor], values: Values) -> Reading:
    """Read off which units every value of the graph holds.

    keep: the weights that are not pruned, bool, by name; a weight without an entry is kept whole.
    """
    reader = _Reader(Reading(graph, values), module, keep)
    for node in graph.nodes:
        reader.visit(node)
    reader.reading.settle()
    return reader.reading


class _Reader:
    def __init__(self, reading: Reading, module: nn.Module, keep: Mapping[str, Tensor]) -> None:
        self.reading, self.module, self.keep = reading, module, keep

    def visit(self, node: fx.Node) -> None:
        reading, value = self.reading, self.reading.values[node]
        sources = [n for n in node.all_input_nodes if isinstance(reading.values[n], Tensor)]
        if node.op == "get_attr" or (node.op == "placeholder" and not isinstance(value, Tensor)):
            return
        if node.op == "placeholder":
            self.given(node)
        elif node.op == "output":
            self.closed(node, sources, "")
        elif node.op == "call_module":
            self.layer(node, sources, self.module.get_submodule(str(node.target)))
        elif any(n in reading.inputs for n in sources) and all(
            n in reading.inputs or n.op == "get_attr" for n in sources
        ):
            self.derived(node, sources)
        elif isinstance(value, Tensor) or _has_tensors(value):
            self.call(node, sources)

    def given(self, node: fx.Node) -> None:
        """An input: dimension 1 holds its features, or the last one if only Linear layers read it."""
        value = self.reading.values[node]
        if value.ndim < 2 or not value.is_floating_point():
            return
        readers = [self.module.get_submodule(str(n.target)) for n in node.users if n.op == "call_module"]
        linear = len(readers) == len(node.users) and all(isinstance(r, nn.Linear) for r in readers)
        dim = value.ndim - 1 if linear else 1
        self.reading.features[node] = Features(self.reading.new(value.shape[dim]), dim)
        self.reading.inputs.add(node)

    def derived(self, node: fx.Node, sources: Sequence[fx.Node]) -> None:
        """A value that is computed from inputs alone, such as their flattening: its features are inputs themselves."""
        self.closed(node, sources, "")
        if isinstance(self.reading.values[node], Tensor):
            self.given(node)

    def closed(self, node: fx.Node, sources: Sequence[fx.Node], why: str) -> None:
        """An operation through which units are not followed. why: what to say about it, if it matters."""
        if any(n in self.reading.features for n in sources):
            self.reading.opaque[node] = why

    def passed(self, node: fx.Node, source: fx.Node, *, dim: int | None = None, repeats: int = 1) -> None:
        """A value with the units of `source`, each with `repeats` features in place of one."""
        known = self.reading.features[source]
        out_of = torch.arange(len(known.units)).repeat_interleave(repeats)
        self.reading.features[node] = Features(known.units[out_of], known.dim if dim is None else dim)
        self.reading.flows[node] = [Flow(source, out_of, torch.arange(len(out_of)))]

    def layer(self, node: fx.Node, sources: Sequence[fx.Node], layer: nn.Module) -> None:
        groups = getattr(layer, "groups", 1)
        kind = type(layer).__name__ + (f" in {groups} groups" if groups != 1 else "")
        source = sources[0] if len(sources) == 1 and node.all_input_nodes == sources else None
        plain = not any((layer._forward_pre_hooks, layer._forward_hooks)) and "weight" in layer._parameters
        if source is not None and type(layer) in PRODUCTS and plain and self.product(node, source, layer):
            return
        known = self.reading.features.get(source) if source is not None else None
        if known is None or source is None:
            self.closed(node, sources, f"{node.target} ({kind})")
        elif known.dim == 1 and _has_values_per_unit(layer):
            self.reading.vectors[node] = str(node.target)
            self.passed(node, source)
        elif isinstance(layer, nn.Flatten | nn.Unflatten) and source in self.reading.inputs:
            self.derived(node, sources)
        elif isinstance(layer, UNITWISE):
            self.passed(node, source)
        elif isinstance(layer, SPATIAL) and known.dim == 1 and self.reading.values[source].ndim > 2:
            self.spatial(node, source)
        elif isinstance(layer, nn.Flatten):
            self.reshape(node, source)
        else:
            self.closed(node, sources, f"{node.target} ({kind})")

    def spatial(self, node: fx.Node, source: fx.Node) -> None:
        self.reading.spatial.add(node)
        self.passed(node, source)

    def product(self, node: fx.Node, source: fx.Node, layer: nn.Module) -> bool:
        """Note a Linear or Conv layer. False if it works on its input in another way than usual."""
        shape, known = self.reading.values[source].shape, self.reading.features.get(source)
        dim = len(shape) - 1 if isinstance(layer, nn.Linear) else 1
        groups = layer.groups if isinstance(layer, _ConvNd) else 1
        if isinstance(layer, _ConvNd) and len(shape) != 2 + len(layer.kernel_size):
            return False
        depthwise = groups > 1 and groups == layer.in_channels and not isinstance(layer, TRANSPOSED)
        if (groups > 1 and (not depthwise or known is None)) or (known and known.dim != dim):
            return False
        weight = layer.weight
        assert isinstance(weight, Tensor)
        keep = self.keep.get(f"{node.target}.weight", torch.ones_like(weight, dtype=torch.bool))
        laid_out = layout_of(layer).by_unit(keep.cpu())
        self.reading.products[node] = Product(str(node.target), layer, source, laid_out)
        if depthwise:
            self.passed(node, source, repeats=len(laid_out) // groups)
        else:
            self.reading.features[node] = Features(self.reading.new(len(laid_out)), dim)
        return True

    def call(self, node: fx.Node, sources: Sequence[fx.Node]) -> None:
        name = str(node.target if node.op == "call_method" else getattr(node.target, "__name__", node.target))
        followed = [n for n in sources if n in self.reading.features]
        if not followed:
            return
        first = followed[0]
        alone = sources == [first] and node.args[:1] == (first,)
        known = self.reading.features[first]
        if (alone and name in UNITWISE_CALLS) or (
            node.args[:1] == (first,) and name in ("to", "type_as")  # the other tensor gives its type alone
        ):
            self.passed(node, first)
        elif name in ("cat", "concat"):
            self.joined(node, sources)
        elif name in COMBINED:
            self.combined(node, sources, name)
        elif alone and known.dim == 1 and (name in SPATIAL_CALLS or name == "pad") and self.keeps_units(node):
            self.spatial(node, first)
        elif alone and name in _RESHAPES:
            self.reshape(node, first)
        elif alone and name in _REDUCTIONS:
            self.reduced(node, first)
        elif alone and node.target is operator.getitem and known.dim == 1 and _whole(node.args[1]):
            self.passed(node, first)
        else:
            self.closed(node, sources, f"{node.name} ({name})")

    def keeps_units(self, node: fx.Node) -> bool:
        """True if dimensions 0 and 1 of a value are those of what it is computed from."""
        (source,) = [n for n in node.all_input_nodes if n in self.reading.features]
        old, new = self.reading.values[source], self.reading.values[node]
        return isinstance(new, Tensor) and old.ndim > 2 and old.shape[:2] == new.shape[:2]

    def reshape(self, node: fx.Node, source: fx.Node) -> None:
        known, old = self.reading.features[source], self.reading.values[source].shape
        new = self.reading.values[node].shape
        if known.dim == 1 and new == (old[0], prod(old[1:])):
            self.passed(node, source, repeats=prod(old[2:]))
        elif known.dim == 1 and new[:2] == old[:2]:
            self.passed(node, source)
        elif known.dim == len(old) - 1 and len(new) > 1 and new[-1] == old[-1] and new[0] == prod(old[:-1]):
            self.passed(node, source, dim=len(new) - 1)
        else:
            self.closed(node, [source], f"{node.name}, which reshapes {tuple(old)} to {tuple(new)}")
            return
        self.reading.reshaped.add(node)

    def reduced(self, node: fx.Node, source: fx.Node) -> None:
        """A mean or maximum over positions."""
        known, old = self.reading.features[source], self.reading.values[source]
        dims: Any = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
        axes = {d % old.ndim for d in ((dims,) if isinstance(dims, int) else dims or range(old.ndim))}
        new = self.reading.values[node]
        if axes & {0, known.dim} or not isinstance(new, Tensor):
            self.closed(node, [source], f"{node.name} ({node.target})")
        else:
            before = sum(axis < known.dim for axis in axes) if new.ndim < old.ndim else 0
            self.reading.spatial.add(node)
            self.passed(node, source, dim=known.dim - before)

    def combined(self, node: fx.Node, sources: Sequence[fx.Node], name: str) -> None:
        """A sum or product of values, unit by unit: what it combines is tied together."""
        followed = [n for n in sources if n in self.reading.features]
        others = [n for n in sources if n not in self.reading.features]
        first = self.reading.features[followed[0]]
        shapes = [self.reading.values[n].shape for n in (*followed, node)]
        same = {(len(s), s[first.dim]) for s in shapes if len(s) > first.dim}
        agree = len(same) == 1 and all(self.reading.features[n].dim == first.dim for n in followed)
        if not agree or any(self.reading.values[n].numel() > 1 for n in others):
            self.closed(node, sources, f"{node.name} ({name} with values of other shapes)")
            return
        for other in followed[1:]:
            self.reading.tie(first.units, self.reading.features[other].units)
        every = torch.arange(len(first.units))
        self.reading.features[node] = first
        self.reading.flows[node] = [Flow(n, every, every) for n in followed]

    def joined(self, node: fx.Node, sources: Sequence[fx.Node]) -> None:
        """A concatenation along the units."""
        parts: Any = node.args[0]
        known = [self.reading.features.get(part) for part in parts]
        value = self.reading.values[node]
        dim = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)
        if any(k is None or k.dim != dim % value.ndim for k in known):
            self.closed(node, sources, f"{node.name} (cat)")
            return
        flows, first = [], 0
        for part, k in zip(parts, known, strict=True):
            assert k is not None
            every = torch.arange(len(k.units))
            flows.append(Flow(part, every, every + first))
            first += len(every)
        units = torch.cat([k.units for k in known if k is not None])
        self.reading.features[node] = Features(units, dim % value.ndim)
        self.reading.flows[node] = flows


def _has_values_per_unit(layer: nn.Module) -> bool:
    if isinstance(layer, nn.PReLU):
        return layer.num_parameters > 1
    return isinstance(layer, _BatchNorm | _InstanceNorm)


def _whole(index: Any) -> bool:
    """True if an index leaves dimensions 0 and 1 as they are."""
    both = (slice(None),) * 2
    return isinstance(index, tuple) and index[:2] == both and all(isinstance(i, slice) for i in index)


def _has_tensors(value: Any) -> bool:
    return isinstance(value, tuple | list) and any(isinstance(v, Tensor) for v in value)
