"""A shrunk network back in the shapes of the original."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ship.shrinkable import NETWORKS, conv1d, random_mask, unit_mask, warmed
from winticket import Mask, compact, masked
from winticket.ship import expand, expanded


@pytest.mark.parametrize("kind", ["weights", "units"])
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_it_agrees_and_has_the_shapes_of_the_original(name: str, kind: str) -> None:
    build, shape = NETWORKS[name]
    torch.manual_seed(0)
    model = warmed(build())
    mask = random_mask(model, 0.3) if kind == "weights" else unit_mask(model)
    small = compact(model, mask, example=torch.zeros(1, *shape))
    whole = expand(small, small.maps, like=model)
    assert type(whole) is type(model)
    assert not whole.training
    shapes = {n: t.shape for n, t in whole.state_dict().items() if n in model.state_dict()}
    assert shapes == {n: t.shape for n, t in model.state_dict().items()}
    assert all(n.endswith(".bias") for n in whole.state_dict().keys() - model.state_dict().keys())
    x = torch.randn(3, *shape)
    with torch.no_grad():
        assert (whole(x) - small(x)).abs().max() <= 1e-6 * small(x).abs().max()


def test_weights_are_where_they_were() -> None:
    torch.manual_seed(0)
    model = warmed(conv1d())
    mask = random_mask(model, 0.2)
    small = compact(model, mask, example=torch.zeros(1, 6, 50))
    whole = expand(small, small.maps, like=model)
    kept = expanded(small.mask.keep, small.maps, like=model)
    assert Mask(kept).count() == small.mask.count()
    folded = {"4.weight"}  # this layer pads, so the kernel of its constant input has taken up others
    for name, keep in mask.keep.items():
        if name not in folded:
            assert not (kept[name] & ~keep).any()
            assert torch.equal(whole.get_parameter(name)[kept[name]], model.get_parameter(name)[kept[name]])


def test_after_training_on() -> None:
    torch.manual_seed(0)
    model = warmed(conv1d())
    small = compact(model, random_mask(model, 0.2), example=torch.zeros(1, 6, 50))
    trained = copy.deepcopy(small).train()
    x, y = torch.randn(16, 6, 50), torch.randint(0, 5, (16,))
    with masked(trained, small.mask):
        optimizer = torch.optim.Adam(trained.parameters(), lr=0.01)
        for _ in range(5):
            optimizer.zero_grad()
            F.cross_entropy(trained(x), y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    trained.eval()
    whole = expand(trained, small.maps, like=model)
    with torch.no_grad():
        assert (trained(x) - small(x)).abs().max() > 1e-3
        assert (whole(x) - trained(x)).abs().max() <= 1e-6 * trained(x).abs().max()


def test_buffers_and_added_biases() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.ReLU(), nn.Linear(2, 1, bias=False)).eval()
    with torch.no_grad():
        model[1].bias.fill_(3.0)  # type: ignore[operator]
    mask = Mask({"0.weight": torch.tensor([[False, False], [True, False]])})
    small = compact(model, mask, example=torch.zeros(1, 2))
    whole = expand(small, small.maps, like=model)
    assert whole.get_buffer("1.running_var").tolist() == [1.0, 1.0]
    assert whole.get_parameter("1.bias").tolist() == [0.0, 3.0]
    assert whole.get_parameter("3.bias").shape == (1,)
    assert model[3].bias is None


def test_networks_that_do_not_belong_together_are_refused() -> None:
    model = warmed(conv1d())
    small = compact(model, random_mask(model, 0.2), example=torch.zeros(1, 6, 50))
    with pytest.raises(
        ValueError, match=r"the original has no layer '1', but the shrunk network has 1\.weight"
    ):
        expand(small, small.maps, like=nn.Sequential(nn.Conv1d(6, 32, 5)))
    narrow = copy.deepcopy(model)
    narrow[8] = nn.Linear(40, 64)  # type: ignore[operator]
    with pytest.raises(ValueError, match=r"the maps of 8 have number \d+, but 8\.weight has 40 there"):
        expand(small, small.maps, like=narrow)
    maps = {**small.maps, "0.units": small.maps["0.units"][:-1]}
    with pytest.raises(ValueError, match=r"0\.weight has shape .*, but by the maps it should have"):
        expand(small, maps, like=model)
