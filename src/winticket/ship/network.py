"""The form in which a trained network leaves winticket: operations in order, with their tensors; numpy, no torch.

`winticket.ship.capture` makes it of a module, `winticket.ship.load` reads it from a file, and `winticket.ship.run`
computes with it. Everything that writes another format starts from it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from winticket.outside import Unreadable, converted
from winticket.ship.kinds import KINDS, Shape, checked_shape
from winticket.text import nearest

INPUT = "input"
"""Name of the network's input among the values."""
MOST_OPERATIONS = 10_000
MOST_INPUTS = 2 * MOST_OPERATIONS
"""Most inputs of all operations together: sums and concatenations may have many."""
MOST_POSITIONS = 1 << 31
"""Most weights of a network, kept or not; files that claim more are refused."""
Floats = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int64]


class NetworkError(ValueError):
    """Parts of a network do not fit together; the message names the operation or the tensor.

    >>> from winticket.ship import Network, NetworkError
    >>> try:
    ...     Network((4,), ())
    ... except NetworkError as error:
    ...     print(error)
    a network has 1 to 10000 operations, but this one has 0
    """


@dataclass(frozen=True, eq=False)
class Weight:
    """A tensor of the network: its kept values, and their positions if some are pruned.

    name       of the module's parameter, or what it was computed from
    shape      of the whole tensor, [units, inputs, *positions] for a weight
    values     float32 [kept], in row-major order
    positions  int64 [kept], rising: where the values are in the flattened tensor; None if all are kept
    scales     float32 [units] if the values are whole multiples, -127 to 127, of one scale per unit; else None

    Raises NetworkError if these do not fit together, or for a value that is not finite.

    >>> keep = np.array([[True, False], [True, True]])
    >>> weight = Weight.of("fc", [[0.5, 2.0], [0.0, 1.0]], keep)
    >>> weight.values.tolist(), weight.positions.tolist(), weight.dense().tolist()
    ([0.5, 0.0, 1.0], [0, 2, 3], [[0.5, 0.0], [0.0, 1.0]])
    """

    name: str
    shape: Shape
    values: Floats
    positions: Positions | None = None
    scales: Floats | None = None

    def __post_init__(self) -> None:
        size = math.prod(self.shape)
        if min(self.shape, default=1) < 1 or size > MOST_POSITIONS:
            raise NetworkError(
                f"tensor {self.name!r} has shape {self.shape}; it must have 1 to {MOST_POSITIONS} elements"
            )
        kept = size if self.positions is None else len(self.positions)
        if self.values.dtype != np.float32 or self.values.shape != (kept,):
            raise NetworkError(
                f"tensor {self.name!r} keeps {kept} of {size} elements, but has values {self.values.dtype} "
                f"{self.values.shape}"
            )
        if not np.isfinite(self.values).all():
            raise NetworkError(f"tensor {self.name!r} has a value that is not finite")
        if self.positions is not None:
            self._check_positions(self.positions, size)
        if self.scales is not None and (
            self.scales.shape != self.shape[:1]
            or not np.isfinite(self.scales).all()
            or (self.scales < 0).any()
        ):
            raise NetworkError(
                f"tensor {self.name!r} needs one scale for each of its {self.shape[:1]} units, not negative"
            )

    def _check_positions(self, positions: Positions, size: int) -> None:
        rising = bool((np.diff(positions) > 0).all())
        if (
            positions.ndim != 1
            or not rising
            or (len(positions) and not 0 <= positions[0] <= positions[-1] < size)
        ):
            raise NetworkError(
                f"the positions of tensor {self.name!r} do not rise within its {size} elements"
            )

    @classmethod
    def of(cls, name: str, values: npt.ArrayLike, keep: npt.NDArray[np.bool_] | None = None) -> Weight:
        """The tensor of dense values, of which `keep` (default: all) says which are kept."""
        whole = np.ascontiguousarray(values, np.float32)
        if keep is None or bool(keep.all()):
            return cls(name, whole.shape, whole.reshape(-1))
        positions = np.flatnonzero(keep)
        return cls(name, whole.shape, whole.reshape(-1)[positions], positions)

    @property
    def size(self) -> int:
        """Number of elements, kept or not."""
        return math.prod(self.shape)

    def density(self) -> float:
        """Kept elements / all."""
        return len(self.values) / self.size

    def dense(self) -> Floats:
        """The whole tensor, float32 [*shape], with zeros where it is pruned."""
        if self.positions is None:
            return self.values.reshape(self.shape)
        whole = np.zeros(self.size, np.float32)
        whole[self.positions] = self.values
        return whole.reshape(self.shape)

    def keep(self) -> npt.NDArray[np.bool_]:
        """The mask, bool [*shape]; True is kept."""
        if self.positions is None:
            return np.ones(self.shape, np.bool_)
        kept = np.zeros(self.size, np.bool_)
        kept[self.positions] = True
        return kept.reshape(self.shape)


@dataclass(frozen=True, eq=False)
class Operation:
    """One step of a network: `output` = kind(`inputs`).

    kind     one of winticket.ship.kinds.KINDS
    inputs   names of the values that it takes
    output   name of the value that it gives
    options  its options by name; those that are missing get their defaults
    tensors  its tensors by role, as `weight` and `bias`

    Raises NetworkError for an unknown kind, option or role, or a missing one.

    >>> Operation("hardtanh", ("input",), "1", {"low": 0, "high": 6}).options
    {'low': 0.0, 'high': 6.0}
    """

    kind: str
    inputs: tuple[str, ...]
    output: str
    options: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, Weight] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise NetworkError(
                f"there is no kind of operation {self.kind!r}{nearest(self.kind, KINDS)}; there are {', '.join(KINDS)}"
            )
        kind = KINDS[self.kind]
        try:
            options = converted(dict(self.options), kind.options)
        except Unreadable as error:
            raise NetworkError(f"the options of {self}: {error}") from error
        object.__setattr__(self, "options", msgspec.structs.asdict(options))
        roles = set(self.tensors)
        if not set(kind.required) <= roles or not roles <= {*kind.required, *kind.optional}:
            takes = [*kind.required, *(f"{role} (optional)" for role in kind.optional)]
            raise NetworkError(
                f"{self} has tensors {', '.join(sorted(roles)) or 'none'}; it takes {', '.join(takes) or 'none'}"
            )
        if len(self.inputs) < 2 if kind.several else len(self.inputs) != 1:
            wanted = "two inputs or more" if kind.several else "one input"
            raise NetworkError(f"{self} takes {wanted}, but has {len(self.inputs)}")
        # In one order whatever the caller's, so that equal operations make equal files.
        ordered = {
            role: self.tensors[role] for role in (*kind.required, *kind.optional) if role in self.tensors
        }
        object.__setattr__(self, "tensors", ordered)

    def __str__(self) -> str:
        return f"operation {self.output!r} ({self.kind})"

    def typed_options(self) -> Any:
        """The options as one value with an attribute for each."""
        return KINDS[self.kind].options(**self.options)


@dataclass(frozen=True)
class Preprocessing:
    """What turns raw data into the network's input: (x / scale - mean) / deviation, the last two by channel.

    scale: what pixels are divided by, as 255. Raises NetworkError for a number that is not finite, or a divisor that is
    not positive.

    >>> Preprocessing(255.0, (0.5,), (0.25,)).apply(np.full((1, 1, 2, 2), 255)).max()
    np.float32(2.0)
    """

    scale: float
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def __post_init__(self) -> None:
        numbers = (self.scale, *self.mean, *self.deviation)
        if not all(map(math.isfinite, numbers)) or min(self.scale, *self.deviation, 1.0) <= 0:
            raise NetworkError(f"scale and deviations are positive and the mean is finite, not {self}")
        if not self.mean or len(self.mean) != len(self.deviation):
            raise NetworkError("there is one mean and one deviation for each channel")

    def apply(self, x: npt.ArrayLike) -> Floats:
        """Raw data [N, channels, ...] -> the network's inputs, float32 [N, channels, ...]."""
        ready = np.array(x, np.float32)
        if ready.ndim < 2 or ready.shape[1] != len(self.mean):
            raise ValueError(f"data of shape {ready.shape} are not [N, {len(self.mean)} channels, ...]")
        shape = (1, -1, *(1,) * (ready.ndim - 2))
        ready /= np.float32(self.scale)
        ready -= np.asarray(self.mean, np.float32).reshape(shape)
        ready /= np.asarray(self.deviation, np.float32).reshape(shape)
        return ready

    def undo(self, x: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """The network's inputs [N, channels, ...] -> the raw data that they came from, but for rounding.

        >>> Preprocessing(255.0, (0.5,), (0.25,)).undo([[[[2.0]]]]).item()
        255.0
        """
        ready = np.asarray(x, np.float64)
        shape = (1, -1, *(1,) * (ready.ndim - 2))
        deviation, mean = (np.reshape(each, shape) for each in (self.deviation, self.mean))
        raw: npt.NDArray[np.float64] = (ready * deviation + mean) * self.scale
        return raw


@dataclass(frozen=True, eq=False)
class Network:
    """A trained network: operations in order; the last one's output are the logits.

    input_shape    of one example
    preprocessing  what makes inputs of raw data; None if that is not known
    classes        names of the outputs; empty if they are only numbers
    about          free JSON that goes with it, as where it comes from and how accurate it is
    shapes         (computed) the shape of every value by name, per example

    Raises NetworkError, naming the operation, if a shape does not fit, a name is used twice, or a value is never read.

    >>> weight = Weight.of("fc.weight", np.eye(2, 3))
    >>> Network((3,), (Operation("linear", ("input",), "1", tensors={"weight": weight}),)).shapes
    {'input': (3,), '1': (2,)}
    """

    input_shape: Shape
    operations: tuple[Operation, ...]
    preprocessing: Preprocessing | None = None
    classes: tuple[str, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict, repr=False)
    shapes: Mapping[str, Shape] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        count = len(self.operations)
        if not 1 <= count <= MOST_OPERATIONS:
            raise NetworkError(f"a network has 1 to {MOST_OPERATIONS} operations, but this one has {count}")
        inputs = sum(len(operation.inputs) for operation in self.operations)
        if inputs > MOST_INPUTS:
            raise NetworkError(f"the operations have {inputs} inputs, and {MOST_INPUTS} is most")
        object.__setattr__(self, "shapes", self._shapes())
        self._check_tensors()
        channels = self.input_shape[0] if self.input_shape else 1
        if self.preprocessing and len(self.preprocessing.mean) != channels:
            raise NetworkError(
                f"the preprocessing is for {len(self.preprocessing.mean)} channels, but inputs have {channels}"
            )
        outputs = self.shapes[self.output]
        if self.classes and outputs != (len(self.classes),):
            raise NetworkError(f"there are {len(self.classes)} classes, but the output has shape {outputs}")

    def _shapes(self) -> dict[str, Shape]:
        try:
            shapes = {INPUT: checked_shape(self.input_shape)}
        except ValueError as error:
            raise NetworkError(f"the input: {error}") from error
        unread: set[str] = {INPUT}
        for operation in self.operations:
            for name in operation.inputs:
                if name not in shapes:
                    raise NetworkError(f"{operation} reads {name!r}, which no operation before it gives")
            if operation.output in shapes:
                raise NetworkError(f"two operations give {operation.output!r}")
            unread -= set(operation.inputs)
            unread.add(operation.output)
            tensors = {role: weight.shape for role, weight in operation.tensors.items()}
            inputs = [shapes[name] for name in operation.inputs]
            try:
                shape = KINDS[operation.kind].shape(operation.typed_options(), inputs, tensors)
                shapes[operation.output] = checked_shape(shape)
            except ValueError as error:
                raise NetworkError(f"{operation}: {error}") from error
        if unread != {self.output}:
            raise NetworkError(f"no operation reads {', '.join(sorted(unread - {self.output}))}")
        return shapes

    def _check_tensors(self) -> None:
        known: dict[str, Weight] = {}
        for operation in self.operations:
            for weight in operation.tensors.values():
                if known.setdefault(weight.name, weight) is not weight:
                    raise NetworkError(f"two tensors have the name {weight.name!r}")
        if sum(weight.size for weight in known.values()) > MOST_POSITIONS:
            raise NetworkError(f"the tensors have more than {MOST_POSITIONS} elements in all")

    @property
    def output(self) -> str:
        """The name of the value that the network returns."""
        return self.operations[-1].output if self.operations else INPUT

    def weights(self) -> dict[str, Weight]:
        """Every tensor by its name, in the order of the operations."""
        return {w.name: w for operation in self.operations for w in operation.tensors.values()}

    def kept(self) -> tuple[int, int]:
        """(Kept elements, all elements) of the tensors with two axes or more, which are those that may be pruned."""
        matrices = [w for w in self.weights().values() if len(w.shape) > 1]
        return sum(len(w.values) for w in matrices), sum(w.size for w in matrices)

    def __repr__(self) -> str:
        kept, size = self.kept()
        return (
            f"Network({len(self.operations)} operations, {kept} of {size} weights kept, inputs "
            f"{list(self.input_shape)}, outputs {list(self.shapes[self.output])})"
        )
