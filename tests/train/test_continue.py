"""Runs that repeat, stop, go on and rewind: the same numbers bit for bit, and each seed for its own purpose."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from winticket import data
from winticket.rewind import to_init
from winticket.run import codec
from winticket.ticket import Failed, Seeds, Ticket, Trajectory, same_bits
from winticket.train import Recipe, curves, loop, train
from winticket.train.feed import Data

Make = Callable[..., Ticket]
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd", "lr": 0.1},
    "momentum": {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 0.01},
    "nesterov": {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": True},
    "adam": {"optimizer": "adam", "lr": 0.01},
    "adamw": {"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.1},
}


@cache
def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


@cache
def convolutional() -> nn.Module:
    """Everything that has a state of its own or draws noise."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(64, 3),
    )


def run(
    module: nn.Module, source: Data, stack: Sequence[Any], recipe: Recipe, **options: Any
) -> list[Trajectory]:
    results = train(module, source, data, stack, recipe, **options)
    for result in results:
        assert isinstance(result, Trajectory), result
    return [r for r in results if isinstance(r, Trajectory)]


def curve_from(path: Trajectory, step: int) -> dict[str, Tensor]:
    """The rows of the curves after `step`."""
    later = path.curve.step > step
    return {column: values[later] for column, values in vars(path.curve).items()}


def same_from(a: Trajectory, b: Trajectory, step: int = -1) -> bool:
    """All that is saved and measured after `step`, bit for bit."""
    steps = [s for s in a.saved if s > step]
    assert steps
    return (
        steps == [s for s in b.saved if s > step]
        and same_bits(curve_from(a, step), curve_from(b, step))
        and all(
            same_bits(getattr(a.saved[s], part), getattr(b.saved[s], part))
            for s in steps
            for part in ("weights", "buffers", "optimizer")
        )
    )


def setting(name: str, images: Data, vectors: Data) -> tuple[nn.Module, Data, dict[str, Any]]:
    if name == "mlp":
        return mlp(), vectors, {}
    # Convolutions go one by one on a CPU unless told otherwise; 45 examples in batches of 14 straddle epochs.
    return convolutional(), images, {"flip": True, "crop": 1, "stacking": name}


SETTINGS = pytest.mark.parametrize("name", ["mlp", "stacked", "one by one"])


class Stopped(BaseException):
    pass


class InMemory:
    """A checkpoint that stops the run right after its n-th save, as a kill at that moment would."""

    def __init__(self, stops: Sequence[int], keep: Callable[[Any], Any] = copy.deepcopy) -> None:
        self.stops, self.keep, self.kept, self.saves = set(stops), keep, None, 0

    def load(self) -> Any:
        return self.keep(self.kept)

    def due(self) -> bool:
        return True

    def save(self, value: Any) -> None:
        self.kept = self.keep(value)
        self.saves += 1
        if self.saves in self.stops:
            raise Stopped


def interrupted(start: Callable[[InMemory], Any], checkpoint: InMemory) -> Any:
    for _ in range(20):
        try:
            return start(checkpoint)
        except Stopped:
            continue
    raise AssertionError("the run never ended")


@SETTINGS
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_run_that_stops_and_goes_on_is_the_run_that_did_not(
    name: str, kind: str, images: Data, vectors: Data, dense: Make
) -> None:
    module, source, options = setting(name, images, vectors)
    regular: dict[str, Any] = {"evaluate_every": 2, "early_points": False}
    recipe = Recipe(steps=9, batch=14, schedule="cosine", **regular, **OPTIMIZERS[kind], **options)
    stack = [dense(module, 0, density=0.6), dense(module, 1)]
    whole = run(module, source, stack, recipe, save=[3, 4])
    # Stops: 2, 3, 4, 6, 8; the end is no stop.
    checkpoint = InMemory([1, 2, 5])
    parts = interrupted(lambda c: run(module, source, stack, recipe, save=[3, 4], checkpoint=c), checkpoint)
    assert checkpoint.saves == 5  # three interrupted runs took up where they were; none began again
    assert all(same_from(a, b) for a, b in zip(whole, parts, strict=True))


@pytest.mark.parametrize("seen", [5, 500])
def test_early_points_stop_go_on_and_rewind_like_all_others(
    seen: int, vectors: Data, dense: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all validation examples at every point, and with five of them at the early ones."""
    monkeypatch.setattr(curves, "PACE_EXAMPLES", seen)
    monkeypatch.setattr(curves, "LEAST_EXAMPLES", 1)
    recipe = Recipe(steps=24, batch=14, evaluate_every=8, schedule="cosine")
    stack = [dense(mlp(), 0, density=0.6), dense(mlp(), 1)]
    whole = run(mlp(), vectors, stack, recipe, save=[15])
    checkpoint = InMemory([1, 3, 5])
    parts = interrupted(lambda c: run(mlp(), vectors, stack, recipe, save=[15], checkpoint=c), checkpoint)
    assert all(same_from(a, b) for a, b in zip(whole, parts, strict=True))
    rewound = [Ticket(p.ticket.mask, p.saved[15], "rewound", p.ticket.seeds) for p in whole]
    again = run(mlp(), vectors, rewound, recipe)
    for a, b in zip(whole, again, strict=True):
        assert b.curve.step.tolist() == [15, 16, 18, 21, 24]
        rows = torch.isin(a.curve.step, b.curve.step[1:])
        for name in ("pace_accuracy", "validation_loss", "validation_accuracy"):
            assert torch.equal(
                getattr(a.curve, name)[rows].nan_to_num(-1), getattr(b.curve, name)[1:].nan_to_num(-1)
            )


def test_a_checkpoint_can_be_stored(images: Data, dense: Make) -> None:
    module = convolutional()
    recipe = Recipe(steps=6, batch=14, evaluate_every=2, momentum=0.9, optimizer="sgd", flip=True)
    stack: list[Ticket | Failed] = [
        dense(module),
        Failed("gone", 2, Seeds(1, 1)),
        dense(module, 2, density=0.5),
    ]
    whole = train(module, images, data, stack, recipe, save=[3])
    stored = InMemory([1, 2, 3], keep=lambda value: codec.decode(codec.encode(value)))
    parts = interrupted(lambda c: train(module, images, data, stack, recipe, save=[3], checkpoint=c), stored)
    assert parts[1] == stack[1]
    for a, b in ((whole[0], parts[0]), (whole[2], parts[2])):
        assert isinstance(a, Trajectory)
        assert same_from(a, b)


def test_a_failure_before_the_stop_is_a_failure_after_it(vectors: Any, dense: Make) -> None:
    module = mlp()
    stack: list[Ticket | Failed] = [dense(module, r) for r in range(2)]
    one, two = (data.permutation(45, seed=Seeds(1, r).derive("order"), epoch=0).tolist() for r in range(2))
    # An example that replicate 0 meets after its forty first, and replicate 1 as early as may be.
    place = min(two.index(i) for i in one[40:])
    assert place < 20
    x = vectors.train.x.clone()
    x[two[place]] = float("nan")
    source = replace(vectors, train=replace(vectors.train, x=x))
    recipe = Recipe(steps=4, batch=10, evaluate_every=1)
    parts = interrupted(lambda c: train(module, source, data, stack, recipe, checkpoint=c), InMemory([2, 3]))
    step = place // 10 + 1
    assert parts[1] == Failed(f"the loss stopped being finite at step {step}", step, Seeds(1, 1))
    whole = train(module, source, data, stack, recipe)
    assert isinstance(whole[0], Trajectory)
    assert same_from(whole[0], parts[0])


@SETTINGS
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_pruning_nothing_and_rewinding_to_k_is_the_dense_run(
    name: str, kind: str, images: Data, vectors: Data, dense: Make
) -> None:
    module, source, options = setting(name, images, vectors)
    # A point of the curves at k, where the mean of the training loss begins anew in both.
    regular: dict[str, Any] = {"evaluate_every": 3, "early_points": False}
    recipe = Recipe(steps=8, batch=14, warmup=5, **regular, **OPTIMIZERS[kind], **options)
    stack = [dense(module, r) for r in range(2)]
    paths = run(module, source, stack, recipe, save=[3, 6])
    rewound = [Ticket(p.ticket.mask, p.saved[3], "rewound", p.ticket.seeds) for p in paths]
    again = run(module, source, rewound, recipe, save=[6])
    assert all(same_from(a, b, 3) for a, b in zip(paths, again, strict=True))
    assert again[0].curve.step.tolist() == [3, 6, 8]
    assert again[0].about["optimizer_state"] == ("fresh" if kind == "sgd" else "restored")


def test_forgetting_any_part_of_the_state_is_noticed(images: Data, dense: Make) -> None:
    module = convolutional()
    recipe = Recipe(steps=8, batch=14, evaluate_every=3, **OPTIMIZERS["adam"])
    path = run(module, images, [dense(module)], recipe, save=[3])[0]
    state = path.saved[3]
    whole = Ticket(path.ticket.mask, state, "rewound", path.ticket.seeds)
    assert same_from(path, run(module, images, [whole], recipe)[0], 3)
    for forgetful in (
        replace(state, optimizer={}),
        replace(state, buffers=path.saved[8].buffers),
        replace(state, weights=path.saved[8].weights),
        replace(state, step=2),
    ):
        ticket = Ticket(path.ticket.mask, forgetful, "rewound", path.ticket.seeds)
        assert not same_from(path, run(module, images, [ticket], recipe)[0], 3)


@SETTINGS
def test_pruning_nothing_and_rewinding_to_init_is_the_dense_run(
    name: str, images: Data, vectors: Data, dense: Make
) -> None:
    module, source, options = setting(name, images, vectors)
    recipe = Recipe(steps=5, batch=14, evaluate_every=2, **options)
    paths = run(module, source, [dense(module, r) for r in range(2)], recipe, save=[4])
    again = run(module, source, [to_init(p, p.ticket.mask) for p in paths], recipe, save=[4])
    assert all(same_from(a, b) for a, b in zip(paths, again, strict=True))


@SETTINGS
def test_two_runs_give_the_same_bits(name: str, images: Data, vectors: Data, dense: Make) -> None:
    module, source, options = setting(name, images, vectors)
    recipe = Recipe(steps=5, batch=14, evaluate_every=2, **options)
    stack = [dense(module, r, density=0.5) for r in range(2)]
    one = run(module, source, stack, recipe, save=[2])
    torch.manual_seed(99)  # nothing of the global generator goes in
    torch.rand(7)
    run(
        module, source, [dense(module, 5), dense(module, 6)], recipe
    )  # nor of another stack, nor of a trace kept
    two = run(copy.deepcopy(module), source, stack, recipe, save=[2])
    assert all(same_from(a, b) for a, b in zip(one, two, strict=True))


def test_children_share_their_init_and_differ_only_in_order(vectors: Data, dense: Make) -> None:
    module = mlp()
    parent = dense(module)
    child = replace(parent, seeds=Seeds(1, 77))
    recipe = Recipe(steps=5, batch=10, evaluate_every=1)
    one, two = run(module, vectors, [parent, child], recipe)
    assert same_bits(one.ticket.start.weights, two.ticket.start.weights)
    assert float(one.curve.validation_loss[0]) == float(two.curve.validation_loss[0])
    assert float(one.curve.train_loss[1]) != float(two.curve.train_loss[1])
    assert not same_bits(one.saved[5].weights, two.saved[5].weights)
    # The same seeds twice: twins.
    one, two = run(module, vectors, [parent, parent], recipe)
    assert same_from(one, two)


class Recorded:
    """The data's order, with a note of everything that was asked of it."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def permutation(self, count: int, *, seed: int, epoch: int) -> Tensor:
        self.asked.append(("order", count, seed, epoch))
        return data.permutation(count, seed=seed, epoch=epoch)

    def augmentation(self, count: int, *, seed: int, epoch: int, flip: bool, crop: int) -> tuple[Any, Any]:
        self.asked.append(("augment", count, seed, epoch, flip, crop))
        return data.augmentation(count, seed=seed, epoch=epoch, flip=flip, crop=crop)

    augment = staticmethod(data.augment)


def test_every_arm_of_a_replicate_sees_the_same_batches(images: Data, dense: Make) -> None:
    module = convolutional()
    recipe = Recipe(steps=7, batch=14, evaluate_every=3, flip=True, crop=1)
    asked = []
    for density in (1.0, 0.5, 0.1):
        order = Recorded()
        train(module, images, order, [dense(module, r, density=density) for r in range(2)], recipe)
        asked.append(order.asked)
    assert asked[0] == asked[1] == asked[2]
    seeds = [dense(module, r).seeds for r in range(2)]
    assert {a[2] for a in asked[0] if a[0] == "order"} == {s.derive("order") for s in seeds}
    assert {a[2] for a in asked[0] if a[0] == "augment"} == {s.derive("augment") for s in seeds}
    assert {a[3] for a in asked[0]} == {0, 1, 2}  # 7 batches of 14 out of 45


def test_augmentation_leaves_the_order_alone(images: Data, dense: Make) -> None:
    module = convolutional()
    asked = []
    plain: dict[str, Any] = {}
    for options in (plain, {"flip": True, "crop": 2}):
        order = Recorded()
        train(module, images, order, [dense(module)], Recipe(steps=4, batch=14, **options))
        asked.append([a for a in order.asked if a[0] == "order"])
    assert asked[0] == asked[1]


def test_dropout_draws_anew_at_each_step_and_for_each_replicate(vectors: Data, dense: Make) -> None:
    # One example, one batch, no learning: losses differ by the noise alone.
    module = nn.Sequential(nn.Linear(6, 64), nn.Dropout(0.5), nn.Linear(64, 3))
    one = data.Split(vectors.train.x[:1], vectors.train.y[:1])
    source = type("One", (), {"train": one, "validation": one, "test": one})()
    recipe = Recipe(steps=6, batch=1, evaluate_every=1, optimizer="sgd", lr=1e-30)
    ticket = dense(module)
    paths = run(module, source, [ticket, ticket], recipe)
    losses = [loss for p in paths for loss in p.curve.train_loss[1:].tolist()]
    assert len(set(losses)) == 12
    # Evaluation draws none.
    assert len({loss for p in paths for loss in p.curve.validation_loss.tolist()}) == 1


def test_a_sparse_grid_is_no_reason_to_lose_a_training(
    vectors: Data, dense: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "PAUSE", 4)
    module = mlp()
    recipe = Recipe(steps=10, batch=14, evaluate_every=10, early_points=False)
    whole = run(module, vectors, [dense(module)], recipe)
    stored = InMemory([1, 2])
    parts = interrupted(lambda c: run(module, vectors, [dense(module)], recipe, checkpoint=c), stored)
    assert stored.saves == 2  # at 4 and 8
    assert same_from(whole[0], parts[0])
    assert whole[0].curve.step.tolist() == [0, 10]


def test_slow_steps_are_saved_one_by_one(vectors: Data, dense: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that take more than a second each can be checkpointed after each of them, with the same numbers."""
    module = mlp()
    recipe = Recipe(steps=6, batch=14, evaluate_every=6, early_points=False)
    whole = run(module, vectors, [dense(module)], recipe)
    monkeypatch.setattr("winticket.train.stretch.PAUSE_SECONDS", -1.0)  # which every step takes longer than
    stored = InMemory([1, 4])
    parts = interrupted(lambda c: run(module, vectors, [dense(module)], recipe, checkpoint=c), stored)
    assert stored.saves == 5  # after every step but the last
    assert same_from(whole[0], parts[0])
    assert whole[0].about["work"] == parts[0].about["work"]
