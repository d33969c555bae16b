"""A shipped network as a torch module, so that torch's runtimes can be measured on what a file holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from winticket.ship.network import INPUT, Network, Operation, Positions, Weight
from winticket.ticket import Mask

_CONVOLUTIONS: dict[str, Any] = {"conv1d": nn.Conv1d, "conv2d": nn.Conv2d}
Function: TypeAlias = Callable[[Any, Sequence[Tensor]], Tensor]


class NetworkModule(nn.Module):
    """Computes what a network does, with a module for each operation that has tensors; in evaluation mode.

    Pruned weights are 0, so it is dense. `mask` is the network's.

    >>> import numpy as np
    >>> from winticket.ship import Network, Operation, Weight
    >>> weight = Weight.of("fc", np.eye(2, 3))
    >>> module = NetworkModule(Network((3,), (Operation("linear", ("input",), "1", tensors={"weight": weight}),)))
    >>> module(torch.ones(1, 3)).tolist()
    [[1.0, 1.0]]
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.operations, self.output = network.operations, network.output
        self.layers = nn.ModuleList(
            _layer(one, len(network.shapes[one.inputs[0]])) if one.tensors else nn.Identity()
            for one in network.operations
        )
        weights = [
            (f"layers.{at}.weight", one.tensors.get("weight")) for at, one in enumerate(network.operations)
        ]
        keep = {name: torch.from_numpy(weight.keep()) for name, weight in weights if weight is not None}
        self.mask = Mask(keep) if keep else None
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        values = {INPUT: x}
        for operation, layer in zip(self.operations, self.layers, strict=True):
            inputs = [values[name] for name in operation.inputs]
            if operation.tensors:
                values[operation.output] = layer(_padded(inputs[0], operation))
            else:
                values[operation.output] = _FUNCTIONS[operation.kind](operation.typed_options(), inputs)
        return values[self.output]


def traced(network: Network, inputs: Mapping[str, Positions] | None = None) -> fx.GraphModule:
    """The module of a network as one flat function, which PyTorch computes and compiles without looking anything up.

    inputs: by name of a weight, the inputs of its layer that are read, int64, rising; the others, which have no kept
    weight, are left out.

    >>> import numpy as np
    >>> from winticket.ship import Network, Operation, Weight
    >>> weight = Weight.of("fc", [[1.0, 0.0, 3.0]], np.array([[True, False, True]]))
    >>> network = Network((3,), (Operation("linear", ("input",), "1", tensors={"weight": weight}),))
    >>> module = traced(network, {"fc": np.array([0, 2])})
    >>> module(torch.tensor([[1.0, 9.0, 1.0]])).tolist(), [tuple(p.shape) for p in module.parameters()]
    ([[4.0]], [(1, 2)])
    """
    module = NetworkModule(network)
    for at, operation in enumerate(network.operations):
        weight = operation.tensors.get("weight")
        read = (inputs or {}).get("" if weight is None else weight.name)
        if read is not None:
            module.layers[at] = _Narrow(module.layers[at], read, -1 if operation.kind == "linear" else 1)
    return fx.symbolic_trace(module)


class _Narrow(nn.Module):
    """A layer that reads some of its inputs, by their positions on axis `axis`."""

    def __init__(self, layer: nn.Module, read: Positions, axis: int) -> None:
        super().__init__()
        self.axis, self.layer, narrow = axis, layer, cast("Any", layer)
        self.register_buffer("positions", torch.from_numpy(read))
        narrow.weight = nn.Parameter(narrow.weight.detach()[:, torch.from_numpy(read)].contiguous())
        setattr(layer, "in_features" if axis < 0 else "in_channels", len(read))

    def forward(self, x: Tensor) -> Any:
        return self.layer(x.index_select(self.axis, cast("Tensor", self.positions)))


def _layer(operation: Operation, axes: int) -> nn.Module:
    """The torch layer of an operation with tensors, whose input has so many axes without the batch.

    If padding differs by side, it is done before.
    """
    tensors, options = operation.tensors, operation.typed_options()
    if operation.kind == "scale_shift":
        return _ScaleShift(tensors, axes)
    weight, biased = tensors["weight"], "bias" in tensors
    layer: Any
    if operation.kind == "linear":
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=biased)
    else:
        layer = _CONVOLUTIONS[operation.kind](
            weight.shape[1] * options.groups,
            weight.shape[0],
            weight.shape[2:],
            stride=options.stride,
            padding=_same_sides(options.padding) or 0,
            dilation=options.dilation,
            groups=options.groups,
            bias=biased,
        )
    with torch.no_grad():
        for role, tensor in tensors.items():
            getattr(layer, role).copy_(torch.from_numpy(tensor.dense()))
    return layer  # type: ignore[no-any-return]


class _ScaleShift(nn.Module):
    def __init__(self, tensors: Mapping[str, Weight], axes: int) -> None:
        super().__init__()
        shape = (-1, *(1,) * (axes - 1))
        self.scale, self.shift = (
            nn.Parameter(torch.from_numpy(tensors[role].dense()).view(shape), requires_grad=False)
            for role in ("scale", "shift")
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift


def _same_sides(padding: Sequence[tuple[int, int]]) -> tuple[int, ...] | None:
    """Padding as torch's layers take it; None if a side differs from the opposite one."""
    return tuple(before for before, _ in padding) if all(a == b for a, b in padding) else None


def _padded(x: Tensor, operation: Operation) -> Tensor:
    padding = operation.options.get("padding")
    if padding is None or _same_sides(padding) is not None:
        return x
    return F.pad(x, [side for pair in reversed(padding) for side in pair])


def _pool(name: str) -> Function:
    pool: Any = getattr(F, name)
    largest = name.startswith("max")

    def pooled(options: Any, inputs: Sequence[Tensor]) -> Tensor:
        (x,), sides = inputs, _same_sides(options.padding)
        window = {"kernel_size": options.kernel, "stride": options.stride}
        if largest:
            window["dilation"] = options.dilation
        elif sides is not None:
            window["count_include_pad"] = options.count_padding
        # Torch pads both sides alike, by half of the window at most.
        if sides is not None and all(2 * side <= k for side, k in zip(sides, options.kernel, strict=True)):
            return pool(x, padding=sides, **window)  # type: ignore[no-any-return]
        flat = [side for pair in reversed(options.padding) for side in pair]
        if largest:
            return pool(F.pad(x, flat, value=-torch.inf), **window)  # type: ignore[no-any-return]
        window.pop("count_include_pad", None)
        means: Tensor = pool(F.pad(x, flat), **window)
        return means if options.count_padding else means / pool(F.pad(torch.ones_like(x), flat), **window)

    return pooled


def _adaptive(name: str) -> Function:
    pool: Any = getattr(F, name)
    return lambda options, inputs: pool(inputs[0], options.size)


def _sum(_: Any, inputs: Sequence[Tensor]) -> Tensor:
    total = inputs[0]
    for other in inputs[1:]:
        total = total + other
    return total


def _reshape(options: Any, inputs: Sequence[Tensor]) -> Tensor:
    (x,) = inputs
    # `flatten` if that is what it is, since `winticket.compact` follows units through it. One element may have no axis.
    return (
        x.flatten(1)
        if len(options.shape) == 1 and options.shape[0] > 1
        else x.reshape(x.shape[0], *options.shape)
    )


_FUNCTIONS: dict[str, Function] = {
    "relu": lambda _, inputs: F.relu(inputs[0]),
    "leaky_relu": lambda options, inputs: F.leaky_relu(inputs[0], options.slope),
    "hardtanh": lambda options, inputs: F.hardtanh(inputs[0], options.low, options.high),
    "gelu": lambda options, inputs: F.gelu(inputs[0], approximate="tanh" if options.tanh else "none"),
    "silu": lambda _, inputs: F.silu(inputs[0]),
    "sigmoid": lambda _, inputs: torch.sigmoid(inputs[0]),
    "tanh": lambda _, inputs: torch.tanh(inputs[0]),
    **{name: _pool(name) for name in ("max_pool1d", "max_pool2d", "avg_pool1d", "avg_pool2d")},
    **{name: _adaptive(name) for name in ("adaptive_avg_pool1d", "adaptive_avg_pool2d")},
    "mean": lambda options, inputs: inputs[0].mean([a + 1 for a in options.axes], keepdim=options.keep_axes),
    "reshape": _reshape,
    "add": _sum,
    "concat": lambda options, inputs: torch.cat(list(inputs), options.axis + 1),
    "softmax": lambda options, inputs: inputs[0].softmax(options.axis + 1),
    "log_softmax": lambda options, inputs: inputs[0].log_softmax(options.axis + 1),
}
"""By kind of operation without tensors: (options, inputs) -> output."""
