"""Which units of a network can go: constant units, and units that nothing reads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from winticket.ship.shrink_units import Product, Reading

_EQUAL = 1e-12
"""Relative difference up to which two float64 values of one constant are the same: the last bits of vector code."""


@dataclass(frozen=True)
class Constant:
    """The features of a value that are the same for every example and at every position.

    known: bool [features]. value: float64 [features]; 0 for the others.
    """

    known: Tensor
    value: Tensor


@dataclass(frozen=True)
class Plan:
    """What remains of a network.

    kept: bool over all units. needed: for each value, the features on which the outputs depend. constants: as below.
    carriers: for each layer with zero padding that reads constants, the one input that stands for all of them.
    forced: units that are kept only because a layer cannot be empty.
    """

    kept: Tensor
    needed: dict[fx.Node, Tensor]
    constants: dict[fx.Node, Constant]
    carriers: dict[fx.Node, int]
    forced: tuple[int, ...]

    def keeps(self, reading: Reading, node: fx.Node) -> Tensor:
        """The features of a value that are kept, bool [features]."""
        return self.kept[reading.features[node].units]


def plan(reading: Reading, *, keep_inputs: bool = False) -> Plan:
    """Decide which units are kept. A unit is removed if all that share its number can be.

    keep_inputs: keep the network's inputs that nothing reads.
    """
    constants = _constants(reading)
    given = (reading.features[node].units for node in reading.inputs) if keep_inputs else ()
    wanted = {int(unit) for units in given for unit in units}
    forced: set[int] = set()
    while True:
        needed, carriers = _needed(reading, constants, forced | wanted)
        kept = torch.zeros(len(reading.parents), dtype=torch.bool)
        for node, features in reading.features.items():
            kept[features.units[needed[node]]] = True
        followed = [
            n for p in reading.products for n in (p, reading.products[p].source) if n in reading.features
        ]
        empty = [n for n in followed if not bool(kept[reading.features[n].units].any())]
        if not empty:
            return Plan(kept, needed, constants, carriers, tuple(sorted(forced)))
        # A constant unit if there is one, since it needs nothing in turn.
        first = int(constants[empty[0]].known.int().argmax())
        forced.add(int(reading.features[empty[0]].units[first]))


def is_constant(reading: Reading) -> bool:
    """True if the outputs depend on no input, so that the network answers the same to every example."""
    given = [
        n for n in reading.graph.nodes if n.op == "placeholder" and isinstance(reading.values[n], Tensor)
    ]
    if not given or any(n not in reading.inputs for n in given):
        return False
    needed, _ = _needed(reading, _constants(reading), ())
    return not any(bool(needed[n].any()) for n in given)


def _constants(reading: Reading) -> dict[fx.Node, Constant]:
    constants: dict[fx.Node, Constant] = {}
    for node, features in reading.features.items():
        if node in reading.inputs:
            known = torch.zeros(len(features.units), dtype=torch.bool)
        elif node in reading.products:
            known = _made(reading.products[node], constants)
        else:
            known = torch.ones(len(features.units), dtype=torch.bool)
            for flow in reading.flows[node]:
                known[flow.into] &= constants[flow.source].known[flow.out_of]
        if (product := reading.products.get(node)) and product.depthwise:
            (flow,) = reading.flows[node]
            known = known | foldable(product, constants[flow.source])[flow.out_of]
        values = reading.values[node].movedim(features.dim, 0).flatten(1)
        value = values[:, 0]
        known = known & ((values - value[:, None]).abs().amax(1) <= _EQUAL * value.abs())
        if node in reading.spatial:
            (flow,) = reading.flows[node]
            unchanged = constants[flow.source].value[flow.out_of]
            known &= (value - unchanged).abs() <= _EQUAL * value.abs()
        constants[node] = Constant(known, value.double().masked_fill(~known, 0))
    return constants


def _made(product: Product, constants: dict[fx.Node, Constant]) -> Tensor:
    """The units of a layer that are constant: no kept weight reads anything else than constants."""
    alive = product.keep.any(2)
    if product.depthwise or (source := constants.get(product.source)) is None:
        return ~alive.any(1)
    return ~(alive & ~foldable(product, source)).any(1)


def foldable(product: Product, constant: Constant) -> Tensor:
    """The inputs that add the same constant at every position, bool [inputs]."""
    return constant.known if product.even else constant.known & (constant.value == 0)


def _needed(
    reading: Reading, constants: dict[fx.Node, Constant], forced: Iterable[int]
) -> tuple[dict[fx.Node, Tensor], dict[fx.Node, int]]:
    """What the outputs depend on, from the outputs to the inputs, and the carriers."""
    kept = torch.zeros(len(reading.parents), dtype=torch.bool)
    kept[list(forced)] = True
    needed = {node: kept[features.units].clone() for node, features in reading.features.items()}
    carriers: dict[fx.Node, int] = {}
    for node in reversed(reading.graph.nodes):
        if node in reading.opaque:
            if node in reading.inputs and not bool(needed[node].any()):
                continue
            for source in node.all_input_nodes:
                if source in needed:
                    needed[source][:] = True
        elif (product := reading.products.get(node)) and not product.depthwise:
            if product.source in needed:
                _read(node, product, constants[product.source], needed, carriers)
        else:
            for flow in reading.flows.get(node, ()):
                wanted = needed[node][flow.into]
                if product:
                    wanted = wanted & product.keep.flatten(1).any(1)
                needed[flow.source].index_put_((flow.out_of[wanted],), torch.tensor(True))
    return needed, carriers


def _read(
    node: fx.Node,
    product: Product,
    constant: Constant,
    needed: dict[fx.Node, Tensor],
    carriers: dict[fx.Node, int],
) -> None:
    """Note what a layer's needed units read, apart from constants that can be folded into its biases."""
    source = needed[product.source]
    reads = product.keep[needed[node]].flatten(2).any(2).any(0)
    unlike = reads & constant.known & ~foldable(product, constant)
    live = reads & ~constant.known
    if product.transposed:
        live |= unlike
    elif bool(unlike.any()):
        # One that is kept anyway, or else the largest, so that no other is divided by a small number.
        candidates = unlike & source if bool((unlike & source).any()) else unlike
        carrier = int((constant.value.abs() * candidates).argmax())
        carriers[node] = carrier
        live[carrier] = True
    source |= live
