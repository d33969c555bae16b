"""What shrinking removes, folds and keeps, in networks small enough to work out by hand."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from ship.shrinkable import mask_in_place
from winticket import Mask, compact, masked
from winticket.ship import Compact
from winticket.units import takes_whole_units


def with_values(module: nn.Module, **values: list[object]) -> nn.Module:
    """The module in evaluation, with these parameters or buffers; `a_weight` is `a.weight`."""
    with torch.no_grad():
        state = dict(module.state_dict(keep_vars=True))
        for name, value in values.items():
            state[name[1:].replace("_", ".", 1)].copy_(torch.tensor(value))
    return module.eval()


def mask_of(**keep: object) -> Mask:
    return Mask({f"{name[1:]}.weight": torch.tensor(value) != 0 for name, value in keep.items()})


def shrunk(module: nn.Module, mask: Mask, *shape: int) -> Compact:
    small = compact(module, mask, example=torch.zeros(1, *shape))
    x = torch.randn(5, *shape)
    with torch.no_grad():
        assert torch.allclose(small(x), mask_in_place(module, mask)(x), atol=1e-6)
    return small


def values_of(module: nn.Module) -> dict[str, object]:
    return {name: value.tolist() for name, value in module.state_dict().items()}


def test_a_constant_goes_through_its_activation_into_the_bias() -> None:
    """Unit 0 is relu(2) = 2 for every example, and 3 reads it: the bias grows by 6. Unit 1 is relu(-1) = 0."""
    model = with_values(
        nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)),
        _0_weight=[[9.0, 9.0], [9.0, 9.0], [4.0, 5.0]],
        _0_bias=[2.0, -1.0, 0.5],
        _2_weight=[[3.0, 7.0, 1.0]],
        _2_bias=[10.0],
    )
    small = shrunk(model, mask_of(_0=[[0, 0], [0, 0], [0, 1]], _2=[[1, 1, 1]]), 2)
    assert values_of(small) == {
        "select.positions": [1],
        "0.weight": [[5.0]],
        "0.bias": [0.5],
        "2.weight": [[1.0]],
        "2.bias": [16.0],
    }
    assert small.maps["0.units"].tolist() == small.maps["2.inputs"].tolist() == [2]
    assert small.maps["0.inputs"].tolist() == [1]
    assert small.maps["2.units"].tolist() == [0]
    assert all(positions.dtype == torch.int64 for positions in small.maps.values())


def test_removing_cascades_both_ways() -> None:
    """A unit that reads only constants is one, and a unit that only removed ones read is read by nothing."""
    model = nn.Sequential(*(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))).eval()
    first = torch.tensor([[0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]])
    second = torch.tensor([[1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]])
    last = torch.tensor([[1, 1, 0, 1]])
    small = shrunk(model, mask_of(_0=first.tolist(), _2=second.tolist(), _4=last.tolist()), 4)
    assert {name: positions.tolist() for name, positions in small.maps.items()} == {
        "0.inputs": [0, 1],  # 2 is read by unit 3 alone, which only unit 2 of the next layer reads
        "0.units": [1],
        "2.inputs": [1],
        "2.units": [1],
        "4.inputs": [1],
        "4.units": [0],
    }
    assert small.get_buffer("select.positions").tolist() == [0, 1]
    assert small(torch.randn(3, 4)).shape == (3, 1)
    assert not small.notes


def test_pixels_that_no_weight_reads_are_dropped_behind_the_flattening() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 2)).eval()
    small = shrunk(model, mask_of(_1=[[1, 0, 0, 0, 1, 0], [0, 0, 0, 0, 1, 0]]), 1, 2, 3)
    assert small.get_buffer("select.positions").tolist() == [0, 4]
    assert small.maps["1.inputs"].tolist() == [0, 4]
    assert "select" in str(small)


def test_channels_that_no_filter_reads_are_dropped() -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(32, 2)).eval()
    keep = torch.ones(2, 3, 3, 3, dtype=torch.bool)
    keep[:, 1] = False
    small = shrunk(model, Mask({"0.weight": keep}), 3, 4, 4)
    assert small.maps["0.inputs"].tolist() == [0, 2]
    assert small.get_submodule("0").in_channels == 2


def test_batchnorm_between() -> None:
    """A pruned unit is what BatchNorm makes of its bias: 2 (5 - 1) / 2 + 3 = 7; 10 is added to what reads it."""
    model = with_values(
        nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, eps=0), nn.ReLU(), nn.Linear(2, 1)),
        _0_weight=[[1.0, 1.0], [1.0, 1.0]],
        _0_bias=[5.0, 0.0],
        _1_weight=[2.0, 1.0],
        _1_bias=[3.0, 0.0],
        _1_running_mean=[1.0, 0.5],
        _1_running_var=[4.0, 1.0],
        _3_weight=[[10.0, 1.0]],
        _3_bias=[0.0],
    )
    small = shrunk(model, mask_of(_0=[[0, 0], [0, 1]], _3=[[1, 1]]), 2)
    assert small.get_parameter("3.bias").tolist() == [70.0]
    assert small.get_buffer("1.running_mean").tolist() == [0.5]
    assert small.maps["1.units"].tolist() == [1]


def test_a_constant_goes_into_the_mean_of_the_batchnorm_behind_a_layer_without_bias() -> None:
    """Training subtracts it there as well, and no parameter is added."""
    model = with_values(
        nn.Sequential(nn.Conv1d(1, 2, 1), nn.Conv1d(2, 1, 2, bias=False), nn.BatchNorm1d(1)),
        _0_weight=[[[1.0]], [[1.0]]],
        _0_bias=[3.0, 0.0],
        _1_weight=[[[1.0, 2.0], [1.0, 1.0]]],
        _2_running_mean=[4.0],
    )
    mask = mask_of(_0=[[[0]], [[1]]], _1=[[[1, 1], [0, 1]]])
    small = shrunk(model, mask, 1, 6)
    assert small.get_buffer("2.running_mean").tolist() == [4 - 3 * (1 + 2)]
    assert "1.bias" not in small.state_dict()
    assert isinstance(model, nn.Sequential)
    assert shrunk(model[:2].eval(), mask, 1, 6).get_parameter("1.bias").tolist() == [9.0]


def test_the_border_of_a_padded_convolution() -> None:
    """Constants 4 and 2 become one channel, the larger: its kernel takes half of the other's."""
    model = with_values(
        nn.Sequential(nn.Conv1d(2, 3, 1), nn.Conv1d(3, 1, 3, padding=1)),
        _0_weight=[[[1.0], [0.0]]] * 3,
        _0_bias=[2.0, 4.0, 0.0],
        _1_weight=[[[1.0, 2.0, 3.0], [10.0, 20.0, 30.0], [5.0, 6.0, 7.0]]],
        _1_bias=[0.0],
    )
    mask = mask_of(_0=[[[0], [0]], [[0], [0]], [[1], [1]]], _1=[[[1, 1, 1], [0, 1, 0], [1, 0, 1]]])
    small = shrunk(model, mask, 2, 5)
    assert small.get_parameter("1.weight").tolist() == [[[0.5, 21.0, 1.5], [5.0, 0.0, 7.0]]]
    assert small.mask.keep["1.weight"].tolist() == [[[True] * 3, [True, False, True]]]
    assert small.mask.keep["0.weight"].tolist() == [[[False], [False]], [[True], [True]]]
    assert small.maps["0.units"].tolist() == [1, 2]
    (note,) = small.notes
    assert "1 keeps input 1, a constant, because zero padding" in note
    assert "it stands for 2 constant inputs" in note


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_other_padding_has_no_border(mode: Literal["reflect", "replicate", "circular"]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(1, 3, 1), nn.Conv1d(3, 1, 3, padding=1, padding_mode=mode)).eval()
    small = shrunk(model, mask_of(_0=[[[0]], [[0]], [[1]]], _1=[[[1, 1, 0]] * 3]), 1, 5)
    assert small.maps["0.units"].tolist() == [2]
    assert not small.notes


def test_a_constant_that_is_0_needs_no_border() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(1, 3, 1), nn.ReLU(), nn.Conv1d(3, 1, 3, padding=1)).eval()
    with torch.no_grad():
        model[0].bias.copy_(torch.tensor([-1.0, -2.0, 1.0]))  # type: ignore[operator]
    small = shrunk(model, mask_of(_0=[[[0]], [[0]], [[1]]], _2=[[[1, 1, 0]] * 3]), 1, 5)
    assert small.maps["0.units"].tolist() == [2]
    assert not small.notes


def test_average_pooling_with_a_border() -> None:
    """A constant is smaller at the border, so it stays; without padding it goes."""
    torch.manual_seed(0)
    for padding, kept in ((1, [0, 1]), (0, [1])):
        model = nn.Sequential(nn.Conv1d(2, 2, 1), nn.AvgPool1d(3, 1, padding), nn.Conv1d(2, 1, 1)).eval()
        small = shrunk(model, mask_of(_0=[[[0], [0]], [[0], [1]]]), 2, 1 + 2 * (1 - padding))
        assert small.maps["0.units"].tolist() == kept


def test_a_transposed_convolution() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv1d(1, 3, 1), nn.ConvTranspose1d(3, 4, 2, stride=2), nn.Conv1d(4, 1, 1)
    ).eval()
    keep = torch.ones(3, 4, 2, dtype=torch.bool)
    keep[:, 1] = False  # a unit of a transposed convolution is a column
    keep[2] = False  # nothing reads unit 2 below
    mask = Mask({"0.weight": torch.ones(3, 1, 1, dtype=torch.bool), "1.weight": keep})
    small = shrunk(model, mask, 1, 5)
    assert small.get_parameter("1.weight").shape == (2, 3, 2)
    assert small.maps["1.units"].tolist() == [0, 2, 3]
    assert small.maps["1.inputs"].tolist() == small.maps["0.units"].tolist() == [0, 1]


def test_a_depthwise_convolution_goes_with_its_channels() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(1, 3, 1), nn.Conv1d(3, 6, 3, groups=3), nn.Conv1d(6, 1, 1)).eval()
    keep = torch.ones(6, 1, 3, dtype=torch.bool)
    keep[2:4] = False  # both filters of channel 1 are constants
    keep[5] = False  # one of two filters of channel 2: the channel stays
    small = shrunk(model, Mask({"1.weight": keep}), 1, 8)
    assert small.maps["0.units"].tolist() == [0, 2]
    assert small.maps["1.units"].tolist() == [0, 1, 4, 5]
    assert small.get_submodule("1").groups == small.get_submodule("1").in_channels == 2


def test_a_channel_of_a_sum_goes_only_with_all_that_are_summed() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.out = nn.Linear(2, 3), nn.Linear(2, 3), nn.Linear(3, 1)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.out(torch.relu(self.a(x)) + self.b(x))
            return logits

    torch.manual_seed(0)
    keep = {"a.weight": [[1, 1], [0, 0], [0, 0]], "b.weight": [[1, 1], [1, 1], [0, 0]]}
    mask = Mask({name: torch.tensor(value) != 0 for name, value in keep.items()})
    small = shrunk(Sum().eval(), mask, 2)
    assert small.maps["a.units"].tolist() == small.maps["b.units"].tolist() == [0, 1]
    (note,) = small.notes
    assert note.startswith("a keeps 1 unit without weights")


def test_a_concatenation() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.out = nn.Linear(2, 3), nn.Linear(2, 2), nn.Linear(5, 1)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.out(torch.cat((self.a(x), self.b(x)), -1))
            return logits

    torch.manual_seed(0)
    mask = Mask({"out.weight": torch.tensor([[False, True, True, True, False]])})
    small = shrunk(Both().eval(), mask, 2)
    assert small.maps["a.units"].tolist() == [1, 2]
    assert small.maps["b.units"].tolist() == [0]
    assert small.maps["out.inputs"].tolist() == [1, 2, 3]


def test_what_is_not_followed_is_kept_and_said() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 2)
    ).eval()
    mask = mask_of(
        _0=[[1, 1, 1], [0, 0, 0], [1, 0, 1], [1, 1, 1]], _4=[[1, 0, 1, 0, 1, 0], [1, 0, 0, 0, 0, 0]]
    )
    small = shrunk(model, mask, 3)
    assert small.maps["0.units"].tolist() == [0, 1, 2, 3]
    assert small.maps["2.units"].tolist() == [0, 2, 4]
    assert "Units are not followed through 1 (LayerNorm), so what these read is kept." in small.notes


def test_training_goes_on_under_the_mask_that_is_left() -> None:
    """The mask covers every weight that is not 0, and putting it in force changes nothing."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(2, 6, 3, padding=1), nn.Sigmoid(), nn.Conv1d(6, 4, 3, padding=1)).eval()
    keep = {"0.weight": torch.rand(6, 2, 3) < 0.2, "2.weight": torch.rand(4, 6, 3) < 0.5}
    keep["0.weight"][:3] = False
    small = shrunk(model, Mask(keep), 2, 7)
    x = torch.randn(3, 2, 7)
    before = small(x)
    assert small.mask.keep.keys() == keep.keys()
    with masked(small, small.mask):
        assert torch.equal(small(x), before)
        optimizer = torch.optim.SGD(small.parameters(), lr=0.1)
        small(x).square().sum().backward()
        optimizer.step()
    for name, kept in small.mask.keep.items():
        assert not small.get_parameter(name)[~kept].any()
    assert not torch.equal(small(x), before)


def test_a_constant_that_is_kept_does_not_make_the_mask_one_of_whole_units() -> None:
    """Units of such a mask count as dead, and `masked` sets their biases to 0: the constant would be lost."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(1, 3, 2), nn.Conv1d(3, 1, 3, padding=1)).eval()
    # Unit 2 is partly kept, so the mask is not one of whole units, but nothing reads that unit.
    mask = mask_of(_0=[[[0, 0]], [[1, 1]], [[1, 0]]], _1=[[[1, 1, 1], [1, 1, 1], [0, 0, 0]]])
    assert not takes_whole_units(mask)
    small = shrunk(model, mask, 1, 6)
    x = torch.randn(3, 1, 6)
    before = small(x)
    with masked(small, small.mask):
        assert torch.equal(small(x), before)


def test_a_mask_of_whole_units_stays_one() -> None:
    """So training goes on to hold at 0 what depends on the units that a sum keeps."""

    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.out = nn.Linear(2, 3), nn.Linear(3, 3), nn.Linear(3, 1)

        def forward(self, x: Tensor) -> Tensor:
            h = torch.relu(self.a(x))
            logits: Tensor = self.out(h + torch.relu(self.b(h)))
            return logits

    torch.manual_seed(0)
    keep = {"a.weight": torch.ones(3, 2), "b.weight": torch.ones(3, 3), "out.weight": torch.ones(1, 3)}
    keep["a.weight"][0], keep["b.weight"][1] = 0, 0
    mask = Mask({name: value != 0 for name, value in keep.items()})
    small = shrunk(Sum().eval(), mask, 2)
    assert takes_whole_units(mask)
    assert takes_whole_units(small.mask)
    assert small.maps["a.units"].tolist() == [
        0,
        1,
        2,
    ]  # a loses unit 0 and b unit 1, and only both lose a channel
    with masked(small, small.mask):
        optimizer = torch.optim.SGD(small.parameters(), lr=0.1)
        small(torch.randn(9, 2)).square().sum().backward()
        optimizer.step()
    assert small.get_parameter("a.bias")[0] == small.get_parameter("b.bias")[1] == 0
