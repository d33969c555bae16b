"""Cut a network down to what a plan keeps: narrower layers, constants in biases, inputs selected by position."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from winticket.ship.shrink_graph import unused
from winticket.ship.shrink_plan import Plan
from winticket.ship.shrink_units import Product, Reading
from winticket.units import Layout, layout_of

PER_UNIT = ("weight", "bias", "running_mean", "running_var")
"""The tensors of a layer that has one value per unit."""


class Select(nn.Module):
    """The features at some positions of dimension `dim`, in order.

    >>> Select(torch.tensor([0, 2]), dim=1)(torch.tensor([[5.0, 6.0, 7.0]]))
    tensor([[5., 7.]])
    """

    positions: Tensor

    def __init__(self, positions: Tensor, *, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.register_buffer("positions", positions)

    def forward(self, x: Tensor) -> Tensor:
        """[N, ...] -> the same with len(positions) features along `dim`."""
        return x.index_select(self.dim, self.positions)

    def extra_repr(self) -> str:
        """Its size, for `print(model)`."""
        return f"{len(self.positions)} features, dim={self.dim}"


@dataclass
class Written:
    """What rewriting leaves beside the network: the positions of what each layer keeps, the mask, and remarks."""

    maps: dict[str, Tensor] = field(default_factory=dict)
    keep: dict[str, Tensor] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def rewrite(module: nn.Module, reading: Reading, plan: Plan, keep: Mapping[str, Tensor]) -> Written:
    """Narrow the layers of `module` and the graph of `reading`, in place.

    module: the masked network, in float64. keep: the masks of its weights, by name; they are cut as the weights are.
    """
    written = Written(keep=dict(keep))
    for node in list(reading.graph.nodes):
        if node in reading.products:
            _Narrowed(module, reading, plan, node).write(written)
        elif node in reading.vectors:
            _narrow_vectors(module, reading, plan, node, written)
        elif node in reading.reshaped:
            _resize(node, reading, plan)
        if node in reading.inputs:
            _select(module, reading, plan, node)
    written.notes = _notes(reading, plan)
    return written


class _Narrowed:
    """A Linear or Conv layer that keeps some of its units and inputs."""

    def __init__(self, module: nn.Module, reading: Reading, plan: Plan, node: fx.Node) -> None:
        self.module, self.reading, self.plan, self.node = module, reading, plan, node
        self.product: Product = reading.products[node]
        self.layer: Any = self.product.layer
        self.units = plan.keeps(reading, node)
        # A constant that is kept, for whatever reason, is not folded by those that read it: it keeps its value.
        self.live = (plan.needed[node] | plan.constants[node].known)[self.units]
        source = self.product.source
        inputs = plan.keeps(reading, source) if source in reading.features else None
        self.inputs = torch.ones(_inputs(self.layer), dtype=torch.bool) if inputs is None else inputs

    def write(self, written: Written) -> None:
        path, layer = self.product.path, self.layer
        weight, layout = self.layer.weight.detach(), layout_of(layer)
        values = layout.by_unit(weight)[self.units].clone()
        keep = written.keep.get(f"{path}.weight", torch.ones_like(weight, dtype=torch.bool))
        keep = layout.by_unit(keep)[self.units].clone()
        # What nothing reads may be anything, so such units lose their weights.
        values[~self.live], keep[~self.live] = 0, False
        if not self.product.depthwise:
            values, keep = self.without_inputs(values, keep)
        shape = _narrow_shape(weight, layout, values)
        layer.weight = nn.Parameter(_shaped(values, layout, shape), requires_grad=layer.weight.requires_grad)
        if layer.bias is not None:
            layer.bias = nn.Parameter(layer.bias.detach()[self.units], requires_grad=layer.bias.requires_grad)
        if f"{path}.weight" in written.keep:
            written.keep[f"{path}.weight"] = _shaped(keep, layout, shape)
        written.maps[f"{path}.units"] = self.units.nonzero().flatten()
        if not self.product.depthwise:
            written.maps[f"{path}.inputs"] = self.inputs.nonzero().flatten()
        _resize_layer(layer, int(self.units.sum()), int(self.inputs.sum()))

    def without_inputs(self, values: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and mask [units, inputs, positions] of the kept inputs; the constants of the others are folded."""
        constant = self.plan.constants.get(self.product.source)
        if constant is not None:
            removed = constant.value * ~self.inputs  # not constant, and removed: nothing reads it
            if self.product.even:
                self.add((values.sum(2) * removed).sum(1))
            elif (carrier := self.plan.carriers.get(self.node)) is not None:
                share = (removed / constant.value[carrier]).view(1, -1, 1)
                values[:, carrier] += (values * share).sum(1)
                keep[:, carrier] |= (keep & (share != 0)).any(1)
        return values[:, self.inputs], keep[:, self.inputs]

    def add(self, amount: Tensor) -> None:
        """Add a constant to each kept unit: in its bias, or in the mean that the BatchNorm behind it subtracts."""
        if not bool((amount != 0).any()):
            return
        every = torch.zeros(len(self.units), dtype=torch.float64)
        every[self.units] = amount
        path = [self.reading.vectors.get(user, "") for user in self.node.users]
        behind = self.module.get_submodule(path[0]) if len(path) == 1 else None
        if self.layer.bias is not None:
            self.layer.bias.data += every
        elif isinstance(behind, _BatchNorm) and behind.running_mean is not None:
            behind.running_mean -= every
        else:
            self.layer.bias = nn.Parameter(every, requires_grad=self.layer.weight.requires_grad)


def _inputs(layer: Any) -> int:
    return int(layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels)


def _narrow_shape(weight: Tensor, layout: Layout, values: Tensor) -> tuple[int, ...]:
    units, inputs = values.shape[:2]
    first = (inputs, units) if layout.inputs_first else (units, inputs)
    return (*first, *weight.shape[2:])


def _shaped(values: Tensor, layout: Layout, shape: tuple[int, ...]) -> Tensor:
    """[units, inputs, positions] in the shape of the layer's weight. Layers in groups are never transposed here."""
    return (values.transpose(0, 1) if layout.inputs_first else values).reshape(shape).contiguous()


def _resize_layer(layer: Any, units: int, inputs: int) -> None:
    if isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = units, inputs
    elif isinstance(layer, _ConvNd):
        layer.out_channels, layer.in_channels = units, inputs
        layer.groups = inputs if layer.groups > 1 else 1


def _narrow_vectors(module: nn.Module, reading: Reading, plan: Plan, node: fx.Node, written: Written) -> None:
    """Keep a BatchNorm's, InstanceNorm's or PReLU's values of the units that remain."""
    kept, path = plan.keeps(reading, node), reading.vectors[node]
    layer: Any = module.get_submodule(path)
    for name in PER_UNIT:
        value = getattr(layer, name, None)
        if isinstance(value, nn.Parameter):
            setattr(layer, name, nn.Parameter(value.detach()[kept], requires_grad=value.requires_grad))
        elif isinstance(value, Tensor):
            setattr(layer, name, value[kept])
    size = "num_parameters" if isinstance(layer, nn.PReLU) else "num_features"
    setattr(layer, size, int(kept.sum()))
    written.maps[f"{path}.units"] = kept.nonzero().flatten()


def _resize(node: fx.Node, reading: Reading, plan: Plan) -> None:
    """Put the new width into a view or reshape that says the old one as a number."""
    kept, features = plan.keeps(reading, node), reading.features[node]
    if node.op == "call_module" or str(node.target) == "flatten" or len(node.args) < 2:
        return
    listed = isinstance(node.args[1], tuple | list)
    sizes: list[Any] = list(node.args[1]) if listed else list(node.args[1:])  # type: ignore[arg-type]
    if len(sizes) > features.dim and sizes[features.dim] == len(kept):
        sizes[features.dim] = int(kept.sum())
        node.args = (node.args[0], tuple(sizes)) if listed else (node.args[0], *sizes)


def _select(module: nn.Module, reading: Reading, plan: Plan, node: fx.Node) -> None:
    """Drop the features of an input that nothing reads, behind it."""
    kept = plan.keeps(reading, node)
    if bool(kept.all()):
        return
    path = unused(module, "select")
    module.add_module(path, Select(kept.nonzero().flatten(), dim=reading.features[node].dim))
    users = list(node.users)
    with reading.graph.inserting_after(node):
        selected = reading.graph.call_module(path, (node,))
    for user in users:
        if isinstance(reading.values[user], Tensor):
            user.replace_input_with(node, selected)


def _notes(reading: Reading, plan: Plan) -> list[str]:
    """What was kept although the mask has cut it off, and why."""
    notes = [_standing(reading, plan, node, carrier) for node, carrier in plan.carriers.items()]
    if unfollowed := [why for why in reading.opaque.values() if why]:
        shown = ", ".join(unfollowed[:6]) + (f" and {len(unfollowed) - 6} more" if unfollowed[6:] else "")
        notes.append(f"Units are not followed through {shown}, so what these read is kept.")
    carrying = {
        int(reading.features[reading.products[node].source].units[carrier])
        for node, carrier in plan.carriers.items()
    }
    for node, product in reading.products.items():
        units = reading.features[node].units
        useless = plan.kept[units] & (~plan.needed[node] | ~product.keep.flatten(1).any(1))
        left = set(units[useless].tolist())
        if forced := set(units[plan.kept[units]].tolist()) & set(plan.forced):
            notes.append(f"{product.path} keeps {_units(forced)}, since a layer cannot be empty.")
        if (tied := left - forced - carrying) and not _is_output(node):
            notes.append(
                f"{product.path} keeps {_units(tied)} without weights, since units of other layers that are summed "
                "with them, or what reads them, cannot do without."
            )
    return notes


def _units(units: set[int]) -> str:
    return f"{len(units)} unit{'s' if len(units) > 1 else ''}"


def _is_output(node: fx.Node) -> bool:
    return any(user.op == "output" for user in node.users)


def _standing(reading: Reading, plan: Plan, node: fx.Node, carrier: int) -> str:
    product = reading.products[node]
    constant = plan.constants[product.source]
    read = product.keep[plan.needed[node]].flatten(2).any(2).any(0)
    count = int((read & constant.known & (constant.value != 0)).sum())
    return (
        f"{product.path} keeps input {carrier}, a constant, because zero padding makes constants differ at the border; "
        f"it stands for {count} constant input{'s' if count > 1 else ''}."
    )
