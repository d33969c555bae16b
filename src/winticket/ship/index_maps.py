"""The index maps of a shrunk network: which of the original's units and inputs its own are, and the way back."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from winticket.atomic import replace_file
from winticket.outside import Stored, Unreadable, header_size, read_file, read_header, read_json
from winticket.ship.kinds import KINDS, Shape
from winticket.ship.network import (
    INPUT,
    MOST_POSITIONS,
    Network,
    NetworkError,
    Operation,
    Positions,
    Weight,
)

FORMAT, NAME, VERSION = "format", "winticket index maps", 1
SIZES = "sizes"
"""The entry of the metadata with the sizes, as JSON."""
MAPS = ".maps.safetensors"
"""What the name of such a file ends in, after that of the file it belongs to."""
LONGEST = 1 << 28
"""Most bytes of a file of index maps."""
UNITS, INPUTS = "units", "inputs"


@dataclass(frozen=True, eq=False)
class IndexMaps:
    """For each layer of a shrunk network, which units and inputs of the original it has kept.

    positions  "LAYER.units" and "LAYER.inputs" -> int64, rising: the numbers that they had in the original
    sizes      by the same names, how many the original has

    Raises ValueError if these do not fit together.

    >>> IndexMaps({"fc.units": np.array([0, 2])}, {"fc.units": 3}).positions["fc.units"].tolist()
    [0, 2]
    """

    positions: Mapping[str, Positions]
    sizes: Mapping[str, int]

    def __post_init__(self) -> None:
        if set(self.positions) != set(self.sizes):
            raise ValueError("index maps have a size for each list of positions, and no other")
        for name, positions in self.positions.items():
            size = self.sizes[name]
            # Compared, since a difference of int64 may wrap around.
            rising = (
                positions.ndim == 1 and len(positions) > 0 and bool((positions[1:] > positions[:-1]).all())
            )
            if not rising or not 0 <= positions[0] <= positions[-1] < size <= MOST_POSITIONS:
                raise ValueError(f"the index map {name!r} does not rise within {size} numbers")

    def of(self, weight: Weight, what: str) -> tuple[Positions, int] | None:
        """The positions of a tensor's layer, and how many the original has; None if it has kept all."""
        name = f"{layer_of(weight)}.{what}"
        return (self.positions[name], self.sizes[name]) if name in self.positions else None


def layer_of(weight: Weight) -> str:
    """The layer that a tensor belongs to, by its name.

    >>> layer_of(Weight.of("features.0.weight", [1.0])), layer_of(Weight.of("w", [1.0]))
    ('features.0', 'w')
    """
    return weight.name.rpartition(".")[0] or weight.name


def save_maps(maps: IndexMaps, path: str | os.PathLike[str]) -> None:
    """Write index maps as a safetensors file of int64 tensors, whole or not at all; the sizes are in its metadata.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_maps(IndexMaps({"fc.units": np.array([0, 2])}, {"fc.units": 3}), f"{folder}/maps.safetensors")
    ...     load_maps(f"{folder}/maps.safetensors").sizes
    {'fc.units': 3}
    """
    about = {FORMAT: f"{NAME} {VERSION}", SIZES: json.dumps(dict(maps.sizes))}
    header: dict[str, object] = {"__metadata__": about}
    at, parts = 0, []
    for name, positions in maps.positions.items():
        parts.append(positions.astype("<i8").tobytes())
        offsets = [at, at + len(parts[-1])]
        header[name] = {"dtype": "I64", "shape": [len(positions)], "data_offsets": offsets}
        at = offsets[1]
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    replace_file(Path(path), len(text).to_bytes(8, "little") + text + b"".join(parts))


def load_maps(path: str | os.PathLike[str]) -> IndexMaps:
    """Read what `winticket ship --shrink` wrote beside a file. It needs numpy alone.

    Raises Unreadable (a ValueError), with the reason, for any other file; FileNotFoundError if there is none.
    """
    try:
        content = read_file(path, limit=LONGEST)
        header, metadata = read_header(content)
        if metadata.get(FORMAT) != f"{NAME} {VERSION}":
            raise Unreadable(f"no file of index maps: its metadata lack {FORMAT!r} of '{NAME} {VERSION}'")
        sizes = read_json(metadata.get(SIZES, ""), dict[str, int])
        data = memoryview(content)[header_size(content) :]
        return IndexMaps({name: _positions(name, one, data) for name, one in header.items()}, sizes)
    except ValueError as error:
        raise Unreadable(f"{os.fspath(path)} is not to be read: {error}") from error


def _positions(name: str, one: Stored, data: memoryview) -> Positions:
    if one.dtype != "I64" or len(one.shape) != 1:
        raise Unreadable(f"its tensor {name!r} is {one.dtype} of shape {list(one.shape)}, not a list of I64")
    return np.frombuffer(data[one.start : one.end], "<i8").astype(np.int64)


def read_inputs(network: Network, maps: IndexMaps) -> dict[str, Positions]:
    """By name of a weight, the inputs that its layer reads by the maps, if the weight has more.

    >>> fc = {"weight": Weight.of("fc.weight", [[0.0, 2.0]], np.array([[False, True]]))}
    >>> network = Network((2,), (Operation("linear", ("input",), "1", tensors=fc),))
    >>> read_inputs(network, IndexMaps({"fc.inputs": np.array([1])}, {"fc.inputs": 2}))["fc.weight"].tolist()
    [1]
    """
    narrow = {}
    for weight in network.weights().values():
        map_ = maps.of(weight, INPUTS) if len(weight.shape) > 1 else None
        if map_ is not None and len(map_[0]) < weight.shape[1] == map_[1]:
            narrow[weight.name] = map_[0]
    return narrow


def expand_network(network: Network, maps: IndexMaps) -> Network:
    """A shrunk network back in the shapes of the original; it computes the same.

    Kept weights are where they were, and nothing else is kept. Constants that were folded stay in the biases. Raises
    NetworkError if the maps are not those of the network, naming the tensor.

    >>> fc = {"weight": Weight.of("fc.weight", [[1.0, 2.0]])}
    >>> small = Network((2,), (Operation("linear", ("input",), "1", tensors=fc),))
    >>> whole = expand_network(small, IndexMaps({"fc.units": np.array([1])}, {"fc.units": 3}))
    >>> whole.weights()["fc.weight"].dense().tolist()
    [[0.0, 0.0], [1.0, 2.0], [0.0, 0.0]]
    """

    def tensors(operation: Operation) -> dict[str, Weight]:
        named = operation.tensors.get("weight", operation.tensors.get("scale"))
        if named is None:
            return {}
        units = maps.of(named, UNITS)
        made = {role: _scattered(one, 0, units) for role, one in operation.tensors.items()}
        if "weight" in made:
            made["weight"] = _scattered(made["weight"], 1, maps.of(named, INPUTS))
        return made

    return rebuilt(network, tensors)


def _scattered(weight: Weight, axis: int, map_: tuple[Positions, int] | None) -> Weight:
    """The tensor with its rows along an axis at the positions of a map, and nothing kept elsewhere."""
    if map_ is None or weight.shape[axis] == map_[1]:
        return weight  # the inputs of a first layer are all there, though no weight reads some of them
    positions, size = map_
    if weight.shape[axis] != len(positions):
        raise NetworkError(
            f"tensor {weight.name!r} has {weight.shape[axis]} {('units', 'inputs')[axis]}, but its index map has "
            f"{len(positions)} of {size}"
        )
    shape = (*weight.shape[:axis], size, *weight.shape[axis + 1 :])
    if math.prod(shape) > MOST_POSITIONS:
        raise NetworkError(f"tensor {weight.name!r} would have more than {MOST_POSITIONS} elements")
    old = np.arange(weight.size) if weight.positions is None else weight.positions
    at = list(np.unravel_index(old, weight.shape))
    at[axis] = positions[at[axis]]
    new = np.ravel_multi_index(tuple(at), shape).astype(np.int64)
    scales = weight.scales
    if scales is not None and axis == 0:
        scales = np.zeros(size, np.float32)
        scales[positions] = weight.scales
    return Weight(weight.name, shape, weight.values, new, scales)


def rebuilt(network: Network, tensors: Callable[[Operation], Mapping[str, Weight]]) -> Network:
    """The network with other tensors, of other widths; what depends on widths follows: reshapes, depthwise groups.

    tensors: those of an operation by role; empty for one that keeps its own. Raises NetworkError if they do not fit
    together.
    """
    shapes: dict[str, Shape] = {INPUT: network.input_shape}
    operations = []
    for operation in network.operations:
        before, after = network.shapes[operation.inputs[0]], shapes[operation.inputs[0]]
        options, made = dict(operation.options), tensors(operation) or operation.tensors
        if operation.kind == "reshape":
            options["shape"] = _reshaped(options["shape"], before, after)
        elif "groups" in options and after[0] % made["weight"].shape[1] == 0:
            options["groups"] = after[0] // made["weight"].shape[1]
        changed = replace(operation, options=options, tensors=made)
        given = {role: weight.shape for role, weight in changed.tensors.items()}
        try:
            shapes[changed.output] = KINDS[changed.kind].shape(
                changed.typed_options(), [shapes[name] for name in changed.inputs], given
            )
        except ValueError as error:
            raise NetworkError(f"{changed}: {error}") from error
        operations.append(changed)
    return replace(network, operations=tuple(operations))


def _reshaped(shape: Shape, before: Shape, after: Shape) -> Shape:
    """What an operation reshapes a value to that has the shape `after` in place of `before`."""
    if math.prod(after) == math.prod(before):
        return shape
    if len(shape) == 1:
        return (math.prod(after),)
    if shape[0] == before[0]:
        return (after[0], *shape[1:])
    return (*shape[:-1], after[-1])
