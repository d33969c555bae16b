"""A network's operations as the stages that are computed: activations and sums merged into the products before them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from winticket.ship.kinds import Shape
from winticket.ship.network import INPUT, Floats, Network, Operation, Weight

CONVOLUTIONS = ("conv1d", "conv2d")
PRODUCTS = ("linear", *CONVOLUTIONS)
POINTWISE = ("relu", "leaky_relu", "hardtanh", "gelu", "silu", "sigmoid", "tanh", "scale_shift")


@dataclass(frozen=True)
class Stage:
    """What is computed at once: output = clip(kind(inputs) + residual, low, high).

    label     the operations' kinds and the name of the value, for people
    kind      of winticket.ship.kinds.KINDS, or `copy`
    residual  the value that a product is added to; None if there is none
    """

    label: str
    kind: str
    inputs: tuple[str, ...]
    output: str
    options: Any = None
    tensors: Mapping[str, Weight] = field(default_factory=dict)
    residual: str | None = None
    low: float = -math.inf
    high: float = math.inf

    @property
    def reads(self) -> tuple[str, ...]:
        return self.inputs if self.residual is None else (*self.inputs, self.residual)

    @property
    def bounded(self) -> bool:
        return self.low > -math.inf or self.high < math.inf


def stages(network: Network) -> list[Stage]:
    """The stages in order. A value that another operation reads as well stays a value of its own.

    >>> from winticket.ship import Network, Operation, Weight
    >>> fc = {"weight": Weight.of("fc", [[1.0, 2.0], [3.0, 4.0]])}
    >>> operations = Operation("linear", ("input",), "1", tensors=fc), Operation("relu", ("1",), "2")
    >>> [stage.label for stage in stages(Network((2,), operations))]
    ['linear+relu 2']
    """
    merging = _Merging(network)
    for operation in network.operations:
        for stage in _of(operation, network.shapes):
            merging.add(stage)
    return merging.made


def unused(name: str, taken: Mapping[str, Any]) -> str:
    """The name, or one made of it, that no value has yet: a network may use any names."""
    while name in taken:
        name += "'"
    return name


def _of(operation: Operation, taken: Mapping[str, Shape]) -> Iterator[Stage]:
    """The operation as a stage; a sum of more than two values as several."""
    options, kind = operation.typed_options(), operation.kind
    label = f"{kind} {operation.output}"
    if kind != "add":
        yield Stage(label, kind, operation.inputs, operation.output, options, operation.tensors)
        return
    before, *rest = operation.inputs
    for number, name in enumerate(rest, 1):
        part = unused(f"{operation.output} part {number}", taken)
        output = operation.output if number == len(rest) else part
        yield Stage(label, kind, (before, name), output, options)
        before = output


def bounds_of(stage: Stage) -> tuple[float, float] | None:
    """The ends between which an activation clips; None for stages of other kinds."""
    if stage.kind == "relu":
        return 0.0, math.inf
    return (stage.options.low, stage.options.high) if stage.kind == "hardtanh" else None


class _Merging:
    """Takes stages in order, and merges what it can into a stage before."""

    def __init__(self, network: Network) -> None:
        self.shapes = network.shapes
        self.readers = Counter(name for operation in network.operations for name in operation.inputs)
        self.readers[network.output] += 1
        self.made: list[Stage] = []
        self.makers: dict[str, int] = {}

    def add(self, stage: Stage) -> None:
        if not (self.clipped(stage) or self.summed(stage)):
            self.makers[stage.output] = len(self.made)
            self.made.append(stage)

    def merge(self, at: int, stage: Stage, **changes: Any) -> None:
        before = self.made[at]
        label = f"{before.label.rpartition(' ')[0]}+{stage.kind} {stage.output}"
        self.made[at] = replace(before, label=label, output=stage.output, **changes)
        self.makers[stage.output] = at

    def clipped(self, stage: Stage) -> bool:
        """Merge an activation that clips its input into the stage before it, if nothing else reads that stage."""
        bounds, at = bounds_of(stage), self.makers.get(stage.inputs[0])
        if bounds is None or at is None or self.readers[stage.inputs[0]] > 1:
            return False
        before = self.made[at]
        if before.kind not in (*PRODUCTS, "add") or before.bounded:
            return False
        self.merge(at, stage, low=bounds[0], high=bounds[1])
        return True

    def summed(self, stage: Stage) -> bool:
        """Merge a sum into the later of its two summands, if that is a product that nothing else reads.

        Not into a Linear layer over several axes, since lines of the two summands may be differently far apart.
        """
        if stage.kind != "add":
            return False
        places = [self.makers.get(name, -1) for name in stage.inputs]
        at, later = max(places), places.index(max(places))
        if at < 0 or self.readers[stage.inputs[later]] > 1:
            return False
        before = self.made[at]
        if before.kind not in PRODUCTS or before.bounded or before.residual is not None:
            return False
        if before.kind == "linear" and len(self.shapes[stage.inputs[later]]) > 1:
            return False
        self.merge(at, stage, residual=stage.inputs[1 - later])
        return True


def raw_network(network: Network) -> Network:
    """The network that takes raw data: its preprocessing becomes part of its first layer, or an operation before it.

    Raises ValueError for a network without preprocessing.
    """
    if network.preprocessing is None:
        raise ValueError("the network does not say how raw data are preprocessed, so it cannot take raw data")
    size, shift = _factors(network)
    at = _first_layer(network)
    operations = list(network.operations)
    if at is None:
        ready = unused("preprocessed", network.shapes)
        names = {INPUT: ready}
        operations = [replace(o, inputs=tuple(names.get(n, n) for n in o.inputs)) for o in operations]
        taken, factors = network.weights(), {"scale": size, "shift": shift}
        tensors = {role: Weight.of(unused(f"preprocessing.{role}", taken), f) for role, f in factors.items()}
        operations.insert(0, Operation("scale_shift", (INPUT,), ready, tensors=tensors))
    else:
        operations[at] = _multiplied(network, operations[at], size, shift)
    return Network(network.input_shape, tuple(operations), None, network.classes)


def _factors(network: Network) -> tuple[Floats, Floats]:
    """Scale and shift of each channel: x * scale + shift is the preprocessed x."""
    given = network.preprocessing
    assert given is not None
    deviation = np.asarray(given.deviation, np.float64)
    shift = -np.asarray(given.mean, np.float64) / deviation
    return (1 / (given.scale * deviation)).astype(np.float32), shift.astype(np.float32)


def _first_layer(network: Network) -> int | None:
    """The position of the Linear layer that alone reads the flattened input; None if there is none."""
    readers = Counter(name for operation in network.operations for name in operation.inputs)
    name, shape = INPUT, network.input_shape
    for at, operation in enumerate(network.operations):
        if name not in operation.inputs:
            continue
        if readers[name] == 1 and operation.kind == "reshape":
            name, shape = operation.output, network.shapes[operation.output]
            continue
        return at if operation.kind == "linear" and readers[name] == 1 and len(shape) == 1 else None
    return None


def _multiplied(network: Network, layer: Operation, scale: Floats, shift: Floats) -> Operation:
    """W (a x + b) + c as (W a) x + (W b + c), computed in float64."""
    weight, taken = layer.tensors["weight"], network.weights()
    each = weight.shape[1] // len(scale)
    by_input, added = np.repeat(scale.astype(np.float64), each), np.repeat(shift.astype(np.float64), each)
    positions = np.arange(weight.size) if weight.positions is None else weight.positions
    columns = positions % weight.shape[1]
    values = (weight.values * by_input[columns]).astype(np.float32)
    sums = np.bincount(positions // weight.shape[1], weight.values * added[columns], weight.shape[0])
    bias = sums.astype(np.float64)
    if "bias" in layer.tensors:
        bias += layer.tensors["bias"].dense()
    tensors = {
        "weight": Weight(unused(f"{weight.name} of raw data", taken), weight.shape, values, weight.positions),
        "bias": Weight.of(unused("bias of raw data", taken), bias),
    }
    return replace(layer, tensors=tensors)
