"""A network -> compiled plans for tiles of any width: what is computed in which order, and where everything lies."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from winticket.ship.layout import Grid, Layout, Window, layouts, separated, window
from winticket.ship.memory import Memory, arranged
from winticket.ship.network import INPUT, Floats, Network, NetworkError, Positions
from winticket.ship.packing import Packed, packed
from winticket.ship.stages import Stage, stages

LARGEST = 1 << 30
"""Most positions of a network's values at once; a network that needs more memory is refused."""


class Program:
    """What does not depend on how many examples are computed at once: stages, layouts, memory, packed weights."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.stages, self.shapes = separated(stages(network), network.shapes)
        self.layouts, self.grids = layouts(self.stages, self.shapes, network.output)
        self.aliases = self._aliases()
        self._packed: dict[str, Packed] = {}

    @cached_property
    def memory(self) -> Memory:
        """Raises NetworkError if the network needs more memory than networks may."""
        extents = {name: layout.extent for name, layout in self.layouts.items()}
        scratch = {stage.output: self._scratch(stage) for stage in self.stages}
        scratch = {name: size for name, size in scratch.items() if size}
        memory = arranged(self.stages, extents, scratch, aliases=self.aliases, output=self.network.output)
        if memory.size > LARGEST:
            raise NetworkError(
                f"the network needs memory for {memory.size} numbers per example; at most {LARGEST} are computed with"
            )
        return memory

    def _aliases(self) -> dict[str, str]:
        """Values that only reshape another one without gaps, hence lie where it does."""
        aliases: dict[str, str] = {}
        for stage in self.stages:
            source = aliases.get(stage.inputs[0], stage.inputs[0])
            final = stage.output == self.network.output and source == INPUT
            if stage.kind == "reshape" and self.layouts[stage.inputs[0]].contiguous and not final:
                aliases[stage.output] = source
        return aliases

    def _scratch(self, stage: Stage) -> int:
        """Positions for a strided convolution's phases, or for a list of one example's nonzero inputs."""
        if stage.output in self.grids:
            grid = self.grids[stage.output]
            return self.shapes[stage.inputs[0]][0] * len(grid.phases) * grid.plane
        return 2 * (self.shapes[stage.inputs[0]][-1] + 16) if stage.kind == "linear" else 0

    def packed(self, stage: Stage) -> Packed:
        """The kept weights of a product, with the position in the input that each reads."""
        if stage.output not in self._packed:
            weight = stage.tensors["weight"]
            places = np.arange(weight.shape[1]) if stage.kind == "linear" else self._places(stage)
            self._packed[stage.output] = packed(weight, places, weight.shape[0])
        return self._packed[stage.output]

    def _places(self, stage: Stage) -> Positions:
        """The position that each tap of a convolution reads, by column or, with groups, by unit and column."""
        units, channels = stage.tensors["weight"].shape[:2]
        plane, offsets = self._offsets(
            window(stage), self.layouts[stage.inputs[0]], self.grids.get(stage.output)
        )
        places = (np.arange(channels)[:, None] * plane + offsets).reshape(-1)
        groups = stage.options.groups
        if groups == 1:
            return places
        first = np.arange(units) // (units // groups) * channels * plane
        shifted: Positions = first[:, None] + places
        return shifted

    def _offsets(self, of: Window, source: Layout, grid: Grid | None) -> tuple[int, Positions]:
        """Positions from one input channel to the next, and to each tap of a window from its first."""
        down, across = (np.asarray(of.taps(axis)) for axis in (0, 1))
        if grid is None:
            *_, plane, row = source.image()
            return plane, (down[:, None] * row + across).reshape(-1)
        number = {phase: at for at, phase in enumerate(grid.phases)}
        (sy, sx), taps = of.stride, [(int(y), int(x)) for y in down for x in across]
        offsets = [number[y % sy, x % sx] * grid.plane + y // sy * grid.row + x // sx for y, x in taps]
        return len(grid.phases) * grid.plane, np.asarray(offsets)

    def zero(self, stage: Stage) -> Floats | None:
        """What a black pixel is for a layer that reads the network's input itself; None if that is 0 anyway."""
        given, source = self.network.preprocessing, stage.inputs[0]
        if given is None or self.aliases.get(source, source) != INPUT or len(self.shapes[source]) > 1:
            return None
        blank = given.apply(np.zeros((1, *self.network.input_shape), np.float32)).reshape(-1)
        return blank if blank.any() else None
