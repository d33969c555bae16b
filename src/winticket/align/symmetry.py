"""The hidden units of a network that may be reordered, and where each of them is in the weights.

They are read off the module's graph (`torch.fx`) and then tested: a random permutation must not change the function.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from winticket.align.matching import Axis, Group, Symmetry, permuted
from winticket.trouble import of_the_machine

_PASSED = (
    *(nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish),
    *(nn.Tanh, nn.Sigmoid, nn.Softplus, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid),
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout),
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d),
)
"""Layers that treat every unit in the same way and independently of the others."""

_PASSED_CALLS = {
    *(
        "relu",
        "relu_",
        "relu6",
        "leaky_relu",
        "elu",
        "selu",
        "celu",
        "gelu",
        "silu",
        "mish",
        "tanh",
        "sigmoid",
    ),
    *("softplus", "hardtanh", "hardswish", "hardsigmoid", "dropout", "dropout1d", "dropout2d", "dropout3d"),
    *(
        "max_pool1d",
        "max_pool2d",
        "max_pool3d",
        "avg_pool1d",
        "avg_pool2d",
        "avg_pool3d",
        "adaptive_avg_pool1d",
    ),
    *(
        "adaptive_avg_pool2d",
        "adaptive_max_pool1d",
        "adaptive_max_pool2d",
        "contiguous",
        "clone",
        "neg",
        "abs",
    ),
}
_COMBINED = {"add", "iadd", "add_", "sub", "isub", "sub_", "mul", "imul", "mul_", "truediv", "div"}
_RESHAPED = {"flatten", "view", "reshape", "squeeze"}
_REDUCED = {"mean", "sum", "amax"}
_KNOWN = (
    "supported are Linear layers on [N, features], Conv and BatchNorm layers, elementwise activations, pooling, "
    "flatten and sums of equal shapes"
)


class _UnknownError(Exception):
    """Why the symmetry cannot be known, in words."""


@dataclass(frozen=True)
class _Units:
    """What dimension 1 of a value holds: the units of a stream, each in `block` consecutive positions."""

    stream: int
    block: int


class _Streams:
    """Sets of units that share one numbering. Stream 0 holds the inputs and outputs, whose numbering is fixed."""

    def __init__(self) -> None:
        self._parents, self._sizes = [0], [0]
        self._axes: dict[Axis, int] = {}

    def new(self, size: int) -> _Units:
        self._parents.append(len(self._parents))
        self._sizes.append(size)
        return _Units(len(self._parents) - 1, 1)

    def root(self, stream: int) -> int:
        while self._parents[stream] != stream:
            stream = self._parents[stream]
        return stream

    def join(self, one: _Units, two: _Units) -> None:
        """Give both sets of units one numbering."""
        low, high = sorted((self.root(one.stream), self.root(two.stream)))
        if low and (one.block != two.block or self._sizes[low] != self._sizes[high]):
            raise _UnknownError("it combines features that are laid out differently")
        self._parents[high] = low

    def put(self, name: str, dim: int, units: _Units) -> None:
        """Record that this dimension of a tensor follows `units`; if it followed others already, join the two."""
        known = [(a, s) for a, s in self._axes.items() if (a.name, a.dim) == (name, dim)]
        for axis, stream in known:
            self.join(units, _Units(stream, axis.block))
        if not known:
            self._axes[Axis(name, dim, units.block)] = units.stream

    def groups(self) -> Symmetry:
        axes: dict[int, list[Axis]] = {}
        for axis, stream in self._axes.items():
            axes.setdefault(self.root(stream), []).append(axis)
        return tuple(Group(self._sizes[r], tuple(a)) for r, a in axes.items() if r and self._sizes[r] > 1)


_FIXED = _Units(0, 1)


def symmetry(module: nn.Module, input_shape: Sequence[int]) -> Symmetry:
    """Groups of hidden units, from input to output, each with every dimension of a weight or buffer that follows it.

    input_shape: one example's, without the batch. Permuting a group's units in all of its dimensions does not change
    the function of the network. Units that a residual sum ties together form one group. Raises ValueError if the module
    has no hidden units, or contains an operation for which this is not known to hold.

    >>> from torch import nn
    >>> from winticket.align import symmetry
    >>> (group,) = symmetry(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), (4,))
    >>> group.size, [(axis.name, axis.dim) for axis in group.axes]
    (3, [('0.weight', 0), ('0.bias', 0), ('2.weight', 1)])
    """
    kind = type(module).__name__
    try:
        groups = _read(copy.deepcopy(module).to("cpu", torch.float32).eval(), torch.zeros(2, *input_shape))
    except _UnknownError as unknown:
        raise ValueError(f"the hidden units of {kind} cannot be matched: {unknown}; {_KNOWN}") from None
    if not groups:
        raise ValueError(f"{kind} has no hidden units that could be reordered")
    if (gap := _difference(module, groups, input_shape)) > 1e-9:
        raise ValueError(
            f"the hidden units of {kind} cannot be matched: reordering them changes the output by {gap:.2g}, so its "
            f"graph was misread; {_KNOWN}"
        )
    return groups


def _difference(module: nn.Module, groups: Symmetry, input_shape: Sequence[int]) -> float:
    """How far the output on noise moves if all groups are shuffled, relative to its largest value. In float64."""
    generator = torch.Generator().manual_seed(0)
    trial = copy.deepcopy(module).to("cpu", torch.float64).eval()
    x = torch.randn(4, *input_shape, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        named = (*trial.named_parameters(), *trial.named_buffers())
        state = {name: value for name, value in named if value.is_floating_point()}
        for value in state.values():  # any values serve; these are in (.5, 1.5), since one may be a variance
            value.copy_(torch.rand(value.shape, generator=generator, dtype=torch.float64) + 0.5)
            value.div_(max(1, value[:1].numel()) if value.ndim > 1 else 1)
        before: Tensor = trial(x)
        orders = tuple(torch.randperm(g.size, generator=generator) for g in groups)
        for name, value in permuted({k: v.clone() for k, v in state.items()}, groups, orders).items():
            state[name].copy_(value)
        after: Tensor = trial(x)
    return float((after - before).abs().max() / before.abs().max().clamp_min(1e-30))


def _read(module: nn.Module, example: Tensor) -> Symmetry:
    what = "its graph cannot be traced"
    try:
        graph = fx.symbolic_trace(module)
        what = f"it does not take float32 of shape {tuple(example.shape)}"
        _Shapes(graph).run(example)
    except Exception as error:
        if of_the_machine(error):
            raise
        first = str(error).strip().splitlines()
        raise _UnknownError(f"{what} ({type(error).__name__}: {first[0] if first else ''})") from None
    reader = _Reader(module)
    for node in graph.graph.nodes:
        reader.visit(node)
    return reader.streams.groups()


class _Shapes(fx.Interpreter):
    """Notes the shape of every tensor in a graph. PyTorch's ShapeProp prints a traceback if the graph cannot run."""

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            n.meta["shape"] = tuple(result.shape)
        return result


class _Reader:
    """Walks the graph and notes for every value which units its dimension 1 holds."""

    def __init__(self, module: nn.Module) -> None:
        self.module, self.streams = module, _Streams()
        self._units: dict[fx.Node, _Units] = {}
        # A weight that several layers share goes by its first name.
        self._names: dict[int, str] = {}
        for name, value in (*module.named_parameters(), *module.named_buffers()):
            self._names.setdefault(id(value), name)

    def visit(self, node: fx.Node) -> None:
        inputs = [n for n in node.all_input_nodes if n in self._units]
        if node.op == "output":
            for n in inputs:
                self.streams.join(self._units[n], _FIXED)
        elif node.op == "placeholder":
            self._units[node] = _FIXED
        elif "shape" not in node.meta:
            return  # a size, not a tensor
        elif node.op == "call_module":
            self._units[node] = self._layer(self.module.get_submodule(str(node.target)), node, inputs)
        elif node.op == "get_attr":
            raise _UnknownError(f"{node.target} is used outside a layer")
        elif all(self.streams.root(self._units[n].stream) == 0 for n in inputs):
            self._units[node] = _FIXED
        else:
            self._units[node] = self._call(node, inputs)

    def _layer(self, layer: nn.Module, node: fx.Node, inputs: list[fx.Node]) -> _Units:
        units, shape = self._units[inputs[0]], _shape(inputs[0])
        if isinstance(layer, nn.Linear):
            if len(shape) != 2:
                raise _UnknownError(
                    f"{node.target} is a Linear layer over an input of {len(shape)} dimensions"
                )
            return self._between(layer, units, layer.out_features)
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            if layer.groups == 1:
                return self._between(layer, units, layer.out_channels)
            if layer.groups == layer.in_channels == layer.out_channels:
                return self._along(layer, units, "weight", "bias")
            raise _UnknownError(f"{node.target} is a convolution in {layer.groups} groups")
        if isinstance(layer, _BatchNorm):
            return self._along(layer, units, "weight", "bias", "running_mean", "running_var")
        if isinstance(layer, nn.Flatten) and layer.start_dim == 1:
            return self._reshaped(units, shape, _shape(node), node)
        if isinstance(layer, _PASSED):
            return units
        raise _UnknownError(f"{node.target} is a {type(layer).__name__}")

    def _between(self, layer: nn.Module, units: _Units, size: int) -> _Units:
        """A layer with a row for every unit that it computes and a column for every unit that it reads."""
        self._put(layer, "weight", 1, units)
        outputs = self.streams.new(size)
        self._put(layer, "weight", 0, outputs)
        self._put(layer, "bias", 0, outputs)
        return outputs

    def _along(self, layer: nn.Module, units: _Units, *names: str) -> _Units:
        """A layer with one number, or one filter, per unit."""
        for name in names:
            self._put(layer, name, 0, units)
        return units

    def _put(self, layer: nn.Module, name: str, dim: int, units: _Units) -> None:
        value = getattr(layer, name)
        if value is not None:
            self.streams.put(self._names[id(value)], dim, units)

    def _call(self, node: fx.Node, inputs: list[fx.Node]) -> _Units:
        name = (
            str(node.target)
            if node.op == "call_method"
            else str(getattr(node.target, "__name__", node.target))
        )
        units, shape = self._units[inputs[0]], _shape(inputs[0])
        if name in _PASSED_CALLS:
            return units
        if name in _COMBINED:
            return self._combined(inputs, name)
        if name in _RESHAPED:
            return self._reshaped(units, shape, _shape(node), node)
        if name in _REDUCED and not {0, 1} & _reduced(node, len(shape)):
            return units
        if node.target is operator.getitem and _whole(node.args[1]):
            return units
        if name == "pad" and not any(_pads(node)[2 * (len(shape) - 2) :]):
            return units
        raise _UnknownError(f"it calls {name}")

    def _combined(self, inputs: list[fx.Node], name: str) -> _Units:
        if len({_shape(n)[:2] for n in inputs}) > 1 or len({len(_shape(n)) for n in inputs}) > 1:
            raise _UnknownError(f"it calls {name} on values of different shapes")
        for n in inputs[1:]:
            self.streams.join(self._units[inputs[0]], self._units[n])
        return self._units[inputs[0]]

    def _reshaped(self, units: _Units, old: tuple[int, ...], new: tuple[int, ...], node: fx.Node) -> _Units:
        if new[:2] == old[:2]:
            return units
        if new == (old[0], prod(old[1:])):
            return _Units(units.stream, units.block * prod(old[2:]))
        raise _UnknownError(f"{node.name} reshapes {old} to {new}")


def _shape(node: fx.Node) -> tuple[int, ...]:
    shape: tuple[int, ...] = node.meta["shape"]
    return shape


def _reduced(node: fx.Node, dims: int) -> set[int]:
    """The dimensions that a reduction removes: all of them if `dim` is not passed."""
    reduced: Any = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
    if reduced is None:
        return set(range(dims))
    return {d % dims for d in ((reduced,) if isinstance(reduced, int) else reduced)}


def _whole(index: Any) -> bool:
    """True if an index leaves dimensions 0 and 1 as they are."""
    return (
        isinstance(index, tuple)
        and index[:2] == (slice(None),) * 2
        and all(isinstance(i, slice) for i in index)
    )


def _pads(node: fx.Node) -> Sequence[int]:
    pads: Any = node.kwargs.get("pad", node.args[1] if len(node.args) > 1 else ())
    return tuple(pads)
