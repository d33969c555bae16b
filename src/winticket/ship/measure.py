"""Measure a shipped network: its size and operations, and how fast every runtime on this machine computes it."""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np

from winticket.ship.measure_energy import Meter
from winticket.ship.measure_energy import seconds as energy_seconds
from winticket.ship.measure_estimate import products
from winticket.ship.measure_memory import peak
from winticket.ship.measure_runtimes import ENGINE, Bound, Files, Runtime, chosen
from winticket.ship.measure_timing import interleaved, median, ratio
from winticket.ship.measurement import Best, Measurement, Timing
from winticket.ship.network import Floats, Network
from winticket.version import __version__

BATCHES = (1, 16, 64)
ROUNDS = 21
AGREE = {True: 1e-4, False: 0.1}
"""Largest difference of a logit, relative to the largest: of exact runtimes (rounding), and of bfloat16."""
SECONDS = 0.012
"""About how long a turn takes, of a call that takes no longer than a burst."""
TIMING = 0.15
"""About the share of times in times and energy."""


Progress = Callable[[str, float], object]
"""Called with what is being done, and the share of all that is done."""


def measure(
    network: Network,
    x: Floats | None = None,
    *,
    batches: Sequence[int] = BATCHES,
    rounds: int = ROUNDS,
    threads: int = 1,
    runtimes: list[str] | None = None,
    memory: bool = True,
    energy: bool = True,
    clock: Callable[[], float] = time.perf_counter,
    progress: Progress = lambda *_: None,
) -> Measurement:
    """Compute the network by every runtime in turns, and compare their times.

    x         inputs [N, *input_shape], preprocessed; default: noise. Kernels that skip zeros need true ones
    batches   examples that a call computes
    rounds    turns of each runtime
    memory    whether to start a process for each runtime to see how much it takes
    energy    whether to measure joules, if this machine has energy counters that can be read; else there is an estimate
    clock     of seconds; `time.process_time`, of this process alone, is for busy machines and one thread
    runtimes  names of `measure_runtimes.RUNTIMES` to measure beside the sparse engine; default: those installed

    A runtime that cannot be measured, or that computes something else, is named with the reason; at the batch sizes
    before, if there are any, it has been measured. Raises ValueError for
    a name or a number that is not possible.
    """
    check(batches, rounds, threads, runtimes)
    every = chosen(runtimes)
    with tempfile.TemporaryDirectory() as folder, _torch_as_it_was(every):
        bench = _Bench(Files(network, Path(folder)), every, threads)
        meter = Meter(wanted=energy)
        timings: list[Timing] = []
        for number, batch in enumerate(batches):
            share = _part(progress, number / len(batches), (number + 1) / len(batches))
            bound = bench.bound(_inputs(network, x, batch), share)
            part = 1.0 if meter.counter is None else TIMING
            timings += _timed(batch, bound, rounds, clock=clock, progress=_part(share, 0.0, part))
            calls = {name: taken.bound.compute for name, taken in bound.items()}
            meter.measure(batch, calls, partial(_part(share, part, 1.0), f"batch {batch}: energy"))
        measured = [one for one in bench.runtimes if any(row["runtime"] == one.name for row in timings)]
        used = {one.name: peak(one, bench.files, threads) for one in measured} if memory else {}
        size = bench.files.compact.stat().st_size
    kept, weights = network.kept()
    return {
        "winticket": __version__,
        "network": repr(network),
        "density": kept / weights if weights else 1.0,
        "weights": weights,
        "kept": kept,
        "bytes": {"compact": size, "dense": _dense_bytes(network)},
        "operations": operations(network),
        "dense_operations": operations(network, dense=True),
        "memory": used,
        "energy": meter.energy(network),
        "timings": timings,
        "best": [_best(batch, timings) for batch in batches],
        "missing": bench.missing,
        "threads": threads,
        "rounds": rounds,
        "processor": processor(),
        "versions": {"python": platform.python_version()}
        | {one.package: version(one.package) for one in measured},
    }


def _dense_bytes(network: Network) -> int:
    return 4 * sum(weight.size for weight in network.weights().values())


@contextmanager
def _torch_as_it_was(runtimes: Sequence[Runtime]) -> Iterator[None]:
    """Give torch back the number of threads that it has, which is one for the whole process."""
    if all(one.package != "torch" or one.missing() for one in runtimes):
        yield
        return
    torch = import_module("torch")
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def check(batches: Sequence[int], rounds: int, threads: int, runtimes: list[str] | None) -> None:
    """ValueError for a number or a name of a runtime that is not possible."""
    chosen(runtimes)
    if not batches or min(batches) < 1:
        raise ValueError(f"batches are of 1 example or more, not {list(batches)}")
    if len(set(batches)) < len(batches):
        raise ValueError(f"a batch size is measured once, but there are {list(batches)}")
    if min(rounds, threads) < 1:
        raise ValueError(f"rounds and threads are 1 or more, not {rounds} and {threads}")


def seconds(
    batches: Sequence[int] = BATCHES, rounds: int = ROUNDS, count: int = 8, *, energy: bool = False
) -> float:
    """About how long `count` runtimes take whose calls are short, without loading and compiling.

    energy: whether joules are measured too.

    >>> round(seconds((1, 64), rounds=20, count=5))
    3
    """
    each = count * (rounds * SECONDS + 0.06) + (energy_seconds(count) if energy else 0.0)
    return len(batches) * each


def operations(network: Network, *, dense: bool = False) -> int:
    """Multiplications and additions of one example, of Linear layers and convolutions, with the kept weights or all.

    >>> from winticket.ship import Network, Operation, Weight
    >>> weight = Weight.of("fc", np.ones((2, 3)), np.array([[True, False, False], [True, True, False]]))
    >>> network = Network((3,), (Operation("linear", ("input",), "1", tensors={"weight": weight}),))
    >>> operations(network), operations(network, dense=True)
    (6, 12)
    """
    return 2 * sum(products(network, operation, dense=dense) for operation in network.operations)


def _inputs(network: Network, x: Floats | None, batch: int) -> Floats:
    """A batch of the examples, over again if they are too few."""
    if x is None:
        noise = np.random.default_rng(0).standard_normal((batch, *network.input_shape))
        return np.asarray(noise, np.float32)
    if not len(x) or x.shape[1:] != network.input_shape:
        raise ValueError(
            f"inputs must be [N, {', '.join(map(str, network.input_shape))}], not {list(x.shape)}"
        )
    return np.ascontiguousarray(x[np.arange(batch) % len(x)], np.float32)


def _part(progress: Progress, low: float, high: float) -> Progress:
    """Reports the progress of a part that goes from the share `low` of all to `high`."""
    return lambda what, done: progress(what, low + (high - low) * done)


class _Bench:
    """The runtimes and, by name, why some of them are missing."""

    def __init__(self, files: Files, runtimes: Sequence[Runtime], threads: int) -> None:
        self.files, self.runtimes, self.threads = files, runtimes, threads
        self.missing = {one.name: reason for one in runtimes if (reason := one.missing())}

    def bound(self, x: Floats, progress: Progress) -> dict[str, _Taken]:
        """Every runtime with its inputs, the sparse engine first; those that fail become `missing`.

        What failed at one batch size is tried at no later one.
        """
        bound: dict[str, _Taken] = {}
        expected: Floats | None = None
        for runtime in self.runtimes:
            if runtime.name in self.missing:
                continue
            progress(f"batch {len(x)}: preparing {runtime.name}", 0.0)
            try:
                one = runtime.load(self.files, self.threads)(x)
                for _ in range(2):  # the second shows whether it has overwritten its inputs
                    one.compute()
                computed = np.array(one.outputs())
            except Exception as error:  # whatever a library that is not ours may raise
                if runtime.name == ENGINE:
                    raise
                lines = str(error).strip().splitlines() or [type(error).__name__]
                self.missing[runtime.name] = f"it failed: {lines[0]}"
                continue
            expected = computed if expected is None else expected
            difference = float(np.abs(computed - expected).max() / max(np.abs(expected).max(), 1e-9))
            if difference <= AGREE[runtime.exact]:
                bound[runtime.name] = _Taken(runtime, one, difference)
            else:
                self.missing[runtime.name] = f"outputs differ by {difference:.2g} of the largest one"
        return bound


class _Taken(NamedTuple):
    """A runtime that takes part, with its inputs, and by how much its outputs differ from the sparse engine's."""

    runtime: Runtime
    bound: Bound
    difference: float


def _timed(
    batch: int,
    bound: dict[str, _Taken],
    rounds: int,
    *,
    clock: Callable[[], float],
    progress: Progress,
) -> list[Timing]:
    calls = {name: taken.bound.compute for name, taken in bound.items()}
    times = interleaved(calls, rounds=rounds, progress=partial(progress, f"batch {batch}"), clock=clock)
    timings: list[Timing] = []
    for name, (runtime, _, difference) in bound.items():
        micro = median([1e6 * t for t in times[name]])
        against = ratio(times[name], times[ENGINE])
        timings.append(
            {
                "batch": batch,
                "runtime": name,
                "exact": runtime.exact,
                "dense": runtime.dense,
                "microseconds": {"median": micro.middle, "low": micro.low, "high": micro.high},
                "per_second": 1e6 * batch / micro.middle,
                "engine_faster": {"median": against.middle, "low": against.low, "high": against.high},
                "difference": difference,
            }
        )
    return timings


def _best(batch: int, timings: Sequence[Timing]) -> Best:
    rows = sorted(
        (row for row in timings if row["batch"] == batch), key=lambda row: row["microseconds"]["median"]
    )
    others = [row for row in rows if row["exact"] and row["runtime"] != ENGINE]
    against = others[0]["engine_faster"] if others else None
    verdict = "alike" if against else "alone"
    if against and against["low"] > 1:
        verdict = "faster"
    elif against and against["high"] < 1:
        verdict = "slower"
    return {
        "batch": batch,
        "runtime": rows[0]["runtime"],
        "other": others[0]["runtime"] if others else None,
        "engine_faster": against,
        "verdict": verdict,
    }


def processor() -> str:
    """The processor's name, as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
