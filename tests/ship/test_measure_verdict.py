"""The verdict of `winticket measure`, on times that are made up: a clock that only the runtimes move."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from winticket.ship import Network, Operation, Weight, measure_runtimes
from winticket.ship.measure import measure
from winticket.ship.measure_runtimes import ENGINE, Bind, Bound, Files, Runtime
from winticket.ship.measure_text import head, how, sentences
from winticket.ship.measurement import Measurement

Micro = Callable[[int], float]
"""Round, from 0 -> microseconds of a call."""


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Measurement]:
    """Measures runtimes whose calls take the named times; in `bf16`, those that compute in bfloat16, 2 % off."""

    def of(
        times: dict[str, Micro],
        *,
        bf16: tuple[str, ...] = (),
        sparse: tuple[str, ...] = (),
        rounds: int = 9,
    ) -> Measurement:
        now, at = [0.0], [0]

        def load(name: str) -> Callable[[Files, int], Bind]:
            def compute() -> None:
                now[0] += times[name](at[0]) / 1e6

            factor = np.float32(0.98 if name in bf16 else 1)
            return lambda files, threads: lambda x: Bound(compute, lambda: factor * x)

        every = {
            name: Runtime(name, "made up", "numpy", load(name), name not in bf16, name not in sparse)
            for name in times
        }
        monkeypatch.setattr(measure_runtimes, "RUNTIMES", every)

        def progress(what: str, _: float) -> None:
            at[0] += what == "batch 1"  # after every round

        fc = {"weight": Weight.of("fc", np.eye(4))}
        network = Network((4,), (Operation("linear", ("input",), "1", tensors=fc),))
        return measure(
            network,
            batches=(1,),
            rounds=rounds,
            memory=False,
            energy=False,
            clock=lambda: now[0],
            progress=progress,
        )

    return of


def told(made: Measurement) -> str:
    return " ".join(sentences(made))


def test_faster_if_the_whole_interval_is_above_one(measured: Callable[..., Measurement]) -> None:
    made = measured({ENGINE: lambda _: 10, "slow": lambda _: 70, "quick": lambda at: 25 + 5 * (at % 3)})
    (best,) = made["best"]
    assert (best["runtime"], best["other"], best["verdict"]) == (ENGINE, "quick", "faster")
    rows = {row["runtime"]: row for row in made["timings"]}
    assert rows[ENGINE]["microseconds"]["median"] == pytest.approx(10)
    assert rows["slow"]["engine_faster"]["median"] == pytest.approx(7)
    assert rows["slow"]["per_second"] == pytest.approx(1e6 / 70)
    against = best["engine_faster"]
    assert against is not None
    # Nine ratios, 2.5, 3 and 3.5 three times each; the interval is from the second to the eighth.
    assert list(against.values()) == pytest.approx([3.0, 2.5, 3.5])
    assert told(made) == (
        "Batch 1: the sparse engine is 3 times as fast as quick, the fastest other runtime in float32 (95 % interval "
        "2.5 to 3.5)."
    )


def test_slower_if_the_whole_interval_is_below_one(measured: Callable[..., Measurement]) -> None:
    made = measured({ENGINE: lambda _: 20, "dense": lambda at: 8 + 2 * (at % 3), "slow": lambda _: 30})
    (best,) = made["best"]
    assert (best["runtime"], best["other"], best["verdict"]) == ("dense", "dense", "slower")
    assert told(made) == (
        "Batch 1: no faster than dense here. dense takes 0.5 times as long (95 % interval 0.4 to 0.6)."
    )


def test_nothing_is_called_dense_that_leaves_weights_out(measured: Callable[..., Measurement]) -> None:
    times: dict[str, Micro] = {ENGINE: lambda _: 20, "shrunk": lambda _: 10, "dense": lambda _: 40}
    assert told(measured(times, sparse=("shrunk",))) == (
        "Batch 1: no faster than shrunk here. shrunk takes 0.5 times as long (95 % interval 0.5 to 0.5)."
    )
    times["dense"] = lambda _: 16
    assert told(measured(times, sparse=("shrunk",))) == (
        "Batch 1: no faster than shrunk here. shrunk takes 0.5 times as long (95 % interval 0.5 to 0.5). Batch 1: no "
        "faster than dense here either. dense takes 0.8 times as long (95 % interval 0.8 to 0.8)."
    )


def test_of_few_rounds_the_range_is_no_interval_at_95_percent(measured: Callable[..., Measurement]) -> None:
    times: dict[str, Micro] = {ENGINE: lambda _: 10, "dense": lambda at: 20 + 10 * at}
    few, enough = measured(times, rounds=5), measured(times, rounds=6)
    assert told(few).endswith("runtime in float32 (range 2 to 6).")
    assert told(enough).endswith("runtime in float32 (95 % interval 2 to 7).")
    assert "with its range." in how(few)
    assert "with its 95 % interval." in how(enough)
    assert head(few)[1:4] == ("µs (range)", "examples/s", "× engine (range)")
    assert head(enough)[1] == "µs (95 %)"


def test_alike_if_the_interval_includes_one(measured: Callable[..., Measurement]) -> None:
    """Also if the median is far above 1: two of nine rounds decide the ends."""
    made = measured({ENGINE: lambda _: 10, "dense": lambda at: 9.0 if at in (2, 5) else 30.0})
    (best,) = made["best"]
    assert (best["runtime"], best["other"], best["verdict"]) == (ENGINE, "dense", "alike")
    assert told(made) == (
        "Batch 1: no faster than dense here: it takes 3 times as long as the sparse engine, and the interval includes "
        "1 (95 % interval 0.9 to 3)."
    )


def test_a_machine_that_is_slow_for_a_round_slows_no_verdict(measured: Callable[..., Measurement]) -> None:
    def slow(at: int) -> float:
        return 50.0 if at % 2 else 1.0

    made = measured({ENGINE: lambda at: 10 * slow(at), "dense": lambda at: 12 * slow(at)})
    (best,) = made["best"]
    assert best["verdict"] == "faster"
    assert best["engine_faster"] == pytest.approx({"median": 1.2, "low": 1.2, "high": 1.2})


def test_bfloat16_decides_nothing_and_is_named_if_it_is_faster(measured: Callable[..., Measurement]) -> None:
    times: dict[str, Micro] = {
        ENGINE: lambda _: 10,
        "exact": lambda _: 20,
        "half": lambda _: 5,
        "lame": lambda _: 40,
    }
    made = measured(times, bf16=("half", "lame"))
    (best,) = made["best"]
    assert (best["runtime"], best["other"], best["verdict"]) == ("half", "exact", "faster")
    assert told(made) == (
        "Batch 1: the sparse engine is 2 times as fast as exact, the fastest other runtime in float32 (95 % interval "
        "2 to 2). Batch 1: half takes 0.5 times as long as the sparse engine (95 % interval 0.5 to 0.5). It may round "
        "to bfloat16: outputs differ by 2 % of the largest."
    )


def test_nothing_is_said_without_another_runtime(measured: Callable[..., Measurement]) -> None:
    made = measured({ENGINE: lambda _: 10, "half": lambda _: 20}, bf16=("half",))
    (best,) = made["best"]
    assert (best["runtime"], best["other"], best["verdict"], best["engine_faster"]) == (
        ENGINE,
        None,
        "alone",
        None,
    )
    assert told(made) == (
        "Batch 1: there is nothing to compare the sparse engine with; no other runtime in float32 was measured."
    )
