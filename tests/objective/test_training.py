"""Training and evaluation by an objective: dense as sparse, alone as in a stack, masked, resumed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from winticket import data
from winticket.objective import LossAndMetric, Objective, functions
from winticket.objective.question import noise_targets
from winticket.ticket import Failed, Mask, Seeds, State, Ticket, Trajectory
from winticket.train import Recipe, dense_gradient, evaluate_outputs, train
from winticket.train.curves import Rows

RECIPE = Recipe(steps=60, batch=20, lr=0.02, evaluate_every=20, early_points=False)


@dataclass(frozen=True)
class Parts:
    train: data.Split
    validation: data.Split
    test: data.Split


def module_for(task: str) -> nn.Module:
    if task == "segmentation":
        return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 1))
    return nn.Sequential(nn.Flatten(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 3))


def problem(task: str, **choices: Any) -> tuple[Parts, LossAndMetric]:
    """Examples [N, 2, 4, 4] whose targets depend on them."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(700, 2, 4, 4, generator=generator)
    flat = x.flatten(1)
    y: Tensor = torch.stack([flat[:, 0] * 30 + 500, flat[:, 1] - flat[:, 2], flat[:, 3] * 0.01], 1)
    if task == "multi-label":
        y = (flat[:, :3] > 0.3).float()
    elif task == "segmentation":
        y = x[:, 0].gt(0).long() + x[:, 1].gt(0).long()
    elif task == "classification":
        y = flat[:, :3].argmax(1)
    made = functions(Objective(task, **choices), y[:400], outputs=3)
    parts = (
        data.Split(x[rows], made.trained(y[rows])) for rows in (slice(400), slice(400, 550), slice(550, 700))
    )
    return Parts(*parts), made


def tickets(module: nn.Module, count: int, density: float = 0.5) -> list[Ticket]:
    made = []
    for replicate in range(count):
        generator = torch.Generator().manual_seed(replicate)
        weights = {n: torch.randn(p.shape, generator=generator) * 0.2 for n, p in module.named_parameters()}
        keep = {
            n: torch.rand(w.shape, generator=generator) < density for n, w in weights.items() if w.ndim > 1
        }
        made.append(Ticket(Mask(keep), State(weights, {}, {}, 0), "ticket", Seeds(0, replicate)))
    return made


def trained(task: str, count: int = 2, engine: Any = "auto", **choices: Any) -> list[Trajectory]:
    module, (parts, made) = module_for(task), problem(task, **choices)
    paths = train(module, parts, data, tickets(module, count), RECIPE, objective=made, engine=engine)
    assert not any(isinstance(path, Failed) for path in paths)
    return [path for path in paths if isinstance(path, Trajectory)]


TASKS = ("regression", "multi-label", "segmentation", "classification")


@pytest.mark.parametrize("task", TASKS)
def test_networks_learn_their_task(task: str) -> None:
    choices = (
        {"class_weights": "balanced"}
        if task == "classification"
        else {"metric": "r2"}
        if task == "regression"
        else {}
    )
    (path,) = trained(task, 1, **choices)
    scores = path.curve.validation_accuracy
    assert scores[-1] > scores[0] + 0.1


@pytest.mark.parametrize("task", TASKS)
def test_masks_hold_and_a_stack_trains_as_each_network_alone(task: str) -> None:
    alone = trained(task, 1)[0]
    together = trained(task, 3)[0]
    weights = together.saved[60].weights
    for name, keep in together.ticket.mask.keep.items():
        assert not bool(weights[name][~keep].any())
        torch.testing.assert_close(alone.saved[60].weights[name], weights[name], rtol=1e-4, atol=1e-5)


def test_the_sparse_kernels_train_numbers_as_the_dense_ones_do() -> None:
    dense, sparse = (trained("regression", 2, engine=engine)[1] for engine in ("dense", "sparse"))
    assert sparse.about["sparse"]
    torch.testing.assert_close(dense.curve.test_loss[-1:], sparse.curve.test_loss[-1:], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("task", TASKS)
def test_the_reported_score_is_the_metric_of_all_test_outputs(task: str) -> None:
    module, (parts, made) = module_for(task), problem(task)
    path = trained(task, 1)[0]
    weights = path.saved[60].weights
    with torch.no_grad():
        outputs = torch.func.functional_call(module.eval(), dict(weights), (parts.test.x,))
    assert float(path.curve.test_accuracy[-1]) == pytest.approx(made.score(outputs, parts.test.y), rel=1e-5)
    assert float(path.curve.test_loss[-1]) == pytest.approx(float(made.loss(outputs, parts.test.y)), rel=1e-4)


def test_validation_scores_are_not_means_over_batches() -> None:
    """Of 700 validation examples, 500 are evaluated first and the others later; RMSE is that of all together."""
    module = nn.Linear(1, 1, bias=False)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(700, 1, generator=generator)
    y = 3 * x + torch.randn(700, 1, generator=generator) * torch.linspace(0, 5, 700).unsqueeze(1)
    made = functions(Objective("regression", loss="squared-error"), y, outputs=1)
    part = data.Split(x, made.trained(y))
    start = State({"weight": torch.tensor([[0.3]])}, {}, {}, 0)
    ticket = Ticket(Mask({"weight": torch.ones(1, 1, dtype=torch.bool)}), start, "ticket", Seeds(0, 0))
    recipe = replace(RECIPE, steps=20)
    (path,) = train(module, Parts(part, part, part), data, [ticket], recipe, objective=made)
    assert isinstance(path, Trajectory)
    outputs = path.saved[20].weights["weight"] * x
    assert float(path.curve.validation_accuracy[-1]) == pytest.approx(made.score(outputs, part.y), rel=1e-5)
    assert float(path.curve.pace_accuracy[-1]) == pytest.approx(
        made.score(outputs[:500], part.y[:500]), rel=1e-5
    )


def test_each_replicate_may_have_its_own_examples() -> None:
    module, (parts, made) = module_for("regression"), problem("regression")
    stack = tickets(module, 2)
    weights = {n: torch.stack([t.start.weights[n] for t in stack]) for n in stack[0].start.weights}
    own = Rows(
        torch.stack([parts.test.x, parts.test.x.flip(0)]), torch.stack([parts.test.y, parts.test.y.flip(0)])
    )
    loss, outputs = evaluate_outputs(module, weights, {}, own, objective=made, per_replicate=True)
    shared, same = evaluate_outputs(module, weights, {}, parts.test, objective=made)
    torch.testing.assert_close(loss, shared)
    torch.testing.assert_close(outputs[1].flip(0), same[1])


def test_the_dense_gradient_is_the_objectives() -> None:
    module, (parts, made) = module_for("regression"), problem("regression")
    ticket = tickets(module, 1)[0]
    x, y = parts.train.x[:30], parts.train.y[:30]
    found = dense_gradient(module, ticket.start.weights, {}, x, y, objective=made)
    leaves = {n: w.clone().requires_grad_() for n, w in ticket.start.weights.items()}
    loss = ((torch.func.functional_call(module, leaves, (x,)) - y) ** 2).mean()
    expected = torch.autograd.grad(loss, list(leaves.values()))
    for one, other in zip(found.values(), expected, strict=True):
        torch.testing.assert_close(one, other)


def test_a_network_that_diverges_fails_and_says_so() -> None:
    module, (parts, made) = module_for("regression"), problem("regression")
    recipe = replace(RECIPE, optimizer="sgd", lr=1e6)
    (path,) = train(module, parts, data, tickets(module, 1), recipe, objective=made)
    assert isinstance(path, Failed)
    assert "finite" in path.reason


def test_noise_has_the_shape_of_the_targets() -> None:
    assert noise_targets("regression", 5, 2, (4,)).shape == (5, 2)
    assert noise_targets("segmentation", 5, 3, (1, 6, 7)).shape == (5, 6, 7)
    assert noise_targets("classification", 5, 3, (4,)).tolist() == [0, 1, 2, 0, 1]
