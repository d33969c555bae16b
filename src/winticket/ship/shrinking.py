"""A network without the units and inputs that its masks have cut off, from the network alone: no model is needed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from winticket.ship.index_maps import INPUTS, UNITS, IndexMaps, layer_of, read_inputs, rebuilt
from winticket.ship.interpret import run
from winticket.ship.measure_module import NetworkModule
from winticket.ship.network import INPUT, Network, Operation, Positions, Weight
from winticket.ship.shrink import Compact, compact_as_it_is
from winticket.ship.stages import unused

TOLERANCE = 1e-6
"""Largest difference of an output in float64, relative to the largest: constants become biases in float32."""
TOKENS_ALONE = (
    "a network for text is shipped as a state dict (--to torch), and a model of Transformers also as its folder (--to "
    "hub): the other formats have no attention and no embeddings"
)
NOISE = 4
"""Examples on which outputs are compared."""


@dataclass(frozen=True)
class NarrowLayer:
    """A Linear layer or convolution: its units and inputs, and those of the original; a depthwise one has no inputs."""

    name: str
    units: int
    units_before: int
    inputs: int | None
    inputs_before: int | None


@dataclass(frozen=True, eq=False)
class Shrunk:
    """A network without what its masks have cut off.

    captured    without torch; None for a module that reads tokens. It takes the original's inputs: those that nothing
                reads are inputs of the first layer without any kept weight
    maps        which units and inputs of the original each layer has
    layers      how many these are
    notes       what was kept although the masks have cut it off, and why, in sentences
    difference  largest difference of an output on noise, in float64, relative to the largest
    module      as a torch module without the inputs that nothing reads; None if there was no module
    """

    captured: Network | None
    maps: IndexMaps
    layers: tuple[NarrowLayer, ...]
    notes: tuple[str, ...]
    difference: float
    module: nn.Module | None = None

    @property
    def network(self) -> Network:
        """The network without torch. ValueError for a module that reads tokens."""
        if self.captured is None:
            raise ValueError(TOKENS_ALONE)
        return self.captured

    def inputs(self) -> dict[str, Positions]:
        """By name of a weight, the inputs that its layer reads, if the network's own inputs are more."""
        return {} if self.captured is None else read_inputs(self.captured, self.maps)


def shrink_network(network: Network) -> Shrunk:
    """Remove units, filters and inputs that the masks have cut off, by the rules of `winticket.compact`.

    Tensors keep their names; a layer that takes up constants gets a bias if it has none. Raises ValueError if two
    operations share a tensor, if the masks leave no path from the inputs to the outputs, or if the outputs would change
    by more than 1e-6 of the largest.

    >>> keep = np.array([[True, True], [False, False], [False, True]])
    >>> layers = (
    ...     Operation("linear", ("input",), "1", tensors={"weight": Weight.of("a.weight", np.ones((3, 2)), keep)}),
    ...     Operation("relu", ("1",), "2"),
    ...     Operation("linear", ("2",), "3", tensors={"weight": Weight.of("b.weight", np.ones((2, 3)))}),
    ... )
    >>> small = shrink_network(Network((2,), layers))
    >>> [(layer.name, layer.units, layer.units_before) for layer in small.layers]
    [('a', 2, 3), ('b', 2, 2)]
    >>> small.maps.positions["a.units"].tolist(), small.network.weights()["b.weight"].shape
    ([0, 2], (2, 2))
    """
    _check_unshared(network)
    module = _module(network)
    mask = module.mask
    if mask is None:
        raise ValueError("the network has no Linear layer or convolution, so there is nothing to remove")
    names = {f"layers.{at}": layer_of(_main(one)) for at, one in enumerate(network.operations) if one.tensors}
    try:
        small = compact_as_it_is(module, mask, example=torch.zeros(1, *network.input_shape))
    except ValueError as error:
        raise ValueError(_called(str(error), names)) from error
    narrow = _narrowed(network, small)
    maps = _maps(network, narrow, small, names)
    return Shrunk(
        narrow,
        maps,
        tuple(_layers(network, maps)),
        tuple(_called(note, names) for note in small.notes),
        compared(network, lambda x: run(narrow, x, dtype=np.float64)),
    )


def _called(text: str, names: Mapping[str, str]) -> str:
    """A message about the module, with the layers called as the network's tensors call them."""
    return re.sub(r"\blayers\.\d+", lambda found: names.get(found[0], found[0]), text)


def _main(operation: Operation) -> Weight:
    """The tensor that an operation's layer is called after."""
    return operation.tensors.get("weight") or operation.tensors["scale"]


def _check_unshared(network: Network) -> None:
    uses = Counter(weight.name for one in network.operations for weight in one.tensors.values())
    if shared := [name for name, count in uses.items() if count > 1]:
        raise ValueError(
            f"tensor {shared[0]!r} belongs to {uses[shared[0]]} operations, each of which would be cut in another way, "
            "so the network cannot be shrunk; leave out shrinking"
        )
    layers = Counter(layer_of(_main(one)) for one in network.operations if one.tensors)
    if twice := [name for name, count in layers.items() if count > 1]:
        raise ValueError(
            f"two layers are called {twice[0]!r} by the names of their tensors, so index maps could not tell them "
            "apart, and the network cannot be shrunk; leave out shrinking"
        )


def _module(network: Network) -> NetworkModule:
    """The network as a torch module. Scale and shift by channel become BatchNorm, through which units are followed."""
    module = NetworkModule(network)
    for at, operation in enumerate(network.operations):
        if operation.kind == "scale_shift":
            axes = len(network.shapes[operation.inputs[0]])
            layer: Any = (nn.BatchNorm2d if axes == 3 else nn.BatchNorm1d)(
                network.shapes[operation.inputs[0]][0], eps=0
            )
            with torch.no_grad():
                layer.weight.copy_(torch.from_numpy(operation.tensors["scale"].dense()))
                layer.bias.copy_(torch.from_numpy(operation.tensors["shift"].dense()))
            module.layers[at] = layer
    return module.eval()


def _narrowed(network: Network, small: Compact) -> Network:
    """The network with the tensors of the compact module."""
    at = {one.output: number for number, one in enumerate(network.operations)}
    taken = network.weights()

    def tensors(operation: Operation) -> dict[str, Weight]:
        if not operation.tensors:
            return {}
        path = f"layers.{at[operation.output]}"
        if f"{path}.units" not in small.maps:  # its units are not followed, so all of them are there
            return {}
        layer: Any = small.get_submodule(path)
        if operation.kind == "scale_shift":
            both = {"scale": layer.weight, "shift": layer.bias}
            return {
                role: Weight.of(operation.tensors[role].name, value.detach().numpy())
                for role, value in both.items()
            }
        weight = operation.tensors["weight"]
        keep = small.mask.keep[f"{path}.weight"].numpy()
        made = {
            "weight": _weight(
                weight, layer.weight.detach().numpy(), keep, small.maps[f"{path}.units"].numpy()
            )
        }
        if layer.bias is not None:
            old = operation.tensors.get("bias")
            name = unused(f"{layer_of(weight)}.bias", taken) if old is None else old.name
            made["bias"] = Weight.of(name, layer.bias.detach().numpy())
        return made

    return rebuilt(network, tensors)


def _weight(old: Weight, values: Any, keep: Any, units: Positions) -> Weight:
    """The narrowed weight; with its scales, if every value still is a whole multiple of its unit's."""
    made = Weight.of(old.name, values, keep)
    if old.scales is None:
        return made
    scales = old.scales[units]
    each = scales.reshape(-1, *(1,) * (values.ndim - 1))
    whole = np.rint(np.divide(values, each, out=np.zeros_like(values), where=each > 0))
    if np.abs(whole).max() > 127 or not (whole * each == values)[keep].all():
        return made
    return Weight(made.name, made.shape, made.values, made.positions, scales)


def _maps(network: Network, narrow: Network, small: Compact, names: Mapping[str, str]) -> IndexMaps:
    """The compact module's maps by the layers' names; for layers that read the network's inputs, those they do read."""
    positions, sizes, given = {}, {}, {INPUT}
    for at, (before, after) in enumerate(zip(network.operations, narrow.operations, strict=True)):
        if not before.tensors and given.issuperset(before.inputs):
            given.add(before.output)
        for axis, what in enumerate((UNITS, INPUTS)):
            map_ = small.maps.get(f"layers.{at}.{what}")
            if map_ is None:
                continue
            name = f"{names[f'layers.{at}']}.{what}"
            positions[name], sizes[name] = map_.numpy(), _main(before).shape[axis]
            if what == INPUTS and before.inputs[0] in given:
                keep = after.tensors["weight"].keep().swapaxes(0, 1).reshape(sizes[name], -1)
                positions[name] = np.flatnonzero(keep.any(1)) if keep.any() else positions[name]
    return IndexMaps(positions, sizes)


def _layers(network: Network, maps: IndexMaps) -> list[NarrowLayer]:
    rows = []
    for operation in network.operations:
        if "weight" not in operation.tensors:
            continue
        weight = operation.tensors["weight"]
        units, inputs = maps.of(weight, UNITS), maps.of(weight, INPUTS)
        unit_count = weight.shape[0] if units is None else len(units[0])
        if operation.options.get("groups", 1) > 1:
            rows.append(NarrowLayer(layer_of(weight), unit_count, weight.shape[0], None, None))
            continue
        input_count = weight.shape[1] if inputs is None else len(inputs[0])
        rows.append(NarrowLayer(layer_of(weight), unit_count, weight.shape[0], input_count, weight.shape[1]))
    return rows


def compared(network: Network, other: Callable[[NDArray[Any]], NDArray[Any]]) -> float:
    """By how much the outputs of another network differ on noise in float64, relative to the largest.

    ValueError if by more than TOLERANCE.
    """
    x = np.random.default_rng(0).standard_normal((NOISE, *network.input_shape))
    with np.errstate(all="ignore"):
        before, after = run(network, x, dtype=np.float64), other(x)
    difference = float(np.abs(before - after).max() / max(np.abs(before).max(), 1e-30))
    if not difference <= TOLERANCE:
        raise ValueError(
            f"without what its masks have cut off, the network's outputs would change by {difference:.2g} of the "
            f"largest, more than {TOLERANCE:g}; leave out shrinking"
        )
    return difference
