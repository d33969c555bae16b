"""The compiled chain against torch in float64: its steps, its scores, for every instruction set of this processor."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from winticket.sparse import (
    Link,
    Rule,
    Structure,
    instruction_sets,
    score_links,
    structure,
    tiles,
    train_links,
)
from winticket.sparse.native import kernels

pytestmark = pytest.mark.skipif(kernels is None, reason="built without sparse kernels")

WIDTHS = (21, 30, 18, 5)
STACK = 3
OPTIMIZERS: dict[str, tuple[Rule, Any, dict[str, Any]]] = {
    "sgd": (Rule("sgd", weight_decay=0.1), torch.optim.SGD, {"weight_decay": 0.1}),
    "momentum": (
        Rule("sgd", momentum=0.9, weight_decay=0.01),
        torch.optim.SGD,
        {"momentum": 0.9, "weight_decay": 0.01},
    ),
    "nesterov": (
        Rule("sgd", momentum=0.8, nesterov=True),
        torch.optim.SGD,
        {"momentum": 0.8, "nesterov": True},
    ),
    "adam": (Rule("adam", weight_decay=0.01), torch.optim.Adam, {"weight_decay": 0.01}),
    "adamw": (
        Rule("adamw", weight_decay=0.3, betas=(0.7, 0.95), eps=1e-6),
        torch.optim.AdamW,
        {"weight_decay": 0.3, "betas": (0.7, 0.95), "eps": 1e-6},
    ),
}


@pytest.fixture(params=instruction_sets(), autouse=True)
def _instructions(request: pytest.FixtureRequest) -> Iterator[None]:
    before = kernels.forced()
    kernels.use(request.param)
    yield
    kernels.use(before)


class Net:
    """A stack of masked networks, as a chain and as dense float64 parameters."""

    def __init__(self, density: float, rule: Rule, *, biases: bool = True) -> None:
        torch.manual_seed(0)
        self.keep = [torch.rand(STACK, o, i) < density for i, o in itertools.pairwise(WIDTHS)]
        dense = [torch.randn(k.shape) / math.sqrt(k.shape[-1] * density) * k for k in self.keep]
        self.structures: list[Structure] = [structure(k, batch=60) for k in self.keep]
        self.links = []
        for at, (where, weight) in enumerate(zip(self.structures, dense, strict=True)):
            values = where.pack(weight)
            bias = torch.randn(STACK, weight.shape[1]) if biases else None
            count = {"sgd": 1 if rule.momentum else 0}.get(rule.kind, 2)
            self.links.append(
                Link(
                    values, bias, where.start, where.place, where.by_column, where.row_of, where.order,
                    relu=at < len(dense) - 1,
                    weight_slots=tuple(torch.zeros_like(values) for _ in range(count)),
                    bias_slots=tuple(torch.zeros_like(bias) for _ in range(count)) if bias is not None else (),
                )
            )  # fmt: skip
        self.weights = [w.double().requires_grad_() for w in dense]
        self.biases = [link.bias.double().requires_grad_() for link in self.links if link.bias is not None]

    def answers(self, r: int, x: Tensor) -> Tensor:
        z = x.double()
        for at, weight in enumerate(self.weights):
            z = z @ weight[r].mT + (self.biases[at][r] if self.biases else 0)
            z = z if at == len(self.weights) - 1 else torch.relu(z)
        return z


def examples(count: int = 200) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, WIDTHS[0], generator=generator)
    return x, torch.randint(0, WIDTHS[-1], (count,), generator=generator)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(("batch", "density"), [(60, 0.3), (64, 1.0), (7, 0.5), (33, 0.05)])
def test_steps_are_those_of_torch(name: str, batch: int, density: float) -> None:
    rule, kind, options = OPTIMIZERS[name]
    net, (x, y) = Net(density, rule), examples()
    optimizer = kind([*net.weights, *net.biases], lr=0.1, **options)
    rates = torch.tensor([0.02, 0.01, 0.03, 0.005])
    rows = torch.randint(0, len(y), (4, STACK, batch))
    losses = torch.cat(
        [
            train_links(net.links, x, y, rows[:3], rates[:3], rule=rule, taken=0),
            train_links(net.links, x, y, rows[3:], rates[3:], rule=rule, taken=3),
        ]
    )
    for step in range(4):
        optimizer.zero_grad()
        each = torch.stack(
            [
                torch.nn.functional.cross_entropy(net.answers(r, x[rows[step, r]]), y[rows[step, r]])
                for r in range(STACK)
            ]
        )
        torch.testing.assert_close(losses[step].double(), each, rtol=1e-5, atol=1e-6)
        torch.autograd.backward(each.sum())
        optimizer.param_groups[0]["lr"] = rates[step].item()
        optimizer.step()
        with torch.no_grad():
            for weight, keep in zip(net.weights, net.keep, strict=True):
                weight.mul_(keep)
    for link, where, weight, bias in zip(net.links, net.structures, net.weights, net.biases, strict=True):
        # Adam divides by the root of second moments, so roundings of small gradients show.
        torch.testing.assert_close(where.unpack(link.weight).double(), weight.detach(), rtol=1e-3, atol=2e-5)
        assert link.bias is not None
        torch.testing.assert_close(link.bias.double(), bias.detach(), rtol=1e-3, atol=2e-5)


def test_layers_without_bias_train() -> None:
    net, (x, y) = Net(0.5, Rule("sgd"), biases=False), examples()
    rows = torch.arange(40).expand(2, STACK, 40).contiguous()
    losses = train_links(net.links, x, y, rows, torch.full((2,), 0.1), rule=Rule("sgd"), taken=0)
    assert bool((losses[1] < losses[0]).all())


def test_factors_hold_biases_at_zero() -> None:
    net, (x, y) = Net(0.5, Rule("sgd")), examples()
    (first, *others), factors = net.links, torch.ones(STACK, WIDTHS[1])
    factors[1, 4] = 0
    held = Link(**{**first.__dict__, "keep_bias": factors})
    rows = torch.arange(40).expand(3, STACK, 40).contiguous()
    train_links([held, *others], x, y, rows, torch.full((3,), 0.1), rule=Rule("sgd"), taken=0)
    assert held.bias is not None
    assert held.bias[1, 4] == 0
    assert int((held.bias == 0).sum()) == 1


def test_a_replicate_trains_alike_beside_any_others() -> None:
    rule, (x, y) = Rule("adam"), examples()
    together, alone = Net(0.3, rule), Net(0.3, rule)
    rows = torch.randint(0, len(y), (3, STACK, 60))
    rates = torch.full((3,), 0.01)
    losses = train_links(together.links, x, y, rows, rates, rule=rule, taken=0)

    def only(t: Tensor | None) -> Any:
        return None if t is None else t[1:2].contiguous()

    second = [
        Link(
            only(link.weight), only(link.bias), only(link.start), only(link.place), only(link.by_column),
            only(link.row_of), only(link.order),
            relu=link.relu,
            weight_slots=tuple(map(only, link.weight_slots)),
            bias_slots=tuple(map(only, link.bias_slots)),
        )
        for link in alone.links
    ]  # fmt: skip
    by_itself = train_links(second, x, y, rows[:, 1:2], rates, rule=rule, taken=0)
    assert torch.equal(losses[:, 1:2], by_itself)
    assert torch.equal(together.links[0].weight[1:2], second[0].weight)


def test_threads_change_nothing() -> None:
    rule, (x, y) = Rule("adam"), examples()
    rows, before, results = torch.randint(0, len(y), (3, STACK, 60)), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            net = Net(0.3, rule)
            train_links(net.links, x, y, rows, torch.full((3,), 0.01), rule=rule, taken=0)
            results.append([link.weight for link in net.links] + [*score_links(net.links, tiles(x), y)])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("count", [1, 63, 64, 200])
def test_scores_are_those_of_the_dense_networks(count: int) -> None:
    net, (x, y) = Net(0.3, Rule("sgd")), examples(count)
    loss, correct = score_links(net.links, tiles(x), y)
    for r in range(STACK):
        logits = net.answers(r, x)
        wanted = torch.nn.functional.cross_entropy(logits, y, reduction="sum").item()
        assert loss[r].item() == pytest.approx(wanted, rel=1e-6)
        assert correct[r].item() == int((logits.argmax(1) == y).sum())


def test_extreme_logits() -> None:
    """Differences of hundreds, infinities and NaN: what float64 gives, or NaN; ties go to the first class."""
    keep = torch.ones(1, 5, 5, dtype=torch.bool)
    where = structure(keep)
    identity = where.pack(torch.eye(5)[None])
    link = Link(
        identity, None, where.start, where.place, where.by_column, where.row_of, where.order, relu=False
    )
    cases = {
        (300.0, -300.0, 0.0, 0.0, 0.0): 0,
        (-90.0, 0.0, 0.0, -1e30, 5.0): 1,
        (1.0, 2.0, 2.0, 0.0, 0.0): 1,
        (0.0, 0.0, 0.0, 0.0, 0.0): 0,
        (3e38, 0.0, 0.0, 0.0, 0.0): 4,
    }
    for logits, y in cases.items():
        x, answer = torch.tensor([logits]), torch.tensor([y])
        loss, correct = score_links([link], tiles(x), answer)
        wanted = torch.nn.functional.cross_entropy(x.double(), answer).item()
        assert loss.item() == pytest.approx(wanted, rel=1e-6, abs=1e-7)
        assert correct.item() == int(x.argmax() == y)
    for bad in (math.nan, math.inf):
        loss, _ = score_links([link], tiles(torch.tensor([[bad, 0.0, 0.0, 0.0, 0.0]])), torch.tensor([1]))
        assert math.isnan(loss.item())
    for outside in (-1, 5):
        loss, correct = score_links([link], tiles(torch.zeros(1, 5)), torch.tensor([outside]))
        assert math.isnan(loss.item())
        assert correct.item() == 0


def test_what_does_not_fit_is_refused() -> None:
    net, (x, y) = Net(0.3, Rule("sgd")), examples()
    rows, rates = torch.zeros(1, STACK, 4, dtype=torch.int64), torch.tensor([0.1])

    def train(links: list[Link], x: Tensor = x, y: Tensor = y, rows: Tensor = rows) -> None:
        train_links(links, x, y, rows, rates, rule=Rule("sgd"), taken=0)

    with pytest.raises(IndexError, match="row 200 of 200"):
        train(net.links, rows=rows + 200)
    with pytest.raises(IndexError, match="row -1 of 200"):
        train(net.links, rows=rows - 1)
    with pytest.raises(ValueError, match="do not form a chain"):
        train([net.links[0], net.links[2]])
    with pytest.raises(ValueError, match="21 inputs"):
        train(net.links, x=x[:, :20].contiguous())
    with pytest.raises(TypeError, match="float32 inputs and int64 classes"):
        train(net.links, x=x.double())
    with pytest.raises(TypeError, match="contiguous"):
        train([Link(**{**net.links[0].__dict__, "weight": net.links[0].weight.double()}), *net.links[1:]])
    with pytest.raises(ValueError, match="steps"):
        train(net.links, rows=rows.expand(2, STACK, 4).contiguous())
    with pytest.raises(ValueError, match="3 networks"):
        train(net.links, rows=rows[:, :2].contiguous())


def test_means_that_have_become_tiny_are_flushed() -> None:
    """A slot below 1e-38 becomes 0, so that it costs no more than others; the caller's arithmetic stays as it was."""
    rule, (x, y) = Rule("adam"), examples()
    net = Net(0.3, rule)
    unused = torch.zeros_like(x)  # no input, no gradient by the first layer's weights
    means = net.links[0].weight_slots[0].fill_(1e-38)
    rows = torch.arange(40).expand(1, STACK, 40).contiguous()
    train_links(net.links, unused, y, rows, torch.tensor([0.01]), rule=rule, taken=1)
    if kernels.chosen() != "plain":
        assert not means.any()
    assert torch.tensor([1e-38]).mul(0.5).item() > 0
