"""The dead units of a value between two layers, and how operations other than layers pass them on."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

UNITWISE = (
    *(nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU),
    *(nn.Mish, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.Softsign, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid),
    *(nn.LogSigmoid, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout),
    nn.FeatureAlphaDropout,
)
"""Layers that treat every value by itself, in evaluation."""
SPATIAL = (
    *(
        nn.MaxPool1d,
        nn.MaxPool2d,
        nn.MaxPool3d,
        nn.AvgPool1d,
        nn.AvgPool2d,
        nn.AvgPool3d,
        nn.LPPool1d,
        nn.LPPool2d,
    ),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool1d),
    *(
        nn.AdaptiveMaxPool2d,
        nn.AdaptiveMaxPool3d,
        nn.Upsample,
        nn.UpsamplingNearest2d,
        nn.UpsamplingBilinear2d,
    ),
    *(nn.ZeroPad1d, nn.ZeroPad2d, nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReplicationPad2d),
)
"""Layers that mix the positions of a unit but keep units apart, for values with positions."""
UNITWISE_NAMES = (
    "relu relu_ relu6 leaky_relu leaky_relu_ elu elu_ selu celu gelu silu mish tanh tanh_ sigmoid sigmoid_ softplus "
    "softsign hardtanh hardswish hardsigmoid logsigmoid dropout dropout1d dropout2d dropout3d alpha_dropout contiguous "
    "clone detach float double half to neg abs exp square sqrt clamp clamp_ type_as"
)
UNITWISE_CALLS = frozenset(UNITWISE_NAMES.split())
"""Functions and methods that do so."""
SPATIAL_NAMES = (  # PyTorch calls functions with return_indices by the name of their wrapper, fn
    "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d "
    "adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d interpolate boolean_dispatch fn"
)
SPATIAL_CALLS = frozenset(SPATIAL_NAMES.split())
COMBINED = frozenset(("add", "add_", "iadd", "sub", "sub_", "isub", "mul", "mul_", "imul", "truediv", "div"))
"""Operations that combine values of equal shapes, unit by unit."""


@dataclass(frozen=True)
class Stream:
    """The dead units, bool [units], of a value [N, units, *positions] with `spatial` axes of positions.

    With 0 such axes, units are the last axis. `flat` means that positions were flattened unit by unit, so every unit
    has a block of features; the layer that reads them determines its length.
    """

    dead: Tensor
    spatial: int
    flat: bool = False

    def into(self, size: int, spatial: int) -> Tensor | None:
        """The dead among the `size` features read by a layer with `spatial` axes of positions; None if unclear."""
        if self.flat and not spatial and size % len(self.dead) == 0:
            return self.dead.repeat_interleave(size // len(self.dead))
        fits = not self.flat and self.spatial == spatial and size == len(self.dead)
        return self.dead if fits else None

    def through(self, layer: nn.Module) -> Stream | None:
        """The stream after a layer without products; None if its units are not followed."""
        if isinstance(layer, UNITWISE) or (isinstance(layer, SPATIAL) and self.spatial):
            return self
        if isinstance(layer, nn.Flatten) and layer.start_dim == 1 and layer.end_dim == -1:
            return self.flattened()
        return None

    def flattened(self) -> Stream:
        """The stream with all axes but the first merged into one."""
        return Stream(self.dead, 0, self.flat or self.spatial > 0)

    def reduced(self, dims: Sequence[int], *, keepdim: bool) -> Stream | None:
        """The stream without some axes of positions."""
        axes = {d % (2 + self.spatial) for d in dims}
        if not self.spatial or not axes or min(axes) < 2:
            return None
        return self if keepdim else replace(self, spatial=self.spatial - len(axes))


def passed(node: fx.Node, streams: Mapping[fx.Node, Stream | None]) -> Stream | None:
    """The stream after a node that is not a layer; None if its units are not known."""
    if node.op not in ("call_function", "call_method") or not node.args:
        return None
    name = node.target if node.op == "call_method" else getattr(node.target, "__name__", "")
    if name in ("cat", "concat"):
        return _joined(node, streams)
    if name in COMBINED:
        return _combined([streams.get(n) for n in node.all_input_nodes], str(name))
    first = streams.get(node.args[0]) if isinstance(node.args[0], fx.Node) else None
    return None if first is None else _followed(str(name), node, first)


def _followed(name: str, node: fx.Node, first: Stream) -> Stream | None:
    """The stream after a call on one stream."""
    if name in UNITWISE_CALLS or (name in SPATIAL_CALLS and first.spatial):
        return first
    if name == "flatten":
        start, end = _option(node, 1, "start_dim", 0), _option(node, 2, "end_dim", -1)
        return first.flattened() if (start, end) == (1, -1) else None
    if name in ("view", "reshape"):
        sizes = node.args[1] if isinstance(node.args[1], tuple | list) else node.args[1:]
        return first.flattened() if len(sizes) == 2 and sizes[1] == -1 else None
    if name in ("mean", "sum", "amax"):
        dims = _option(node, 1, "dim", None)
        dims = (dims,) if isinstance(dims, int) else dims
        return first.reduced(dims, keepdim=bool(_option(node, 2, "keepdim", False))) if dims else None
    if name == "squeeze" and first.spatial:
        return first.flattened()
    if node.target is operator.getitem:
        return first if _leaves_units(node.args[1]) and first.spatial else None
    if name == "pad" and first.spatial:
        return _padded(first, _option(node, 1, "pad", ()))
    return None


def _combined(inputs: Sequence[Stream | None], name: str) -> Stream | None:
    """The stream after an elementwise operation: a unit is dead if it is dead in all inputs."""
    known = [stream for stream in inputs if stream is not None]
    if len(known) < len(inputs) or not known or (len(known) > 1 and name in ("truediv", "div")):
        return None
    first = known[0]
    if any((s.spatial, s.flat, len(s.dead)) != (first.spatial, first.flat, len(first.dead)) for s in known):
        return None
    return replace(first, dead=torch.stack([s.dead for s in known]).all(0))


def _joined(node: fx.Node, streams: Mapping[fx.Node, Stream | None]) -> Stream | None:
    """The stream after concatenation along the units."""
    parts = node.args[0]
    inputs = [streams.get(part) if isinstance(part, fx.Node) else None for part in parts]  # type: ignore[union-attr]
    known = [stream for stream in inputs if stream is not None]
    if (
        len(known) < len(inputs)
        or not known
        or len({(s.spatial, s.flat) for s in known}) > 1
        or known[0].flat
    ):
        return None
    dim = _option(node, 1, "dim", 0)
    if dim not in ((1,) if known[0].spatial else (1, -1)):
        return None
    return replace(known[0], dead=torch.cat([s.dead for s in known]))


def _padded(stream: Stream, pads: Any) -> Stream | None:
    """The stream after padding: with borders of zeros or, in the shortcuts of some ResNets, with channels of zeros.

    Channels of zeros are dead units.
    """
    if not all(isinstance(p, int) and p >= 0 for p in pads) or len(pads) > 2 * stream.spatial + 2:
        return None
    if len(pads) <= 2 * stream.spatial:
        return stream
    before, after = (torch.ones(n, dtype=torch.bool) for n in pads[2 * stream.spatial :])
    return replace(stream, dead=torch.cat([before, stream.dead, after]))


def _leaves_units(index: Any) -> bool:
    """True if an index keeps all examples and all units."""
    whole = slice(None)
    return (
        isinstance(index, tuple) and index[:2] == (whole, whole) and all(isinstance(i, slice) for i in index)
    )


def _option(node: fx.Node, position: int, name: str, default: Any) -> Any:
    return node.kwargs.get(name, node.args[position] if len(node.args) > position else default)
