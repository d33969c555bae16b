"""Barriers: 0 for a network with itself, known on planted lines, and recomputed BatchNorm on every point."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import winticket
from winticket.analyse import barrier
from winticket.analyse.instability import child
from winticket.analyse.line import line, refreshed
from winticket.experiment import Run


def data(count: int = 60, features: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, features, generator=generator), torch.randint(
        0, 3, (count,), generator=generator
    )


def network(seed: int, *, norm: bool = False) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = [nn.Linear(4, 16), *([nn.BatchNorm1d(16)] if norm else []), nn.ReLU(), nn.Linear(16, 3)]
    return nn.Sequential(*layers)


@pytest.mark.parametrize("norm", [False, True])
def test_the_barrier_of_a_network_with_itself_is_0(norm: bool) -> None:
    model = network(0, norm=norm)
    made = barrier(model, copy.deepcopy(model), data(), train=data()[0])
    assert made.error == 0
    assert made.loss == pytest.approx(0, abs=1e-12)
    assert len(made.alphas) == 11


def test_a_planted_barrier_is_found() -> None:
    """Logits w·x and -w·x with sign-flipped readouts compute the same; in the middle of the line nothing is left."""

    class Product(nn.Module):
        def __init__(self, sign: float) -> None:
            super().__init__()
            self.a, self.b = nn.Parameter(torch.tensor([sign])), nn.Parameter(torch.tensor([sign]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            score = self.a * self.b * x
            return torch.cat([-score, score], 1)

    x = torch.linspace(-1, 1, 40)[:, None]
    y = (x[:, 0] > 0).long()
    made = barrier(Product(1.0), Product(-1.0), (x, y), points=3)
    assert made.errors[0] == made.errors[2] == 0
    # At a = b = 0 both logits are 0, and the first class is answered for all.
    assert made.error == made.errors[1] == 0.5
    assert made.losses[1] == pytest.approx(float(torch.tensor(2.0).log()))
    assert made.loss == pytest.approx(made.losses[1] - (made.losses[0] + made.losses[2]) / 2)


def test_points_are_those_of_the_line_between_the_weights() -> None:
    a, b = network(1), network(2)
    made = barrier(a, b, data(), points=5)
    middle = copy.deepcopy(a)
    with torch.no_grad():
        for p, q in zip(middle.parameters(), b.parameters(), strict=True):
            p.copy_((p + 3 * q) / 4)
        x, y = data()
        loss = nn.functional.cross_entropy(middle(x), y)
    assert made.losses[3] == pytest.approx(float(loss), rel=1e-6)


def test_batchnorm_is_recomputed_at_every_point() -> None:
    model, (x, _) = network(3, norm=True), data()
    weights = {n: p.detach() for n, p in model.named_parameters()}
    buffers = {n: v.detach() for n, v in model.named_buffers()}
    fresh = refreshed(model, weights, buffers, x)
    hidden = model[0](x).detach()
    torch.testing.assert_close(fresh["1.running_mean"], hidden.mean(0))
    torch.testing.assert_close(fresh["1.running_var"], hidden.var(0))
    assert torch.equal(
        dict(model.named_buffers())["1.running_mean"], torch.zeros(16)
    )  # the module itself is as it was
    assert model.training


def test_what_cannot_be_compared_is_refused_before_anything_is_computed() -> None:
    with pytest.raises(ValueError, match="points is 1"):
        barrier(network(0), network(1), data(), points=1)
    with pytest.raises(ValueError, match="shapes"):
        barrier(network(0), nn.Sequential(nn.Linear(4, 15), nn.ReLU(), nn.Linear(15, 3)), data())
    with pytest.raises(ValueError, match="BatchNorm layers, so pass training examples"):
        barrier(network(0, norm=True), network(1, norm=True), data())


def test_several_answers_an_example_count_alike() -> None:
    module = nn.Linear(4, 3)
    weights = {n: p.detach() for n, p in module.named_parameters()}
    x, y = torch.randn(6, 5, 4), torch.randint(0, 3, (6, 5))
    made = line(module, (weights, weights), ({}, {}), [(x, y)], points=2)
    wanted = nn.functional.cross_entropy(module(x).flatten(0, 1), y.flatten()).detach()
    assert made.losses[0] == pytest.approx(float(wanted))


def test_children_share_the_state_and_not_the_noise(run: Run) -> None:
    path = run.training("ticket", level=1, replicate=2).trajectory
    one = child(run.plan.setup, path, step=None, noise=1)
    assert one.start is path.ticket.start
    assert one.seeds == replace(path.ticket.seeds, noise=1)
    assert one.seeds.derive("order") != path.ticket.seeds.derive("order")
    assert one.seeds.derive("init") == path.ticket.seeds.derive("init")


def test_a_run_has_instability_and_barriers(run: Run) -> None:
    made, between = run.analyse(
        "instability", "barriers", options={"instability": {"shares": "0,0.5", "levels": "1", "points": "5"}}
    )
    assert (made.reason, between.reason) == (None, None)
    dense = made.table.where(arm="dense")
    assert sorted(set(map(str, dense.column("step")))) == ["0", "30"]
    assert len(dense) == 2 * 3
    assert set(made.table.column("arm")) == {"dense", "ticket", "random"}
    assert (made.table.numbers("error_barrier") >= 0).all()
    # Children that part late stay closer.
    early, late = (dense.where(step=step).numbers("loss_barrier").mean() for step in (0, 30))
    assert late <= early
    assert between.table.column("level") == [1, 1, 1, 2, 2, 2]
    accuracy = run.table().where(arm="ticket", level=2, replicate=1).column("test_accuracy")
    assert between.table.where(level=2, replicate=1).numbers("accuracy")[0] == pytest.approx(
        float(str(accuracy[0]))
    )


def test_a_share_past_the_end_is_refused(run: Run) -> None:
    options: dict[str, dict[str, Any]] = {"instability": {"shares": (0.5, 1.0)}}
    with pytest.raises(ValueError, match="each is below 1"):
        run.analyse("instability", options=options)


def test_analyses_of_a_network_with_batchnorm(tmp_path: Any) -> None:
    options: dict[str, Any] = {
        "model": "resnet-8",
        "steps": 4,
        "density": [0.5],
        "replicates": 2,
        "batch": 20,
    }
    where: dict[str, Any] = {"store": tmp_path / "store", "out": tmp_path / "out", "workers": 0}
    winticket.find("digits", **where, **options, controls=(), gate=False, validation=60, test=60)
    made, between = winticket.open(tmp_path / "out").analyse(
        "instability", "barriers", options={"instability": {"points": 3}, "barriers": {"points": 3}}
    )
    assert (made.reason, between.reason) == (None, None)
    assert len(between.table) == 2
