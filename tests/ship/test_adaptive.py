"""Adaptive average pools: PyTorch's windows everywhere, and no more memory than the values take."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from inferring import agree, examples
from winticket.ship import Network, Operation, SparseModel, native, run
from winticket.ship.adaptive import alike, ends, means, means_bytes

SIZES = [(1, 1), (5, 1), (1, 5), (7, 3), (3, 7), (8, 8), (12, 4), (31, 30), (30, 31)]


def pool(length: int, *sizes: int) -> Network:
    shape = (2, *(length + n for n in range(len(sizes))))
    kind = f"adaptive_avg_pool{len(sizes)}d"
    return Network(shape, (Operation(kind, ("input",), "1", {"size": list(sizes)}),))


@pytest.mark.parametrize(("length", "size"), SIZES)
def test_windows_and_means_are_those_of_torch(length: int, size: int) -> None:
    lines = torch.eye(length, dtype=torch.float64)[:, None]
    right = F.adaptive_avg_pool1d(lines, size)[:, 0].T.numpy()
    np.testing.assert_allclose(means(length, size), right, rtol=1e-6)
    for row, low, high in zip(right, *ends(length, size), strict=True):
        assert np.flatnonzero(row).tolist() == list(range(low, high))
    lengths = (right > 0).sum(1)
    disjoint = int(lengths.sum()) == length
    assert alike((length,), (size,)) == (disjoint and len(set(lengths.tolist())) == 1)


@pytest.mark.skipif(bool(native.missing), reason=str(native.missing))
@pytest.mark.parametrize("instructions", native.instruction_sets() if not native.missing else [])
@pytest.mark.parametrize(("length", "size"), SIZES)
def test_every_instruction_set_computes_them(length: int, size: int, instructions: str) -> None:
    for network in (pool(length, size), pool(length, size, 3)):
        for count in (1, 65):
            x = examples(count, network.input_shape)
            agree(SparseModel(network, instructions=instructions, example=x), x)


def test_bytes_of_the_matrices_are_counted_once_and_only_if_they_are_needed() -> None:
    operations = (
        Operation("adaptive_avg_pool2d", ("input",), "1", {"size": [4, 5]}),
        Operation("adaptive_avg_pool2d", ("input",), "2", {"size": [4, 5]}),
        Operation("add", ("1", "2"), "3"),
        Operation("adaptive_avg_pool2d", ("3",), "4", {"size": [2, 1]}),  # plain windows
    )
    assert means_bytes(Network((2, 7, 7), operations)) == 4 * (7 * 4 + 7 * 5)
    assert means_bytes(pool(7, 7, 8)) == 0


def peak(call: Callable[[], object]) -> int:
    """Most bytes that Python and numpy held at once for the call."""
    tracemalloc.start()
    call()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


def test_many_windows_take_little_more_memory_than_their_means() -> None:
    """A file of some hundred bytes may ask for as many windows as a value may have elements."""
    size = 1 << 15
    network = Network((1, 1), (Operation("adaptive_avg_pool1d", ("input",), "1", {"size": [size]}),))
    x = np.ones((1, 1, 1), np.float32)
    numbers = 4 * size
    assert peak(lambda: run(network, x)) < 15 * numbers
    if not native.missing:
        assert peak(lambda: SparseModel(network)(x)) < 2 * numbers
