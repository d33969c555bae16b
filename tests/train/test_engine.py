"""Layers on the sparse kernels: the same training, to float tolerance, and the same promises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from winticket import data
from winticket.sparse import Shape, Tuning, candidates, missing
from winticket.ticket import Failed, Ticket, Trajectory
from winticket.train import Recipe, engine, train
from winticket.train.feed import Data

needs_kernels = pytest.mark.skipif(bool(missing), reason=f"built without sparse kernels: {missing}")
Make = Callable[..., Ticket]
OPTIMIZERS = {
    "sgd": {"optimizer": "sgd", "lr": 0.05},
    "momentum": {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 0.01},
    "adam": {"optimizer": "adam", "lr": 0.01},
    "adamw": {"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.1},
}


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 12), nn.ReLU(), nn.Linear(12, 3))


class Peeking(nn.Module):
    """Does with a layer's weight what no layer does with it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.out = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.out(torch.relu(x @ self.fc.weight + self.fc.bias))
        return y


def paths(results: tuple[Trajectory | Failed, ...]) -> list[Trajectory]:
    assert all(isinstance(r, Trajectory) for r in results)
    return [r for r in results if isinstance(r, Trajectory)]


def run(
    module: nn.Module, examples: Data, tickets: list[Ticket], how: engine.Engine, **choices: object
) -> list[Trajectory]:
    recipe = Recipe(**{"steps": 30, "batch": 20, "evaluate_every": 10, **choices})  # type: ignore[arg-type]
    return paths(train(module, examples, data, tickets, recipe, engine=how, save=(10,)))


@needs_kernels
@pytest.mark.parametrize("choices", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("density", [0.05, 0.3, 0.8])
def test_the_same_training_as_dense(
    choices: dict[str, object], density: float, vectors: Data, dense: Make
) -> None:
    module = mlp()
    tickets = [dense(module, r, density=density) for r in range(3)]
    ours, theirs = (run(module, vectors, tickets, how, **choices) for how in ("sparse", "dense"))
    for one, two in zip(ours, theirs, strict=True):
        assert (one.about["sparse"], two.about["sparse"]) == (["0.weight", "2.weight", "4.weight"], [])
        for step in (10, 30):
            for name, value in two.saved[step].weights.items():
                # Thirty steps of float32 whose sums run in another order; Adam divides by small second moments.
                torch.testing.assert_close(one.saved[step].weights[name], value, rtol=2e-3, atol=2e-4)
        for name, keep in one.ticket.mask.keep.items():
            assert not one.saved[30].weights[name][~keep].any()
        torch.testing.assert_close(one.curve.validation_loss, two.curve.validation_loss, rtol=1e-3, atol=1e-4)


@needs_kernels
@pytest.mark.parametrize("how", ["auto", "stacked"])
def test_convolutions_train_as_dense_ones(how: str, images: Data, dense: Make) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3),
    )  # fmt: skip
    module(images.train.x[:2])  # settles the last layer's size
    tickets = [dense(module, r, density=0.3) for r in range(2)]
    ours, theirs = (
        run(module, images, tickets, engine_, optimizer="sgd", lr=0.05, momentum=0.9, stacking=how)
        for engine_ in ("sparse", "dense")
    )
    assert ours[0].about["sparse"] == ["0.weight", "4.weight", "7.weight"]
    for one, two in zip(ours, theirs, strict=True):
        for part in ("weights", "buffers"):
            for name, value in getattr(two.saved[30], part).items():
                # As above; batch statistics and momentum carry roundings on.
                torch.testing.assert_close(getattr(one.saved[30], part)[name], value, rtol=2e-3, atol=5e-4)


@needs_kernels
@pytest.mark.parametrize("choices", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_goes_on_from_a_saved_state_bit_for_bit(
    choices: dict[str, object], vectors: Data, dense: Make
) -> None:
    module = mlp()
    tickets = [dense(module, r, density=0.3) for r in range(2)]
    whole = run(module, vectors, tickets, "sparse", **choices)
    halfway = [replace(p.ticket, start=p.saved[10]) for p in whole]
    recipe = Recipe(**{"steps": 30, "batch": 20, "evaluate_every": 10, **choices})  # type: ignore[arg-type]
    rest = paths(train(module, vectors, data, halfway, recipe, engine="sparse"))
    for one, two in zip(whole, rest, strict=True):
        for name, value in one.saved[30].weights.items():
            assert torch.equal(two.saved[30].weights[name], value)


@needs_kernels
def test_a_full_mask_trains_dense_and_auto_asks_the_break_even(
    vectors: Data, dense: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = mlp()
    assert run(module, vectors, [dense(module)], "sparse")[0].about["sparse"] == []
    asked: list[tuple[int, int, int]] = []

    def answer(shape: Shape) -> Tuning:
        asked.append((shape.rows, shape.columns, shape.stack))
        return Tuning(shape, 0.5 if shape.rows == 20 else 0.0)

    monkeypatch.setattr(engine, "tuning", answer)
    tickets = [dense(module, r, density=0.3) for r in range(2)]
    assert run(module, vectors, tickets, "auto")[0].about["sparse"] == ["0.weight"]
    assert asked == [(20, 6, 2), (12, 20, 2), (3, 12, 2)]


@needs_kernels
@pytest.mark.parametrize("choices", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_live_weights_that_are_zero_learn_and_pruned_ones_stay_zero(
    choices: dict[str, object], vectors: Data, dense: Make
) -> None:
    """What a sparse layer keeps is the mask's to say, and not the values'."""
    module = mlp()
    tickets = [dense(module, r, density=0.3) for r in range(2)]
    for ticket in tickets:
        ticket.start.weights["2.weight"][:, ::2] = 0.0
    for ticket, path in zip(tickets, run(module, vectors, tickets, "sparse", **choices), strict=True):
        assert "2.weight" in path.about["sparse"]  # type: ignore[operator]
        for state in path.saved.values():
            for name, keep in ticket.mask.keep.items():
                assert bool((state.weights[name][~keep] == 0).all())
        zeros = ticket.mask.keep["2.weight"][:, ::2]
        moved = path.saved[30].weights["2.weight"][:, ::2][zeros] != 0
        assert bool(moved.any())
        # Those that no example reaches stay where they are, in the dense computation too.
        (alone,) = run(module, vectors, [ticket], "dense", **choices)
        assert torch.equal(moved, alone.saved[30].weights["2.weight"][:, ::2][zeros] != 0)


@needs_kernels
def test_a_module_that_uses_its_weight_otherwise_stays_dense(vectors: Data, dense: Make) -> None:
    torch.manual_seed(0)
    module = Peeking()
    tickets = [dense(module, r, density=0.5) for r in range(2)]
    ours, theirs = (run(module, vectors, tickets, how) for how in ("sparse", "dense"))
    assert ours[0].about["sparse"] == []
    assert torch.equal(ours[0].saved[30].weights["fc.weight"], theirs[0].saved[30].weights["fc.weight"])


@needs_kernels
@pytest.mark.parametrize(
    "spoil",
    [
        lambda m: m[0].register_forward_hook(lambda *_: None),
        lambda m: nn.utils.parametrizations.weight_norm(m[0]),
        lambda m: setattr(m[2], "weight", m[0].weight),
    ],
    ids=["hook", "parametrisation", "shared"],
)
def test_what_is_no_plain_layer_is_no_candidate(spoil: Callable[[nn.Module], object]) -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    assert list(candidates(module)) == ["0.weight", "2.weight"]
    spoil(module)
    assert "0.weight" not in candidates(module)


def test_an_engine_that_is_not_to_be_had_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="engine is 'fast'; possible: auto, dense, sparse"):
        engine.check_engine("fast")
    monkeypatch.setattr(engine, "missing", "no C++ compiler was found")
    engine.check_engine("auto")
    with pytest.raises(ValueError, match=r"engine sparse is not available: no C\+\+ compiler"):
        engine.check_engine("sparse")


def test_without_kernels_everything_trains_dense(
    vectors: Data, dense: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from winticket.train import stacked

    monkeypatch.setattr(engine, "missing", "left out")
    monkeypatch.setattr(stacked, "missing", "left out")
    module = mlp()
    path = run(module, vectors, [dense(module, density=0.3)], "auto")[0]
    assert path.about["sparse"] == []
    monkeypatch.undo()
    kernel_loss = run(mlp(), vectors, [dense(mlp(), density=0.3)], "dense")[0]
    torch.testing.assert_close(
        path.curve.validation_loss, kernel_loss.curve.validation_loss, rtol=1e-4, atol=1e-5
    )
