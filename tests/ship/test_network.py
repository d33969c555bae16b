"""Networks as they leave winticket: misfits are refused by name, and the interpreter agrees with torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from winticket.ship import KINDS, Network, NetworkError, Operation, Preprocessing, Weight, run
from winticket.ship.interpret import _RUN


def weight(name: str, *shape: int, density: float = 1.0) -> Weight:
    rng = np.random.default_rng(len(name) + sum(shape))
    keep = rng.random(shape) < density if density < 1 else None
    return Weight.of(name, rng.standard_normal(shape), keep)


def single(kind: str, shape: tuple[int, ...], options: Mapping[str, Any], **tensors: Weight) -> Network:
    """A network of one operation."""
    return Network(shape, (Operation(kind, ("input",), "1", options, tensors),))


def of(w: Weight) -> Tensor:
    return torch.from_numpy(w.dense())


W3, B6 = weight("w", 6, 4, 3, density=0.5), weight("b", 6)
W33, G33 = weight("w", 6, 4, 3, 2, density=0.5), weight("g", 6, 2, 3, 3)
FC, B5 = weight("fc", 5, 7, density=0.3), weight("fcb", 5)
S4 = {"scale": weight("s", 4), "shift": weight("sh", 4)}
ROWS: list[tuple[str, tuple[int, ...], dict[str, Any], dict[str, Weight], Callable[[Tensor], Tensor]]] = [
    ("linear", (7,), {}, {"weight": FC, "bias": B5}, lambda x: F.linear(x, of(FC), of(B5))),
    ("linear", (3, 7), {}, {"weight": FC}, lambda x: F.linear(x, of(FC))),
    ("conv1d", (4, 11), {"stride": [2], "padding": [[2, 2]], "dilation": [2]}, {"weight": W3, "bias": B6},
     lambda x: F.conv1d(x, of(W3), of(B6), stride=2, padding=2, dilation=2)),
    ("conv2d", (4, 9, 8), {"stride": [2, 1], "padding": [[1, 1], [1, 1]]}, {"weight": W33, "bias": B6},
     lambda x: F.conv2d(x, of(W33), of(B6), stride=(2, 1), padding=1)),
    ("conv2d", (4, 6, 6), {"padding": [[0, 1], [2, 0]], "groups": 2}, {"weight": G33},
     lambda x: F.conv2d(F.pad(x, (2, 0, 0, 1)), of(G33), groups=2)),
    ("scale_shift", (4, 3, 3), {}, S4,
     lambda x: x * of(S4["scale"]).view(-1, 1, 1) + of(S4["shift"]).view(-1, 1, 1)),
    ("relu", (5,), {}, {}, torch.relu),
    ("leaky_relu", (5,), {"slope": 0.2}, {}, lambda x: F.leaky_relu(x, 0.2)),
    ("hardtanh", (5,), {"low": 0, "high": 6}, {}, F.relu6),
    ("gelu", (5,), {}, {}, F.gelu),
    ("gelu", (5,), {"tanh": True}, {}, lambda x: F.gelu(x, approximate="tanh")),
    ("silu", (5,), {}, {}, F.silu),
    ("sigmoid", (5,), {}, {}, torch.sigmoid),
    ("tanh", (5,), {}, {}, torch.tanh),
    ("max_pool1d", (2, 9), {"kernel": [3], "stride": [2], "padding": [[1, 1]], "dilation": [2]}, {},
     lambda x: F.max_pool1d(x, 3, 2, 1, 2)),
    ("max_pool2d", (2, 7, 6), {"kernel": [2, 3], "stride": [2, 2]}, {}, lambda x: F.max_pool2d(x, (2, 3), 2)),
    ("avg_pool1d", (2, 9), {"kernel": [3], "stride": [2], "padding": [[1, 1]]}, {},
     lambda x: F.avg_pool1d(x, 3, 2, 1)),
    ("avg_pool2d", (2, 7, 7), {"kernel": [3, 3], "stride": [2, 2], "padding": [[1, 1], [1, 1]],
                               "count_padding": False}, {},
     lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)),
    ("adaptive_avg_pool1d", (2, 7), {"size": [3]}, {}, lambda x: F.adaptive_avg_pool1d(x, 3)),
    ("adaptive_avg_pool2d", (2, 7, 5), {"size": [3, 2]}, {}, lambda x: F.adaptive_avg_pool2d(x, (3, 2))),
    ("mean", (4, 3, 5), {"axes": [1, 2]}, {}, lambda x: x.mean((-2, -1))),
    ("mean", (4, 3), {"axes": [1], "keep_axes": True}, {}, lambda x: x.mean(-1, keepdim=True)),
    ("reshape", (4, 3, 5), {"shape": [60]}, {}, lambda x: x.flatten(1)),
    ("softmax", (4, 3), {"axis": 0}, {}, lambda x: x.softmax(1)),
    ("log_softmax", (4, 3), {"axis": 1}, {}, lambda x: x.log_softmax(2)),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_every_kind_computes_what_torch_computes(row: Any) -> None:
    kind, shape, options, tensors, reference = row
    network = single(kind, shape, options, **tensors)
    x = 2 * torch.randn(5, *shape, generator=torch.Generator().manual_seed(1))
    expected = reference(x)
    got = run(network, x.numpy(), rows=2)
    assert got.dtype == np.float32
    assert got.shape == tuple(expected.shape) == (5, *network.shapes["1"])
    # Sums of at most some dozen terms near 1, in float32.
    np.testing.assert_allclose(got, expected.numpy(), rtol=1e-5, atol=2e-6)


def test_kinds_with_several_inputs_and_values_read_twice() -> None:
    w = weight("w", 4, 4)
    operations = (
        Operation("linear", ("input",), "1", tensors={"weight": w}),
        Operation("add", ("1", "input"), "2"),
        Operation("concat", ("2", "input", "1"), "3", {"axis": 0}),
    )
    network = Network((4,), operations)
    x = torch.randn(3, 4)
    first = F.linear(x, of(w))
    expected = torch.cat([first + x, x, first], 1)
    np.testing.assert_allclose(run(network, x.numpy()), expected.numpy(), rtol=1e-5, atol=1e-6)
    assert repr(network) == "Network(3 operations, 16 of 16 weights kept, inputs [4], outputs [12])"


def test_every_kind_is_computed_and_tested() -> None:
    assert _RUN.keys() == KINDS.keys()
    assert {row[0] for row in ROWS} | {"add", "concat"} == KINDS.keys()


def test_it_computes_in_double_precision_and_on_no_example() -> None:
    network = single("linear", (7,), {}, weight=FC, bias=B5)
    x = np.random.default_rng(0).standard_normal((3, 7))
    expected = x @ FC.dense().astype(float).T + B5.dense()
    np.testing.assert_allclose(run(network, x, dtype=np.float64), expected, rtol=1e-14)
    assert run(network, np.empty((0, 7))).shape == (0, 5)
    with pytest.raises(ValueError, match=r"takes inputs \[N, 7\], not \[3, 8\]"):
        run(network, np.ones((3, 8)))


def test_a_weight_knows_its_values_and_where_they_are() -> None:
    keep = np.array([[True, False, False], [False, True, True]])
    w = Weight.of("w", [[1, 2, 3], [4, 5, 0]], keep)
    assert (w.size, w.density(), w.shape) == (6, 0.5, (2, 3))
    assert w.dense().tolist() == [[1, 0, 0], [0, 5, 0]]
    assert np.array_equal(w.keep(), keep)  # a kept weight of value 0 stays kept
    assert Weight.of("w", [[1.0]]).keep().all()


def reads(*operations: Operation) -> Callable[[], Network]:
    return lambda: Network((4,), operations)


RELU = Operation("relu", ("input",), "1")
NOTHING = np.empty(0, np.float32), np.empty(0, np.int64)
REFUSED: list[tuple[Callable[[], object], str]] = [
    (lambda: Operation("rely", ("input",), "1"), "no kind of operation 'rely' .did you mean 'relu'"),
    (lambda: Operation("relu", ("input",), "1", {"slope": 1}), "options of operation '1' .relu.*slope"),
    (lambda: Operation("hardtanh", ("input",), "1", {"low": "0"}), "Expected `float`"),
    (lambda: Operation("relu", ("a", "b"), "1"), "takes one input, but has 2"),
    (lambda: Operation("add", ("a",), "1"), "takes two inputs or more, but has 1"),
    (lambda: Operation("linear", ("input",), "1"), r"has tensors none; it takes weight, bias \(optional\)"),
    (lambda: Operation("relu", ("input",), "1", tensors={"weight": FC}), "has tensors weight; it takes none"),
    (reads(), "this one has 0"),
    (reads(*[RELU] * 10_001), "this one has 10001"),
    (reads(Operation("relu", ("2",), "1")), "reads '2', which no operation before it gives"),
    (reads(RELU, RELU), "two operations give '1'"),
    (reads(RELU, Operation("relu", ("input",), "2")), "no operation reads 1"),
    (reads(Operation("linear", ("input",), "1", tensors={"weight": FC})), r"\(5, 7\) cannot multiply"),
    (reads(Operation("linear", ("input",), "1", tensors={"weight": weight("w", 5, 4), "bias": weight("b", 4)})),
     r"its bias has shape \(4,\), but there are 5 units"),
    (reads(Operation("softmax", ("input",), "1", {"axis": 1})), "axis 1 is not an axis"),
    (reads(Operation("mean", ("input",), "1", {"axes": [0, 0]})), "are not axes"),
    (reads(Operation("reshape", ("input",), "1", {"shape": [2, 3]})), "cannot take the shape"),
    (reads(Operation("max_pool1d", ("input",), "1", {"kernel": [2], "stride": [1]})), "axes of positions"),
    (lambda: single("max_pool1d", (2, 4), {"kernel": [2], "stride": [1], "padding": [[2, 0]]}), "not smaller"),
    (lambda: single("max_pool1d", (2, 4), {"kernel": [5], "stride": [1]}), "does not fit into 4 inputs"),
    (lambda: single("conv1d", (3, 4), {}, weight=W3), "does not fit 3 channels"),
    (lambda: single("conv1d", (4, 9), {"padding": [[2**30, 0]]}, weight=W3), "too large"),
    (lambda: single("conv1d", (4, 9), {"padding": [[2**27, 0]], "stride": [2**20]}, weight=W3), "too large"),
    (lambda: single("max_pool1d", (4, 9), {"kernel": [2**27], "stride": [2**27], "padding": [[2**27 - 1, 0]]}),
     "too large"),
    (lambda: single("conv1d", (1, 2**21), {}, weight=Weight("w", (1, 1, 2**21), *NOTHING)),
     "a window of 2097152 taps is too large: 1048576 is most"),
    (lambda: Network((4,), tuple(Operation("add", ("input",) * 10_001, str(n)) for n in (1, 2))),
     "the operations have 20002 inputs, and 20000 is most"),
    (lambda: single("hardtanh", (4,), {"low": 2, "high": 1}), "above its high end"),
    (lambda: single("scale_shift", (3, 2), {}, **S4), "there are 3 units"),
    (lambda: Network((2**20, 2**20), (RELU,)), "the input: a value of shape .* is too large"),
    (lambda: Network((0,), (RELU,)), "has no elements"),
    (lambda: Network((4,), (RELU,), classes=("a",)), "1 classes, but the output has shape"),
    (lambda: Network((4,), (RELU,), Preprocessing(1.0, (0.0,), (1.0,))), "for 1 channels, but inputs have 4"),
    (lambda: Preprocessing(0.0, (0.0,), (1.0,)), "are positive"),
    (lambda: Preprocessing(1.0, (float("nan"),), (1.0,)), "are positive and the mean is finite"),
    (lambda: Preprocessing(1.0, (0.0, 0.0), (1.0,)), "one deviation for each channel"),
    (lambda: Weight.of("w", [float("inf")]), "tensor 'w' has a value that is not finite"),
    (lambda: Weight("w", (2**20, 2**20), np.ones(0, np.float32), np.ones(0, np.int64)), "elements"),
    (lambda: Weight("w", (3,), np.ones(2, np.float32)), "keeps 3 of 3 elements, but has values"),
    (lambda: Weight("w", (3,), np.ones(2, np.float32), np.array([1, 1])), "do not rise within its 3"),
    (lambda: Weight("w", (3,), np.ones(2, np.float32), np.array([1, 3])), "do not rise within its 3"),
    (lambda: Weight("w", (1,), np.ones(1, np.float32), None, -np.ones(1, np.float32)), "not negative"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=range(len(REFUSED)))
def test_what_does_not_fit_together_is_refused_by_name(make: Callable[[], object], message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        make()


def test_two_tensors_may_not_share_a_name_but_one_may_be_used_twice() -> None:
    one, two = weight("w", 4, 4), weight("w", 4, 4)
    twice = [
        Operation("linear", ("input",), "1", tensors={"weight": one}),
        Operation("linear", ("1",), "2", tensors={"weight": one}),
    ]
    assert Network((4,), tuple(twice)).kept() == (16, 16)
    twice[1] = Operation("linear", ("1",), "2", tensors={"weight": two})
    with pytest.raises(NetworkError, match="two tensors have the name 'w'"):
        Network((4,), tuple(twice))


def test_preprocessing_refuses_data_of_other_channels() -> None:
    ready = Preprocessing(255.0, (0.5, 0.25), (0.5, 1.0))
    x = np.full((1, 2, 1), 255)
    assert ready.apply(x).tolist() == [[[1.0], [0.75]]]
    with pytest.raises(ValueError, match="2 channels"):
        ready.apply(np.ones((1, 3, 2)))
