"""What `winticket measure` finds, as its JSON document."""

from __future__ import annotations

from typing import TypedDict


class Interval(TypedDict):
    """A median with its 95 % interval; up to five rounds, with their range."""

    median: float
    low: float
    high: float


class Timing(TypedDict):
    """One runtime at one batch size."""

    batch: int
    runtime: str
    exact: bool
    """Whether it computes in float32; if not, it may round to bfloat16."""
    dense: bool
    """Whether it multiplies with every weight of the network, those that are 0 included."""
    microseconds: Interval
    """Of a call, which computes the batch."""
    per_second: float
    """Examples per second, of the median."""
    engine_faster: Interval
    """How many times as long it takes as the sparse engine in the same round."""
    difference: float
    """Largest difference of a logit from the sparse engine's, relative to the largest logit."""


class Best(TypedDict):
    """What is fastest at one batch size."""

    batch: int
    runtime: str
    """The fastest of all, by its median."""
    other: str | None
    """The fastest other runtime in float32; null if none was measured."""
    engine_faster: Interval | None
    """How many times as long that one takes as the sparse engine."""
    verdict: str
    """The sparse engine against that one, by the interval: faster, slower or alike; alone if there is no other."""


class Bytes(TypedDict):
    """Sizes in bytes."""

    compact: int
    """The compact file, in fp32."""
    dense: int
    """All elements of all tensors as float32."""


class EnergyRow(TypedDict):
    """The energy of one runtime at one batch size, as the counters had it."""

    batch: int
    runtime: str
    joules_per_example: Interval
    """Measured: of the whole processor while it computes, divided by the examples."""
    watts: Interval
    """Measured: the power of the whole processor while it computes."""


class MeasuredEnergy(TypedDict):
    """What energy counters gave. They count the whole processor, and so whatever else runs on it."""

    counters: str
    """Which counters, and what read them."""
    rounds: int
    """Turns of each runtime."""
    seconds: float
    """Of a turn, at least."""
    idle_watts: Interval
    """Measured: the power of the whole processor in between, while nothing of this is computed."""
    rows: list[EnergyRow]


class Between(TypedDict):
    """From, to."""

    low: float
    high: float


class Estimated(TypedDict):
    """An estimate for one example. Nothing of it is measured."""

    multiplications: int
    """Of Linear layers and convolutions."""
    additions: int
    weight_bytes: int
    """Bytes of weights that an example reads, if it reads each once."""
    estimated_joules_of_operations: float
    """Of the multiplications and additions alone."""
    estimated_joules_from_sram: float | None
    """With the weights read from an SRAM of 1 MB; null if they do not fit."""
    estimated_joules_from_dram: Between
    """With the weights read from DRAM."""


class Estimate(TypedDict):
    """An estimate by published energies."""

    assumptions: str
    """What it counts, by which figures, and what it leaves out."""
    kept: Estimated
    """With the kept weights."""
    dense: Estimated
    """With all weights."""


class Energy(TypedDict):
    """Joules by counters; if there are none that can be read, the reason and an estimate."""

    measured: MeasuredEnergy | None
    not_measured: str | None
    """Why it was not measured."""
    estimate: Estimate | None
    """Null if it was measured."""


class Measurement(TypedDict):
    """What `winticket measure` prints with --json."""

    winticket: str
    network: str
    density: float
    """Kept weights / all, of tensors with two axes or more."""
    weights: int
    kept: int
    bytes: Bytes
    operations: int
    """Multiplications and additions of one example with the kept weights, each counted."""
    dense_operations: int
    """The same with all weights."""
    memory: dict[str, int | None]
    """By runtime, peak bytes of a process that loads the network and computes one example, with its libraries.

    Null if that is not known."""
    energy: Energy
    timings: list[Timing]
    best: list[Best]
    missing: dict[str, str]
    """Runtimes that were not measured, or at the first batch sizes alone, and why."""
    threads: int
    rounds: int
    processor: str
    versions: dict[str, str]
