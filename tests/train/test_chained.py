"""Which networks train as a compiled chain, and what happens if the chain cannot be used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from winticket import data
from winticket.sparse import missing, train_links
from winticket.ticket import Ticket, Trajectory
from winticket.train import Recipe, chain, train
from winticket.train.feed import Data

pytestmark = pytest.mark.skipif(bool(missing), reason=f"built without sparse kernels: {missing}")
Make = Callable[..., Ticket]


def network(*between: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 20), *between, nn.Linear(20, 12), nn.ReLU(), nn.Linear(12, 3))


def steps_of(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of steps of each call of the chain from now on."""
    calls: list[int] = []
    taken = train_links

    def count(links: Any, x: Any, y: Any, rows: Any, rates: Any, **options: Any) -> Any:
        calls.append(len(rows))
        return taken(links, x, y, rows, rates, **options)

    monkeypatch.setattr(chain, "train_links", count)
    return calls


def run(module: nn.Module, examples: Data, tickets: list[Ticket], **choices: Any) -> list[Trajectory]:
    recipe = Recipe(**{"steps": 70, "batch": 20, "evaluate_every": 35, "lr": 0.01, **choices})
    paths = train(module, examples, data, tickets, recipe, engine="sparse")
    assert all(isinstance(p, Trajectory) for p in paths)
    return [p for p in paths if isinstance(p, Trajectory)]


def test_a_network_of_linear_layers_trains_as_a_chain(
    vectors: Data, dense: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, calls = network(nn.ReLU()), steps_of(monkeypatch)
    seen: list[tuple[int, int]] = []
    tickets = [dense(module, r, density=0.4) for r in range(2)]
    recipe = Recipe(steps=70, batch=20, evaluate_every=35, lr=0.01, early_points=False)
    train(module, vectors, data, tickets, recipe, engine="sparse", report=lambda *done: seen.append(done))
    assert sum(calls) == 71  # one of them to compare
    assert max(calls) <= chain.AT_ONCE
    assert seen[-1] == (70, 70)
    assert [step for step, _ in seen] == sorted({step for step, _ in seen})
    calls.clear()
    train(module, vectors, data, tickets, recipe, engine="sparse")
    assert sum(calls) == 70  # compared once for a module


@pytest.mark.parametrize(
    ("module", "choices"),
    [
        (lambda: network(nn.Tanh()), {}),
        (lambda: network(nn.ReLU(), nn.Dropout(0.5)), {}),
        (lambda: network(nn.BatchNorm1d(20), nn.ReLU()), {}),
        (lambda: network(nn.ReLU()), {"clip_norm": 1.0}),
    ],
    ids=["tanh", "dropout", "batchnorm", "clipped"],
)
def test_whatever_else_trains_operator_by_operator(
    module: Callable[[], nn.Module],
    choices: dict[str, Any],
    vectors: Data,
    dense: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net, calls = module(), steps_of(monkeypatch)
    paths = run(net, vectors, [dense(net, r, density=0.4) for r in range(2)], **choices)
    assert calls == []
    assert "0.weight" in paths[0].about["sparse"]  # type: ignore[operator]


def test_a_chain_that_disagrees_is_not_used(
    vectors: Data, dense: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = network(nn.ReLU())
    tickets = [dense(module, r, density=0.4) for r in range(2)]
    calls: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(chain, "begin_chain", lambda *_: None)
        patch.setattr("winticket.train.stretch.begin_chain", lambda *_: None)
        wanted = run(module, vectors, tickets)

    def wrong(links: Any, *arguments: Any, **options: Any) -> Any:
        losses = train_links(links, *arguments, **options)
        calls.append(len(losses))
        links[1].weight.mul_(1.001)
        return losses

    monkeypatch.setattr(chain, "train_links", wrong)
    paths = run(module, vectors, tickets)
    assert calls == [1]
    for one, two in zip(paths, wanted, strict=True):
        assert all(torch.equal(w, two.saved[70].weights[n]) for n, w in one.saved[70].weights.items())


def test_augmented_batches_are_not_for_the_chain(
    images: Data, dense: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    features = images.train.x[0].numel()
    module = nn.Sequential(nn.Flatten(), nn.Linear(features, 20), nn.ReLU(), nn.Linear(20, 3))
    tickets, calls = [dense(module, r, density=0.4) for r in range(2)], steps_of(monkeypatch)
    run(module, images, tickets, flip=True)
    assert calls == []
    run(module, images, tickets)
    assert sum(calls) == 71
