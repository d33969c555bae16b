"""What `winticket ship` wrote and measured, as `--json` prints it and the model card tells it."""

from __future__ import annotations

from typing import NotRequired, TypedDict

from winticket.results.document import Metric
from winticket.results.measures import Fraction, Scalar, Step


class Origin(TypedDict):
    """Which training a shipped network is the end of, and how it did."""

    data: str
    """Name or path of the data."""
    model: str
    """Name of the network."""
    method: str | None
    """How its mask was found; null if that is not known."""
    arm: str
    """The arm."""
    level: int
    """Number of its level."""
    replicate: int
    """Its replicate, from 0."""
    density: Fraction
    """Share of the eligible weights kept."""
    steps: Step
    """Steps that it was trained for, those before its rewind included."""
    metric: NotRequired[Metric]
    """The metric of its accuracies. Absent if that is accuracy."""
    test_accuracy: Fraction
    """Its test accuracy, as its training recorded it."""
    mean_test_accuracy: Fraction | None
    """Mean test accuracy of its arm and level over all replicates that finished."""
    accuracy_ci: list[Fraction] | None
    """95 % interval of that mean: low, high; null for a single replicate."""
    replicates: int
    """Number of those replicates."""
    outcome: str
    """The verdict of the run."""
    won: bool
    """Whether the run's tickets win at this density."""
    won_at: Fraction | None
    """Smallest density at which they win; null if they do not."""
    reason: str
    """The verdict in words."""
    environment: dict[str, Scalar]
    """Versions and hardware of the run's most recent training."""


class ReadBack(TypedDict):
    """The test data through the file as it was read back."""

    examples: int
    """Test examples."""
    test_accuracy: Fraction
    """Accuracy of the network in the file."""
    answers_changed: int
    """Examples that it puts into another class than the trained network did; 0 if answers are no classes."""
    largest_difference: float
    """Largest difference of a logit from the trained network's."""


class Bytes(TypedDict):
    """What the bytes of a compact file are."""

    description: int
    """Header: operations, names, shapes."""
    masks: int
    """Masks."""
    values: int
    """Kept values, biases and scales."""
    information: float
    """What masks and values hold at least: the entropy of each mask, and the bits of the values."""


class Memory(TypedDict):
    """What C takes of a microcontroller's memory, in bytes."""

    flash: int
    """Constants: weights, their positions, names of classes; code is extra."""
    scratch: int
    """RAM for the values between two operations."""
    buffers: int
    """RAM for one input and one output."""


class NarrowLayer(TypedDict):
    """A Linear layer or convolution of a shrunk network."""

    name: str
    """Its name."""
    units: int
    """Its units (neurons, filters)."""
    units_before: int
    """Those of the original."""
    inputs: int | None
    """The inputs (channels) that it reads; null for a convolution in groups."""
    inputs_before: int | None
    """Those of the original."""


class Removed(TypedDict):
    """What `--shrink` removed."""

    units: int
    """Units of all layers that are left."""
    units_before: int
    """Those of the original."""
    layers: list[NarrowLayer]
    """The layers."""
    maps: str
    """Path of the index maps: which units and inputs of the original are left."""
    notes: list[str]
    """What was kept although the mask has cut it off, and why."""
    largest_difference: float
    """Largest difference of an output on noise from the whole network's, in float64, relative to the largest."""


class Claims(TypedDict):
    """What a compact file says of itself. Nobody has checked it."""

    file: str
    """Path of the compact file."""
    said: dict[str, Scalar]
    """Its entries, such as data, model and test_accuracy; only text, numbers, true and false."""


class Shipment(TypedDict):
    """One shipped network."""

    winticket: str
    """Version of winticket that wrote it."""
    file: str
    """Path of the file."""
    beside: list[str]
    """Paths of the files that belong to it, such as a header; the card apart."""
    card: str
    """Path of the model card."""
    format: str
    """`safetensors` (a compact file), `torch` (state dict), `onnx`, `tflite`, `tflite-sparse`, `c`, `hub` (a folder),
    `web` (a page)."""
    values: str
    """How kept values are stored: `fp32`, `fp16`, `bf16` or `int8`."""
    bytes: int
    """Size of the file."""
    dense_bytes: int
    """Size of the dense network's state dict as a safetensors file."""
    parts: Bytes | None
    """What the bytes are; null in other formats than the compact file."""
    memory: Memory | None
    """What it takes of a microcontroller's memory; null in other formats than C."""
    weights: int
    """Weights in matrices and filters, pruned or not."""
    kept: int
    """Those that are kept."""
    shrunk: Removed | None
    """What was removed; null without `--shrink`."""
    origin: Origin | None
    """The training that it comes from; null if it was made of a compact file."""
    claims: Claims | None
    """What that compact file says of itself; null if it comes from a training."""
    read_back: ReadBack | None
    """The file on test data; null if these cannot be read."""
    not_evaluated: str | None
    """Why it was not evaluated."""
    noise_difference: float | None
    """Without test data: largest difference of a logit on noise from the network's, relative to the largest; null if it
    was not computed."""
    use: list[str]
    """Lines of code that use the file: C for C, else Python."""
