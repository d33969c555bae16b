"""From PyTorch's operators, as torch.export names them, to the operations of a shipped network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeAlias

import torch
from torch import Tensor

from winticket.ship.kinds import Shape

SELECT, PAD = "select", "pad"
"""Steps that no network has: `winticket.ship.folding` makes them part of the layers that read them."""


@dataclass(frozen=True, eq=False)
class Constant:
    """A tensor that does not depend on the input. keep: which of its elements the mask keeps; None if it has none."""

    name: str
    value: Tensor
    keep: Tensor | None = None


@dataclass(frozen=True)
class Symbol:
    """A value that depends on the input: its name, and its shape for one example."""

    name: str
    shape: Shape


@dataclass(frozen=True, eq=False)
class Step:
    """An operation before it has a name for its output. layer: path of the module that it belongs to, for messages."""

    kind: str
    inputs: tuple[Symbol, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, Constant] = field(default_factory=dict)
    layer: str = ""


@dataclass(frozen=True, eq=False)
class Call:
    """A call of one of PyTorch's operators.

    operator  its name, as "conv2d"
    layer     path of the module that calls it
    options   its arguments by name, with defaults filled in: Symbol, Constant, or plain values
    shape     of its output, with the batch
    batch     the number of examples that it was traced with
    """

    operator: str
    layer: str
    options: Mapping[str, Any]
    shape: Shape
    batch: int

    def refuse(self, reason: str) -> NoReturn:
        """Raise ValueError, naming operator and layer."""
        layer = f"layer {self.layer!r}" if self.layer else "the model's own forward"
        raise ValueError(f"operation {self.operator} in {layer} cannot be shipped: {reason}")

    def value(self, name: str = "input") -> Symbol:
        """The argument that depends on the input."""
        value = self.options[name]
        if not isinstance(value, Symbol):
            self.refuse(f"its {name} does not depend on the network's input")
        return value

    def constant(self, name: str) -> Constant:
        """The argument that is a parameter, a buffer, or computed from these alone."""
        value = self.options[name]
        if not isinstance(value, Constant):
            self.refuse(f"its {name} depends on the input, but must be a parameter")
        return value

    def step(self, kind: str, tensors: Mapping[str, Constant] | None = None, **options: Any) -> Step:
        """The operation of that kind on the argument `input` (or `self`, as methods name it)."""
        first = self.value("input" if "input" in self.options else "self")
        return Step(kind, (first,), options, tensors or {}, self.layer)

    def axis(self, number: int) -> int:
        """An axis as PyTorch counts it -> an axis of one example. Refuses the batch's."""
        axis = number % (1 + len(self.value("input" if "input" in self.options else "self").shape))
        if axis == 0:
            self.refuse("it mixes the examples of a batch")
        return axis - 1

    def example_shape(self) -> Shape:
        """The output's shape without the batch."""
        if not self.shape or self.shape[0] != self.batch:
            self.refuse(
                f"it makes {list(self.shape)} of a batch of {self.batch} examples, so it mixes examples"
            )
        return self.shape[1:]


Translation: TypeAlias = Callable[[Call], Step | Symbol]


def _linear(call: Call) -> Step:
    return call.step("linear", _weights(call))


def _weights(call: Call) -> dict[str, Constant]:
    tensors = {"weight": call.constant("weight")}
    if call.options["bias"] is not None:
        tensors["bias"] = call.constant("bias")
    return tensors


def _each(value: Any, count: int) -> list[int]:
    """An option for each axis of positions; PyTorch takes one number for all."""
    values = list(value) if isinstance(value, Sequence) else [value]
    return values * count if len(values) == 1 else values


def _conv(call: Call) -> Step:
    tensors = _weights(call)
    kernel = tensors["weight"].value.shape[2:]
    count = len(kernel)
    dilation = _each(call.options["dilation"], count)
    return call.step(
        f"conv{count}d",
        tensors,
        stride=_each(call.options["stride"], count),
        padding=_padding(call.options["padding"], kernel, dilation),
        dilation=dilation,
        groups=call.options["groups"],
    )


def _padding(padding: Any, kernel: Sequence[int], dilation: Sequence[int]) -> list[list[int]]:
    """Padding before and after, for each axis; "same" keeps the size, and puts an odd one at the end, as PyTorch."""
    if padding == "valid":
        return [[0, 0] for _ in kernel]
    if padding == "same":
        totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return [[total // 2, total - total // 2] for total in totals]
    return [[p, p] for p in _each(padding, len(kernel))]


def _batch_norm(call: Call) -> Step:
    """y = (x - mean) / sqrt(variance + eps) * weight + bias, with the statistics of the training."""
    if call.options["training"] or call.options["running_mean"] is None:
        call.refuse(
            "it normalises by the statistics of the batch; train with running statistics (track_running_stats)"
        )
    mean, variance = call.constant("running_mean"), call.constant("running_var")
    scale = 1 / torch.sqrt(variance.value.double() + call.options["eps"])
    if call.options["weight"] is not None:
        scale = scale * call.constant("weight").value.double()
    shift = -mean.value.double() * scale
    if call.options["bias"] is not None:
        shift = shift + call.constant("bias").value.double()
    layer = mean.name.rpartition(".")[0] or call.layer
    tensors = {"scale": Constant(f"{layer}.scale", scale), "shift": Constant(f"{layer}.shift", shift)}
    return call.step("scale_shift", tensors)


def _max_pool(call: Call) -> Step:
    options = call.options
    count = 2 if "2d" in call.operator else 1
    kernel = _each(options["kernel_size"], count)
    stride = _each(options["stride"] or kernel, count)
    dilation = _each(options["dilation"], count)
    padding = [[p, p] for p in _each(options["padding"], count)]
    # With ceil_mode, windows may stick out at the end; the padding that this takes never is the maximum.
    every = zip(padding, call.value("self").shape[1:], call.shape[2:], kernel, stride, dilation, strict=True)
    for pair, size, windows, taps, step, spread in every:
        pair[1] = max(pair[1], (windows - 1) * step + spread * (taps - 1) + 1 - size - pair[0])
    return call.step(f"max_pool{count}d", kernel=kernel, stride=stride, padding=padding, dilation=dilation)


def _avg_pool(call: Call) -> Step:
    options = call.options
    count = 2 if "2d" in call.operator else 1
    kernel = _each(options["kernel_size"], count)
    stride = _each(options["stride"] or kernel, count)
    padding = [[p, p] for p in _each(options["padding"], count)]
    if options.get("divisor_override") is not None:
        call.refuse("divisor_override is not supported")
    every = zip(padding, call.value("self").shape[1:], call.shape[2:], kernel, stride, strict=True)
    if any((size + sum(pair) - taps) // step + 1 < windows for pair, size, windows, taps, step in every):
        call.refuse("with ceil_mode a window sticks out of these inputs; leave ceil_mode out")
    return call.step(
        f"avg_pool{count}d",
        kernel=kernel,
        stride=stride,
        padding=padding,
        count_padding=options["count_include_pad"],
    )


def _adaptive(call: Call) -> Step:
    return call.step(f"adaptive_avg_pool{len(call.shape) - 2}d", size=call.shape[2:])


def _mean(call: Call) -> Step:
    dims = call.options["dim"]
    if dims is None:
        call.refuse("it mixes the examples of a batch")
    return call.step("mean", axes=sorted(call.axis(d) for d in dims), keep_axes=call.options["keepdim"])


def _reshape(call: Call) -> Step | Symbol:
    shape = call.example_shape()
    if shape == call.value("self").shape:
        return call.value("self")
    return call.step("reshape", shape=shape)


def _add(call: Call) -> Step:
    one, two = call.options["self"], call.options["other"]
    if not isinstance(one, Symbol) or not isinstance(two, Symbol) or call.options["alpha"] != 1:
        call.refuse("only sums of two values of the network are supported")
    if one.shape != two.shape:
        call.refuse(f"its summands have different shapes, {list(one.shape)} and {list(two.shape)}")
    return Step("add", (one, two), layer=call.layer)


def _concat(call: Call) -> Step | Symbol:
    parts = call.options["tensors"]
    if not all(isinstance(part, Symbol) for part in parts):
        call.refuse("only values of the network can be joined, no constants")
    if len(parts) == 1:
        return parts[0]  # type: ignore[no-any-return]
    axis = call.options["dim"] % len(call.shape)
    if axis == 0:
        call.refuse("it mixes the examples of a batch")
    return Step("concat", tuple(parts), {"axis": axis - 1}, layer=call.layer)


def _along(kind: str) -> Translation:
    return lambda call: call.step(kind, axis=call.axis(call.options["dim"]))


def _plain(kind: str) -> Translation:
    return lambda call: call.step(kind)


def _clamp(call: Call) -> Step:
    low, high = call.options["min"], call.options["max"]
    if not all(isinstance(end, int | float) for end in (low, high)):
        call.refuse("it needs two numbers as bounds")
    return call.step("hardtanh", low=low, high=high)


def _select(call: Call) -> Step:
    return call.step(SELECT, axis=call.axis(call.options["dim"]), positions=call.constant("index").value)


def _pad(call: Call) -> Step:
    """Zeros before and after, along the positions alone. PyTorch lists the last axis first."""
    options = call.options
    pairs = list(zip(options["pad"][::2], options["pad"][1::2], strict=True))[::-1]
    axes = len(call.value().shape) if "input" in options else len(call.value("self").shape)
    pairs = [(0, 0)] * (axes - len(pairs)) + pairs
    if options.get("mode", "constant") != "constant" or options["value"] not in (None, 0):
        call.refuse("only zeros can be padded")
    if len(pairs) > axes or any(pairs[0]) or any(min(pair) < 0 for pair in pairs):
        call.refuse("it pads channels or examples, or cuts some off")
    return call.step(PAD, padding=pairs[1:])


def _unchanged(call: Call) -> Symbol:
    if call.options.get("train") or call.options.get("training"):
        call.refuse("it is random; it should be off in evaluation mode")
    return call.value("input" if "input" in call.options else "self")


TRANSLATIONS: dict[str, Translation] = {
    "linear": _linear,
    "conv1d": _conv,
    "conv2d": _conv,
    "batch_norm": _batch_norm,
    "relu": _plain("relu"),
    "leaky_relu": lambda call: call.step("leaky_relu", slope=call.options["negative_slope"]),
    "hardtanh": lambda call: call.step("hardtanh", low=call.options["min_val"], high=call.options["max_val"]),
    "relu6": lambda call: call.step("hardtanh", low=0, high=6),
    "clamp": _clamp,
    "gelu": lambda call: call.step("gelu", tanh=call.options["approximate"] == "tanh"),
    "silu": _plain("silu"),
    "sigmoid": _plain("sigmoid"),
    "tanh": _plain("tanh"),
    "max_pool1d": _max_pool,
    "max_pool2d": _max_pool,
    "avg_pool1d": _avg_pool,
    "avg_pool2d": _avg_pool,
    "adaptive_avg_pool1d": _adaptive,
    "adaptive_avg_pool2d": _adaptive,
    "mean": _mean,
    **dict.fromkeys(("flatten", "view", "reshape", "squeeze", "unsqueeze", "unflatten"), _reshape),
    "add": _add,
    **dict.fromkeys(("cat", "concat", "concatenate"), _concat),
    "index_select": _select,
    **dict.fromkeys(("pad", "constant_pad_nd"), _pad),
    "softmax": _along("softmax"),
    "log_softmax": _along("log_softmax"),
    **dict.fromkeys(("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"), _unchanged),
    **dict.fromkeys(("contiguous", "clone", "detach", "alias", "to", "_to_copy"), _unchanged),
}
"""Every operator that is understood, by its name without the underscore of the form that writes into its input."""
