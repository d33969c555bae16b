"""Alignment: which units may be reordered, and that renumbered units are recovered."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from winticket import models
from winticket.align import Axis, Group, match, permuted, resized, symmetry
from winticket.ticket import Weights


class Residual(nn.Module):
    """Two blocks with BatchNorm whose sums tie their outputs, one of them through a convolution."""

    def __init__(self, channels: int = 6, classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.inner = nn.Conv2d(channels, 4, 3, padding=1)
        self.inner_norm = nn.BatchNorm2d(4)
        self.back = nn.Conv2d(4, channels, 3, padding=1)
        self.wide = nn.Conv2d(channels, 8, 3, stride=2, padding=1)
        self.short = nn.Conv2d(channels, 8, 1)
        self.depth = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.head = nn.Linear(8, classes)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.norm(self.stem(x)))
        h = h + self.back(torch.tanh(self.inner_norm(self.inner(h))))
        h = self.wide(h) + self.short(h[:, :, ::2, ::2])
        h = nn.functional.gelu(self.depth(h)).mean((2, 3))
        return cast(Tensor, self.head(h))


def chain() -> nn.Module:
    """Convolution, BatchNorm, pooling, flatten over 2 x 2 places, and a BatchNorm behind it."""
    return nn.Sequential(
        nn.Conv2d(1, 7, 3, padding=1),
        nn.BatchNorm2d(7),
        nn.ReLU(),
        nn.MaxPool2d(4),
        nn.Flatten(),
        nn.BatchNorm1d(28),
        nn.Linear(28, 9),
        nn.Tanh(),
        nn.Dropout(0.5),
        nn.Linear(9, 5),
    )


def built(name: str) -> Callable[[], nn.Module]:
    return lambda: models.build(name, input_shape=(1, 8, 8), classes=5, generator_seed=0)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "lenet": built("lenet-20-10"),
    "mlp1d": built("mlp1d"),
    "conv-4": built("conv-4"),
    "chain": chain,
    "residual": Residual,
}


def trained(module: nn.Module, *, seed: int, steps: int = 25) -> nn.Module:
    """After some steps on noise, so that BatchNorm's statistics and all biases are no longer what they were set to."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        for p in module.parameters():
            p.data += 0.05 * torch.randn_like(p)
        optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
        module.train()
        for _ in range(steps):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(module(torch.randn(16, 1, 8, 8)), torch.randint(5, (16,)))
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return module.eval()


def tensors(module: nn.Module) -> dict[str, Tensor]:
    return {n: t.detach().clone() for n, t in (*module.named_parameters(), *module.named_buffers())}


def output(module: nn.Module, values: Weights) -> Tensor:
    x = torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        return cast(Tensor, torch.func.functional_call(module, dict(values), (x,)))


def test_the_groups_of_a_small_network_by_hand() -> None:
    assert symmetry(chain(), (1, 8, 8)) == (
        Group(
            7,
            (
                *(Axis(f"{layer}.{part}", 0) for layer, part in (("0", "weight"), ("0", "bias"))),
                *(Axis(f"1.{part}", 0) for part in ("weight", "bias", "running_mean", "running_var")),
                # 7 channels of 2 x 2 places are 28 features.
                *(Axis(f"5.{part}", 0, 4) for part in ("weight", "bias", "running_mean", "running_var")),
                Axis("6.weight", 1, 4),
            ),
        ),
        Group(9, (Axis("6.weight", 0), Axis("6.bias", 0), Axis("9.weight", 1))),
    )


def test_a_residual_sum_ties_what_it_adds() -> None:
    (group,) = symmetry(models.build("mlp1d", input_shape=(1, 40), classes=10, generator_seed=0), (1, 40))
    assert group.size == 500
    assert {Axis("fc2.weight", 0), Axis("fc2.weight", 1)} <= set(group.axes)
    first, inner, second = symmetry(Residual(), (1, 8, 8))
    assert (first.size, inner.size, second.size) == (6, 4, 8)
    assert {Axis("back.weight", 0), Axis("stem.weight", 0), Axis("short.weight", 1)} <= set(first.axes)
    # A depthwise filter belongs to the unit that it reads.
    assert {Axis("wide.weight", 0), Axis("depth.weight", 0), Axis("head.weight", 1)} <= set(second.axes)


@pytest.mark.parametrize("name", NETWORKS)
def test_renumbered_units_are_recovered_exactly_and_the_function_stays(name: str) -> None:
    module = trained(NETWORKS[name](), seed=1)
    groups, weights = symmetry(module, (1, 8, 8)), tensors(module)
    generator = torch.Generator().manual_seed(2)
    orders = tuple(torch.randperm(g.size, generator=generator) for g in groups)
    moved = permuted(weights, groups, orders)
    assert any(not torch.equal(moved[n], weights[n]) for n in weights)
    # Sums are taken in another order, so the last digits of float32 differ.
    one, two = output(module, weights), output(module, moved)
    assert float((one - two).abs().max()) < 1e-5 * float(one.abs().max())
    matched = match(weights, moved, groups)
    assert all(torch.equal(f, order.argsort()) for f, order in zip(matched, orders, strict=True))
    back = permuted(moved, groups, matched)
    assert all(torch.equal(back[n], weights[n]) for n in weights)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_function_stays_to_the_last_digits_of_float64(name: str) -> None:
    module = trained(NETWORKS[name](), seed=1).double()
    groups, weights = symmetry(module, (1, 8, 8)), tensors(module)
    orders = tuple(torch.randperm(g.size, generator=torch.Generator().manual_seed(3)) for g in groups)
    x = torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    with torch.no_grad():
        one, two = (
            torch.func.functional_call(module, v, (x,)) for v in (weights, permuted(weights, groups, orders))
        )
    assert float((one - two).abs().max()) < 1e-6 * float(one.abs().max())


@pytest.mark.parametrize("name", NETWORKS)
def test_the_overlap_of_masks_goes_from_chance_to_one(name: str) -> None:
    module = trained(NETWORKS[name](), seed=1)
    groups, weights = symmetry(module, (1, 8, 8)), tensors(module)
    kept = {
        n: weights[n].abs() >= weights[n].abs().flatten().kthvalue(int(0.8 * weights[n].numel())).values
        for n in models.eligible(module)
    }
    total = sum(k.numel() for k in kept.values())
    density = sum(int(k.sum()) for k in kept.values()) / total
    raw, generator = [], torch.Generator().manual_seed(2)
    for _ in range(20):
        orders = tuple(torch.randperm(g.size, generator=generator) for g in groups)
        moved = permuted(kept, groups, orders)
        raw.append(sum(int((kept[n] & moved[n]).sum()) for n in kept) / total)
        matched = match(weights, permuted(weights, groups, orders), groups)
        again = permuted(moved, groups, matched)
        assert all(torch.equal(again[n], kept[n]) for n in kept)
    # Kept in both by chance: density squared; more if units or positions differ in how much they keep.
    assert sum(raw) / len(raw) == pytest.approx(density**2, rel=0.4)


def test_units_that_only_resemble_are_matched_better_than_as_they_are() -> None:
    """A noisy copy, renumbered: the sum that is maximised rises above the true numbering's or is it."""
    module = trained(chain(), seed=1)
    groups, weights = symmetry(module, (1, 8, 8)), tensors(module)
    orders = tuple(torch.randperm(g.size, generator=torch.Generator().manual_seed(2)) for g in groups)
    noisy = {n: w + 0.1 * torch.randn(w.shape, generator=torch.Generator().manual_seed(4)) for n, w in weights.items()
             if w.is_floating_point()}  # fmt: skip
    matched = match(weights, permuted(noisy, groups, orders), groups)
    assert all(torch.equal(f, order.argsort()) for f, order in zip(matched, orders, strict=True))


def test_assignment_by_hand() -> None:
    """Two units with one input and one output: [1, 2] and [2.1, 0.9] match crosswise."""
    groups = (Group(2, (Axis("a", 0), Axis("b", 1))),)
    weights = {"a": torch.tensor([[1.0], [2.0]]), "b": torch.tensor([[1.0, 1.0]])}
    other = {"a": torch.tensor([[2.1], [0.9]]), "b": torch.tensor([[1.0, 1.0]])}
    (order,) = match(weights, other, groups)
    assert order.tolist() == [1, 0]
    # Outgoing weights can turn it round: 1 * 2.1 + 2 * .9 + 5 * 5 = 28.9 against 1 * .9 + 2 * 2.1 + 0 = 5.1.
    (order,) = match(
        {**weights, "b": torch.tensor([[5.0, 0.0]])}, {**other, "b": torch.tensor([[5.0, 0.0]])}, groups
    )
    assert order.tolist() == [0, 1]


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 16)
        self.block = nn.TransformerEncoderLayer(16, 2, dim_feedforward=32, batch_first=True)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.block(self.embed(x.flatten(1, 2)))
        return cast(Tensor, self.head(h.mean(1)))


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(64, 5)

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            x = -x
        return cast(Tensor, self.fc(x.flatten(1)))


class Weighted(nn.Module):
    """Units that differ by their place: the sum with a fixed ramp is no symmetry, though every step looks like one."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(64, 6), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.one(x.flatten(1))
        return cast(Tensor, self.two(h * torch.arange(6.0, dtype=h.dtype).expand(len(x), 6)))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Attention(), r"Attention cannot be matched: (embed is a Linear layer over an input of 3|block)"),
        (Branching(), "Branching cannot be matched: its graph cannot be traced"),
        (
            nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 2)),
            r"Sequential cannot be matched: it does not take float32 of shape \(2, 1, 8, 8\) \(RuntimeError",
        ),
        (Weighted(), "Weighted cannot be matched"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 5)), "Sequential has no hidden units"),
        (
            nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, groups=2), nn.Flatten(), nn.Linear(64, 5)),
            "1 is a convolution in 2 groups",
        ),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.LayerNorm(6), nn.Linear(6, 5)),
            "2 is a LayerNorm; supported are Linear layers on .*, Conv and BatchNorm layers",
        ),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.Softmax(1), nn.Linear(6, 5)),
            "2 is a Softmax",
        ),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, nn.Module) else "",
)
def test_what_is_not_known_to_be_a_symmetry_is_refused(
    module: nn.Module, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match=message):
        symmetry(module, (1, 8, 8))
    assert capsys.readouterr() == ("", "")  # the error says it all


def test_a_misread_graph_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    room = sys.modules[symmetry.__module__]
    monkeypatch.setattr(room, "_PASSED", (nn.LayerNorm,))
    with pytest.raises(
        ValueError, match=r"reordering them changes the output by .*, so its graph was misread"
    ):
        symmetry(nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.LayerNorm(6), nn.Linear(6, 5)), (1, 8, 8))


def test_reading_leaves_the_module_alone() -> None:
    module = trained(chain(), seed=1).train()
    before = tensors(module)
    symmetry(module, (1, 8, 8))
    assert module.training
    assert all(torch.equal(v, before[n]) for n, v in tensors(module).items())


@pytest.mark.parametrize(
    ("small", "wide"), [("resnet-20-4", "resnet-20-6"), ("conv-2", "conv-2"), ("lenet-7-5", "lenet-20-5")]
)
def test_what_follows_a_unit_follows_its_copies(small: str, wide: str) -> None:
    """In every dimension that a group runs through, unit i of the wider network is unit i mod n."""
    networks = [
        models.build(name, input_shape=(3, 8, 8), classes=5, generator_seed=0) for name in (small, wide)
    ]
    groups, others = (symmetry(network, (3, 8, 8)) for network in networks)
    weights = dict(networks[0].named_parameters())
    new = resized(weights, groups, others)
    assert {n: w.shape for n, w in new.items()} == {n: p.shape for n, p in networks[1].named_parameters()}
    for old, group in zip(groups, others, strict=True):
        for axis in group.axes:
            if axis.name in new:
                units = new[axis.name].movedim(axis.dim, 0)
                units = units.reshape(group.size, axis.block, *units.shape[1:])
                assert torch.equal(units[old.size :], units[: group.size - old.size])
    back = resized(new, others, groups)
    assert all(torch.equal(back[n], w) for n, w in weights.items())


def test_networks_of_different_layers_are_refused() -> None:
    two, three = (symmetry(built(name)(), (1, 8, 8)) for name in ("lenet-20-10", "lenet-20-10-5"))
    weights = dict(built("lenet-20-10-5")().named_parameters())
    with pytest.raises(
        ValueError, match=r"one has fc1 \(20\), fc2 \(10\), fc3 \(5\), the other fc1 \(20\), fc2 \(10\)$"
    ):
        resized(weights, three, two)
