"""Threads that share a SparseModel: calls are computed at once, and none stops Python's other threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from inferring import examples, weight
from winticket.ship import Network, Operation, SparseModel, native, run
from winticket.ship.engine import BRIEF

pytestmark = pytest.mark.skipif(bool(native.missing), reason=str(native.missing))
AT_ONCE = 4
"""Calls that the engine computes at once."""


@pytest.fixture(scope="module")
def model() -> SparseModel:
    """Its inputs are small beside what is computed of them, and a single example takes some ten microseconds."""
    layers = (
        Operation("linear", ("input",), "1", tensors={"weight": weight("a", 1000, 8)}),
        Operation("linear", ("1",), "2", tensors={"weight": weight("b", 1000, 1000, density=0.05)}),
        Operation("linear", ("2",), "3", tensors={"weight": weight("c", 8, 1000)}),
    )
    made = SparseModel(Network((8,), layers), example=examples(64, (8,)))
    made(examples(1, (8,)))
    assert 0 < made.plan(1).numbers("microseconds").sum() < BRIEF
    return made


def lasting(model: SparseModel, seconds: float) -> npt.NDArray[Any]:
    """A batch that takes about so long."""
    x = examples(2000, model.network.input_shape)
    start = time.perf_counter()
    model(x)
    return np.tile(x, (max(1, round(seconds / (time.perf_counter() - start))), 1))


@contextmanager
def computing(model: SparseModel, x: npt.NDArray[Any], count: int) -> Iterator[Callable[[], bool]]:
    """So many threads compute a batch meanwhile; gives what says whether all still do."""
    begun = threading.Barrier(count + 1)

    def call() -> None:
        begun.wait()
        model(x)

    threads = [threading.Thread(target=call) for _ in range(count)]
    for thread in threads:
        thread.start()
    begun.wait()
    time.sleep(0.05)
    yield lambda: all(thread.is_alive() for thread in threads)
    for thread in threads:
        thread.join()


def test_a_single_example_does_not_wait_for_a_batch(model: SparseModel) -> None:
    x = lasting(model, 0.6)
    start = time.perf_counter()
    with computing(model, x, 1):
        begun = time.perf_counter()
        for _ in range(20):
            model(x[:1])
        singles = time.perf_counter() - begun
    assert singles < (time.perf_counter() - start) / 4


def test_python_goes_on_while_a_call_waits_for_its_turn(model: SparseModel) -> None:
    """All that may compute at once do, so the single example waits; who merely sleeps and counts does not."""
    x = lasting(model, 0.6)
    with computing(model, x, AT_ONCE) as still:
        single = threading.Thread(target=model, args=(x[:1],))
        single.start()
        ticks = 0
        while single.is_alive() and ticks < 20:
            time.sleep(0.001)
            ticks += 1
        assert still()
        assert ticks == 20
        single.join()


def test_python_goes_on_during_a_long_single_example() -> None:
    pad = {"padding": [[1, 1], [1, 1]]}
    layer = Operation("conv2d", ("input",), "1", pad, {"weight": weight("c", 32, 32, 3, 3)})
    network = Network((32, 128, 128), (layer,))
    x = examples(1, network.input_shape)
    model = SparseModel(network, example=x)
    assert model.plan(1).numbers("microseconds").sum() > 5 * BRIEF
    call = threading.Thread(target=lambda: [model(x) for _ in range(8)])
    call.start()
    ticks = 0
    while call.is_alive():
        time.sleep(0.0005)
        ticks += 1
    assert ticks > 10  # one between two calls would be 8


def test_calls_of_many_threads_give_their_own_outputs(model: SparseModel) -> None:
    """More threads than are computed at once, single examples and batches, also while kernels are still measured."""
    fresh = SparseModel(model.network, threads=2)
    batches = [examples(count, (8,), seed=count) for count in (1, 2, 7, 64, 1, 130, 16, 1, 3)] * 3
    with ThreadPoolExecutor(len(batches)) as pool:
        for x, got in zip(batches, pool.map(fresh, batches), strict=True):
            np.testing.assert_allclose(got, run(model.network, x, dtype=np.float64), rtol=1e-4, atol=1e-4)
