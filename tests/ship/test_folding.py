"""Selections and padding in front of layers become part of these layers, and are refused by name elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import winticket
from winticket import Mask
from winticket.ship import Network, capture, run
from winticket.ship.shrink_rewrite import Select


def agree(model: nn.Module, shape: tuple[int, ...], mask: Mask | None = None) -> Network:
    """The network that is captured computes what the model does; it is returned."""
    network = capture(model.eval(), mask, example=torch.zeros(1, *shape))
    x = torch.randn(5, *shape, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = model(x).numpy()
    np.testing.assert_allclose(run(network, x.numpy()), expected, rtol=1e-5, atol=1e-6)
    return network


def test_selected_inputs_of_a_linear_layer_are_its_columns() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Select(torch.tensor([4, 0, 3]), dim=1), nn.Linear(3, 2), nn.ReLU())
    keep = torch.tensor([[True, False, True], [True, True, True]])
    with torch.no_grad():
        model[1].weight.mul_(keep)  # type: ignore[operator]
    network = agree(model, (6,), Mask({"1.weight": keep}))
    assert [one.kind for one in network.operations] == ["linear", "relu"]
    weight = network.weights()["1.weight"]
    assert weight.keep().astype(int).tolist() == [[0, 0, 0, 1, 1, 0], [1, 0, 0, 1, 1, 0]]
    assert weight.dense()[1, [4, 0, 3]].tolist() == model[1].weight[1].tolist()  # type: ignore[index]


def test_an_input_that_is_selected_twice_has_both_weights() -> None:
    model = nn.Sequential(Select(torch.tensor([1, 1]), dim=1), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[2.0, 3.0]]))  # type: ignore[operator]
    assert agree(model, (3,)).weights()["1.weight"].dense().tolist() == [[0, 5, 0]]


def test_selected_and_padded_channels_of_a_convolution() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        Select(torch.tensor([0, 2]), dim=1), nn.ZeroPad2d((1, 0, 2, 3)), nn.Conv2d(2, 4, 3, stride=2, padding=1),
        nn.Flatten(), nn.Linear(4 * 6 * 5, 3),
    )  # fmt: skip
    network = agree(model, (3, 7, 8))
    assert network.operations[0].options["padding"] == ((3, 4), (2, 1))
    assert [one.kind for one in network.operations] == ["conv2d", "reshape", "linear"]
    assert not network.weights()["2.weight"].keep()[:, 1].any()


class Twice(nn.Module):
    """One selection for two layers, and for whatever `other` is."""

    def __init__(self, other: str = "") -> None:
        super().__init__()
        self.select, self.other = Select(torch.tensor([0, 3]), dim=1), other
        self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        part = self.select(x)
        both: Tensor = self.a(part) + self.b(part)
        if self.other == "relu":
            return both + F.relu(part)
        return part if self.other == "output" else both


def test_every_layer_that_reads_a_selection_has_it() -> None:
    torch.manual_seed(0)
    weights = agree(Twice(), (4,)).weights()
    assert [weights[name].keep().any(0).tolist() for name in ("a.weight", "b.weight")] == [
        [True, False, False, True]
    ] * 2


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        (Twice("relu"), (4,), "index_select in layer 'select' cannot be shipped: .* but operation relu"),
        (Twice("output"), (4,), "but the network's output reads it"),
        (
            nn.Sequential(Select(torch.tensor([0, 1]), dim=2), nn.Conv1d(2, 2, 1)),
            (2, 5),
            "index_select in layer '0' cannot be shipped: .* but layer '1' reads it",
        ),
        (
            nn.Sequential(Select(torch.tensor([0, 1, 2, 3]), dim=1), nn.Conv1d(4, 4, 1, groups=2)),
            (6, 5),
            "by convolutions along their channels, not in groups, but layer '1' reads it",
        ),
        (
            nn.Sequential(nn.ZeroPad1d(1), nn.Linear(7, 2)),
            (3, 5),
            "pad in layer '0' cannot be shipped: .* by conv",
        ),
        (
            nn.Sequential(nn.ZeroPad1d(1), nn.ReLU()),
            (3, 5),
            "pad in layer '0' .* but operation relu in layer '1'",
        ),
        (nn.Sequential(nn.ConstantPad1d(1, 2.0), nn.Conv1d(3, 2, 1)), (3, 5), "only zeros can be padded"),
        (nn.Sequential(nn.ReflectionPad1d(1), nn.Conv1d(3, 2, 1)), (3, 5), "cannot be shipped"),
        (nn.Sequential(nn.ZeroPad1d(-1), nn.Conv1d(3, 2, 1)), (3, 5), "pads channels or examples, or cuts"),
        (nn.Sequential(nn.ZeroPad2d((0, 0, 1, 1)), nn.Conv1d(5, 2, 1)), (3, 5), "pads channels or examples"),
    ],
    ids=range(10),
)
def test_what_cannot_be_part_of_a_layer_is_refused_by_name(
    model: nn.Module, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        capture(model.eval(), example=torch.zeros(1, *shape))


def test_a_compact_module_with_dropped_inputs_can_be_captured() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
    keep = torch.rand(6, 16) < 0.15
    keep[2] = False
    assert not keep.any(0).all()
    small = winticket.compact(model, Mask({"1.weight": keep}), example=torch.zeros(1, 1, 4, 4))
    assert len(small.maps["1.inputs"]) < 16
    network = agree(small, (1, 4, 4), small.mask)
    read = np.flatnonzero(network.weights()["1.weight"].keep().any(0))
    assert read.tolist() == small.maps["1.inputs"].tolist()
