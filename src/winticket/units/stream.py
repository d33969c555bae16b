"""Which units of a value between two layers are dead, and how that goes through what is no layer."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

_UNITWISE = (
    *(nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU),
    *(nn.Mish, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.Softsign, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid),
    *(nn.LogSigmoid, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout),
    nn.FeatureAlphaDropout,
)
_SPATIAL = (
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
"""What mixes the positions of a unit and leaves units apart; only where there are positions."""
_UNITWISE_NAMES = (
    "relu relu_ relu6 leaky_relu leaky_relu_ elu elu_ selu celu gelu silu mish tanh tanh_ sigmoid sigmoid_ softplus "
    "softsign hardtanh hardswish hardsigmoid logsigmoid dropout dropout1d dropout2d dropout3d alpha_dropout contiguous "
    "clone detach float double half to neg abs exp square sqrt clamp clamp_ type_as"
)
_UNITWISE_CALLS = frozenset(_UNITWISE_NAMES.split())
_SPATIAL_NAMES = (  # torch calls what has return_indices by the name of the wrapper, fn
    "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d "
    "adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d interpolate boolean_dispatch fn"
)
_SPATIAL_CALLS = frozenset(_SPATIAL_NAMES.split())
_COMBINED = frozenset(("add", "add_", "iadd", "sub", "sub_", "isub", "mul", "mul_", "imul", "truediv", "div"))


@dataclass(frozen=True)
class Stream:
    """`dead`, bool [units], of a value [N, units, *positions] with so many axes of positions (`spatial`).

    With none, units are the last axis. `flat`: the positions were laid out behind one another, unit by unit, so that
    every unit has a block of features whose length only what reads them tells.
    """

    dead: Tensor
    spatial: int
    flat: bool = False

    def into(self, size: int, spatial: int) -> Tensor | None:
        """The dead ones of `size` features that a layer over so many axes of positions reads; None if unclear."""
        if self.flat and not spatial and size % len(self.dead) == 0:
            return self.dead.repeat_interleave(size // len(self.dead))
        fits = not self.flat and self.spatial == spatial and size == len(self.dead)
        return self.dead if fits else None

    def through(self, layer: nn.Module) -> Stream | None:
        """Behind a layer without products."""
        if isinstance(layer, _UNITWISE) or (isinstance(layer, _SPATIAL) and self.spatial):
            return self
        if isinstance(layer, nn.Flatten) and layer.start_dim == 1 and layer.end_dim == -1:
            return self.flattened()
        return None

    def flattened(self) -> Stream:
        """All but the first axis as one."""
        return Stream(self.dead, 0, self.flat or self.spatial > 0)

    def reduced(self, dims: Sequence[int], *, keepdim: bool) -> Stream | None:
        """Without some axes of positions."""
        axes = {d % (2 + self.spatial) for d in dims}
        if not self.spatial or not axes or min(axes) < 2:
            return None
        return self if keepdim else replace(self, spatial=self.spatial - len(axes))


def passed(node: fx.Node, streams: Mapping[fx.Node, Stream | None]) -> Stream | None:
    """Behind a node that is no layer; None where its units are not known."""
    if node.op not in ("call_function", "call_method") or not node.args:
        return None
    name = node.target if node.op == "call_method" else getattr(node.target, "__name__", "")
    if name in ("cat", "concat"):
        return _joined(node, streams)
    given = [streams.get(n) for n in node.all_input_nodes]
    if name in _COMBINED:
        return _combined(given, str(name))
    first = streams.get(node.args[0]) if isinstance(node.args[0], fx.Node) else None
    return None if first is None else _followed(str(name), node, first)


def _followed(name: str, node: fx.Node, first: Stream) -> Stream | None:
    """Behind a call on one stream."""
    if name in _UNITWISE_CALLS or (name in _SPATIAL_CALLS and first.spatial):
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


def _combined(given: Sequence[Stream | None], name: str) -> Stream | None:
    """Element by element: what is dead in all of them."""
    known = [stream for stream in given if stream is not None]
    if len(known) < len(given) or not known or (len(known) > 1 and name in ("truediv", "div")):
        return None
    first = known[0]
    if any((s.spatial, s.flat, len(s.dead)) != (first.spatial, first.flat, len(first.dead)) for s in known):
        return None
    return replace(first, dead=torch.stack([s.dead for s in known]).all(0))


def _joined(node: fx.Node, streams: Mapping[fx.Node, Stream | None]) -> Stream | None:
    """Streams behind one another along the units."""
    parts = node.args[0]
    known = [streams.get(part) if isinstance(part, fx.Node) else None for part in parts]  # type: ignore[union-attr]
    there = [stream for stream in known if stream is not None]
    if len(there) < len(known) or not there or len({(s.spatial, s.flat) for s in there}) > 1 or there[0].flat:
        return None
    dim = _option(node, 1, "dim", 0)
    if dim not in ((1,) if there[0].spatial else (1, -1)):
        return None
    return replace(there[0], dead=torch.cat([s.dead for s in there]))


def _padded(stream: Stream, pads: Any) -> Stream | None:
    """Borders of zeros, or, of the shortcuts of some ResNets, channels of zeros, which nothing makes."""
    if not all(isinstance(p, int) and p >= 0 for p in pads) or len(pads) > 2 * stream.spatial + 2:
        return None
    if len(pads) <= 2 * stream.spatial:
        return stream
    before, after = (torch.ones(n, dtype=torch.bool) for n in pads[2 * stream.spatial :])
    return replace(stream, dead=torch.cat([before, stream.dead, after]))


def _leaves_units(index: Any) -> bool:
    """Whether an index leaves examples and units alone."""
    whole = slice(None)
    return (
        isinstance(index, tuple) and index[:2] == (whole, whole) and all(isinstance(i, slice) for i in index)
    )


def _option(node: fx.Node, place: int, name: str, usual: Any) -> Any:
    return node.kwargs.get(name, node.args[place] if len(node.args) > place else usual)
