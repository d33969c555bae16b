"""A torch module without what its mask has cut off, with what is to be known of it if it is shipped."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from winticket.ship.index_maps import INPUTS, UNITS, IndexMaps
from winticket.ship.network import Network
from winticket.ship.parts import Smaller, remove_parts
from winticket.ship.shrink import Compact, compact
from winticket.ship.shrink_rewrite import PER_UNIT
from winticket.ship.shrinking import NOISE, NarrowLayer, Shrunk, compared, shrink_network
from winticket.ticket import Mask
from winticket.units import layout_of


def shrink_model(model: nn.Module, mask: Mask, network: Network) -> Shrunk:
    """The module without what its mask has cut off, BatchNorm as it was. Errors as for `winticket.compact`.

    network: what the module computes under the mask.
    """
    small = compact(model, mask, example=torch.zeros(1, *network.input_shape))
    positions = {name: map_.numpy() for name, map_ in small.maps.items()}
    maps = IndexMaps(positions, {name: _size(model, name) for name in positions})

    def computed(x: Any) -> Any:
        with torch.no_grad():
            return copy.deepcopy(small).double()(torch.from_numpy(x)).numpy()

    return Shrunk(
        shrink_network(network).network,
        maps,
        tuple(_layers(model, small.maps)),
        small.notes,
        compared(network, computed),
        small,
    )


def shrink_text_model(
    model: nn.Module, mask: Mask, *, length: int, tokens: int, pretrained: bool = False
) -> Shrunk:
    """As `shrink_model`, for a module that reads `length` tokens below `tokens`; there is no network without torch.

    pretrained: whether it is a model of Transformers, which keeps its class and loses whole parts alone.
    """
    x = torch.randint(tokens, (NOISE, length), generator=torch.Generator().manual_seed(0))
    smaller: Compact | Smaller = (
        remove_parts(model, mask, example=x[:1]) if pretrained else compact(model, mask, example=x)
    )
    small = smaller if isinstance(smaller, Compact) else smaller.module
    positions = {name: map_.numpy() for name, map_ in smaller.maps.items()}
    with torch.no_grad():
        before, after = (copy.deepcopy(one).double()(x) for one in (model, small))
    difference = float((before - after).abs().max() / before.abs().max().clamp(min=1e-30))
    maps = IndexMaps(positions, {name: _size(model, name) for name in positions})
    return Shrunk(None, maps, tuple(_layers(model, smaller.maps)), smaller.notes, difference, small)


def _size(model: nn.Module, name: str) -> int:
    """How many units or inputs a layer of the original has."""
    path, _, what = name.rpartition(".")
    layer = model.get_submodule(path)
    if isinstance(weight := getattr(layer, "weight", None), Tensor) and weight.ndim > 1:
        return int(layout_of(layer).by_unit(weight).shape[(UNITS, INPUTS).index(what)])
    values = [getattr(layer, one, None) for one in PER_UNIT]
    return next(len(value) for value in values if value is not None)


def _layers(model: nn.Module, maps: Mapping[str, Tensor]) -> list[NarrowLayer]:
    """Those with a weight of units and inputs, in the order of the network."""
    rows = []
    for name, units in maps.items():
        path, _, what = name.rpartition(".")
        weight = getattr(model.get_submodule(path), "weight", None)
        if what != UNITS or weight is None or weight.ndim < 2:
            continue
        inputs = maps.get(f"{path}.{INPUTS}")
        before = None if inputs is None else _size(model, f"{path}.{INPUTS}")
        rows.append(
            NarrowLayer(path, len(units), _size(model, name), None if inputs is None else len(inputs), before)
        )
    return rows
