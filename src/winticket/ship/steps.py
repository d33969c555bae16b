"""The stages of a program -> the steps of a compiled plan, each with the kernels that may do it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np

from winticket.ship.layout import Layout, window
from winticket.ship.native import require
from winticket.ship.network import INPUT, Floats
from winticket.ship.packing import Packed, cache_bounds, groups_of
from winticket.ship.program import Program
from winticket.ship.stages import Stage, bounds_of

NARROW = 4
"""Vectors of a run that are computed at once, at most."""
WIDER = {"wide": 8, "widest": 16}
"""More of them, for long runs. An instruction set with fewer registers takes as many as it has."""
_INPUT, _NONE = -1, -2
Axes: TypeAlias = Sequence[tuple[int, int, int, int]]
"""Size of each axis, and its steps in the input, another input and the output; the innermost last."""


def plan(program: Program, width: int, sets: Sequence[str]) -> Any:
    """The compiled plan for tiles of `width` examples, with candidates for these instruction sets."""
    return _Writer(program, width, sets).plan


def merged(axes: Axes, *, apart: int = 0) -> list[tuple[int, int, int, int]]:
    """Loops over these axes, fewer if neighbours can be one; the first `apart` stay, and the last has steps of 1.

    >>> merged([(3, 40, 0, 12), (4, 10, 0, 3), (3, 1, 0, 1)])
    [(12, 10, 0, 3), (3, 1, 0, 1)]
    >>> merged([(3, 12, 0, 12), (4, 3, 0, 3), (1, 1, 0, 1), (3, 1, 0, 1)])
    [(36, 1, 0, 1)]
    """
    made = list(axes[:apart])
    for axis in axes[apart:]:
        size, *steps = axis
        before = made[-1] if len(made) > apart else None
        if size == 1:
            continue
        if before and all(step == size * inner for step, inner in zip(before[1:], steps, strict=True)):
            made[-1] = (size * before[0], *axis[1:])
        else:
            made.append(axis)
    if len(made) <= apart or max(made[-1][1:]) > 1:
        made.append((1, 1, 1, 1))
    return made


class _Writer:
    def __init__(self, program: Program, width: int, sets: Sequence[str]) -> None:
        self.program, self.width, self.sets = program, width, sets
        network, memory = program.network, program.memory
        inputs, outputs = (math.prod(network.shapes[name]) for name in (INPUT, network.output))
        self.plan = require().Plan(
            width, memory.size * width, inputs, self.at(INPUT), outputs, self.at(network.output)
        )
        for stage in program.stages:
            if stage.output not in program.aliases:
                self.write(stage)

    def write(self, stage: Stage) -> None:
        if stage.output in self.program.grids:
            self.phases(stage)
        self.plan.step(stage.label)
        if bounds_of(stage) is not None:
            self.unary(stage, "clamp", *_ends(stage))
        else:
            _WRITE[stage.kind](self, stage)
        self.clear(stage)

    def at(self, name: str) -> int:
        """The first element of a value; for the input of a single example, the caller's memory."""
        program = self.program
        if self.width == 1 and program.aliases.get(name, name) == INPUT:
            return _INPUT
        return (program.memory.values[name] + program.layouts[name].lead) * self.width

    def where(self, stage: Stage) -> tuple[int, int, int]:
        other = stage.residual or (stage.inputs[1] if len(stage.inputs) > 1 else None)
        return self.at(stage.inputs[0]), _NONE if other is None else self.at(other), self.at(stage.output)

    def layout(self, name: str) -> Layout:
        return self.program.layouts[name]

    def axes(self, sizes: Sequence[int], *strides: Sequence[int] | None) -> list[tuple[int, int, int, int]]:
        """An axis for each size, with the strides times the width, and one for the examples of the tile."""
        steps = [[0] * len(sizes) if s is None else [step * self.width for step in s] for s in strides]
        axes = list(zip(sizes, *steps, strict=True))
        ends = (0 if s is None else 1 for s in strides)
        return [*axes, (self.width, *ends)]

    def clear(self, stage: Stage) -> None:
        """Zeros into the borders of the output, if it has some."""
        layout = self.layout(stage.output)
        if not layout.bordered:
            return
        planes, height, width, plane, row = layout.image()
        tail = layout.extent - layout.lead - planes * plane
        numbers = (layout.lead, planes, plane, height, row, width, tail)
        w = self.width
        scaled = [n if at in (1, 3) else n * w for at, n in enumerate(numbers)]
        self.plan.clear(self.at(stage.output), scaled)

    def each(self, add: Callable[..., None], label: str, *arguments: Any) -> None:
        """A candidate for every instruction set."""
        for instructions in self.sets:
            add(instructions, label, *arguments)

    def product(self, stage: Stage) -> None:
        layer = self.program.packed(stage)
        bias = stage.tensors["bias"].dense() if "bias" in stage.tensors else np.zeros(layer.rows, np.float32)
        where, numbers = self.linear(stage) if stage.kind == "linear" else self.convolution(stage)
        ends = stage.low, stage.high
        if numbers[0] == 1 and numbers[2] == 1 and numbers[3] <= 1:
            self.single(stage, layer, bias, where, numbers)
            return
        for label, entries, vectors in self.runs(stage, layer, numbers):
            for instructions in self.sets:
                self.plan.rows("runs", instructions, label, entries, bias, where, numbers, *ends, vectors)

    def linear(self, stage: Stage) -> tuple[tuple[int, int, int], tuple[int, ...]]:
        """Places in memory, and the numbers of a product: see kernels/bind.hpp."""
        w, source, result = self.width, self.layout(stage.inputs[0]), self.layout(stage.output)
        lines, columns, units = math.prod(source.sizes[:-1]), source.sizes[-1], result.sizes[-1]
        return self.where(stage), (w, w, w, w, lines, columns * w, units * w, units * w)

    def convolution(self, stage: Stage) -> tuple[tuple[int, int, int], tuple[int, ...]]:
        """The same. If rows are equally far apart everywhere, an image is one line, its gaps included."""
        w, grid, of = self.width, self.program.grids.get(stage.output), window(stage)
        _, height, width, plane, row = self.layout(stage.output).image()
        if grid is None:
            source_row = self.layout(stage.inputs[0]).image()[-1]
            source = self.at(stage.inputs[0]) - (of.padding[0] * source_row + of.padding[2]) * w
        else:
            source_row, source = grid.row, self.program.memory.scratch[stage.output] * w
        other_plane, other_row = 0, row
        if stage.residual is not None:
            *_, other_plane, other_row = self.layout(stage.residual).image()
        _, other, result = self.where(stage)
        where = source, other, result
        if height == 1 or source_row == row == other_row:
            length = (height - 1) * row + width
            return where, (length * w, w, plane * w, other_plane * w, 1, 0, 0, 0)
        steps = source_row * w, other_row * w, row * w
        return where, (width * w, w, plane * w, other_plane * w, height, *steps)

    def runs(self, stage: Stage, layer: Packed, numbers: Sequence[int]) -> Iterable[tuple[str, Any, int]]:
        """Ways to multiply runs of neighbours: label, entries, vectors at once."""
        for group in groups_of(layer.density):
            label = "runs" if group == 1 else f"runs of {group} rows"
            entries = layer.entries(group=group)
            yield label, entries, NARROW
            for name, vectors in WIDER.items():
                if group == 1 and numbers[0] > vectors * 4:
                    yield f"{label}, {name}", entries, vectors
        bounds = self.blocks(stage, layer, numbers)
        if len(bounds) > 1:
            yield f"runs in {len(bounds)} blocks", layer.entries(bounds=bounds), NARROW

    def blocks(self, stage: Stage, layer: Packed, numbers: Sequence[int]) -> Any:
        """The blocks of the input that would stay in the first-level cache."""
        slice_bytes = 4 * min(numbers[0], NARROW * 16)
        if stage.kind == "linear":
            return cache_bounds(layer.width, 1, slice_bytes, layer.density)
        grid, (channels, *_, plane, row) = (
            self.program.grids.get(stage.output),
            self.layout(stage.inputs[0]).image(),
        )
        planes = channels if grid is None else channels * len(grid.phases)
        plane, row = (plane, row) if grid is None else (grid.plane, grid.row)
        reach = 4 * row * self.width * (stage.tensors["weight"].shape[-2] - 1)
        kept = len(layer.value) / (layer.rows * planes)
        return cache_bounds(planes, plane, min(slice_bytes + reach, 4 * plane * self.width), kept)

    def single(
        self, stage: Stage, layer: Packed, bias: Floats, where: tuple[int, int, int], numbers: Sequence[int]
    ) -> None:
        """Ways to multiply one example."""
        entries = layer.entries(multiple=4)
        ends = stage.low, stage.high
        for instructions in self.sets:
            for kernel in ("rows", "gathered") if instructions != "plain" else ("rows",):
                label = "rows" if kernel == "rows" else "rows gathered"
                self.plan.rows(kernel, instructions, label, entries, bias, where, numbers, *ends, 1)
        if stage.kind != "linear":
            return
        zero, scratch = self.program.zero(stage), self.program.memory.scratch[stage.output]
        if zero is not None:
            more = np.bincount(layer.row, layer.value * zero[layer.place].astype(np.float64), layer.rows)
            bias = (bias + more).astype(np.float32)
        for instructions in self.sets:
            every = ("columns", layer.columns), ("dense columns", layer.dense_columns(instructions))
            for label, weights in every:
                if weights is not None:
                    add = getattr(self.plan, label.replace(" ", "_"))
                    add(instructions, label, weights, bias, where, numbers, *ends, zero, scratch)

    def phases(self, stage: Stage) -> None:
        """The input of a strided convolution, parted into phases."""
        grid, of, w = self.program.grids[stage.output], window(stage), self.width
        planes, height, width, plane, row = self.layout(stage.inputs[0]).image()
        where = self.at(stage.inputs[0]), _NONE, self.program.memory.scratch[stage.output] * w
        image = planes, w, plane * w, row * w, grid.plane * w, grid.row * w
        down = height, grid.rows, 1, of.stride[0], of.padding[0], 1
        across = width, grid.row, 1, of.stride[1], of.padding[2], 1
        self.plan.step(f"phases for {stage.output}")
        phases = [list(axis) for axis in zip(*grid.phases, strict=True)]
        self.each(self.plan.phases, "phases", where, image, down, across, *phases)

    def copy(self, stage: Stage) -> None:
        """A copy, or what else leaves every element in the same order."""
        source, result = self.layout(stage.inputs[0]), self.layout(stage.output)
        strides = source.strides, None, _strides(source.sizes) if stage.kind == "reshape" else result.strides
        nest = merged(self.axes(source.sizes, *strides))
        self.each(self.plan.scaled, "copy", self.where(stage), nest, None, None)

    def scale_shift(self, stage: Stage) -> None:
        source, result = self.layout(stage.inputs[0]), self.layout(stage.output)
        nest = merged(self.axes(source.sizes, source.strides, None, result.strides), apart=1)
        factors = (stage.tensors[role].dense() for role in ("scale", "shift"))
        self.each(self.plan.scaled, "scale and shift", self.where(stage), nest, *factors)

    def function(self, stage: Stage) -> None:
        name = "gelu_tanh" if stage.kind == "gelu" and stage.options.tanh else stage.kind
        self.unary(stage, name, getattr(stage.options, "slope", 0.0), 0.0)

    def unary(self, stage: Stage, name: str, one: float, two: float) -> None:
        source, result = self.layout(stage.inputs[0]), self.layout(stage.output)
        nest = merged(self.axes(source.sizes, source.strides, None, result.strides))
        self.each(self.plan.unary, "elements", self.where(stage), nest, name, one, two)

    def add(self, stage: Stage) -> None:
        names = (*stage.inputs, stage.output)
        nest = merged(
            self.axes(self.layout(stage.output).sizes, *(self.layout(name).strides for name in names))
        )
        self.each(self.plan.add, "elements", self.where(stage), nest, stage.low, stage.high)

    def concat(self, stage: Stage) -> None:
        """A copy of each input, as a step of its own."""
        result, axis, begin = self.layout(stage.output), stage.options.axis, 0
        for number, name in enumerate(stage.inputs):
            source = self.layout(name)
            if number:
                self.plan.step(stage.label)
            nest = merged(self.axes(source.sizes, source.strides, None, result.strides))
            to = self.at(stage.output) + begin * result.strides[axis] * self.width
            self.each(self.plan.scaled, "copy", (self.at(name), _NONE, to), nest, None, None)
            begin += source.sizes[axis]

    def image(self, stage: Stage) -> tuple[int, ...]:
        """Planes and width, and the steps of planes and rows in input and output."""
        w, (planes, *_, plane, row) = self.width, self.layout(stage.inputs[0]).image()
        *_, result_plane, result_row = self.layout(stage.output).image()
        return planes, w, plane * w, row * w, result_plane * w, result_row * w

    def pool(self, stage: Stage) -> None:
        options = stage.options
        _, *sizes, _, _ = self.layout(stage.inputs[0]).image()
        _, *results, _, _ = self.layout(stage.output).image()
        dilation = getattr(options, "dilation", (1,) * len(options.kernel))
        each = list(zip(options.kernel, options.stride, options.padding, dilation, strict=True))
        each = [(1, 1, (0, 0), 1)] * (2 - len(each)) + each
        windows = [
            (size, result, kernel, stride, padding[0], spread)
            for size, result, (kernel, stride, padding, spread) in zip(sizes, results, each, strict=True)
        ]
        maximum = stage.kind.startswith("max")
        counted = maximum or options.count_padding
        self.each(self.plan.pool, "windows", self.where(stage), self.image(stage), *windows, maximum, counted)

    def adaptive(self, stage: Stage) -> None:
        _, *sizes, _, _ = self.layout(stage.inputs[0]).image()
        _, *results, _, _ = self.layout(stage.output).image()
        self.each(self.plan.adaptive, "windows", self.where(stage), self.image(stage), sizes, results)

    def mean(self, stage: Stage) -> None:
        """The innermost axis becomes a run: the examples or, of a single one, the last axis."""
        source, result = self.layout(stage.inputs[0]), self.layout(stage.output)
        kept = [axis for axis in range(len(source.sizes)) if axis not in stage.options.axes]
        left = range(len(source.sizes)) if stage.options.keep_axes else kept
        steps = {axis: result.strides[at] for at, axis in enumerate(left) if axis in kept}
        strides = [steps.get(axis, 0) for axis in range(len(source.sizes))]
        axes = self.axes(source.sizes, source.strides, None, strides)
        last = len(axes) - 1 if self.width > 1 else len(axes) - 2
        run_kept = last not in stage.options.axes
        loops = [[axes[a] for a in of if a != last] for of in (kept, stage.options.axes)]
        factor = 1 / math.prod(source.sizes[axis] for axis in stage.options.axes)
        self.each(self.plan.mean, "sums", self.where(stage), *loops, axes[last][0], run_kept, factor)

    def softmax(self, stage: Stage) -> None:
        source, result, axis = self.layout(stage.inputs[0]), self.layout(stage.output), stage.options.axis
        axes = self.axes(source.sizes, source.strides, None, result.strides)
        count, step, _, to = axes.pop(axis)
        self.each(
            self.plan.softmax,
            "softmax",
            self.where(stage),
            axes,
            count,
            step,
            to,
            stage.kind == "log_softmax",
        )


def _ends(stage: Stage) -> tuple[float, float]:
    bounds = bounds_of(stage)
    assert bounds is not None
    return bounds


def _strides(sizes: Sequence[int]) -> list[int]:
    return [math.prod(sizes[at + 1 :]) for at in range(len(sizes))]


_WRITE: dict[str, Callable[[_Writer, Stage], None]] = {
    **dict.fromkeys(("linear", "conv1d", "conv2d"), _Writer.product),
    **dict.fromkeys(("copy", "reshape"), _Writer.copy),
    "scale_shift": _Writer.scale_shift,
    **dict.fromkeys(("leaky_relu", "gelu", "silu", "sigmoid", "tanh"), _Writer.function),
    "add": _Writer.add,
    "concat": _Writer.concat,
    **dict.fromkeys(("max_pool1d", "max_pool2d", "avg_pool1d", "avg_pool2d"), _Writer.pool),
    **dict.fromkeys(("adaptive_avg_pool1d", "adaptive_avg_pool2d"), _Writer.adaptive),
    "mean": _Writer.mean,
    **dict.fromkeys(("softmax", "log_softmax"), _Writer.softmax),
}
"""By kind of stage, what writes its step; `relu` and `hardtanh` are clamps."""
