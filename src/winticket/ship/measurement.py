"""What `winticket measure` finds, as its JSON document."""

from __future__ import annotations

from typing import TypedDict


class Interval(TypedDict):
    """A median with its 95 % interval."""

    median: float
    low: float
    high: float


class Timing(TypedDict):
    """One runtime at one batch size."""

    batch: int
    runtime: str
    exact: bool
    """Whether it computes in float32; if not, in bfloat16."""
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
    timings: list[Timing]
    best: list[Best]
    missing: dict[str, str]
    """Runtimes that were not measured, and why."""
    threads: int
    rounds: int
    processor: str
    versions: dict[str, str]
