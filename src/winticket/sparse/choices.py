"""What has been measured of a layer's shape, and how it is used: instruction sets by the kernels, blocks by structures.

Which set of a processor is fastest depends on the layer: a product's rows, its batch, its density. So does the size of
the blocks in which a product reads its operand. Both change the last bits of numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import msgspec

from winticket.sparse import windows
from winticket.sparse.native import require
from winticket.sparse.structure import rule
from winticket.sparse.windows import Window

PROBES = (0.05, 0.2, 0.5)
"""The densities at which a shape is measured."""
EDGES = (*(math.sqrt(a * b) for a, b in pairwise(PROBES)), 1.0)
"""The highest density for which each probe stands."""
LINEAR, CONVOLUTION = ("forward", "by_weight", "by_input"), ("convolution", "convolution_back")
"""The products of a Linear layer and of a Conv2d, by the names that the kernels know them by."""
MOST_BLOCKS = 4096
STEP = 0.05
"""Break-even densities are rounded down to multiples of this, so that noise rarely changes them."""


@dataclass(frozen=True)
class Shape:
    """A layer in training: `stack` networks, batches of `batch` examples, `threads` threads.

    Its weight has `rows` and `columns`. A Conv2d also has a `window` and images of `size` (height, width). Its dense
    products are in bfloat16 if `half`; the sparse ones are in float32 all the same.

    >>> Shape(rows=300, columns=784, stack=5, batch=60, threads=1).size
    (1, 1)
    """

    rows: int
    columns: int
    stack: int
    batch: int
    threads: int
    window: Window | None = None
    size: tuple[int, int] = (1, 1)
    half: bool = False

    @property
    def products(self) -> tuple[str, ...]:
        return CONVOLUTION if self.window else LINEAR

    def numbers(self, product: str) -> list[int]:
        """The numbers by which the kernels know a product of this layer."""
        if self.window:
            grid = windows.fitting(self.window, self.batch, *self.size, rows=self.rows, bytes_each=4)
            planes = grid.planes((self.window.channels, *self.size), self.window)
            return [self.threads, self.stack, self.batch, self.rows, *planes]
        across = (self.columns, self.rows) if product == "by_input" else (self.rows, self.columns)
        return [self.threads, self.stack, *across, self.batch]


class Choice(msgspec.Struct, frozen=True):
    """The fastest way at one density: each product's instruction set; the blocks of columns and of rows.

    The forward product and the gradient by weight share the blocks of columns; the gradient by input reads rows.
    """

    density: float
    sets: dict[str, str]
    blocks: tuple[int, int]

    def suits(self, shape: Shape, sets: Sequence[str]) -> bool:
        """True if this is a way to compute a layer of that shape with these instruction sets."""
        across, down = self.blocks
        fits = 1 <= across <= MOST_BLOCKS and 1 <= down <= MOST_BLOCKS
        return set(self.sets) == set(shape.products) and set(self.sets.values()) <= set(sets) and fits


class Times(msgspec.Struct, frozen=True):
    """Seconds of a step of a layer: dense, and sparse in the fastest way by density, in ascending order."""

    dense: float
    sparse: tuple[tuple[float, float], ...]

    def at(self, density: float) -> float:
        """Seconds of a sparse step at a density; linear between those measured and beyond them, and never negative.

        >>> Times(2.1, ((0.25, 1.0), (0.5, 3.0))).at(0.375)
        2.0
        """
        lines = list(pairwise(self.sparse))
        (low, fast), (high, slow) = next((line for line in lines if density <= line[1][0]), lines[-1])
        return max(0.0, fast + (density - low) * (slow - fast) / (high - low))

    def crossing(self) -> float:
        """The density at which a sparse step takes as long as a dense one, within [0, 1], rounded down to `STEP`.

        >>> Times(2.1, ((0.2, 1.0), (0.4, 3.0))).crossing()
        0.3
        """
        lines = list(pairwise(self.sparse))
        (low, fast), (high, slow) = next((line for line in lines if self.dense <= line[1][1]), lines[-1])
        density = low + (self.dense - fast) / max((slow - fast) / (high - low), 1e-12)
        return round(min(1.0, max(0.0, int(density / STEP + 1e-9) * STEP)), 2)

    def sound(self) -> bool:
        """True if these can be times: positive and finite, at ascending densities."""
        densities, seconds = zip(*self.sparse, strict=True) if len(self.sparse) > 1 else ((), ())
        positive = all(0 < t < math.inf for t in (self.dense, *seconds))
        return bool(densities) and positive and all(a < b for a, b in pairwise((0.0, *densities, 1.0 + STEP)))


@dataclass(frozen=True)
class Tuning:
    """A layer's shape, its break-even density, and the fastest way at each of `PROBES`; none: as without measurement.

    `times` are those from which the break-even follows, if they were measured.

    >>> Tuning(Shape(rows=300, columns=784, stack=5, batch=64, threads=1), 0.5).blocks(0.1)
    (4, 2)
    """

    shape: Shape
    break_even: float
    choices: tuple[Choice, ...] = ()
    times: Times | None = None

    def blocks(self, density: float) -> tuple[int, int]:
        """The blocks of columns and of rows at this density of the weights that can have an effect.

        Between the densities that were measured, they grow as the rule has them grow.
        """
        shape = self.shape
        if shape.window:
            return 1, 1
        across, down = rule(shape.rows, shape.columns, shape.batch, density)
        if not self.choices:
            return across, down
        choice = next(c for c, edge in zip(self.choices, EDGES, strict=True) if density <= edge)
        usual = rule(shape.rows, shape.columns, shape.batch, choice.density)
        return (
            min(shape.columns, _scaled(across, choice.blocks[0], usual[0])),
            min(shape.rows, _scaled(down, choice.blocks[1], usual[1])),
        )

    def register(self) -> None:
        """Have the kernels compute this shape's products with the sets chosen, from now on, in this process."""
        weights = self.shape.rows * self.shape.columns
        for product in self.shape.products if self.choices else ():
            ladder = [
                (int(edge * weights), choice.sets[product])
                for edge, choice in zip(EDGES, self.choices, strict=True)
            ]
            require().prefer(product, self.shape.numbers(product), ladder)


def _scaled(usual_here: int, chosen: int, usual_there: int) -> int:
    """The number of blocks here, if `chosen` was faster than `usual_there` at the density that was measured."""
    if chosen == usual_there:
        return usual_here
    return 1 if chosen == 1 else max(1, round(usual_here * chosen / usual_there))
