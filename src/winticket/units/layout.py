"""The meaning of each axis of a weight, for every kind of layer; only this file knows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from winticket.units.structures import structures


@dataclass(frozen=True)
class Layout:
    """How a layer's weight is laid out; by default [units, inputs, *positions], as in Linear and Conv layers.

    `inputs_first` means [inputs, units, *positions], as in transposed convolutions, embeddings (a token is an input)
    and the Conv1D of Transformers. `groups` are those of a convolution: a unit reads only the inputs of its group, so
    one axis is shorter ([units, inputs / groups, ...], or [inputs, units / groups, ...] with inputs first). `gates` are
    those of a recurrent layer, whose rows list the units once for every gate: [gates * units, inputs].

    `structure` names what the weight is removed with, such as "layers.0.attention.heads" (`winticket.units.structures`;
    empty: nothing). The units, or with `by_inputs` the inputs, then are `parts` blocks of equal size, in order; part i
    of the structure is block i of each of its `members` weights.

    >>> import torch
    >>> Layout(inputs_first=True).by_unit(torch.zeros(3, 5, 2, 2)).shape  # 5 units, 3 inputs, 4 positions
    torch.Size([5, 3, 4])
    """

    __storable__: ClassVar[bool] = True

    inputs_first: bool = False
    groups: int = 1
    gates: int = 1
    structure: str = ""
    parts: int = 1
    by_inputs: bool = False
    members: int = 0

    def by_part(self, weight: Tensor) -> Tensor:
        """The values of `weight` as [parts, values of a part]; for a weight of a structure.

        >>> import torch
        >>> Layout(structure="attention.heads", parts=2, by_inputs=True).by_part(torch.arange(8).view(2, 4))
        tensor([[0, 4, 1, 5],
                [2, 6, 3, 7]])
        """
        units = self.by_unit(weight)
        return (units.transpose(0, 1) if self.by_inputs else units).reshape(self.parts, -1)

    def from_parts(self, values: Tensor, like: Tensor) -> Tensor:
        """The inverse of `by_part`: `values` [parts, values of a part] in the shape of the weight `like`."""
        units, inputs, positions = self.by_unit(like).shape
        if self.by_inputs:
            return self.from_units(values.reshape(inputs, units, positions).transpose(0, 1), like)
        return self.from_units(values.reshape(units, inputs, positions), like)

    def by_unit(self, weight: Tensor) -> Tensor:
        """The values of `weight` as [units, inputs of a unit, positions]; a recurrent layer has gates as positions."""
        if self.gates > 1:
            return weight.reshape(self.gates, weight.shape[0] // self.gates, -1).permute(1, 2, 0)
        if weight.ndim < 2:
            return weight.reshape(-1, 1, 1)
        flat = weight.reshape(*weight.shape[:2], -1)
        if not self.inputs_first:
            return flat
        grouped = flat.reshape(self.groups, -1, *flat.shape[1:])
        return grouped.transpose(1, 2).reshape(-1, grouped.shape[1], flat.shape[2])

    def from_units(self, values: Tensor, like: Tensor) -> Tensor:
        """The inverse of `by_unit`: `values` [units, inputs, positions] in the shape of the weight `like`."""
        if self.gates > 1:
            return values.permute(2, 0, 1).reshape(like.shape)
        if self.inputs_first:
            units, inputs, positions = values.shape
            grouped = values.reshape(self.groups, units // self.groups, inputs, positions)
            return grouped.transpose(1, 2).reshape(like.shape)
        return values.reshape(like.shape)

    def rows(self, weight: Tensor) -> Tensor:
        """One row of weights for every sum that the layer computes: for a unit, or for a unit's gate."""
        if self.gates > 1:
            return weight.reshape(weight.shape[0], -1)
        return self.by_unit(weight).flatten(1)

    def from_rows(self, values: Tensor, like: Tensor) -> Tensor:
        """The inverse of `rows`."""
        if self.gates > 1:
            return values.reshape(like.shape)
        return self.from_units(values.reshape(self.by_unit(like).shape), like)


PLAIN = Layout()
"""The layout [units, inputs, *positions]."""


def layouts(module: nn.Module) -> dict[str, Layout]:
    """The layout of every parameter that is not laid out as [units, inputs, *positions], by name.

    If layers of different kinds share a weight (an output layer tied to its embedding), the Linear or Conv layer
    decides. Errors: ValueError for a module whose `prunable_structures` do not fit its layers.

    >>> layouts(nn.Sequential(nn.Linear(2, 3), nn.Conv2d(4, 4, 3, groups=2)))["1.weight"].groups
    2
    """
    known: dict[int, Layout] = {}
    for path, layer in module.named_modules():
        for name, parameter in layer.named_parameters(recurse=False):
            if parameter.ndim < 2:
                continue
            owner, attribute = _parametrized(module, path, name) or (layer, name)
            if id(parameter) not in known or isinstance(owner, nn.Linear | _ConvNd):
                known[id(parameter)] = layout_of(owner, attribute)
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    named = {name: known.get(number, PLAIN) for number, name in names.items()}
    for one in structures(module):
        for owner, reads in one.weights():
            name, count = names[id(owner.weight)], len(one.weights())
            if isinstance(owner, nn.Embedding) and not named[name].inputs_first:
                continue  # tied to an output layer, which needs the rows of all tokens
            named[name] = replace(
                named[name], structure=one.name, parts=one.parts, by_inputs=reads, members=count
            )
    return {name: layout for name, layout in named.items() if layout != PLAIN}


def _parametrized(module: nn.Module, path: str, name: str) -> tuple[nn.Module, str] | None:
    """The layer, and its attribute, whose value PyTorch's parametrization at `path` computes from the original."""
    above, marker, attribute = path.rpartition("parametrizations.")
    if not marker or not name.startswith("original"):
        return None
    return module.get_submodule(above.removesuffix(".")), attribute


def layout_of(layer: nn.Module, name: str = "weight") -> Layout:
    """The layout of one of a layer's parameters.

    >>> layout_of(nn.LSTM(2, 3), "weight_ih_l0").gates
    4
    """
    if isinstance(layer, _ConvTransposeNd):
        return Layout(inputs_first=True, groups=layer.groups)
    if isinstance(layer, _ConvNd):
        return Layout(groups=layer.groups)
    if isinstance(layer, nn.Embedding | nn.EmbeddingBag) or (
        type(layer).__name__ == "Conv1D"
        and hasattr(layer, "nf")  # the one of Transformers, which need not be installed
    ):
        return Layout(inputs_first=True)
    if name.startswith(("weight_ih", "weight_hh")):
        for kinds, gates in (((nn.LSTM, nn.LSTMCell), 4), ((nn.GRU, nn.GRUCell), 3)):
            if isinstance(layer, kinds):
                return Layout(gates=gates)
    return PLAIN
