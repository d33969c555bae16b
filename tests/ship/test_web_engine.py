"""The page's engine, in Chromium: it reads compact files and computes what the interpreter computes."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import shipped
from browser import browser, needs_browser
from drawn import networks
from winticket.ship import VALUES, Network, Operation, Weight, run
from winticket.ship.compact_read import decode
from winticket.ship.compact_write import encode
from winticket.ship.interpret import Array
from winticket.ship.kinds import KINDS
from winticket.ship.web import page

pytestmark = needs_browser
ENGINE = Path(page.__file__).with_name("engine.js")
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]
_COMPUTE = """async ([file, shapes, examples]) => {
  const network = await engine.open(file, shapes);
  return examples.map((raw) => (network.fill(raw), Array.from(network.run(), (v) => Number.isNaN(v) ? "NaN" : v)));
}"""


@pytest.fixture(scope="module")
def tab() -> Iterator[Any]:
    with browser() as chromium:
        opened = chromium.new_page()
        opened.goto("about:blank")
        opened.add_script_tag(content=ENGINE.read_text())
        yield opened


def outputs(tab: Any, network: Network, raw: Array, values: str = "fp32") -> Array:
    """What the engine computes of raw examples [N, *input_shape], from the network's compact file."""
    content, _ = encode(network, values=values)
    shapes = [list(network.shapes[operation.output]) for operation in network.operations]
    rows = [[float(value) for value in example.reshape(-1)] for example in raw]
    answers = tab.evaluate(_COMPUTE, [base64.b64encode(content).decode(), shapes, rows])
    return np.array(answers, np.float64)


def expected(network: Network, raw: Array, values: str = "fp32") -> Array:
    read = decode(encode(network, values=values)[0])
    x = read.preprocessing.apply(raw) if read.preprocessing else raw
    return run(read, x, dtype=np.float64).reshape(len(raw), -1)


@pytest.mark.parametrize("name", shipped.NETWORKS)
def test_networks_of_every_family(tab: Any, name: str) -> None:
    network = shipped.network(name)
    raw = shipped.examples(network, 3)
    right = expected(network, raw)
    assert np.ptp(right) > 0.1  # outputs that could not be those of a network of zeros
    np.testing.assert_allclose(outputs(tab, network, raw), right, rtol=1e-4, atol=1e-4 * np.abs(right).max())


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("name", ["lenet-300-100", "signal"])
def test_every_kind_of_values(tab: Any, name: str, values: str) -> None:
    """Float32 sums of values that are read exactly; masks are Golomb-Rice codes here, and bits in `signal`."""
    network = shipped.network(name)
    raw = shipped.examples(network, 2)
    right = expected(network, raw, values)
    scale = np.abs(right).max()
    np.testing.assert_allclose(outputs(tab, network, raw, values), right, rtol=1e-4, atol=1e-4 * scale)


@pytest.mark.parametrize("values", VALUES)
def test_tensors_are_read_in_the_order_in_which_the_file_names_them(tab: Any, values: str) -> None:
    """Another writer may name the bias before the weight; int8 files may hold nothing but tensors of one axis."""
    network = shipped.small_whole_numbers()
    raw = np.array([[1.0, 2.0, 3.0]], np.float32)
    right = run(network, raw)
    assert outputs(tab, network, raw, values).tolist() == right.tolist()
    assert outputs(tab, shipped.turned(network), raw, values).tolist() == right.tolist()
    scaling = Network((3,), network.operations[:1])
    assert outputs(tab, scaling, raw, values).tolist() == [[9.0, 20.0, 44.0]]


@settings(max_examples=8, deadline=None, suppress_health_check=SLOW)
@given(drawn=st.lists(networks(), min_size=4, max_size=8), seed=st.integers(0, 99))
def test_random_networks_of_all_kinds(tab: Any, drawn: list[Network], seed: int) -> None:
    rng = np.random.default_rng(seed)
    for network in drawn:
        raw = rng.standard_normal((2, *network.input_shape)).astype(np.float32)
        np.testing.assert_allclose(outputs(tab, network, raw), expected(network, raw), rtol=1e-4, atol=1e-4)


def test_pools_with_padding(tab: Any) -> None:
    """Means that count padding and that do not, and largest elements, of which padding is never one."""
    pads = {"kernel": [3, 2], "stride": [2, 1], "padding": [[1, 2], [1, 0]]}
    operations = (
        Operation("max_pool2d", ("input",), "largest", {**pads, "dilation": [1, 1]}),
        Operation("avg_pool2d", ("input",), "counted", {**pads, "count_padding": True}),
        Operation("avg_pool2d", ("input",), "inside", {**pads, "count_padding": False}),
        Operation("concat", ("largest", "counted", "inside"), "all", {"axis": 0}),
    )
    network = Network((2, 5, 4), operations)
    raw = -1 - np.random.default_rng(0).random((1, 2, 5, 4)).astype(np.float32)
    right = expected(network, raw)
    parts = right.reshape(3, -1)
    assert not np.allclose(parts[1], parts[2])
    np.testing.assert_allclose(outputs(tab, network, raw), right, rtol=1e-6)


def test_every_kind_of_operation_is_computed(tab: Any) -> None:
    source = ENGINE.read_text()
    table = source[source.index("const KINDS = {") :].partition("};")[0]
    there = {line.strip().partition(":")[0].rstrip(",") for line in table.splitlines()[1:]}
    assert KINDS.keys() <= there


def test_names_of_values_and_tensors_may_be_any(tab: Any) -> None:
    """Such as those that every object of JavaScript has."""
    weight = Weight.of("__proto__", [[1.0, 2.0], [3.0, 4.0]])
    other = Weight.of("constructor", [[1.0, 0.0], [0.0, -1.0]])
    network = Network(
        (2,),
        (
            Operation("linear", ("input",), "__proto__", tensors={"weight": weight}),
            Operation("linear", ("__proto__",), "toString", tensors={"weight": other}),
            Operation("add", ("toString", "__proto__"), "valueOf"),
        ),
    )
    raw = np.array([[1.0, 1.0]], np.float32)
    np.testing.assert_array_equal(outputs(tab, network, raw), [[6.0, 0.0]])
