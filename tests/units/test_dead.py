"""A dead unit is dead: under a mask of whole units a network computes what it does with those units cut out by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from winticket import Recipe, criteria, data, masked, models, prune
from winticket.data import Split
from winticket.stages import Examples
from winticket.ticket import Mask, Seeds, State, Ticket, Trajectory
from winticket.train import train
from winticket.units import dead_parameters, effective_count, layouts, takes_whole_units, why_untraceable


class Residual(nn.Module):
    """A convolution, a block with a way round it, the mean over pixels, a linear layer."""

    def __init__(self, stream: int = 5, hidden: int = 6) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, stream, 3, padding=1, bias=False), nn.BatchNorm2d(stream)
        self.conv1, self.bn1 = nn.Conv2d(stream, hidden, 3, padding=1), nn.BatchNorm2d(hidden)
        self.conv2, self.bn2 = nn.Conv2d(hidden, stream, 3, padding=1), nn.BatchNorm2d(stream)
        self.fc = nn.Linear(stream, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.bn(self.conv(x)))
        h = torch.relu(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(h))))) + h)
        logits: Tensor = self.fc(h.mean((-2, -1)))
        return logits


def mlp(a: int = 12, b: int = 10, kind: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Linear(20, a), nn.BatchNorm1d(a), kind(), nn.Linear(a, b), nn.BatchNorm1d(b), kind()),
        nn.Linear(b, 4),
    )


def vgg(a: int = 8, b: int = 6) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(3, a, 3, padding=1), nn.BatchNorm2d(a), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU(), nn.Flatten()),
        *(nn.Dropout(0.0), nn.Linear(b * 16, 4)),
    )


def mobile(a: int = 6, b: int = 5) -> nn.Sequential:
    """A depthwise convolution between two others, and a transposed one."""
    return nn.Sequential(
        *(nn.Conv2d(3, a, 1), nn.BatchNorm2d(a), nn.ReLU()),
        *(nn.Conv2d(a, a, 3, padding=1, groups=a), nn.BatchNorm2d(a), nn.ReLU()),
        *(nn.ConvTranspose2d(a, b, 2, stride=2), nn.BatchNorm2d(b), nn.ReLU()),
        *(nn.Conv2d(b, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    )


def warm(model: nn.Module) -> nn.Module:
    """As a training leaves it: no parameter or statistic is 0 or 1."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(
                0.3 * torch.randn(p.shape, generator=generator) + (1 if name.endswith("bn.weight") else 0.1)
            )
        for buffer in model.buffers():
            if buffer.is_floating_point():
                buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
    return model


Cut = Sequence[tuple[str, int, int]]
"""(parameter or buffer by name or its beginning, dimension, features per unit) of one set of units."""

MLP_CUTS: tuple[Cut, ...] = (
    (("0.", 0, 1), ("1.", 0, 1), ("3.weight", 1, 1)),
    (("3.", 0, 1), ("4.", 0, 1), ("6.weight", 1, 1)),
)
VGG_CUTS: tuple[Cut, ...] = (
    (("0.", 0, 1), ("1.", 0, 1), ("4.weight", 1, 1)),
    (("4.", 0, 1), ("5.", 0, 1), ("9.weight", 1, 16)),
)
RESIDUAL_CUTS: tuple[Cut, ...] = (
    (
        *(("conv.weight", 0, 1), ("bn.", 0, 1), ("conv1.weight", 1, 1)),
        *(("conv2.", 0, 1), ("bn2.", 0, 1), ("fc.weight", 1, 1)),
    ),
    (("conv1.", 0, 1), ("bn1.", 0, 1), ("conv2.weight", 1, 1)),
)
MOBILE_CUTS: tuple[Cut, ...] = (
    (("0.", 0, 1), ("1.", 0, 1), ("3.", 0, 1), ("4.", 0, 1), ("6.weight", 0, 1)),
    (("6.weight", 1, 1), ("6.bias", 0, 1), ("7.", 0, 1), ("9.weight", 1, 1)),
)


def cut_out(model: nn.Module, smaller: nn.Module, cuts: Sequence[Cut], dead: Sequence[set[int]]) -> nn.Module:
    """`smaller` with the state of `model` without the dead units, cut out by hand."""
    state = dict(model.state_dict())
    for cut, units in zip(cuts, dead, strict=True):
        for start, dim, block in cut:
            for name in [n for n in state if n.startswith(start) and state[n].ndim > dim]:
                stays = [i for i in range(state[name].shape[dim]) if i // block not in units]
                state[name] = state[name].index_select(dim, torch.tensor(stays))
    smaller.load_state_dict(state)
    return smaller.eval()


def mask_of(model: nn.Module, empty: dict[str, set[int]]) -> Mask:
    """All weights but those of the empty units of some layers; the output layer is not in it."""
    weights = dict(model.named_parameters())
    known = layouts(model)
    full = Mask.full({n: weights[n] for n in models.eligible(model)[:-1]}, layout=known)
    keep = {}
    for name, whole_layer in full.keep.items():
        by_unit = full.laid_out(name).by_unit(whole_layer).clone()
        by_unit[sorted(empty.get(name, ()))] = False
        keep[name] = full.laid_out(name).from_units(by_unit, whole_layer).clone()
    return Mask(keep, full.layout)


@dataclass(frozen=True)
class Case:
    build: Callable[..., nn.Module]
    sizes: tuple[int, int]
    shape: tuple[int, ...]
    empty: dict[str, set[int]]
    cuts: tuple[Cut, ...]
    dead: tuple[set[int], set[int]]


CASES = {
    "mlp": Case(mlp, (12, 10), (20,), {"0.weight": {1, 5}, "3.weight": {0, 9}}, MLP_CUTS, ({1, 5}, {0, 9})),
    "sigmoid": Case(
        partial(mlp, kind=nn.Sigmoid),
        *((12, 10), (20,), {"0.weight": {1, 5}, "3.weight": {0, 9}}, MLP_CUTS, ({1, 5}, {0, 9})),
    ),
    "vgg": Case(
        *(vgg, (8, 6), (3, 8, 8), {"0.weight": {0, 3, 7}, "4.weight": {2, 5}}, VGG_CUTS, ({0, 3, 7}, {2, 5}))
    ),
    # Channel 1 of the sum is dead in both its writers; 0 lives in the block, 4 in the way round it.
    "residual": Case(
        *(Residual, (5, 6), (3, 8, 8)),
        {"conv.weight": {0, 1}, "conv2.weight": {1, 4}, "conv1.weight": {2, 3}},
        *(RESIDUAL_CUTS, ({1}, {2, 3})),
    ),
    # Channel 2 has lost its depthwise filter, and so has 4, with what went into it.
    "mobile": Case(
        *(mobile, (6, 5), (3, 8, 8), {"0.weight": {2, 4}, "3.weight": {2}, "6.weight": {0, 3}}),
        *(MOBILE_CUTS, ({2, 4}, {0, 3})),
    ),
}


def state_of(model: nn.Module) -> State:
    weights = {n: p.detach().clone() for n, p in model.named_parameters()}
    return State(weights, {n: b.clone() for n, b in model.named_buffers()}, {}, 0)


def agrees(case: Case, model: nn.Module, x: Tensor) -> None:
    a, b = (size - len(units) for size, units in zip(case.sizes, case.dead, strict=True))
    small = cut_out(model, case.build(a, b).double(), case.cuts, case.dead)
    torch.testing.assert_close(model.eval()(x), small(x), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_outputs_are_those_of_the_network_with_the_units_cut_out(name: str) -> None:
    case = CASES[name]
    model = warm(case.build(*case.sizes)).double()
    ticket = Ticket(mask_of(model, case.empty), state_of(model), "ticket", Seeds(0, 0))
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(30, *case.shape, generator=generator, dtype=torch.float64)
    ticket.load_into(model)
    agrees(case, model, x)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    with masked(model, ticket.mask):
        for _ in range(5):
            model.train()
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), torch.arange(30) % 4).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            agrees(case, model, x)
    agrees(case, model, x)


@pytest.mark.parametrize("stacking", ["stacked", "one by one"])
@pytest.mark.parametrize("name", CASES)
def test_so_are_those_of_a_trained_stack(name: str, stacking: Literal["stacked", "one by one"]) -> None:
    """Two replicates, one of which has nothing pruned and is as it was."""
    case = CASES[name]
    model = warm(case.build(*case.sizes))
    start = state_of(model)
    mask = mask_of(model, case.empty)
    dense = Ticket(mask_of(model, {}), start, "dense", Seeds(0, 1))
    generator = torch.Generator().manual_seed(2)
    part = Split(torch.randn(30, *case.shape, generator=generator), torch.arange(30) % 4)
    recipe = Recipe(steps=5, batch=10, evaluate_every=5, lr=0.02, optimizer="sgd", stacking=stacking)
    some = Examples(part, part, part)
    pruned, whole_network = train(
        model, some, data, [Ticket(mask, start, "ticket", Seeds(0, 0)), dense], recipe
    )
    (alone,) = train(model, some, data, [dense], recipe)
    assert isinstance(pruned, Trajectory)
    assert isinstance(whole_network, Trajectory)
    assert isinstance(alone, Trajectory)
    for key, value in alone.saved[5].weights.items():
        torch.testing.assert_close(whole_network.saved[5].weights[key], value, rtol=1e-4, atol=1e-5)
    model.load_state_dict({**pruned.saved[5].weights, **pruned.saved[5].buffers})
    assert sum(float(p.detach().abs().sum()) for n, p in model.named_parameters() if n.endswith("bias")) > 1
    agrees(case, model.double(), part.x.double())


def test_weights_that_read_dead_units_do_not_count_by_hand() -> None:
    """20 · 12 and 12 · 10 weights; of 10 and 8 units that are left: 20 · 10 + 10 · 8."""
    model = mlp()
    mask = mask_of(model, CASES["mlp"].empty)
    assert mask.count() == 20 * 10 + 12 * 8
    assert effective_count(model, mask) == 20 * 10 + 10 * 8
    # Of the sum's channels only 1 is dead, in conv1's inputs; conv2 reads the 4 that are left of 6.
    residual = Residual()
    kept = 3 * 3 * 9 + 4 * (5 - 1) * 9 + (5 - 2) * 4 * 9
    first = {"conv.weight": {0, 1}, "conv1.weight": {2, 3}, "conv2.weight": {1, 4}}
    # conv1 reads the first convolution alone, whose channels 0 and 1 are dead there.
    assert effective_count(residual, mask_of(residual, first)) == kept - 4 * 9
    assert effective_count(model, mask_of(model, {})) == mask_of(model, {}).count()


def test_what_goes_with_a_dead_unit_by_hand() -> None:
    lost = dead_parameters(mlp(), mask_of(mlp(), {"0.weight": {1}}))
    assert set(lost) == {"0.bias", "1.weight", "1.bias", "3.weight"}
    for name in ("0.bias", "1.weight", "1.bias"):
        assert lost[name].nonzero().flatten().tolist() == [1]
    assert lost["3.weight"].any(0).nonzero().flatten().tolist() == [1]
    assert bool(lost["3.weight"][:, 1].all())


def test_under_any_other_mask_biases_stay() -> None:
    """A unit that merely happens to be cut off is a constant, as in every unstructured ticket."""
    model = mlp()
    keep = {n: k.clone() for n, k in mask_of(model, {"0.weight": {1}}).keep.items()}
    keep["3.weight"][0, 0] = False
    assert not takes_whole_units(Mask(keep))
    assert dead_parameters(model, Mask(keep)) == {}
    assert dead_parameters(model, mask_of(model, {})) == {}


class Branching(nn.Module):
    """Cannot be traced."""

    def __init__(self, normalised: bool) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)
        self.bn: nn.Module = nn.BatchNorm1d(6) if normalised else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.bn(self.a(x)))
        logits: Tensor = self.b(h if h.sum() > 0 else -h)
        return logits


def test_where_the_graph_cannot_be_read_own_biases_go_and_batchnorm_is_told() -> None:
    mask = mask_of(Branching(False), {"a.weight": {2}})
    lost = dead_parameters(Branching(False), mask)
    assert list(lost) == ["a.bias"]
    assert lost["a.bias"].tolist() == [False, False, True, False, False, False]
    assert why_untraceable(Branching(False)) == ""
    assert "cannot be traced" in why_untraceable(Branching(True))
    assert why_untraceable(mlp()) == ""
    with pytest.warns(
        RuntimeWarning, match="the shift of the BatchNorm after one cannot be zeroed: its graph"
    ):
        prune(Branching(True), 0.5, criterion=criteria.l1_units)


class Mixed(nn.Module):
    """LayerNorm mixes units, so what reads them reads all of them; a weight used elsewhere is not followed."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 6)
        self.c = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.b(self.norm(self.a(x)))
        logits: Tensor = self.c(torch.relu(nn.functional.linear(h, self.b.weight)))
        return logits


def test_beyond_what_mixes_units_nothing_is_said_to_be_dead() -> None:
    mask = mask_of(Mixed(), {"a.weight": {1}, "b.weight": {2}})
    assert set(dead_parameters(Mixed(), mask)) == {"a.bias", "b.bias"}


@pytest.mark.parametrize("build", [mlp, vgg, Residual, mobile])
def test_a_users_own_network_pruned_by_units(build: Callable[[], nn.Module]) -> None:
    """Half of the units of every layer but the output, by default; warm, as it is."""
    model = warm(build())
    ticket = prune(model, 0.5, criterion=criteria.l1_units)
    assert takes_whole_units(ticket.mask)
    assert models.output_layer(model) not in ticket.mask.keep
    share = ticket.about["effective_density"]
    assert share == effective_count(model, ticket.mask) / ticket.mask.total()
    assert isinstance(share, float)
    assert share < ticket.mask.density()
    # The start is the one that the model is given: what goes with dead units is 0 in the ticket itself.
    for name, dead in dead_parameters(model, ticket.mask).items():
        assert not bool(ticket.start.weights[name][dead].any())
