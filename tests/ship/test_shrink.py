"""A compact network computes what the masked one does, and is smaller."""

from __future__ import annotations

import copy
import io
import random
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import winticket
from ship.shrinkable import NETWORKS, Residual, built, conv1d, mask_in_place, random_mask, unit_mask, warmed
from winticket import Mask, compact
from winticket.align import symmetry
from winticket.ship import Compact
from winticket.ticket import JSON, Seeds, State, Ticket

TOLERANCE = 1e-6
"""Of the largest output, in float32: sums over other numbers of terms are rounded in another way."""


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@torch.no_grad()
def gap(a: nn.Module, b: nn.Module, x: Tensor) -> float:
    one, two = a(x), b(x)
    assert one.shape == two.shape
    return float((one - two).abs().max() / one.abs().max())


def shrunk(name: str, mask_of: str, density: float, seed: int = 0) -> tuple[nn.Module, Compact, Tensor]:
    """The masked network, the compact one, and examples."""
    build, shape = NETWORKS[name]
    torch.manual_seed(seed)
    model = warmed(build(), seed)
    mask = (random_mask if mask_of == "weights" else unit_mask)(model, density, seed)
    small = compact(model, mask, example=torch.zeros(1, *shape))
    return mask_in_place(model, mask), small, torch.randn(4, *shape)


CUT = {(name, 0.02) for name in ("joined", "mobile", "tokens")}
"""Networks and densities at which these draws leave no path from the inputs to the outputs."""


@pytest.mark.parametrize("density", [0.5, 0.1, 0.02])
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_random_masks(name: str, density: float) -> None:
    if (name, density) in CUT:
        with pytest.raises(ValueError, match="no path from the inputs to the outputs"):
            shrunk(name, "weights", density)
        return
    model, small, x = shrunk(name, "weights", density)
    assert gap(model, small, x) <= TOLERANCE
    assert parameters(small) <= parameters(model)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_half_of_the_units(name: str) -> None:
    model, small, x = shrunk(name, "units", 0.5)
    assert gap(model, small, x) <= TOLERANCE
    assert parameters(small) < parameters(model)


def agrees_or_is_cut(model: nn.Module, mask: Mask, shape: Sequence[int]) -> bool:
    """True if the compact network agrees; False if there is none, because the masked one answers the same to all."""
    try:
        small = compact(model, mask, example=torch.zeros(1, *shape))
    except ValueError as error:
        small, message = None, str(error)
    masked, x = mask_in_place(model, mask), torch.randn(4, *shape)
    if small is None:
        assert "no path from the inputs to the outputs" in message
        with torch.no_grad():
            assert torch.equal(masked(x[:1]), masked(x[1:2]))
        return False
    assert gap(masked, small, x) <= TOLERANCE
    return True


@pytest.mark.parametrize("name", ["mlp", "conv1d", "residual", "joined", "attentive", "tokens", "mobile"])
def test_many_masks_of_small_networks(name: str) -> None:
    """Densities at which most units die in one draw or another."""
    build, shape = NETWORKS[name]
    agreed = 0
    for seed in range(24):
        torch.manual_seed(seed)
        model = warmed(build(), seed)
        agreed += agrees_or_is_cut(model, random_mask(model, (0.3, 0.15, 0.08)[seed % 3], seed), shape)
    assert agreed >= 12


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_nothing_goes_without_a_reason(name: str) -> None:
    model, small, x = shrunk(name, "weights", 1.0)
    assert {n: p.shape for n, p in small.named_parameters()} == {
        n: p.shape for n, p in model.named_parameters()
    }
    assert all(torch.equal(p, small.get_parameter(n)) for n, p in model.named_parameters())
    with torch.no_grad():
        assert torch.equal(model(x), small(x))


def test_half_of_the_filters_of_a_vgg_are_half_as_wide() -> None:
    _, small, _ = shrunk("vgg-11", "units", 0.5)
    widths = [m.out_channels for m in small.modules() if isinstance(m, nn.Conv2d)]
    assert widths == [32, 64, 128, 128, 256, 256, 256, 256]
    inputs = [m.in_channels for m in small.modules() if isinstance(m, nn.Conv2d)]
    assert inputs == [3, *widths[:-1]]
    assert small.get_submodule("fc").in_features == 256
    assert not small.notes


def test_half_of_the_filters_of_a_resnet() -> None:
    """Within a block half as wide; a channel of the sums goes only if it goes in all layers that are summed."""
    model, small, _ = shrunk("resnet-20", "units", 0.5)
    for number in range(9):
        block, narrow = model.get_submodule(f"blocks.{number}"), small.get_submodule(f"blocks.{number}")
        assert narrow.conv1.out_channels == block.conv1.out_channels // 2  # type: ignore[union-attr, operator]
        assert narrow.conv2.in_channels == block.conv2.in_channels // 2  # type: ignore[union-attr, operator]


def test_a_resnet_that_loses_the_same_channels_everywhere_is_half_as_wide() -> None:
    model = warmed(built("resnet-20", (3, 32, 32)))
    keep = {
        n: torch.ones(model.get_parameter(n).shape, dtype=torch.bool)
        for n in winticket.models.eligible(model)
    }
    for group in symmetry(model, (3, 32, 32)):
        for axis in group.axes:
            if axis.name in keep and axis.dim == 0:
                keep[axis.name][group.size // 2 :] = False
    mask = Mask(keep)
    small = compact(model, mask, example=torch.zeros(1, 3, 32, 32))
    widths = [m.out_channels for n, m in small.named_modules() if isinstance(m, nn.Conv2d)]
    dense = [m.out_channels for n, m in model.named_modules() if isinstance(m, nn.Conv2d)]
    assert widths == [width // 2 for width in dense]
    assert gap(mask_in_place(model, mask), small, torch.randn(4, 3, 32, 32)) <= TOLERANCE


@pytest.mark.parametrize("lost", ["conv1.weight", "conv2.weight", "conv.weight"])
def test_a_layer_in_a_residual_block_may_be_cut_off_whole(lost: str) -> None:
    torch.manual_seed(0)
    model = warmed(Residual())
    keep = {**random_mask(model, 0.8).keep}
    keep[lost] = torch.zeros_like(keep[lost])
    mask = Mask(keep)
    if lost == "conv.weight":  # both ways begin there
        with pytest.raises(
            ValueError, match=r"no path from the inputs.*layers without weights: conv\.weight"
        ):
            compact(model, mask, example=torch.zeros(1, 3, 8, 8))
        return
    small = compact(model, mask, example=torch.zeros(1, 3, 8, 8))
    assert small.get_submodule("conv1").out_channels == 1
    why = {"conv1.weight": "zero padding makes constants differ", "conv2.weight": "a layer cannot be empty"}
    assert any(why[lost] in note for note in small.notes)
    assert gap(mask_in_place(model, mask), small, torch.randn(4, 3, 8, 8)) <= TOLERANCE


def test_a_network_in_float64_agrees_to_its_precision() -> None:
    torch.manual_seed(0)
    model = warmed(built("conv-2", (1, 28, 28))).double()
    mask = random_mask(model, 0.02)
    small = compact(model, mask, example=torch.zeros(1, 1, 28, 28))
    assert all(p.dtype == torch.float64 for p in small.parameters())
    assert gap(mask_in_place(model, mask), small, torch.randn(4, 1, 28, 28).double()) <= 1e-13


def test_every_image_size_that_the_network_takes() -> None:
    """Constants are folded only where they do not depend on the size of the image."""
    torch.manual_seed(0)
    for seed in range(6):
        model = warmed(Residual(), seed)
        mask = random_mask(model, 0.15, seed)
        small = compact(model, mask, example=torch.zeros(1, 3, 1, 1))
        masked = mask_in_place(model, mask)
        for size in (1, 2, 5, 16):
            assert gap(masked, small, torch.randn(3, 3, size, size)) <= TOLERANCE


def test_the_model_and_the_mask_do_not_change() -> None:
    model = warmed(conv1d())
    before = {n: t.clone() for n, t in model.state_dict().items()}
    mask = random_mask(model, 0.1)
    kept = {n: k.clone() for n, k in mask.keep.items()}
    compact(model, mask, example=torch.zeros(1, 6, 50))
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert all(torch.equal(k, kept[n]) for n, k in mask.keep.items())


def test_a_compact_network_is_a_module_like_any_other() -> None:
    model, small, x = shrunk("conv1d", "weights", 0.1)
    assert set(small.state_dict()) <= {*model.state_dict(), "select.positions"}
    twin = copy.deepcopy(small)
    assert isinstance(twin, Compact)
    assert twin.maps == small.maps
    assert twin.mask is small.mask
    file = io.BytesIO()
    torch.save(small, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    exported = torch.export.export(small, (x,)).module()
    with torch.no_grad():
        expected = small(x)
        assert all(torch.equal(m(x), expected) for m in (twin, loaded))
        assert torch.allclose(exported(x), expected, atol=1e-6)


def test_shrinking_a_shrunk_network_removes_nothing_more() -> None:
    for name in ("conv1d", "residual", "mlp", "lenet-300-100"):
        _, small, x = shrunk(name, "weights", 0.1)
        again = compact(small, small.mask, example=x)
        assert {n: p.shape for n, p in again.named_parameters()} == {
            n: p.shape for n, p in small.named_parameters()
        }
        assert gap(small, again, x) <= TOLERANCE


def test_dropout_works_again_when_the_shrunk_network_trains() -> None:
    """`F.dropout(x, p, self.training)` is traced in evaluation, which would switch it off for good."""
    _, small, x = shrunk("joined", "units", 0.5)
    small.train()
    assert not torch.equal(small(x), small(x))
    small.eval()
    assert torch.equal(small(x), small(x))


def test_a_forward_that_depends_on_the_mode_is_noted() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, x: Tensor, scale: bool = False, extra: Tensor | None = None) -> Tensor:
            if self.training:
                x = x + torch.randn_like(x)
            if scale:
                x = 2 * x
            logits: Tensor = self.fc(x if extra is None else x + extra)
            return logits

    model = Noisy().eval()
    mask = Mask({"fc.weight": torch.tensor([[True, False, False], [True, True, False]])})
    small = compact(model, mask, example=torch.zeros(1, 3))
    assert small.notes == (
        "Its forward computes otherwise in training mode; the compact network always computes as in evaluation.",
    )
    assert gap(mask_in_place(model, mask), small, torch.randn(4, 3)) <= TOLERANCE
    assert small.get_submodule("fc").in_features == 2


def test_two_inputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(5, 4)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            logits: Tensor = torch.relu(self.a(x)) + self.b(y)
            return logits

    model = Two().eval()
    keep = {"a.weight": torch.rand(4, 3) < 0.5, "b.weight": torch.zeros(4, 5, dtype=torch.bool)}
    keep["a.weight"][:, 1] = False
    mask = Mask(keep)
    small = compact(model, mask, example=(torch.zeros(1, 3), torch.zeros(1, 5)))
    assert small.get_submodule("b").in_features == 1
    x, y = torch.randn(6, 3), torch.randn(6, 5)
    with torch.no_grad():
        assert torch.allclose(mask_in_place(model, mask)(x, y), small(x, y), atol=1e-6)


def test_a_ticket_gives_its_mask_and_its_input_shape() -> None:
    build: dict[str, JSON] = {"name": "lenet-20", "input_shape": [6], "classes": 3, "generator_seed": 0}
    model = winticket.models.build("lenet-20", input_shape=(6,), classes=3, generator_seed=0).eval()
    start = State({n: p.detach() * 0 for n, p in model.named_parameters()}, {}, {}, 0)
    mask = random_mask(model, 0.2)
    ticket = Ticket(mask, start, "ticket", Seeds(0, 0), {"build": build})
    x = torch.randn(5, 6)
    small = compact(model, ticket)
    assert (
        gap(mask_in_place(model, mask), small, x) <= TOLERANCE
    )  # the model's weights, not the ticket's start


def test_a_trained_search_shrinks() -> None:
    """A ticket of a real search with warm BatchNorm statistics, trained under its mask."""
    torch.manual_seed(0)
    x, y = torch.randn(256, 20), torch.randint(0, 4, (256,))
    model = NETWORKS["mlp"][0]()
    ticket = winticket.prune(model, 0.1)
    with winticket.masked(model, ticket):
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(60):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    small = compact(model.eval(), ticket, example=x)
    assert gap(model, small, x) <= TOLERANCE
    assert parameters(small) < parameters(model)


def sequences(rng: random.Random) -> tuple[nn.Module, Sequence[int]]:
    """A network of layers drawn at random."""
    layers: list[nn.Module] = []
    channels, size = rng.randint(1, 4), 9
    shape = (channels, size, size)
    for _ in range(rng.randint(1, 4)):
        width, padding = rng.randint(2, 9), rng.choice([0, 1])
        layers.append(nn.Conv2d(channels, width, 3, padding=padding, bias=rng.random() < 0.5))
        channels, size = width, size + 2 * padding - 2
        if rng.random() < 0.5:
            layers.append(nn.BatchNorm2d(channels))
        layers.append(
            rng.choice([nn.ReLU(), nn.Sigmoid(), nn.LeakyReLU(inplace=True), nn.Identity(), nn.GELU()])
        )
        if size > 3 and rng.random() < 0.3:
            layers.append(rng.choice([nn.MaxPool2d(2), nn.AvgPool2d(2)]))
            size //= 2
        if size < 3:
            break
    layers.append(nn.Flatten())
    features = channels * size * size
    for _ in range(rng.randint(0, 2)):
        width = rng.randint(2, 12)
        layers += [nn.Linear(features, width, bias=rng.random() < 0.7), nn.Tanh()]
        features = width
    return nn.Sequential(*layers, nn.Linear(features, 3)), shape


def test_networks_drawn_at_random() -> None:
    agreed = 0
    for seed in range(60):
        rng = random.Random(seed)
        torch.manual_seed(seed)
        module, shape = sequences(rng)
        model = warmed(module, seed)
        agreed += agrees_or_is_cut(model, random_mask(model, rng.choice([0.5, 0.3, 0.2, 0.1]), seed), shape)
    assert agreed >= 30
