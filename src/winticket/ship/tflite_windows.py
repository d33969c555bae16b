"""Convolutions' and pools' windows in a TFLite file: their padding, which TFLite has in two ways only, and pools."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from winticket.ship.kinds import Shape
from winticket.ship.network import Operation
from winticket.ship.tflite_graph import Graph, image_shape

SAME, VALID = 0, 1
MOST_TAPS = 4096
"""Most taps of a pool's window that is computed tap by tap; each takes operators of its own."""
Pair = tuple[int, int]


@dataclass(frozen=True)
class Windows:
    """Windows over an image; signals are images of one row.

    x          name of the value
    shape      (rows, columns, channels) of it
    out        (rows, columns) of the windows' positions
    """

    x: str
    shape: Shape
    out: Shape
    kernel: Shape
    stride: Shape
    padding: tuple[Pair, ...] = ((0, 0), (0, 0))
    dilation: Shape = (1, 1)

    @classmethod
    def of(cls, graph: Graph, operation: Operation) -> Windows:
        """Those of a convolution or a pool with options for them."""
        options, lead = operation.options, 2 - int(operation.kind[-2])
        kernel = options["kernel"] if "kernel" in options else operation.tensors["weight"].shape[2:]
        ones = (1,) * lead
        shapes = [image_shape(graph.network.shapes[name]) for name in (operation.inputs[0], operation.output)]
        padding = (*((0, 0),) * lead, *map(tuple, options["padding"]))
        # A stride beyond the image is never taken, and may be larger than what runtimes compute with.
        every = zip((*ones, *options["stride"]), shapes[0], padding, strict=False)
        return cls(
            operation.inputs[0],
            shapes[0],
            shapes[1][:2],
            (*ones, *kernel),
            tuple(min(step, size + sum(sides)) for step, size, sides in every),
            padding,
            (*ones, *options.get("dilation", (1,) * (2 - lead))),
        )

    @classmethod
    def alike(cls, graph: Graph, operation: Operation) -> Windows:
        """Those of an adaptive pool whose windows are all alike."""
        shape, out = (
            image_shape(graph.network.shapes[name]) for name in (operation.inputs[0], operation.output)
        )
        kernel = tuple(n // m for n, m in zip(shape[:2], out[:2], strict=True))
        return cls(operation.inputs[0], shape, out[:2], kernel, kernel)

    def same(self) -> bool:
        """Whether the padding is what TFLite calls SAME: as many positions as input / stride, even about."""
        every = zip(self.shape, self.out, self.kernel, self.stride, self.padding, self.dilation, strict=False)
        for size, out, kernel, stride, (before, _), dilation in every:
            whole = max(0, (out - 1) * stride + (kernel - 1) * dilation + 1 - size)
            if out != -(-size // stride) or before != whole // 2:
                return False
        return True

    def padded(self, graph: Graph, fill: float) -> tuple[int, int]:
        """(The image, with a border if TFLite has no word for the padding; the word, SAME or VALID)."""
        if not any(map(any, self.padding)):
            return graph.image(self.x), VALID
        if self.same():
            return graph.image(self.x), SAME
        x, sides = graph.image(self.x), graph.integers([(0, 0), *self.padding, (0, 0)])
        rows, columns = self.bordered()
        inputs = [x, sides] if not fill else [x, sides, graph.number(fill)]
        kind, options = ("PAD", "PadOptions") if not fill else ("PADV2", "PadV2Options")
        return graph.node(kind, inputs, (rows, columns, self.shape[2]), options=options), VALID

    def bordered(self) -> Pair:
        """(rows, columns) with the padding."""
        rows, columns = (size + sum(p) for size, p in zip(self.shape, self.padding, strict=False))
        return rows, columns

    def _pool(self, graph: Graph, kind: str, x: int, padding: int) -> int:
        options: dict[str, Any] = {
            "padding": padding, "strideH": self.stride[0], "strideW": self.stride[1],
            "filterHeight": self.kernel[0], "filterWidth": self.kernel[1],
        }  # fmt: skip
        return graph.node(kind, [x], (*self.out, self.shape[2]), options="Pool2DOptions", **options)

    def largest(self, graph: Graph) -> int:
        """The image of the largest elements."""
        lowest = float(np.finfo(np.float32).min)
        if self.dilation == (1, 1):
            return self._pool(graph, "MAX_POOL_2D", *self.padded(graph, lowest))
        return self._largest_of_taps(graph, lowest)

    def _largest_of_taps(self, graph: Graph, lowest: float) -> int:
        """Tap by tap, since TFLite has no pool with dilation. ValueError for a window of more taps than MOST_TAPS."""
        if math.prod(self.kernel) > MOST_TAPS:
            raise ValueError(
                f"TFLite has no max pool with dilation, and a window of {math.prod(self.kernel)} taps is too large to "
                f"be taken apart: {MOST_TAPS} is most"
            )
        x, padding = self.padded(graph, lowest)
        if padding == SAME:
            sides = graph.integers([(0, 0), *self.padding, (0, 0)])
            shape = (*self.bordered(), self.shape[2])
            x = graph.node("PADV2", [x, sides, graph.number(lowest)], shape, options="PadV2Options")
        best, shape = None, (self.out[0], self.out[1], self.shape[2])
        for tap in np.ndindex(*self.kernel):
            first = [place * step for place, step in zip(tap, self.dilation, strict=True)]
            last = [at + (n - 1) * step + 1 for at, n, step in zip(first, self.out, self.stride, strict=True)]
            ends = [graph.integers([0, *at, 0]) for at in (first, last)]
            part = graph.node(
                "STRIDED_SLICE", [x, *ends, graph.integers([1, *self.stride, 1])], shape,
                options="StridedSliceOptions", beginMask=0b1001, endMask=0b1001,
            )  # fmt: skip
            if best is not None:
                part = graph.node("MAXIMUM", [best, part], shape, options="MaximumMinimumOptions")
            best = part
        assert best is not None
        return best

    def mean(self, graph: Graph, *, count_padding: bool) -> int:
        """The image of the means; padding counts as zeros, or not at all."""
        x, padding = self.padded(graph, 0.0)
        padded = any(map(any, self.padding))
        if padding == SAME and count_padding:
            sides = graph.integers([(0, 0), *self.padding, (0, 0)])
            x = graph.node("PAD", [x, sides], (*self.bordered(), self.shape[2]), options="PadOptions")
            padding = VALID
        y = self._pool(graph, "AVERAGE_POOL_2D", x, padding)
        if count_padding or not padded or padding == SAME:
            return y
        shape = (*self.out, self.shape[2])
        shares = graph.constant(("shares", self), "shares", self._shares)
        return graph.node("MUL", [y, shares], shape, options="MulOptions")

    def _shares(self) -> npt.NDArray[np.float32]:
        """Elements of a window / those that are no padding, [1, rows, columns, 1]."""
        counts = []
        every = zip(self.shape, self.out, self.kernel, self.stride, self.padding, strict=False)
        for size, out, kernel, stride, (before, _) in every:
            first = np.arange(out) * stride - before
            counts.append(np.minimum(first + kernel, size) - np.maximum(first, 0))
        inside = counts[0][:, None] * counts[1]
        shares: npt.NDArray[np.float32] = (math.prod(self.kernel) / inside).astype(np.float32)
        return shares[None, :, :, None]
