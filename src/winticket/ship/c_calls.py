"""What a network's C file calls for each operation, in order; the functions and arrays that these calls need."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, TypeAlias

import numpy as np

from winticket.ship.c_arrays import Rows, array, coded, comment, count_bytes, literal
from winticket.ship.c_kernels import FUNCTIONS
from winticket.ship.c_layers import layer
from winticket.ship.c_windows import TAP, WINDOW_BYTES
from winticket.ship.kinds import Shape
from winticket.ship.liveness import Memory, Slot
from winticket.ship.network import Network, Operation, Weight

MOST_BYTES = 64 << 20
"""Most bytes of constants in a C file."""
_TAB = "    "
_COUNTS = {1: np.uint8, 2: np.uint16, 4: np.uint32}


class Calls:
    """Collects the C of a network, operation by operation.

    functions  by name, without the prefix, in the order of their definitions
    arrays     definitions of the constants
    lines      of the function that runs the network
    flash      bytes of the constants

    Raises ValueError if these are more than MOST_BYTES.
    """

    def __init__(self, network: Network, memory: Memory) -> None:
        self.network, self.memory = network, memory
        self.functions: dict[str, str] = {}
        self.arrays: list[str] = []
        self.lines: list[str] = []
        self.flash = 0
        self.rows = _coded(network)
        counts = [rows.counts for rows in self.rows.values() if rows.counts is not None]
        self.count_bytes = max(map(count_bytes, counts), default=0)
        self.count_type = f"uint{8 * self.count_bytes}_t" if counts else ""
        self.names: dict[int, str] = {}
        self.windows: dict[tuple[int, ...], str] = {}
        for operation in network.operations:
            self._call(operation)

    def _call(self, operation: Operation) -> None:
        shapes = [self.network.shapes[name] for name in operation.inputs]
        out = self.network.shapes[operation.output]
        described = ", ".join(str(list(shape)) for shape in dict.fromkeys(shapes))
        self.lines.append(f"/* {operation.kind} {described} -> {list(out)} */")
        inputs = [self.at(name) for name in operation.inputs]
        _CALLS[operation.kind](self, operation, inputs, self.at(operation.output))

    def at(self, name: str) -> str:
        """The address of a value."""
        return _address(self.memory.slots[name])

    def shape(self, operation: Operation) -> Shape:
        """The shape of an operation's first input."""
        return self.network.shapes[operation.inputs[0]]

    def call(self, function: str, *arguments: object, named: str = "") -> None:
        """A call of one of c_kernels.FUNCTIONS, or of `named`, whose text is in `functions` already."""
        if not named:
            self.functions.setdefault(function, FUNCTIONS[function])
        self.lines.append(f"NAME_{function}({', '.join(map(str, arguments))});")

    def constant(self, weight: Weight) -> str:
        """The name of a float array with all elements of the tensor."""
        if id(weight) not in self.names:
            name = self._named(weight)
            self._define("float", f"{name}_values", weight.dense().reshape(-1))
        return f"{self.names[id(weight)]}_values"

    def matrix(self, weight: Weight) -> tuple[Rows, str]:
        """(How the weight is stored, the arguments that name its arrays)."""
        rows = self.rows[id(weight)]
        if id(weight) not in self.names:
            name = self._named(weight)
            if rows.counts is not None and rows.places is not None:
                counts = rows.counts.astype(_COUNTS[self.count_bytes])
                self._define("NAME_count", f"{name}_counts", counts)
                self._define(f"{rows.places.dtype}_t", f"{name}_{rows.coding}", rows.places)
            self._define("int8_t" if rows.scales is not None else "float", f"{name}_values", rows.values)
            if rows.scales is not None:
                self._define("float", f"{name}_scales", rows.scales)
        parts = [] if rows.coding == "dense" else ["counts", rows.coding]
        parts += ["values"] if rows.scales is None else ["values", "scales"]
        return rows, ", ".join(f"{self.names[id(weight)]}_{part}" for part in parts)

    def _named(self, weight: Weight) -> str:
        """A name for the tensor's arrays; the network's own name for it is only in a comment."""
        self.names[id(weight)] = f"NAME_t{len(self.names) + 1}"
        kept = f"{len(weight.values)} of {weight.size}"
        self.arrays.append(f"/* {comment(weight.name)} {list(weight.shape)}, {kept} kept */\n")
        return self.names[id(weight)]

    def _define(self, type_: str, name: str, values: Any) -> None:
        self.arrays.append(array(type_, name, values))
        self.flash += max(1, values.size) * values.itemsize

    def window(self, sizes: Sequence[int]) -> str:
        """The address of a NAME_window with these sizes."""
        key = tuple(sizes)
        if key not in self.windows:
            self.windows[key] = f"NAME_window{len(self.windows) + 1}"
            text = ", ".join(map(str, key))
            self.arrays.append(f"static const NAME_window {self.windows[key]} = {{{text}}};\n")
            self.flash += WINDOW_BYTES
        return f"&{self.windows[key]}"


def _coded(network: Network) -> dict[int, Rows]:
    """The weights of layers as they are stored, by id."""
    coded_rows: dict[int, Rows] = {}
    total = 0
    for weight in network.weights().values():
        if len(weight.shape) < 2:
            total += 4 * weight.size
        elif weight.shape[0] <= MOST_BYTES:
            coded_rows[id(weight)] = rows = coded(weight)
            total += rows.bytes
        else:
            total += weight.shape[0]
        if total > MOST_BYTES:
            raise ValueError(
                f"the network's constants take more than {MOST_BYTES >> 20} MiB, which is too much for a C file; "
                "write a compact file or ONNX"
            )
    return coded_rows


def _address(slot: Slot) -> str:
    return slot.buffer if not slot.offset else f"{slot.buffer} + {slot.offset}"


Call: TypeAlias = Callable[[Calls, Operation, list[str], str], None]


def _layer(calls: Calls, operation: Operation, kind: str) -> tuple[str, str, str]:
    """(Function of a layer, names of its weight's arrays, name of its bias or 0)."""
    rows, arrays = calls.matrix(operation.tensors["weight"])
    whole = rows.scales is not None
    function = f"{kind}_{rows.coding}_{'int8' if whole else 'float'}"
    calls.functions.setdefault(function, layer(kind, rows.coding, whole=whole))
    bias = calls.constant(operation.tensors["bias"]) if "bias" in operation.tensors else "0"
    return function, arrays, bias


def _linear(calls: Calls, operation: Operation, inputs: list[str], output: str) -> None:
    function, arrays, bias = _layer(calls, operation, "linear")
    units, width = operation.tensors["weight"].shape
    sizes = (units, width) if "dense" in function else (units,)
    count = math.prod(calls.shape(operation)[:-1])
    x, y = inputs[0], output
    if count > 1:
        calls.lines.append(f"for (i = 0; i < {count}; i++)")
        x, y = f"{x} + i * {width}", f"{y} + i * {units}"
    calls.call(function, x, y, *sizes, arrays, bias, named=function)


def _plane(shape: Sequence[int]) -> tuple[int, int]:
    """(Height, width) of a value's positions."""
    return (1, shape[1]) if len(shape) == 2 else (shape[1], shape[2])


def _two(values: Sequence[Any], first: Any) -> tuple[Any, Any]:
    """An option for both axes of positions, with `first` for the one that a signal has not."""
    return (first, values[0]) if len(values) == 1 else (values[0], values[1])


def _window(calls: Calls, operation: Operation, taps: Sequence[int]) -> str:
    options = operation.typed_options()
    kernel = _two(taps, 1)
    positions = _plane(calls.network.shapes[operation.output])
    padding = [pair[0] for pair in _two(options.padding, (0, 0))]
    # A step that is never taken may have any length in a file from outside; 1 keeps C's arithmetic in 32 bits.
    strides = [s if n > 1 else 1 for s, n in zip(_two(options.stride, 1), positions, strict=True)]
    spread = _two(getattr(options, "dilation", (1,) * len(taps)), 1)
    dilation = [d if k > 1 else 1 for d, k in zip(spread, kernel, strict=True)]
    return calls.window((*_plane(calls.shape(operation)), *positions, *kernel, *strides, *padding, *dilation))


def _conv(calls: Calls, operation: Operation, inputs: list[str], output: str) -> None:
    calls.functions.setdefault("tap", TAP)
    function, arrays, bias = _layer(calls, operation, "conv")
    weight, groups = operation.tensors["weight"], operation.options["groups"]
    window = _window(calls, operation, weight.shape[2:])
    width = weight.size // weight.shape[0]
    sizes = (groups, weight.shape[0] // groups, width)
    calls.call(function, inputs[0], output, window, *sizes, arrays, bias, named=function)


def _scale_shift(calls: Calls, operation: Operation, inputs: list[str], output: str) -> None:
    shape = calls.shape(operation)
    tensors = [calls.constant(operation.tensors[role]) for role in ("scale", "shift")]
    calls.call("scale_shift", inputs[0], output, shape[0], math.prod(shape[1:]), *tensors)


def _elementwise(*options: str) -> Call:
    def call(calls: Calls, operation: Operation, inputs: list[str], output: str) -> None:
        numbers = [literal(operation.options[option]) for option in options]
        calls.call(operation.kind, inputs[0], output, math.prod(calls.shape(operation)), *numbers)

    return call


def _gelu(calls: Calls, operation: Operation, inputs: list[str], output: str) -> None:
    function = "gelu_tanh" if operation.options["tanh"] else "gelu"
    calls.call(function, inputs[0], output, math.prod(calls.shape(operation)))


def _max_pool(calls: Calls, operation: Operation, inputs: list[str], output: str) -> None:
    window = _window(calls, operation, operation.options["kernel"])
    calls.call("max_pool", inputs[0], output, calls.shape(operation)[0], window)


def _avg_pool(calls: Calls, operation: Operation, inputs: list[str], output: str) -> None:
    window = _window(calls, operation, operation.options["kernel"])
    padded = int(operation.options["count_padding"])
    calls.call("avg_pool", inputs[0], output, calls.shape(operation)[0], window, padded)


def _adaptive_avg_pool(calls: Calls, operation: Operation, inputs: list[str], output: str) -> None:
    shape = calls.shape(operation)
    positions = _plane(calls.network.shapes[operation.output])
    calls.call("adaptive_avg_pool", inputs[0], output, shape[0], *_plane(shape), *positions)


def _mean(calls: Calls, operation: Operation, inputs: list[str], output: str) -> None:
    shape, axes = calls.shape(operation), operation.options["axes"]
    function = "_".join(("mean", *map(str, shape), "over", *map(str, axes)))
    calls.functions.setdefault(function, _mean_function(function, shape, axes))
    calls.call(function, inputs[0], output, named=function)


def _mean_function(function: str, shape: Shape, axes: Sequence[int]) -> str:
    """A loop for each run of neighbouring axes that stay, and inside these one for each run that is averaged."""
    loops: list[tuple[bool, int, int]] = []  # (averaged, elements, elements between neighbours)
    for averaged, run in groupby(range(len(shape)), key=lambda axis: axis in axes):
        along = list(run)
        loops.append((averaged, math.prod(shape[a] for a in along), math.prod(shape[along[-1] + 1 :])))
    loops.sort(key=lambda loop: loop[0])
    stay = sum(not averaged for averaged, *_ in loops)
    lines = []
    for depth, (_, size, _) in enumerate(loops, 1):
        if depth == stay + 1:
            lines.append(f"{_TAB * depth}sum = 0.0f;")
        brace = " {" if depth <= stay else ""
        lines.append(f"{_TAB * depth}for (i{depth} = 0; i{depth} < {size}; i{depth}++){brace}")
    index = " + ".join(f"i{depth} * {step}" for depth, (*_, step) in enumerate(loops, 1))
    lines.append(f"{_TAB * (len(loops) + 1)}sum += x[{index}];")
    count = math.prod(size for averaged, size, _ in loops if averaged)
    lines.append(f"{_TAB * (stay + 1)}*y++ = sum / {literal(count)};")
    lines += [f"{_TAB * depth}}}" for depth in range(stay, 0, -1)]
    counters = ", ".join(f"i{depth}" for depth in range(1, len(loops) + 1))
    head = f"static void NAME_{function}(const float *restrict x, float *restrict y)\n{{\n"
    return f"{head}{_TAB}int32_t {counters};\n{_TAB}float sum;\n\n" + "\n".join(lines) + "\n}\n"


def _reshape(calls: Calls, operation: Operation, inputs: list[str], output: str) -> None:
    """Nothing happens: both values are one, unless the network only reshapes its input."""
    if operation.output == calls.network.output and inputs[0] == output == "input":
        size = math.prod(calls.shape(operation))
        calls.call("copy", "input", "output", 1, size, size)


def _add(calls: Calls, operation: Operation, inputs: list[str], output: str) -> None:
    size = math.prod(calls.shape(operation))
    first, *others = inputs
    for other in others:
        calls.call("add", first, other, output, size)
        first = output


def _concat(calls: Calls, operation: Operation, inputs: list[str], output: str) -> None:
    axis, shape = operation.options["axis"], calls.network.shapes[operation.output]
    stride, offset = math.prod(shape[axis:]), 0
    for name, at in zip(operation.inputs, inputs, strict=True):
        size = math.prod(calls.network.shapes[name][axis:])
        calls.call(
            "copy", at, f"{output} + {offset}" if offset else output, math.prod(shape[:axis]), size, stride
        )
        offset += size


def _softmax(calls: Calls, operation: Operation, inputs: list[str], output: str) -> None:
    shape, axis = calls.shape(operation), operation.options["axis"]
    sizes = math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])
    calls.call(operation.kind, inputs[0], output, *sizes)


_CALLS: dict[str, Call] = {
    "linear": _linear,
    "conv1d": _conv,
    "conv2d": _conv,
    "scale_shift": _scale_shift,
    "relu": _elementwise(),
    "leaky_relu": _elementwise("slope"),
    "hardtanh": _elementwise("low", "high"),
    "gelu": _gelu,
    "silu": _elementwise(),
    "sigmoid": _elementwise(),
    "tanh": _elementwise(),
    "max_pool1d": _max_pool,
    "max_pool2d": _max_pool,
    "avg_pool1d": _avg_pool,
    "avg_pool2d": _avg_pool,
    "adaptive_avg_pool1d": _adaptive_avg_pool,
    "adaptive_avg_pool2d": _adaptive_avg_pool,
    "mean": _mean,
    "reshape": _reshape,
    "add": _add,
    "concat": _concat,
    "softmax": _softmax,
    "log_softmax": _softmax,
}
"""Every kind of winticket.ship.kinds.KINDS."""
