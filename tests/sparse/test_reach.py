"""Which weights are left out because nothing reads the units that they lead to."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from winticket.sparse.reach import following, live


class Skipping(nn.Module):
    """The first layer's units are read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.one(x))
        y: Tensor = h + self.two(h)
        return y


class Branching(nn.Module):
    """Cannot be traced by symbols."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.one(x)
        y: Tensor = self.two(h if h.sum() > 0 else -h)
        return y


def chain() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3), nn.Dropout(0.1), nn.Linear(3, 2))


def test_chains_are_found_and_nothing_else() -> None:
    assert following(chain()) == {"0.weight": "2.weight", "2.weight": "4.weight"}
    assert following(Skipping()) == {}
    assert following(Branching()) == {}
    normed = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 2))
    assert following(normed) == {}  # the norm reads all units at once
    counted = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 3, 1))
    assert following(counted) == {}  # running statistics are kept of a unit that no later layer reads, too
    repeated = nn.Linear(3, 3)
    assert following(nn.Sequential(nn.Linear(3, 3), repeated, repeated)) == {}
    images = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(2, 3, 1), nn.Flatten(), nn.Linear(3, 2)
    )
    assert following(images) == {"0.weight": "3.weight"}


def test_units_that_nobody_reads_by_hand() -> None:
    """The last layer reads unit 0 alone; unit 0 of the second reads units 1 and 2 of the first."""
    last = torch.tensor([[[True, False, False], [False, False, False]]])
    middle = torch.tensor([[[False, True, True], [True, True, True], [False, False, False]]])
    first = torch.ones(1, 3, 4, dtype=torch.bool)
    found = live(chain(), {"0.weight": first, "2.weight": middle, "4.weight": last})
    assert found["4.weight"].equal(last)
    assert found["2.weight"].tolist() == [[[False, True, True], [False] * 3, [False] * 3]]
    assert found["0.weight"].tolist() == [[[False] * 4, [True] * 4, [True] * 4]]
    # Where the next layer's mask is not known, everything counts.
    assert live(chain(), {"2.weight": middle})["2.weight"].equal(middle)


def test_what_is_left_out_has_no_gradient() -> None:
    torch.manual_seed(0)
    module = chain().eval()
    keep = {
        f"{i}.weight": torch.rand(module.get_parameter(f"{i}.weight")[None].shape) < 0.4 for i in (0, 2, 4)
    }
    found = live(module, keep)
    assert sum(int((keep[k] & ~found[k]).sum()) for k in keep) > 0
    with torch.no_grad():
        for name, mask in keep.items():
            module.get_parameter(name).mul_(mask[0])
    module(torch.randn(20, 4)).square().sum().backward()
    for name, mask in keep.items():
        gradient = module.get_parameter(name).grad
        assert gradient is not None
        assert not gradient[mask[0] & ~found[name][0]].any()


def test_filters_that_no_later_filter_reads() -> None:
    images = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 1))
    keep = {
        "0.weight": torch.ones(1, 2, 1, 3, 3, dtype=torch.bool),
        "2.weight": torch.zeros(1, 2, 2, 1, 1) > 0,
    }
    keep["2.weight"][0, 1, 0] = True
    found = live(images, keep)["0.weight"]
    assert found.flatten(2).all(-1).tolist() == [[True, False]]
