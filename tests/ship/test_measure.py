"""Measuring: medians and their intervals, turns, what is counted, and every runtime that is installed."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch

from drawn import Seeded, drawn
from in_torch import values
from inferring import captured, weight
from winticket.ship import Network, Operation, Weight, measure_runtimes, run
from winticket.ship.measure import measure, operations
from winticket.ship.measure_module import traced
from winticket.ship.measure_runtimes import ENGINE, Files, chosen
from winticket.ship.measure_text import sentences
from winticket.ship.measure_timing import interleaved, median, ratio
from winticket.ship.native import missing

needs_engine = pytest.mark.skipif(bool(missing), reason=f"no compiled inference: {missing}")


def test_the_interval_of_a_median_covers_it_in_95_of_100_draws() -> None:
    rng = np.random.default_rng(0)
    for count in (6, 9, 21):
        draws = [median(rng.exponential(size=count).tolist()) for _ in range(2000)]
        covered = sum(one.low <= np.log(2) <= one.high for one in draws) / 2000
        # The sign test is conservative: with six numbers it covers 97 %, the spread of a share of 2000 being 0.5 %.
        assert 0.94 <= covered <= 0.995


def test_intervals_of_few_numbers_are_their_range() -> None:
    assert median([3.0]).low == median([3.0]).high == 3.0
    one = median([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (one.low, one.middle, one.high) == (1.0, 3.0, 5.0)
    # Conover's table: the 95 % interval of 21 numbers is from the sixth to the sixteenth.
    assert median([float(n) for n in range(1, 22)]) == median([float(n) for n in range(21, 0, -1)])
    assert (median(range(1, 22)).low, median(range(1, 22)).high) == (6, 16)


def test_ratios_are_of_the_same_round() -> None:
    # A machine that is ten times as slow in one round does not change them.
    assert ratio([2.0, 20.0, 2.0], [1.0, 10.0, 1.0]).high == 2.0


def test_every_computation_takes_its_turn_in_every_round() -> None:
    seen: list[str] = []
    shares: list[float] = []
    calls = {name: lambda name=name: seen.append(name) for name in ("a", "b", "c")}
    times = interleaved(calls, rounds=4, progress=shares.append)
    turns = [name for at, name in enumerate(seen) if at == 0 or seen[at - 1] != name]
    warm_up, rounds = "abc", "abc" + "bca" + "cab" + "abc"
    assert "".join(turns) == warm_up + rounds
    assert {name: len(one) for name, one in times.items()} == {"a": 4, "b": 4, "c": 4}
    assert all(second > 0 for one in times.values() for second in one)
    assert shares == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize("part", range(4))
def test_the_torch_module_of_a_network_computes_it(part: int) -> None:
    for seed in range(part, 120, 4):
        network = drawn(Seeded(seed))
        x = np.random.default_rng(seed).standard_normal((2, *network.input_shape)).astype(np.float32)
        made = values(network, x)
        with torch.inference_mode():
            got = traced(network)(torch.from_numpy(x)).numpy()
        exact = made[network.output]
        limit = 1e-5 * np.abs(exact).max() + 3e-6 * max(np.abs(value).max() for value in made.values())
        assert got.shape == exact.shape, seed
        assert np.abs(got - exact).max() <= limit, seed


def test_operations_of_layers_at_every_position() -> None:
    conv = {"weight": weight("w", 6, 4, 3, 3, density=0.5)}
    network = Network(
        (4, 8, 8),
        (
            Operation("conv2d", ("input",), "1", {"stride": [2, 2], "padding": [[1, 1], [1, 1]]}, conv),
            Operation("reshape", ("1",), "2", {"shape": [96]}),
            Operation("linear", ("2",), "3", tensors={"weight": weight("fc", 5, 96)}),
        ),
    )
    kept = len(conv["weight"].values)
    assert operations(network, dense=True) == 2 * (16 * 6 * 4 * 9 + 5 * 96)
    assert operations(network) == 2 * (16 * kept + 5 * 96)


def test_names_and_numbers_are_checked_first() -> None:
    network = captured("lenet-30-20", (1, 8, 8), 0.1)
    with pytest.raises(ValueError, match=r"there is no runtime 'tensorflow'.*there are sparse engine, torch"):
        chosen(["tensorflow"])
    with pytest.raises(ValueError, match=r"batches are of 1 example or more, not \[0\]"):
        measure(network, batches=(0,))
    with pytest.raises(ValueError, match=r"rounds and threads are 1 or more, not 0 and 1"):
        measure(network, rounds=0)
    with pytest.raises(ValueError, match=r"inputs must be \[N, 1, 8, 8\], not \[3, 64\]"):
        measure(network, np.zeros((3, 64), np.float32))


@needs_engine
def test_a_network_is_measured_by_what_is_installed() -> None:
    network = captured("lenet-30-20", (1, 8, 8), 0.1)
    said: list[tuple[str, float]] = []
    names = ["torch", "torch shrunk", "onnxruntime"]
    made = measure(network, batches=(1, 5), rounds=3, runtimes=names, progress=lambda *one: said.append(one))
    measured = [name for name in (ENGINE, *names) if name not in made["missing"]]
    assert set(made["missing"]) <= {"onnxruntime"}
    assert [(row["batch"], row["runtime"]) for row in made["timings"]] == [
        (b, n) for b in (1, 5) for n in measured
    ]
    for row in made["timings"]:
        time, against = row["microseconds"], row["engine_faster"]
        assert 0 < time["low"] <= time["median"] <= time["high"]
        assert against["low"] <= against["median"] <= against["high"]
        assert row["per_second"] == pytest.approx(1e6 * row["batch"] / time["median"])
        assert row["difference"] <= 1e-4
        assert (row["engine_faster"]["median"] == 1) == (row["runtime"] == ENGINE)
    assert made["kept"] == network.kept()[0]
    assert made["bytes"]["compact"] < made["bytes"]["dense"]
    assert said[-1] == ("batch 5", 1.0)
    shares = [share for _, share in said]
    assert shares == sorted(shares)


@needs_engine
def test_torch_has_as_many_threads_afterwards_as_before() -> None:
    network = captured("lenet-30-20", (1, 8, 8), 0.1)
    before = torch.get_num_threads()
    try:
        for threads, runtimes in ((3, ["torch"]), (3, ["torch", "nonsense"])):
            torch.set_num_threads(threads)
            with contextlib.suppress(ValueError):
                measure(network, batches=(1,), rounds=1, runtimes=runtimes, memory=False, energy=False)
            assert torch.get_num_threads() == threads
        with pytest.raises(KeyboardInterrupt):
            measure(network, batches=(1,), rounds=1, runtimes=["torch"], memory=False, progress=_interrupt)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def _interrupt(what: str, _: float) -> None:
    if what == "batch 1":  # when all are prepared
        raise KeyboardInterrupt


@needs_engine
def test_memory_is_that_of_a_process_with_one_runtime() -> None:
    network = captured("lenet-30-20", (1, 8, 8), 0.1)
    memory = measure(network, batches=(1,), rounds=1, runtimes=["torch"])["memory"]
    engine, torch_alone = memory[ENGINE], memory["torch"]
    assert engine is not None
    assert torch_alone is not None
    # An interpreter with numpy takes some tens of MB; torch alone is several times as large.
    assert 10e6 < engine < torch_alone / 2


@needs_engine
def test_what_is_cut_off_takes_no_memory() -> None:
    """Shrinking takes the dense network's memory, and more; so it is done before, in another process."""
    keep = np.zeros((12_000, 784), bool)
    keep[:20, ::2] = True
    layers = (
        Operation("linear", ("input",), "1", tensors={"weight": Weight.of("a", np.ones(keep.shape), keep)}),
        Operation("relu", ("1",), "2"),
        Operation("linear", ("2",), "3", tensors={"weight": weight("b", 3, 12_000)}),
    )
    made = measure(
        Network((784,), layers), batches=(1,), rounds=1, runtimes=["torch", "torch shrunk"], energy=False
    )
    dense, shrunk = made["memory"]["torch"], made["memory"]["torch shrunk"]
    assert dense is not None
    assert shrunk is not None
    assert dense - shrunk > 0.9 * made["bytes"]["dense"]


def test_the_shrunk_module_computes_the_network_without_what_is_cut_off(tmp_path: Path) -> None:
    network = captured("lenet-30-20", (1, 8, 8), 0.05)
    narrow, read = Files(network, tmp_path).read_shrunk()
    module = traced(narrow, read)
    # A process that is given the folder alone reads the same.
    again, same = Files(None, tmp_path).read_shrunk()
    assert again.weights().keys() == narrow.weights().keys()
    assert {name: one.tolist() for name, one in same.items()} == {
        name: one.tolist() for name, one in read.items()
    }
    x = np.random.default_rng(1).standard_normal((5, 1, 8, 8)).astype(np.float32)
    with torch.inference_mode():
        got = module(torch.from_numpy(x)).numpy()
    assert got == pytest.approx(run(network, x), rel=1e-4, abs=1e-5)
    (first,) = read.values()
    assert next(p.shape[1] for p in module.parameters() if p.ndim == 2) == len(first) < 64
    assert sum(p.numel() for p in module.parameters()) < 0.9 * sum(w.size for w in network.weights().values())


@needs_engine
def test_a_runtime_that_fails_at_a_later_batch_size_is_said_to_be_measured_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def small(files: Files, threads: int) -> measure_runtimes.Bind:
        bind = measure_runtimes.RUNTIMES[ENGINE].load(files, threads)

        def some(x: np.ndarray) -> measure_runtimes.Bound:
            if len(x) > 1:
                raise RuntimeError("too many examples")
            return bind(x)

        return some

    one = measure_runtimes.Runtime("small", "of a test", "numpy", small)
    monkeypatch.setitem(measure_runtimes.RUNTIMES, "small", one)
    made = measure(
        captured("lenet-30-20", (1, 8, 8), 0.1),
        batches=(1, 2, 3),
        rounds=1,
        runtimes=["small"],
        memory=False,
        energy=False,
    )
    assert [row["batch"] for row in made["timings"] if row["runtime"] == "small"] == [1]
    assert "numpy" in made["versions"]
    assert (
        list(sentences(made))[-1]
        == "Measured at batch 1 alone: small, since then it failed: too many examples."
    )


@needs_engine
def test_a_runtime_that_fails_or_lies_is_named_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> measure_runtimes.Bind:
        raise RuntimeError("no such device\nand more")

    def lying(files: measure_runtimes.Files, threads: int) -> measure_runtimes.Bind:
        bind = measure_runtimes.RUNTIMES[ENGINE].load(files, threads)

        def other(x: np.ndarray) -> measure_runtimes.Bound:
            one = bind(x)
            return measure_runtimes.Bound(one.compute, lambda: 2 * one.outputs())

        return other

    for name, load in (("broken", broken), ("lying", lying)):
        one = measure_runtimes.Runtime(name, "of a test", "numpy", load)
        monkeypatch.setitem(measure_runtimes.RUNTIMES, name, one)
    absent = measure_runtimes.Runtime("absent", "of a test", "winticket-no-such-package", broken)
    monkeypatch.setitem(measure_runtimes.RUNTIMES, "absent", absent)
    network = captured("lenet-30-20", (1, 8, 8), 0.1)
    made = measure(network, batches=(1, 2), rounds=1, runtimes=["broken", "lying", "absent"], memory=False)
    assert made["missing"] == {
        "broken": "it failed: no such device",
        "lying": "outputs differ by 1 of the largest one",
        "absent": "winticket-no-such-package is not installed",
    }
    assert {row["runtime"] for row in made["timings"]} == {ENGINE}
    assert made["best"][0]["other"] is None
    assert made["best"][0]["verdict"] == "alone"
