"""The training loop against plain PyTorch, its curves, its failures and its refusals."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from winticket import data
from winticket.ticket import Failed, Mask, Seeds, State, Ticket, Trajectory, same_bits
from winticket.train import Recipe, curves, evaluate, train
from winticket.train.feed import Data

Make = Callable[..., Ticket]
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd", "lr": 0.1},
    "sgd decay": {"optimizer": "sgd", "lr": 0.1, "weight_decay": 0.05},
    "momentum": {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 0.01},
    "nesterov": {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": True},
    "adam": {"optimizer": "adam", "lr": 0.01},
    "adam decay": {"optimizer": "adam", "lr": 0.01, "weight_decay": 0.05},
    "adamw": {"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.1},
}


@cache
def mlp() -> nn.Module:
    """One object for all tests, so that it is traced once per shape."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def trajectories(results: Sequence[Trajectory | Failed]) -> list[Trajectory]:
    for result in results:
        assert isinstance(result, Trajectory), result
    return [r for r in results if isinstance(r, Trajectory)]


def same_run(a: Trajectory, b: Trajectory) -> bool:
    """Every saved state and every point of the curves, bit for bit."""
    columns = vars(a.curve).keys()
    return (
        a.saved.keys() == b.saved.keys()
        and same_bits({c: getattr(a.curve, c) for c in columns}, {c: getattr(b.curve, c) for c in columns})
        and all(
            same_bits(getattr(a.saved[s], part), getattr(b.saved[s], part))
            for s in a.saved
            for part in ("weights", "buffers", "optimizer")
        )
    )


class Aside:
    """A checkpoint in memory that looks at the running weights themselves, not at what is saved of them."""

    def __init__(self) -> None:
        self.running: list[dict[str, Tensor]] = []

    def load(self) -> Any:
        return None

    def save(self, value: Any) -> None:
        self.running.append(value["now"]["weights"])

    def due(self) -> bool:
        return True


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("reused", [False, True], ids=["fresh", "reused state"])
def test_pruned_weights_are_zero_after_every_step(
    kind: str, reused: bool, vectors: Data, dense: Make
) -> None:
    module = mlp()
    recipe = Recipe(steps=8, batch=10, evaluate_every=1, **OPTIMIZERS[kind])
    stack = [dense(module, r, density=0.5) for r in range(2)]
    if reused:  # moments gathered by the dense network push pruned weights as well
        whole = [replace(t, mask=Mask.full(t.mask.keep)) for t in stack]
        paths = trajectories(train(module, vectors, data, whole, recipe, save=[3]))
        stack = [replace(t, start=p.saved[3]) for t, p in zip(stack, paths, strict=True)]
    for ticket in stack:  # alive weights that happen to be 0, and pruned ones that are not
        ticket.start.weights["2.weight"][:, 2] = 0.0
    aside, start = Aside(), stack[0].start.step
    paths = trajectories(
        train(module, vectors, data, stack, recipe, save=range(start + 1, 9), checkpoint=aside)
    )
    assert len(aside.running) == 7 - start
    for r, (ticket, path) in enumerate(zip(stack, paths, strict=True)):
        states = [{n: w[r] for n, w in weights.items()} for weights in aside.running]
        for weights in [*states, *(path.saved[s].weights for s in range(start + 1, 9))]:
            for name, keep in ticket.mask.keep.items():
                assert bool((weights[name][~keep] == 0).all())
        alive = ticket.mask.keep["2.weight"][:, 2]
        assert bool((path.saved[8].weights["2.weight"][:, 2][alive] != 0).all())
        # In what is handed on, a pruned weight is +0.0, not -0.0.
        assert same_bits(path.saved[8].weights, ticket.mask.apply(path.saved[8].weights))


SCHEDULES: dict[str, tuple[dict[str, Any], list[float]]] = {
    "constant": ({}, [1.0] * 20),
    "warm-up": ({"warmup": 4}, [0.25, 0.5, 0.75, *[1.0] * 17]),
    "step": ({"schedule": "step", "milestones": (0.25, 0.5)}, [*[1.0] * 5, *[0.1] * 5, *[0.01] * 10]),
    "cosine": ({"schedule": "cosine"}, [0.5 * (1 + math.cos(math.pi * t / 20)) for t in range(20)]),
}
CASES = (
    [(kind, "constant") for kind in OPTIMIZERS] + [("momentum", s) for s in SCHEDULES] + [("adam", "step")]
)


def batches(examples: Any, ticket: Ticket, size: int, steps: int) -> list[Tensor]:
    """The indices of each step: the epochs' orders end to end, cut into batches."""
    count = len(examples.y)
    epochs = range(-(-steps * size // count))
    orders = [data.permutation(count, seed=ticket.seeds.derive("order"), epoch=e) for e in epochs]
    return list(torch.split(torch.cat(orders)[: steps * size], size))


def by_hand(
    examples: Any,
    ticket: Ticket,
    rates: list[float],
    size: int,
    options: dict[str, Any],
    *,
    clip: float = 0,
    norms: list[float] | None = None,
) -> Any:
    """Plain PyTorch in float64: autograd, torch.optim, F.cross_entropy, the mask multiplied after each step."""
    module = copy.deepcopy(mlp()).double()
    module.load_state_dict(ticket.start.weights)
    keep = {name: mask.double() for name, mask in ticket.mask.keep.items()}
    settings = {k: v for k, v in options.items() if k != "optimizer"}
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[
        options["optimizer"]
    ]
    optimizer = kind(module.parameters(), foreach=False, fused=False, **{"weight_decay": 0.0, **settings})
    losses = []
    for step, rows in enumerate([None, *batches(examples, ticket, size, len(rates))]):
        if rows is not None:
            optimizer.param_groups[0]["lr"] = options["lr"] * rates[step - 1]
            optimizer.zero_grad()
            loss = F.cross_entropy(module(examples.x[rows].double()), examples.y[rows])
            loss.backward()  # type: ignore[no-untyped-call]
            for name, mask in keep.items():
                module.get_parameter(name).grad.mul_(mask)  # type: ignore[union-attr]
            if clip and norms is not None:
                norms.append(float(torch.nn.utils.clip_grad_norm_(module.parameters(), clip)))
            optimizer.step()
            losses.append(loss.item())
        with torch.no_grad():
            for name, mask in keep.items():
                module.get_parameter(name).mul_(mask)
    return module, losses


@pytest.mark.parametrize("kind", ["momentum", "adam"])
def test_clipping_is_torchs_for_each_replicate_by_itself(kind: str, vectors: Data, dense: Make) -> None:
    """Some steps are above the norm and some are not; gradients of pruned weights do not count."""
    module, norms = mlp(), list[float]()
    stack = [dense(module, 0), dense(module, 1, density=0.5)]
    recipe = Recipe(steps=20, batch=10, evaluate_every=5, clip_norm=0.7, **OPTIMIZERS[kind])
    paths = trajectories(train(module, vectors, data, stack, recipe))
    for ticket, path in zip(stack, paths, strict=True):
        reference, _ = by_hand(vectors.train, ticket, [1.0] * 20, 10, OPTIMIZERS[kind], clip=0.7, norms=norms)
        for name, parameter in reference.named_parameters():
            torch.testing.assert_close(
                path.saved[20].weights[name].double(), parameter.detach(), rtol=0, atol=2e-5
            )
    assert min(norms) < 0.7 < max(norms)


@pytest.mark.parametrize(("kind", "schedule"), CASES)
def test_training_is_plain_pytorch(kind: str, schedule: str, vectors: Data, dense: Make) -> None:
    module, (options, factors) = mlp(), SCHEDULES[schedule]
    stack = [dense(module, 0), dense(module, 1, density=0.5)]
    recipe = Recipe(steps=20, batch=10, evaluate_every=1, **OPTIMIZERS[kind], **options)
    paths = trajectories(train(module, vectors, data, stack, recipe))
    for ticket, path in zip(stack, paths, strict=True):
        reference, losses = by_hand(vectors.train, ticket, factors, 10, OPTIMIZERS[kind])
        # Twenty steps in float32 against float64: rounding of 1e-7 a step, and Adam divides by small moments.
        for name, parameter in reference.named_parameters():
            torch.testing.assert_close(
                path.saved[20].weights[name].double(), parameter.detach(), rtol=0, atol=2e-5
            )
        assert path.curve.train_loss[1:].tolist() == pytest.approx(losses, abs=1e-5)
        for part, loss, accuracy in (
            (vectors.validation, path.curve.validation_loss, path.curve.validation_accuracy),
            (vectors.test, path.curve.test_loss, path.curve.test_accuracy),
        ):
            logits = reference(part.x.double())
            assert float(loss[-1]) == pytest.approx(F.cross_entropy(logits, part.y).item(), abs=1e-5)
            assert float(accuracy[-1]) == int((logits.argmax(1) == part.y).sum()) / len(part.y)


def test_the_reference_notices_a_difference(vectors: Data, dense: Make) -> None:
    ticket = dense(mlp())
    one, _ = by_hand(vectors.train, ticket, [1.0] * 20, 10, OPTIMIZERS["adam"])
    two, _ = by_hand(vectors.train, ticket, [1.0] * 20, 10, OPTIMIZERS["adamw"])
    assert (
        max((a - b).abs().max().item() for a, b in zip(one.parameters(), two.parameters(), strict=True))
        > 1e-3
    )


def test_augmented_batches_are_the_datas_own(images: Data, dense: Make) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    stack = [dense(module, r) for r in range(2)]
    recipe = Recipe(steps=6, batch=20, evaluate_every=1, optimizer="sgd", lr=1e-30, flip=True, crop=2)
    for ticket, path in zip(stack, trajectories(train(module, images, data, stack, recipe)), strict=True):
        seed, count = ticket.seeds.derive("augment"), len(images.train.y)
        drawn = [data.augmentation(count, seed=seed, epoch=e, flip=True, crop=2) for e in range(3)]
        flips = torch.cat([d[0] for d in drawn if d[0] is not None])
        shifts = torch.cat([d[1] for d in drawn if d[1] is not None])
        weight, bias = ticket.start.weights["1.weight"], ticket.start.weights["1.bias"]
        for step, rows in enumerate(batches(images.train, ticket, 20, 6)):
            at = slice(20 * step, 20 * step + 20)  # the third step lies across the end of the first epoch
            x = data.augment(images.train.x[rows], flip=flips[at], shift=shifts[at], pad=2)
            loss = F.cross_entropy(x.flatten(1) @ weight.T + bias, images.train.y[rows])
            # The learning rate is too small to move a weight. 192 products in float32, summed in another order.
            assert float(path.curve.train_loss[step + 1]) == pytest.approx(loss.item(), rel=1e-5)


def test_batches_run_over_the_ends_of_epochs_and_repeat_nothing(dense: Make) -> None:
    # Ten one-hot examples into one linear layer: a step moves the columns of the examples it saw, no others.
    part = data.Split(torch.eye(10), torch.arange(10) % 3)
    source = type("OneHot", (), {"train": part, "validation": part, "test": part})()
    module = nn.Linear(10, 3, bias=False)
    ticket = dense(module)
    recipe = Recipe(steps=5, batch=4, optimizer="sgd", lr=0.1)
    path = trajectories(train(module, source, data, [ticket], recipe, save=range(1, 6)))[0]
    weights = [ticket.start.weights["weight"], *(path.saved[s].weights["weight"] for s in range(1, 6))]
    seen = [set(torch.nonzero((b - a).abs().sum(0))[:, 0].tolist()) for a, b in pairwise(weights)]
    first, second = (
        data.permutation(10, seed=ticket.seeds.derive("order"), epoch=e).tolist() for e in (0, 1)
    )
    assert [len(s) for s in seen[:2]] == [4, 4]
    assert seen[0] | seen[1] | set(first[8:]) == set(range(10))
    assert seen == [set(b) for b in (first[:4], first[4:8], first[8:] + second[:2], second[2:6], second[6:])]


def test_the_curves_grid_and_means(vectors: Data, dense: Make) -> None:
    module = mlp()
    stack = [dense(module, r) for r in range(2)]
    fine, coarse = (
        trajectories(
            train(
                module,
                vectors,
                data,
                stack,
                Recipe(steps=11, batch=10, evaluate_every=every, early_points=False),
                save=[7],
            )
        )
        for every in (1, 4)
    )
    for a, b in zip(fine, coarse, strict=True):
        assert b.curve.step.tolist() == [0, 4, 8, 11]
        assert math.isnan(float(b.curve.train_loss[0]))
        means = [float(a.curve.train_loss[i:j].mean()) for i, j in ((1, 5), (5, 9), (9, 12))]
        assert b.curve.train_loss[1:].tolist() == pytest.approx(means, rel=1e-12)
        for column in ("validation_loss", "validation_accuracy"):
            assert torch.equal(getattr(b.curve, column), getattr(a.curve, column)[[0, 4, 8, 11]])
        for column in ("test_loss", "test_accuracy"):
            assert getattr(b.curve, column)[-1] == getattr(a.curve, column)[-1]
        # How often one looks changes nothing of what is learned.
        assert sorted(b.saved) == [7, 11]
        assert same_bits(a.saved[7].weights, b.saved[7].weights)
        assert same_bits(a.saved[11].weights, b.saved[11].weights)
        assert same_bits(a.saved[7].optimizer, b.saved[7].optimizer)
        assert b.saved[7].optimizer
        assert not b.saved[11].optimizer
        assert b.about["optimizer_state"] == "fresh"


@pytest.mark.parametrize("own", [False, True])
def test_early_points_are_of_the_first_examples_and_regular_ones_of_all(
    vectors: Any, dense: Make, monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    """With 8 of the 21 validation examples for the pace: by hand, from the weights saved at every step."""
    monkeypatch.setattr(curves, "PACE_EXAMPLES", 8)
    monkeypatch.setattr(curves, "LEAST_EXAMPLES", 1)
    module, stack = mlp(), [dense(mlp(), r) for r in range(2)]
    part, source = vectors.validation, vectors
    assert len(part.y) > 8
    if own:
        stacked = {
            name: replace(p, x=torch.stack([p.x] * 2), y=torch.stack([p.y] * 2))
            for name, p in ((n, getattr(vectors, n)) for n in ("train", "validation", "test"))
        }
        source = replace(vectors, **stacked)
    recipe = Recipe(steps=20, batch=10, evaluate_every=10, lr=0.05)
    grid = recipe.grid()
    saved = trajectories(train(module, source, data, stack, recipe, save=grid[1:], per_replicate=own))
    for path in saved:
        assert path.curve.step.tolist() == grid
        for step in grid[1:]:
            with torch.no_grad():
                logits = torch.func.functional_call(module, dict(path.saved[step].weights), (part.x,))
            right = (logits.argmax(1) == part.y).tolist()
            row = path.curve.at(step)
            assert row["pace_accuracy"] == sum(right[:8]) / 8
            if step in (10, 20):
                assert row["validation_accuracy"] == sum(right) / len(right)
                assert row["validation_loss"] == pytest.approx(
                    F.cross_entropy(logits, part.y).item(), abs=1e-6
                )
            else:
                assert math.isnan(row["validation_accuracy"])
                assert math.isnan(row["validation_loss"])
        assert path.curve.early_stop_step() in (0, 10, 20)


def test_a_network_that_diverges_between_regular_points_fails_there(
    vectors: Any, dense: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not measured is no sign of it: the first case trains through points without a validation loss."""
    monkeypatch.setattr(curves, "PACE_EXAMPLES", 8)
    for lr, fails in ((0.05, False), (1e30, True)):
        recipe = Recipe(steps=20, batch=10, evaluate_every=10, optimizer="sgd", lr=lr)
        (found,) = train(mlp(), vectors, data, [dense(mlp())], recipe)
        assert isinstance(found, Failed) == fails


def test_the_first_point_is_the_ticket_as_it_starts(vectors: Data, dense: Make) -> None:
    module = mlp()
    ticket = dense(module, density=0.5)
    path = trajectories(train(module, vectors, data, [ticket], Recipe(steps=1, batch=10)))[0]
    weights = {n: w.unsqueeze(0) for n, w in ticket.mask.apply(ticket.start.weights).items()}
    loss, accuracy = evaluate(module, weights, {}, vectors.validation)
    assert float(path.curve.validation_loss[0]) == float(loss[0])
    assert float(path.curve.validation_accuracy[0]) == float(accuracy[0])


def test_test_data_are_looked_at_where_results_are_reported_alone(vectors: Data, dense: Make) -> None:
    """Each replicate at its own early stop, with the weights that it had there, and at the end."""
    module = nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 3))
    stack = [dense(module, r) for r in range(6)]
    recipe = Recipe(steps=40, batch=10, evaluate_every=5, early_points=False, lr=0.2)
    paths = trajectories(train(module, vectors, data, stack, recipe, save=range(5, 41, 5)))
    stops = [path.curve.early_stop_step() for path in paths]
    assert len(set(stops)) > 2  # or the test would tell little
    for path, stop in zip(paths, stops, strict=True):
        assert stop is not None
        looked = path.curve.step[torch.isfinite(path.curve.test_loss)].tolist()
        assert looked == sorted({stop, 40})
        for step in {stop, 40} - {0}:
            state = path.saved[step]
            weights, buffers = (
                {n: t.unsqueeze(0) for n, t in part.items()} for part in (state.weights, state.buffers)
            )
            loss, accuracy = evaluate(module, weights, buffers, vectors.test)
            assert path.curve.at(step)["test_loss"] == pytest.approx(float(loss[0]), rel=1e-6)
            assert path.curve.at(step)["test_accuracy"] == float(accuracy[0])


@pytest.mark.parametrize("count", [1, 37, 2503, 5000])
def test_a_perfect_predictor_scores_exactly_one(count: int) -> None:
    y = torch.arange(count) % 3
    weights = {"weight": torch.stack([torch.eye(3), -torch.eye(3)])}
    part = data.Split(torch.eye(3)[y] * 20, y)
    loss, accuracy = evaluate(nn.Linear(3, 3, bias=False), weights, {}, part)
    assert accuracy.tolist() == [1.0, 0.0]
    assert accuracy.dtype == loss.dtype == torch.float64
    # log(1 + 2 e⁻²⁰) is 4.1e-9, where float32 gives 0; the wrong one pays 20 + log 2 at least.
    assert float(loss[0]) == pytest.approx(0, abs=1e-7)
    assert float(loss[1]) == pytest.approx(20 + math.log(2), rel=1e-6)


@pytest.mark.parametrize("rows", [1, 7, 21, 22, 2500])
def test_evaluation_is_the_mean_over_all_examples(
    rows: int, vectors: Data, dense: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curves, "EVALUATION_ROWS", rows)
    module = mlp().train()
    tickets = [dense(module, r) for r in range(3)]
    weights = {n: torch.stack([t.start.weights[n] for t in tickets]) for n in tickets[0].start.weights}
    loss, accuracy = evaluate(module, weights, {}, vectors.validation)
    x, y = vectors.validation.x.double().numpy(), vectors.validation.y.numpy()
    for r, ticket in enumerate(tickets):
        w = {n: v.double().numpy() for n, v in ticket.start.weights.items()}
        logits = np.maximum(x @ w["0.weight"].T + w["0.bias"], 0) @ w["2.weight"].T + w["2.bias"]
        log_sum = np.log(np.exp(logits).sum(1))
        # Logits in float32: about 1e-7 each.
        assert float(loss[r]) == pytest.approx((log_sum - logits[np.arange(21), y]).mean(), abs=1e-6)
        assert float(accuracy[r]) == (logits.argmax(1) == y).sum() / 21
    assert module.training  # as it was


class Arranged:
    """An order in which example 0 comes at a given place for each seed, and all else in sequence."""

    def __init__(self, places: dict[int, int]) -> None:
        self.places = places

    def permutation(self, count: int, *, seed: int, epoch: int) -> Tensor:
        order = torch.arange(1, count).tolist()
        order.insert(self.places[seed], 0)
        return torch.tensor(order)

    augmentation = staticmethod(data.augmentation)
    augment = staticmethod(data.augment)


def with_first(source: Any, value: float) -> Any:
    """The data with example 0 of the training part filled with `value`."""
    x = source.train.x.clone()
    x[0] = value
    return replace(source, train=replace(source.train, x=x))


@pytest.mark.parametrize("stacking", ["stacked", "one by one"])
@pytest.mark.parametrize(("place", "step"), [(0, 1), (9, 1), (10, 2), (29, 3)])
def test_a_replicate_that_diverges_fails_alone(
    stacking: Any, place: int, step: int, vectors: Any, dense: Make
) -> None:
    module = mlp()
    stack = [dense(module, r, density=0.7) for r in range(3)]
    seeds = [t.seeds.derive("order") for t in stack]
    order = Arranged({seeds[0]: 44, seeds[1]: place, seeds[2]: 44})  # 4 steps of 10 do not reach place 44
    recipe = Recipe(steps=4, batch=10, evaluate_every=2, stacking=stacking)
    well = trajectories(train(module, with_first(vectors, 0.5), order, stack, recipe, save=[2]))
    results = train(module, with_first(vectors, math.nan), order, stack, recipe, save=[2])
    assert results[1] == Failed(f"the loss stopped being finite at step {step}", step, Seeds(1, 1))
    others = trajectories([results[0], results[2]])
    assert same_run(others[0], well[0])
    assert same_run(others[1], well[2])


def test_the_others_are_what_they_are_without_the_failed_one(vectors: Any, dense: Make) -> None:
    module = mlp()
    stack = [dense(module, r) for r in range(3)]
    lost = Failed("an earlier level", 7, Seeds(1, 1))
    recipe = Recipe(steps=10, batch=10)
    results = train(module, vectors, data, [stack[0], lost, stack[2]], recipe)
    assert results[1] is lost
    pair = trajectories(train(module, vectors, data, [stack[0], stack[2]], recipe))
    assert all(same_run(a, b) for a, b in zip(trajectories([results[0], results[2]]), pair, strict=True))


@pytest.mark.parametrize("how", ["stacked", "one by one"])
def test_the_others_keep_their_dropout_noise_too(how: Any, vectors: Data, dense: Make) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 3))
    stack = [dense(module, r) for r in range(3)]
    recipe = Recipe(steps=10, batch=10, stacking=how)
    whole = trajectories(train(module, vectors, data, stack, recipe))
    for gone in range(3):
        lost = Failed("an earlier level", 7, Seeds(1, gone))
        some = train(module, vectors, data, [lost if r == gone else stack[r] for r in range(3)], recipe)
        assert some[gone] is lost
        for r in {0, 1, 2} - {gone}:
            assert same_run(whole[r], trajectories([some[r]])[0])


def test_a_stack_of_failures_trains_nothing(vectors: Data) -> None:
    lost = (Failed("early", 1, Seeds(1, 0)), Failed("late", None, Seeds(1, 1)))
    said: list[int] = []
    assert (
        train(mlp(), vectors, data, lost, Recipe(steps=5, batch=10), report=lambda *a: said.append(1)) == lost
    )
    assert said == []


def test_training_stops_early_where_every_replicate_has_diverged(vectors: Data, dense: Make) -> None:
    module = mlp()
    said: list[tuple[int, int]] = []
    recipe = Recipe(steps=50, batch=10, evaluate_every=5, optimizer="sgd", lr=1e30)
    results = train(
        module, vectors, data, [dense(module, r) for r in range(2)], recipe, report=lambda *a: said.append(a)
    )
    assert all(isinstance(r, Failed) and r.step is not None and r.step <= 5 for r in results)
    assert said == [(s, 50) for s in range(1, 11)][: len(said)]
    assert len(said) <= 10


def test_a_loss_that_is_lost_with_the_last_update_is_seen_in_the_evaluation(
    vectors: Data, dense: Make
) -> None:
    module = mlp()
    recipe = Recipe(steps=1, batch=10, optimizer="sgd", lr=3e38)
    assert train(module, vectors, data, [dense(module)], recipe) == (
        Failed("the loss stopped being finite at step 1", 1, Seeds(1, 0)),
    )


def test_training_leaves_its_inputs_and_the_global_generator_alone(vectors: Data, dense: Make) -> None:
    module = nn.Sequential(mlp(), nn.Dropout(0.5))
    own = {n: p.detach().clone() for n, p in module.named_parameters()}
    ticket = dense(module, density=0.5)
    start = {n: w.clone() for n, w in ticket.start.weights.items()}
    x = vectors.validation.x.clone()
    before = torch.get_rng_state()
    train(module, vectors, data, [ticket], Recipe(steps=4, batch=10))
    assert torch.equal(torch.get_rng_state(), before)
    assert same_bits(ticket.start.weights, start)
    assert same_bits(own, {n: p.detach() for n, p in module.named_parameters()})
    assert torch.equal(vectors.validation.x, x)


def test_progress_counts_every_step(vectors: Data, dense: Make) -> None:
    module = mlp()
    said: list[tuple[int, int]] = []
    train(module, vectors, data, [dense(module)], Recipe(steps=7, batch=10), report=lambda *a: said.append(a))
    assert said == [(s, 7) for s in range(1, 8)]


def test_a_ticket_at_the_recipes_end_is_measured_and_not_trained(vectors: Data, dense: Make) -> None:
    module = mlp()
    ticket = dense(module)
    done = replace(ticket, start=State(ticket.start.weights, {}, {}, 5))
    path = trajectories(train(module, vectors, data, [done], Recipe(steps=5, batch=10)))[0]
    assert path.curve.step.tolist() == [5]
    assert same_bits(path.saved[5].weights, ticket.start.weights)


def test_a_batch_larger_than_the_data_is_refused(vectors: Data, dense: Make) -> None:
    module = mlp()
    with pytest.raises(ValueError, match="batch 46 is larger than the training set of 45 examples"):
        train(module, vectors, data, [dense(module)], Recipe(steps=4, batch=46))
