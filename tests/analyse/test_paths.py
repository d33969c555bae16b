"""Weights on paths: against a search of the graph, a linear network in float64, and the network's own gradients."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from analysing import made_of
from winticket import Mask, allocate, analyse, models
from winticket.analyse import facts
from winticket.experiment import Run
from winticket.units import layouts

Edge = tuple[tuple[object, ...], tuple[object, ...], tuple[str, int]]
"""From a node, to a node, by the n-th value of a weight."""


def by_search(
    edges: Sequence[Edge], inputs: set[tuple[object, ...]], outputs: set[tuple[object, ...]]
) -> set[object]:
    """The weights of the edges that lead from something the inputs reach to something that reaches the outputs."""
    after, before = set(inputs), set(outputs)
    for _ in range(len(edges)):
        grown = {b for a, b, _ in edges if a in after} | after
        shrunk = {a for a, b, _ in edges if b in before} | before
        if (grown, shrunk) == (after, before):
            break
        after, before = grown, shrunk
    return {weight for a, b, weight in edges if a in after and b in before}


def random_mask(model: nn.Module, density: float, seed: int, *, only: Sequence[str] = ()) -> Mask:
    generator = torch.Generator().manual_seed(seed)
    weights = dict(model.named_parameters())
    return Mask(
        {
            n: torch.rand(weights[n].shape, generator=generator) < density
            for n in only or models.eligible(model)
        },
        layouts(model),
    )


def as_set(mask: Mask) -> set[object]:
    return {
        (name, int(at)) for name, keep in mask.keep.items() for at in torch.nonzero(keep.flatten()).flatten()
    }


@pytest.mark.parametrize("seed", range(4))
def test_a_perceptron_against_a_search_of_its_graph(seed: int) -> None:
    model = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 8), nn.Sigmoid(), nn.Linear(8, 3))
    mask = random_mask(model, 0.2, seed)
    edges: list[Edge] = []
    for depth, (name, keep) in enumerate(mask.keep.items()):
        for at in torch.nonzero(keep.flatten()).flatten().tolist():
            unit, read = divmod(at, keep.shape[1])
            edges.append(((depth, read), (depth + 1, unit), (name, at)))
    expected = by_search(edges, {(0, n) for n in range(6)}, {(3, n) for n in range(3)})
    found = analyse.on_paths(model, mask, torch.zeros(1, 6))
    assert as_set(found) == expected
    assert found.within(mask)
    assert analyse.effective_density(model, mask, torch.zeros(1, 6)) == len(expected) / mask.total()
    assert 0 < len(expected) < mask.count()


def test_convolutions_against_a_search_over_channels_and_pixels() -> None:
    """Nodes are single pixels, so a kernel's position that sees nothing but padding is on no path."""
    size, stride, pad = 3, 2, 1
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2, stride=1),
        nn.Conv2d(3, 4, 3, stride=stride, padding=pad), nn.GELU(), nn.Flatten(), nn.Linear(4, 2),
    )  # fmt: skip
    dropped = 0
    for seed in range(4):
        mask = random_mask(model, 0.15, seed)
        edges: list[Edge] = []

        def conv(
            name: str, source: str, target: str, size: int, stride: int, mask: Mask, edges: list[Edge]
        ) -> None:
            keep = mask.keep[name]
            for at in torch.nonzero(keep.flatten()).flatten().tolist():
                out, into, dy, dx = (int(i) for i in torch.unravel_index(torch.tensor(at), keep.shape))
                for y in range((size - 1) // stride + 1):
                    for x in range((size - 1) // stride + 1):
                        row, column = stride * y + dy - 1, stride * x + dx - 1
                        if 0 <= row < size and 0 <= column < size:
                            edges.append(((source, into, row, column), (target, out, y, x), (name, at)))

        conv("0.weight", "in", "a", size, 1, mask, edges)
        for channel in range(3):  # the pool: 3 x 3 to 2 x 2
            for y in range(2):
                for x in range(2):
                    edges += [
                        (("a", channel, y + dy, x + dx), ("b", channel, y, x), ("pool", 0))
                        for dy in range(2)
                        for dx in range(2)
                    ]
        conv("4.weight", "b", "c", 2, stride, mask, edges)
        for at in torch.nonzero(mask.keep["7.weight"].flatten()).flatten().tolist():
            edges.append((("c", at % 4, 0, 0), ("out", at // 4), ("7.weight", at)))
        inputs: set[tuple[object, ...]] = {
            ("in", c, y, x) for c in range(2) for y in range(size) for x in range(size)
        }
        expected = by_search(edges, inputs, {("out", 0), ("out", 1)}) - {("pool", 0)}
        found = analyse.on_paths(model, mask, torch.zeros(1, 2, size, size))
        assert as_set(found) == expected, seed
        dropped += mask.count() - len(expected)
    assert dropped > 0


class Residual(nn.Module):
    """Two layers with a shortcut, combined in place as torchvision's networks do."""

    def __init__(self, *, plain: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1, groups=3)
        self.short, self.out = nn.Conv2d(2, 6, 1), nn.Linear(6, 4)
        self.norm, self.plain = nn.BatchNorm2d(6), plain

    def forward(self, x: Tensor) -> Tensor:
        if self.plain:  # the same wiring, linear
            h = self.second(self.first(x)) + self.short(x)
            h = torch.cat([h[:, :3], h[:, 3:]], 1)
        else:
            h = self.norm(self.second(torch.relu(self.first(x))))
            h += 0.5 * self.short(x) - 1
            h = torch.cat([torch.tanh(h[:, :3]), -h[:, 3:]], 1)
        logits: Tensor = self.out(h.mean((-2, -1)))
        return logits


@pytest.mark.parametrize("seed", range(3))
def test_a_residual_network_against_its_linear_twin(seed: int) -> None:
    """As Vysogorets & Kempe compute it: nonzero gradients of a linear network with positive weights."""
    model, twin = Residual(plain=False), Residual(plain=True).double()
    mask = random_mask(model, 0.15, seed)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in twin.named_parameters():
        value = torch.rand(parameter.shape, generator=generator, dtype=torch.float64) + 0.5
        parameter.data = value * mask.keep[name] if name in mask.keep else torch.zeros_like(value)
    twin(torch.ones(1, 2, 4, 4, dtype=torch.float64)).sum().backward()
    found = analyse.on_paths(model, mask, torch.zeros(1, 2, 4, 4))
    for name, keep in mask.keep.items():
        gradient = twin.get_parameter(name).grad
        assert gradient is not None
        assert torch.equal(found.keep[name], keep & (gradient != 0)), name
    assert 0 < found.count() < mask.count()


def test_a_transformer_against_its_own_gradients() -> None:
    """Without biases and normalisation, a weight changes the output if and only if it is on a path.

    LayerNorm computes its mean from all units, so in the real network every unit reaches every other one.
    """
    model = models.build("chargpt-2-32", input_shape=(6,), classes=9, tokens=True, generator_seed=0).double()
    for layer in list(model.modules()):
        for name, part in list(layer.named_children()):
            if isinstance(part, nn.LayerNorm):
                setattr(layer, name, nn.Identity())
    names = [name for name in models.eligible(model) if not name.endswith(("value.weight", "query.weight"))]
    mask = random_mask(model, 0.04, 0, only=names)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        value = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        value = value * mask.keep[name] if name in mask.keep else value
        parameter.data = value if parameter.ndim > 1 else torch.zeros_like(value)
    tokens = torch.randint(9, (12, 6), generator=generator)
    (model(tokens) * torch.randn(12, 6, 9, generator=generator, dtype=torch.float64)).sum().backward()
    found = analyse.on_paths(model, mask, tokens)
    for name, keep in mask.keep.items():
        gradient = model.get_parameter(name).grad
        assert gradient is not None
        assert torch.equal(found.keep[name], keep & (gradient != 0)), name
    assert 0 < found.count() < mask.count()


def test_rows_of_an_embedding_that_do_not_occur_are_on_no_path() -> None:
    model = nn.Sequential(nn.Embedding(5, 3), nn.Flatten(), nn.Linear(6, 2))
    mask = Mask({"0.weight": torch.ones(5, 3, dtype=torch.bool)}, layouts(model))
    found = analyse.on_paths(model, mask, torch.tensor([[0, 3]]))
    assert found.keep["0.weight"].all(1).tolist() == [True, False, False, True, False]


def test_nothing_overflows_in_a_deep_network() -> None:
    """Sums of 50 products, 200 times over, are beyond float64, and the same with a 50th of them is below it."""
    model = nn.Sequential(*[nn.Linear(50, 50, bias=False) for _ in range(200)])
    full = Mask.full(dict(model.named_parameters()))
    assert analyse.effective_density(model, full, torch.zeros(1, 50)) == 1.0
    most = random_mask(model, 0.9, 0)  # beyond float64, a sum over a pruned weight would be infinity times 0
    assert analyse.on_paths(model, most, torch.zeros(1, 50)).count() == most.count()
    one = Mask({name: torch.eye(50) > 0 for name in full.keep})
    assert analyse.effective_density(model, one, torch.zeros(1, 50)) == 1 / 50


def test_an_empty_layer_cuts_everything_off_and_the_model_stays_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    keep = {"0.weight": torch.ones(4, 3, dtype=torch.bool), "2.weight": torch.zeros(2, 4, dtype=torch.bool)}
    assert analyse.effective_density(model, Mask(keep), torch.zeros(1, 3)) == 0
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


class Sorted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        values: Tensor = self.fc(x).sort(-1).values
        return values


def test_operations_that_are_not_followed_are_refused_by_name() -> None:
    mask = Mask({"fc.weight": torch.ones(3, 3, dtype=torch.bool)})
    with pytest.raises(
        ValueError, match="the paths of Sorted cannot be followed: it calls sort; paths are followed"
    ):
        analyse.on_paths(Sorted(), mask, torch.zeros(1, 3))
    recurrent = nn.LSTM(3, 3)
    with pytest.raises(ValueError, match="the paths of LSTM cannot be followed: it calls lstm"):
        analyse.on_paths(recurrent, Mask({}), torch.zeros(1, 2, 3))
    with pytest.raises(ValueError, match="do not cover the same layers"):
        analyse.on_paths(nn.Linear(3, 3), mask, torch.zeros(1, 3))


def test_a_run_counts_paths_of_tickets_and_of_random_masks(run: Run) -> None:
    made = made_of(run, "paths")
    assert made.reason is None
    rows = made.table.where(level=2, replicate=1, layer="network").rows()
    assert {row["mask"] for row in rows} == {
        "ticket",
        "random",
        "random, uniform layers",
        "random, ERK layers",
    }
    assert len({row["kept"] for row in rows}) == 1
    ticket = run.training("ticket", level=2, replicate=0)
    module = run.plan.setup.module()
    (row,) = [row for row in rows if row["mask"] == "ticket"]
    assert row["effective_density"] == analyse.effective_density(module, ticket.mask, torch.zeros(1, 1, 8, 8))
    assert row["kept"] == ticket.mask.count()
    connected = analyse.on_paths(module, ticket.mask, torch.zeros(1, 1, 8, 8))
    assert row["cut_off"] == sum(len(connected.empty_units(name)) for name in connected.keep) / 60
    layers = [
        r for r in made.table.where(level=2, replicate=1, mask="ticket").rows() if r["layer"] != "network"
    ]
    assert sum(int(str(r["on_path"])) for r in layers) == row["on_path"]
    assert sum(int(str(r["units"])) for r in layers) == row["units"] == 60


def test_random_masks_have_the_counts_that_they_say(run: Run) -> None:
    from winticket.analyse.drawn import ERK, RANDOM, UNIFORM, drawn_masks

    ticket = run.training("ticket", level=2, replicate=0).ticket
    drawn = drawn_masks(ticket, 2)
    ones = {name: torch.ones(keep.shape) for name, keep in ticket.mask.keep.items()}
    for kind, rule in ((UNIFORM, allocate.uniform), (ERK, allocate.erk)):
        expected = rule(ones, Mask.full(ones), density=ticket.mask.density()).layers()
        assert drawn[kind].layers() == expected
    assert drawn[RANDOM].layers() == ticket.mask.layers()
    assert analyse.jaccard(drawn[RANDOM], ticket.mask) < 0.5
    again = drawn_masks(ticket, 2)
    assert all(analyse.jaccard(drawn[kind], again[kind]) == 1 for kind in drawn)
    assert analyse.jaccard(drawn_masks(ticket, 1)[RANDOM], drawn[RANDOM]) < 1


def test_a_network_whose_paths_are_unknown_is_not_analysed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from winticket.stages import Setup

    monkeypatch.setattr(Setup, "module", lambda _: nn.Sequential(nn.Flatten(), nn.Linear(64, 3), Sorted()))
    with pytest.raises(facts.NothingToAnalyseError, match="it calls sort"):
        analyse.ANALYSES["paths"].plan(run.cells())
