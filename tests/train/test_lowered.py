"""Steps in bfloat16 without casts: the numbers are autocast's, and the casts are gone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from winticket import data
from winticket.sparse import Factors, Shape, Tuning, missing, multiplies
from winticket.ticket import Ticket, Trajectory
from winticket.train import Recipe, engine, lowered, onepass, stacked, stretch, train
from winticket.train.feed import Data
from winticket.train.lowered import Lowered, lower

pytestmark = pytest.mark.skipif(bool(missing), reason="built without sparse kernels")

needs_amx = pytest.mark.skipif(not multiplies(), reason="the processor has no AMX")

Make = Callable[..., Ticket]


def plain() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 3))


def normalised() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 3, bias=False))


def convolved() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 8, 2), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    return nn.Sequential(*layers)


class Tied(nn.Module):
    """Uses its first weight in a product, and in float32 beside it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(6, 32), nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(torch.relu(self.first(x)))
        return y + 0.01 * self.first.weight.square().sum()


def trace(
    module: nn.Module, *, halves: bool
) -> tuple[stacked.Lifted, dict[str, Tensor], tuple[Tensor, Tensor]]:
    weights = {name: torch.stack([p.detach()] * 2) for name, p in module.named_parameters()}
    buffers = {name: torch.stack([b] * 2) for name, b in module.named_buffers()}
    batch = torch.randn(2, 20, 6), torch.randint(3, (2, 20))
    lifted = stacked.gradients(
        module, weights, buffers, *batch, how="auto", precision="bf16", copies=True, halves=halves
    )
    return lifted, weights, batch


def casts_in(module: nn.Module, monkeypatch: pytest.MonkeyPatch, *, halves: bool) -> tuple[int, Lowered]:
    seen: list[tuple[GraphModule, Lowered]] = []

    def watched(graph: GraphModule, *a: Any, **k: Any) -> Lowered:
        seen.append((graph, lower(graph, *a, **k)))
        return seen[-1][1]

    monkeypatch.setattr(lowered, "lower", watched)
    trace(module, halves=halves)
    graph, result = seen[-1]
    return sum(n.target is torch.ops.aten._to_copy.default for n in graph.graph.nodes), result


def test_only_the_batch_and_the_logits_are_cast(monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch, the logits and their gradient, of the nine casts of a network's weights and gradients beside them."""
    names = ("0.weight", "0.bias", "2.weight", "2.bias")
    assert casts_in(plain(), monkeypatch, halves=True) == (3, Lowered(names, names))
    assert casts_in(plain(), monkeypatch, halves=False) == (7, Lowered(names, ()))


def test_what_is_used_in_float32_as_well_stays_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    _, result = casts_in(Tied(), monkeypatch, halves=True)
    assert "first.weight" not in result.copies + result.halves
    assert {"first.bias", "last.weight"} <= set(result.copies)
    _, result = casts_in(normalised(), monkeypatch, halves=True)
    assert "1.weight" not in result.copies  # BatchNorm computes in float32


@pytest.mark.parametrize("products", [False, pytest.param(True, marks=needs_amx)])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("make", [plain, normalised, convolved, Tied])
def test_a_training_is_autocasts_to_the_bit(
    make: Callable[[], nn.Module],
    optimizer: str,
    products: bool,
    vectors: Data,
    dense: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With AMX also the products in the update, which add up a batch of this size in the same order."""
    module = make()
    stack = [dense(module, r, density=0.6) for r in range(2)]
    recipe = Recipe(steps=30, batch=15, lr=0.01, optimizer=optimizer, precision="bf16")  # type: ignore[arg-type]
    if not products:
        monkeypatch.setattr(stretch, "multiplies", lambda: False)
    cut = train(module, vectors, data, stack, recipe)
    with monkeypatch.context() as patch:
        patch.setattr(stretch, "supported", lambda _: False)
        autocast = train(make(), vectors, data, stack, recipe)
    for one, two in zip(cut, autocast, strict=True):
        assert isinstance(one, Trajectory)
        assert isinstance(two, Trajectory)
        assert torch.equal(one.curve.train_loss[1:], two.curve.train_loss[1:])
        for name, value in one.saved[30].weights.items():
            assert torch.equal(value, two.saved[30].weights[name])


@needs_amx
def test_gradients_by_weight_are_left_to_the_update() -> None:
    module = plain()
    weights = {name: torch.stack([p.detach()] * 2) for name, p in module.named_parameters()}
    batch = torch.randn(2, 20, 6), torch.randint(3, (2, 20))
    results = []
    for factors in (False, True):
        lifted = stacked.gradients(
            module,
            weights,
            {},
            *batch,
            how="auto",
            precision="bf16",
            copies=True,
            halves=True,
            factors=factors,
        )
        # The product of the first layer, whose six columns are too few for it, is another one by then.
        assert lifted.lowered.factors == (("2.weight",) if factors else ())
        results.append(lifted.call({k: v.bfloat16() for k, v in weights.items()}, {}, *batch))
    (whole, loss), (left, same) = results
    assert torch.equal(loss, same)
    for name, gradient in whole.items():
        if isinstance(left[name], Factors):
            assert torch.equal(torch.bmm(left[name].by_output.mT, left[name].x), gradient)
        else:
            assert torch.equal(left[name], gradient)


def test_clipped_gradients_stay_float32_and_learned_masks_take_no_copies(vectors: Data, dense: Make) -> None:
    module = plain()
    recipe = Recipe(steps=20, batch=15, lr=0.01, precision="bf16", clip_norm=0.5)
    (path,) = train(module, vectors, data, [dense(module)], recipe)
    assert isinstance(path, Trajectory)
    assert bool(path.curve.train_loss[-1] < path.curve.train_loss[1])


def test_a_resumed_training_reads_fresh_copies(vectors: Data, dense: Make) -> None:
    """The copies are no state of their own: they are made from the weights whenever steps begin."""
    module = plain()
    recipe = Recipe(steps=20, batch=15, lr=0.01, precision="bf16")
    (whole,) = train(module, vectors, data, [dense(module)], recipe, save=[10])
    assert isinstance(whole, Trajectory)
    ticket = whole.ticket
    resumed = Ticket(ticket.mask, whole.saved[10], ticket.origin, ticket.seeds)
    (rest,) = train(module, vectors, data, [resumed], recipe)
    assert isinstance(rest, Trajectory)
    for name, value in whole.saved[20].weights.items():
        assert torch.equal(value, rest.saved[20].weights[name])


def test_without_kernels_autocast_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onepass, "missing", "no compiler")
    assert not onepass.supported([torch.zeros(2)])


@pytest.mark.parametrize("sparse_from", [1, 17])
def test_sparse_layers_stay_float32_beside_dense_ones(
    sparse_from: int, vectors: Data, dense: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all layers sparse nothing is rounded: the training is that of float32."""
    module = plain()
    stack = [dense(module, r, density=0.5) for r in range(2)]
    asked: list[bool] = []

    def tuning(shape: Shape) -> Tuning:
        asked.append(shape.half)
        return Tuning(shape, float(shape.rows * shape.columns >= 6 * sparse_from))

    monkeypatch.setattr(engine, "tuning", tuning)
    exact, mixed = (
        train(module, vectors, data, stack, Recipe(steps=40, batch=15, lr=0.01, precision=precision))
        for precision in ("float32", "bf16")
    )
    assert set(asked[: len(asked) // 2]) == {False}
    assert set(asked[len(asked) // 2 :]) == {True}
    for one, two in zip(exact, mixed, strict=True):
        assert isinstance(one, Trajectory)
        assert isinstance(two, Trajectory)
        assert two.about["sparse"] == (["0.weight", "2.weight"] if sparse_from == 1 else ["0.weight"])
        a, b = one.curve.train_loss[-1], two.curve.train_loss[-1]
        assert (a == b) == (sparse_from == 1)
        assert float(b) == pytest.approx(float(a), abs=0.03)


def test_a_sparse_convolution_reads_what_a_dense_one_wrote(
    images: Data, dense: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Flatten())
    example = images.train.x[:1]
    width = nn.Sequential(*layers)(example).shape[1]
    module = nn.Sequential(*layers, nn.Linear(width, 3))
    monkeypatch.setattr(engine, "tuning", lambda shape: Tuning(shape, float(shape.rows == 6)))
    exact, mixed = (
        train(
            module,
            images,
            data,
            [dense(module, density=0.5)],
            Recipe(steps=20, batch=10, lr=0.01, precision=p),
        )[0]
        for p in ("float32", "bf16")
    )
    assert isinstance(exact, Trajectory)
    assert isinstance(mixed, Trajectory)
    assert mixed.about["sparse"] == ["2.weight"]
    assert float(mixed.curve.train_loss[-1]) == pytest.approx(float(exact.curve.train_loss[-1]), abs=0.05)
