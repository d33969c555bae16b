"""Where the elements of every value are: planes of positions, with borders of zeros for the windows that read them.

A value [channels, height, width] is one plane after the other. Within a plane, rows follow each other at a distance of
the width and a gap, so that one row's right border is the next one's left border, and one plane's lower border is the
next one's upper border. A tap of a window is then a constant offset. In memory, the examples of a tile are innermost:
what is counted here are positions, and each has as many elements as the tile has examples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from winticket.ship.kinds import Shape
from winticket.ship.network import INPUT
from winticket.ship.stages import CONVOLUTIONS, POINTWISE, Stage, unused

LINE = 16
"""Floats of a cache line, on which a value and its planes begin if they have gaps."""
Border = tuple[int, int, int, int]
"""Zeros above, below, left and right of an image."""
NONE: Border = (0, 0, 0, 0)


@dataclass(frozen=True)
class Layout:
    """Sizes of the axes, positions from one to the next along each, positions before the first, and all of them."""

    sizes: Shape
    strides: Shape
    lead: int
    extent: int

    @property
    def contiguous(self) -> bool:
        return self.lead == 0 and self.extent == math.prod(self.sizes)

    @property
    def bordered(self) -> bool:
        """Whether windows read zeros around it. A border on the right or below alone takes no positions before."""
        return self.lead > 0 or (not self.contiguous and self.extent > self.sizes[0] * self.strides[0])

    def image(self) -> tuple[int, int, int, int, int]:
        """Planes, height, width, and positions from plane to plane and from row to row; a signal has height 1."""
        planes, *positions = self.sizes
        height = positions[0] if len(positions) > 1 else 1
        plane, row = self.strides[0], self.strides[1] if len(positions) > 1 else positions[0]
        return planes, height, positions[-1], plane, row


def dense(sizes: Shape) -> Layout:
    """Without gaps, the last axis innermost."""
    strides = [1]
    for size in reversed(sizes[1:]):
        strides.insert(0, strides[0] * size)
    return Layout(sizes, tuple(strides) if sizes else (), 0, math.prod(sizes))


def _line(count: int) -> int:
    return -(-count // LINE) * LINE


def _planes(sizes: Shape, border: Border, row: int) -> Layout:
    """An image or a signal with a border, whose rows are `row` positions apart."""
    planes, *positions = sizes
    height = positions[0] if len(positions) > 1 else 1
    above, below, left, right = border
    if border == NONE and row == positions[-1]:
        return dense(sizes)
    plane = _line((height + max(above, below)) * row)
    lead = _line(above * row + left) if border != NONE else 0
    tail = below * row + right
    strides = (plane, row, 1) if len(positions) > 1 else (plane, 1)
    return Layout(sizes, strides, lead, lead + planes * plane + tail)


@dataclass(frozen=True)
class Grid:
    """A strided convolution's input in phases: rows of `row` positions, `rows` of them for each phase.

    phases: (down, across) of each, in order; plane: positions from one to the next.
    """

    phases: tuple[tuple[int, int], ...]
    rows: int
    row: int

    @property
    def plane(self) -> int:
        return _line(self.rows * self.row)


@dataclass(frozen=True)
class Window:
    """A convolution's kernel, stride, padding and dilation, each as (down, across); a signal's is 1 high."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: Border
    dilation: tuple[int, int]

    @property
    def strided(self) -> bool:
        return self.stride != (1, 1)

    def taps(self, axis: int) -> list[int]:
        """The offset of each tap along an axis of the padded input."""
        return [k * self.dilation[axis] for k in range(self.kernel[axis])]


def window(stage: Stage) -> Window:
    """The window of a convolution."""
    options, kernel = stage.options, stage.tensors["weight"].shape[2:]
    lift = (1,) * (2 - len(kernel))
    above, below = options.padding[0] if len(kernel) == 2 else (0, 0)
    left, right = options.padding[-1]
    down, across = (*lift, *kernel)
    return Window(
        (down, across), (*lift, *options.stride), (above, below, left, right), (*lift, *options.dilation)
    )


def separated(stages: Sequence[Stage], shapes: Mapping[str, Shape]) -> tuple[list[Stage], dict[str, Shape]]:
    """The stages with copies where a value has to lie in memory in two ways; and the shapes with those of the copies.

    Convolutions read a copy of the network's input, with borders. A Linear layer over several axes neither reads nor
    writes borders, and what reshapes a value does not write them.
    """
    every, made = dict(shapes), list(stages)
    for stage in made:  # a part of a sum
        every.setdefault(stage.output, every[stage.inputs[0]])
    if any(stage.kind in CONVOLUTIONS and INPUT in stage.inputs for stage in made):
        copy = unused("input copy", every)
        every[copy] = every[INPUT]
        made = [_reading(copy, stage) for stage in made]
        made.insert(0, Stage("copy input", "copy", (INPUT,), copy))
    needs = borders(made, every)
    result: list[Stage] = []
    for stage in made:
        lines = stage.kind == "linear" and len(every[stage.output]) > 1
        if lines:
            name = unused(f"{stage.inputs[0]} for {stage.output}", every)
            every[name] = every[stage.inputs[0]]
            result.append(Stage(f"copy {name}", "reshape", stage.inputs, name))
            result.append(replace(stage, inputs=(name,)))
        else:
            result.append(stage)
        if (lines or stage.kind == "reshape") and needs.get(stage.output, NONE) != NONE:
            name = unused(f"{stage.output} without border", every)
            every[name] = every[stage.output]
            result[-1] = replace(result[-1], output=name)
            result.append(Stage(f"copy {stage.output}", "copy", (name,), stage.output))
    return result, every


def _reading(copy: str, stage: Stage) -> Stage:
    """The stage, reading the copy of the network's input instead of the input."""
    inputs = tuple(copy if name == INPUT else name for name in stage.inputs)
    return replace(stage, inputs=inputs, residual=copy if stage.residual == INPUT else stage.residual)


def borders(stages: Sequence[Stage], shapes: Mapping[str, Shape]) -> dict[str, Border]:
    """The border that every value needs, from those that read it.

    What is added to a value gets that value's border, so that their rows are equally far apart.
    """
    needs: dict[str, Border] = {}
    for stage in reversed(stages):
        border = needs.get(stage.output, NONE)
        passed = stage.kind in (*POINTWISE, "add") or (
            stage.kind == "concat" and stage.options.axis == 0 and len(shapes[stage.output]) > 1
        )
        for name in stage.inputs:
            if stage.kind in CONVOLUTIONS and not window(stage).strided:
                _widen(needs, name, window(stage).padding)
            elif passed:
                _widen(needs, name, border)
        if stage.residual is not None and stage.kind != "linear":
            _widen(needs, stage.residual, border)
    return needs


def _widen(needs: dict[str, Border], name: str, border: Border) -> None:
    if name != INPUT and border != NONE:
        wide = tuple(max(pair) for pair in zip(needs.get(name, NONE), border, strict=True))
        needs[name] = wide  # type: ignore[assignment]


def layouts(
    stages: Sequence[Stage], shapes: Mapping[str, Shape], output: str
) -> tuple[dict[str, Layout], dict[str, Grid]]:
    """The layout of every value, and by the output of every strided convolution the grid of its phases."""
    needs = borders(stages, shapes)
    made, grids = {INPUT: dense(shapes[INPUT])}, {}
    for stage in stages:
        sizes, border = shapes[stage.output], needs.get(stage.output, NONE)
        if len(sizes) not in (2, 3) or stage.output == output:
            made[stage.output] = dense(sizes)
            if stage.kind in CONVOLUTIONS and window(stage).strided:
                grids[stage.output] = _grid(window(stage), made[stage.output], sizes[-1])
            continue
        least = sizes[-1] + max(border[2:])
        row, source = least, made[stage.inputs[0]]
        if stage.kind in CONVOLUTIONS and window(stage).strided:
            grid = _grid(window(stage), dense(sizes), least)
            grids[stage.output], row = grid, grid.row
        elif stage.kind in (*CONVOLUTIONS, *POINTWISE, "add"):
            row = max(least, source.image()[-1])
        made[stage.output] = _planes(sizes, border, row)
    return made, grids


def _grid(window: Window, result: Layout, row: int) -> Grid:
    _, height, width, *_ = result.image()
    downs, acrosses = ([tap % step for tap in window.taps(a)] for a, step in enumerate(window.stride))
    phases = sorted({(down, across) for down in downs for across in acrosses})
    reach = [max(window.taps(axis)) // window.stride[axis] for axis in (0, 1)]
    return Grid(tuple(phases), height + reach[0], max(row, width + reach[1]))
