"""Random networks of all kinds of operations: C and ONNX give the answers of the plain interpreter."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compiled import Program, needs_cc
from drawn import networks
from evaluated import evaluator
from winticket.ship import Network, run, to_c, to_onnx

SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]
Array = npt.NDArray[np.floating[Any]]


def inputs(network: Network, count: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((count, *network.input_shape)).astype(np.float32)


def close(got: Array, expected: Array) -> None:
    """Equal up to the order of sums of some hundred float32 terms near 1, through some ten operations."""
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


# Several networks are one program, since the compiler takes most of the time.
@needs_cc
@settings(max_examples=8, deadline=None, suppress_health_check=SLOW)
@given(drawn=st.lists(networks(), min_size=6, max_size=12))
def test_c_agrees(drawn: list[Network], tmp_path_factory: pytest.TempPathFactory) -> None:
    sources = [to_c(network, name=f"n{number}") for number, network in enumerate(drawn)]
    raw = [inputs(network, 2) for network in drawn]
    outputs = Program(sources, tmp_path_factory.mktemp("c")).outputs(raw)
    for network, x, got in zip(drawn, raw, outputs, strict=True):
        ready = network.preprocessing.apply(x) if network.preprocessing else x
        close(got, run(network, ready).reshape(2, -1))


@settings(max_examples=150, deadline=None, suppress_health_check=SLOW)
@given(network=networks())
def test_onnx_agrees(network: Network) -> None:
    evaluate = evaluator(to_onnx(network, preprocessing=network.preprocessing is not None))
    for count in (1, 7):
        x = inputs(network, count)
        ready = network.preprocessing.apply(x) if network.preprocessing else x
        close(evaluate({"input": x}), run(network, ready))
