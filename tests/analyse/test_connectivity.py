"""Barriers: 0 for a network with itself, known on planted lines, and recomputed BatchNorm on every point."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import winticket
from winticket.analyse import Barrier, barrier
from winticket.analyse.instability import child
from winticket.analyse.line import line, refreshed
from winticket.experiment import Run
from winticket.stages import Setup, states, train_stack
from winticket.ticket import Failed, Seeds, Trajectory


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
    assert (made.error, made.loss, made.error_rise, made.loss_rise) == (0, 0, 0, 0)
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


def test_a_line_down_from_a_good_network_has_a_barrier_and_no_rise() -> None:
    made = Barrier((0.0, 0.25, 1.0), losses=(1.0, 1.5, 3.0), errors=(0.1, 0.2, 0.3))
    assert made.loss == 1.0  # 3 - (1 + 3) / 2
    assert made.loss_rise == 0.0  # 1.5 is the value of the line between 1 and 3 there
    assert made.error_rise == pytest.approx(0.2 - 0.15)


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


def test_batches_of_statistics_count_alike_and_are_of_one_size() -> None:
    """501 examples: batches of 251 and 250, and not of 500 and 1, of which the last would count for half."""
    model = network(3, norm=True)
    x = torch.randn(501, 4, generator=torch.Generator().manual_seed(1))
    weights = {n: v.detach() for n, v in model.named_parameters()}
    fresh = refreshed(model, weights, dict(model.named_buffers()), x)
    hidden = model[0](x).detach()
    wanted = torch.stack([part.var(0) for part in (hidden[:251], hidden[251:])]).mean(0)
    torch.testing.assert_close(fresh["1.running_var"], wanted)


def test_a_loader_and_a_loss_of_ones_own() -> None:
    a, b = network(1), network(2)
    x, y = data()
    loader = [(x[:50], y[:50]), (x[50:], y[50:])]
    whole, parts = barrier(a, b, (x, y), points=3), barrier(a, b, iter(loader), points=3)
    assert parts.errors == whole.errors
    assert parts.losses == pytest.approx(whole.losses)
    smooth = nn.CrossEntropyLoss(label_smoothing=0.1)
    made = barrier(a, b, loader, points=3, loss=smooth)
    assert made.errors == whole.errors
    assert made.losses[0] == pytest.approx(float(smooth(a(x), y).detach()), rel=1e-6)
    target = torch.randn(60, 3)
    fit = barrier(a, b, (x, target), points=3, loss=nn.MSELoss())
    assert fit.losses[2] == pytest.approx(float(nn.MSELoss()(b(x), target).detach()), rel=1e-6)
    assert math.isnan(fit.error)
    assert fit.loss >= 0


def test_ignored_answers_and_classes_in_dimension_1() -> None:
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.layer(x)
            return logits.movedim(-1, 1)  # [N, classes, T], as torch's cross-entropy takes it

    model, x, y = Positions(), torch.randn(6, 5, 4), torch.randint(0, 3, (6, 5))
    y[0, :2] = -100
    made = barrier(model, model, (x, y), points=2)
    assert made.losses[0] == pytest.approx(float(nn.functional.cross_entropy(model(x), y).detach()), rel=1e-6)
    right = (model(x).argmax(1) == y)[y != -100]
    assert made.errors[0] == pytest.approx(1 - float(right.double().mean()))


def test_networks_do_not_change_and_their_buffers_lie_on_the_line() -> None:
    class Shifted(nn.Module):
        def __init__(self, by: float) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)
            self.register_buffer("shift", torch.tensor([by, 0.0, 0.0]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.layer(x)
            return logits + self.get_buffer("shift")

    a, b = Shifted(0.0), Shifted(4.0)
    b.layer.load_state_dict(a.layer.state_dict())
    x, y = data()
    made = barrier(a, b, (x, y), points=3)
    wanted = nn.functional.cross_entropy(a.layer(x) + torch.tensor([2.0, 0.0, 0.0]), y)
    assert made.losses[1] == pytest.approx(float(wanted.detach()), rel=1e-6)
    assert torch.equal(a.get_buffer("shift"), torch.zeros(3))
    assert a.training


def test_what_cannot_be_compared_is_refused_before_anything_is_computed() -> None:
    with pytest.raises(ValueError, match="points is 1"):
        barrier(network(0), network(1), data(), points=1)
    with pytest.raises(ValueError, match="shapes"):
        barrier(network(0), nn.Sequential(nn.Linear(4, 15), nn.ReLU(), nn.Linear(15, 3)), data())
    with pytest.raises(ValueError, match="'1' is ReLU in the first and Tanh in the second"):
        barrier(network(0), nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3)), data())
    with pytest.raises(ValueError, match="60 examples and 59 targets"):
        barrier(network(0), network(1), (data()[0], data()[1][:59]))
    with pytest.raises(ValueError, match="no examples"):
        barrier(network(0), network(1), [])
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
    # Children that leave late stay closer.
    early, late = (dense.where(step=step).numbers("loss_barrier").mean() for step in (0, 30))
    assert late <= early
    assert between.table.column("level") == [1, 1, 1, 2, 2, 2]
    assert between.table.column("before") == [0, 0, 0, 1, 1, 1]
    assert (between.table.numbers("error_rise") <= between.table.numbers("error_barrier") + 1e-12).all()
    short = between.table.numbers("dense_accuracy") - between.table.numbers("accuracy")
    assert between.table.column("matches") == [bool(one <= 0.005 + 1e-9) for one in short]
    accuracy = run.table().where(arm="ticket", level=2, replicate=1).column("test_accuracy")
    assert between.table.where(level=2, replicate=1).numbers("accuracy")[0] == pytest.approx(
        float(str(accuracy[0]))
    )


def test_the_line_goes_from_a_training_to_its_child(run: Run) -> None:
    """The ends are the stored training, and the same training continued from a state of it in another order."""
    options = {"instability": {"shares": (0.5,), "ticket_shares": (0.25,), "levels": 1, "points": 3}}
    (made,) = run.analyse("instability", options=options)
    setup, one = run.plan.setup, run.training("dense", replicate=0)
    order = Seeds(setup.seed, 0, noise=1).derive("order")
    assert order != one.ticket.seeds.derive("order")
    (path,) = train_stack(setup, [one.ticket], on_the_way=None)
    (saved,) = states(setup, [one.ticket], [path], steps=(30,))
    assert not isinstance(saved, Failed)
    again = replace(one.ticket, start=saved[30], seeds=replace(one.ticket.seeds, noise=1))
    (other,) = train_stack(setup, [again])
    assert not isinstance(other, Failed)
    first, second = (_loaded(setup, path) for path in (one.trajectory, other))
    wanted = barrier(first, second, _test(run), points=3)
    row = made.table.where(arm="dense", replicate=1).rows()[0]
    assert row["step"] == 30
    assert float(row["loss_barrier"] or 0) == pytest.approx(wanted.loss, rel=1e-3, abs=1e-6)
    assert set(made.table.where(arm="ticket").column("step")) == {15}


def _loaded(setup: Setup, path: Trajectory) -> nn.Module:
    module = copy.deepcopy(setup.module())
    module.load_state_dict(path.saved[max(path.saved)].weights, strict=False)
    return module


def _test(run: Run) -> tuple[torch.Tensor, torch.Tensor]:
    test = run.plan.setup.dataset(torch.device("cpu"), 0).test
    return test.x, test.y


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


@pytest.mark.parametrize(("method", "before"), [("one-shot", [0, 0]), ("at-init", None)])
def test_a_ticket_is_set_against_the_network_that_it_was_pruned_from(
    tmp_path: Path, method: str, before: list[int] | None
) -> None:
    """One-shot tickets come from the dense network at every density; tickets found at init from no trained one."""
    options: dict[str, Any] = {"model": "lenet-10", "steps": 4, "density": [0.5, 0.3], "replicates": 1}
    where: dict[str, Any] = {"store": tmp_path / "store", "out": tmp_path / "out", "workers": 0}
    winticket.find("digits", **where, **options, method=method, controls=(), gate=False)
    (made,) = winticket.open(tmp_path / "out").analyse("barriers", options={"barriers": {"points": 2}})
    if before is None:
        assert made.reason is not None
        assert "pruned from a trained network" in made.reason
    else:
        assert made.table.column("before") == before
