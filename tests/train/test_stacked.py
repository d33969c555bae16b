"""A stack is its members: lifted gradients and scores against autograd, and what cannot be stacked or traced."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from winticket import data
from winticket.ticket import Failed, Seeds, Ticket, Trajectory
from winticket.train import Recipe, stacked, train
from winticket.train.feed import Data

Make = Callable[..., Ticket]
WAYS = ("auto", "stacked", "one by one")


class Branch(nn.Module):
    """Which way it goes depends on the values of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(x if x.sum() > 0 else -x)
        return out


class PositivesMean(nn.Module):
    """The count of positive values, on which the gradient of their mean depends, is another for every batch."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.fc(x)
        return h - h[h > 0].mean() * torch.arange(3)


class Recurrent(nn.Module):
    """No batching rule covers the recurrent kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(2, 5, batch_first=True)
        self.fc = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(self.lstm(x.view(-1, 3, 2))[0][:, -1])
        return out


class Overwriting(nn.Module):
    """Writes to the tensor that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(x.mul_(2))
        return out


class Doubling(Overwriting):
    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(x * 2)
        return out


class Idle(nn.Module):
    """Views to the same shape, transposes undone, products with one; of the last, one that is a cast as well."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 6)
        self.out = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc(x.view(x.shape).t().t()).expand(len(x), 6)
        h = torch.ops.aten.mul.Scalar(h, 1).transpose(0, 1).transpose(1, 0)
        positive = torch.ops.aten.mul.Scalar(
            h > 0, 1
        )  # of whole numbers: 1 + 1 is 2, but True + True is True
        out: Tensor = self.out(h * (positive + positive))
        return out


class InPlace(Idle):
    """A product with one is a copy, and what is written to it is not written to its source."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc(x)
        copied = torch.ops.aten.mul.Scalar(h, 1).add_(0.5)
        out: Tensor = self.out(h * copied)
        return out


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def normalised() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(16, 3)
    )


def embedded() -> nn.Module:
    """Indexing by position is no shape from values."""

    class Embedded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.randn(5, 6))
            self.fc = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.fc(x + self.table[(x[:, 0].abs() * 2).long().clamp(0, 4)])
            return out

    return Embedded()


STACKABLE: list[Callable[[], nn.Module]] = [mlp, normalised, convolutional, embedded, Doubling, Idle, InPlace]
UNSTACKABLE: list[Callable[[], nn.Module]] = [Branch, PositivesMean, Recurrent]


def stack(tickets: list[Ticket]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    first = tickets[0].start
    weights = {n: torch.stack([t.start.weights[n] for t in tickets]) for n in first.weights}
    return weights, {n: torch.stack([t.start.buffers[n] for t in tickets]) for n in first.buffers}


def batch(seed: int, replicates: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(replicates, 12, 6, generator=generator), torch.randint(
        0, 3, (replicates, 12), generator=generator
    )


@pytest.mark.parametrize("build", [*STACKABLE, *UNSTACKABLE])
@pytest.mark.parametrize("how", ["auto", "one by one"])
def test_gradients_and_buffers_are_autograds(build: Callable[[], nn.Module], how: str, dense: Make) -> None:
    torch.manual_seed(0)
    module = build().train()
    tickets = [dense(module, r) for r in range(3)]
    weights, buffers = stack(tickets)
    lifted = stacked.gradients(module, weights, buffers, *batch(0), how=how)
    assert lifted.stacked == (how == "auto" and build in STACKABLE and build is not convolutional)
    assert bool(lifted.reason) != lifted.stacked
    for name, value in buffers.items():  # finding a way has written nothing
        assert torch.equal(value, torch.stack([t.start.buffers[name] for t in tickets]))
    alone = [copy.deepcopy(module) for _ in tickets]
    for r, one in enumerate(alone):
        one.load_state_dict({**tickets[r].start.weights, **tickets[r].start.buffers})
    for seed in (1, 2, 3):  # other values than those it was traced with
        x, y = batch(seed)
        with torch.no_grad():
            gradients, losses = lifted.call(weights, buffers, x.clone(), y)
        for r, one in enumerate(alone):
            one.zero_grad()
            loss = F.cross_entropy(one(x[r].clone()), y[r])
            loss.backward()  # type: ignore[no-untyped-call]
            # Float32 on both sides, sums in another order: a few units in the last place.
            assert losses[r].item() == pytest.approx(loss.item(), rel=1e-5)
            for name, parameter in one.named_parameters():
                torch.testing.assert_close(gradients[name][r], parameter.grad, rtol=1e-4, atol=1e-6)
            for name, value in one.named_buffers():
                torch.testing.assert_close(buffers[name][r], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("build", [*STACKABLE, *UNSTACKABLE])
@pytest.mark.parametrize("how", ["auto", "one by one"])
def test_scores_are_sums_over_shared_examples(build: Callable[[], nn.Module], how: str, dense: Make) -> None:
    torch.manual_seed(0)
    module = build().eval()
    tickets = [dense(module, r) for r in range(3)]
    weights, buffers = stack(tickets)
    stacked.evaluation(module, weights, buffers, batch(0)[0][0], batch(0)[1][0], how=how)
    x, y = batch(1)[0][0], batch(1)[1][0]
    before = x.clone()
    with torch.inference_mode():
        losses, right = stacked.evaluation(module, weights, buffers, x, y, how=how).call(
            weights, buffers, x, y
        )
    assert torch.equal(x, before)
    assert losses.dtype == torch.float64
    for r, ticket in enumerate(tickets):
        alone = copy.deepcopy(module)
        alone.load_state_dict({**ticket.start.weights, **ticket.start.buffers})
        logits = alone(x.clone()).detach()
        assert losses[r].item() == pytest.approx(F.cross_entropy(logits, y, reduction="sum").item(), rel=1e-5)
        assert int(right[r]) == int((logits.argmax(1) == y).sum())


@pytest.mark.parametrize(
    ("build", "how", "is_stacked", "is_traced", "words"),
    [
        (mlp, "auto", True, True, ""),
        (mlp, "one by one", False, True, "the recipe says so"),
        (
            convolutional,
            "auto",
            False,
            True,
            "stacked convolutions become grouped ones, which are slower on a CPU",
        ),
        (convolutional, "stacked", True, True, ""),
        (
            Branch,
            "auto",
            False,
            False,
            "cannot be stacked: RuntimeError: vmap: .*data-dependent.*; not traced: Runti",
        ),
        (
            Branch,
            "one by one",
            False,
            False,
            "the recipe says so; not traced: RuntimeError: .*data-dependent control flow",
        ),
        (
            PositivesMean,
            "auto",
            False,
            False,
            "cannot be stacked: .*dynamic shape.*; not traced: ValueError: the sha",
        ),
        (
            PositivesMean,
            "one by one",
            False,
            False,
            r"not traced: ValueError: the shape of the result of aten.* depends on values",
        ),
        (Recurrent, "auto", False, True, "cannot be stacked: .*atching rule"),
        (embedded, "one by one", False, True, "the recipe says so"),
    ],
)
def test_how_it_is_carried_out_and_why(
    build: Callable[[], nn.Module], how: str, is_stacked: bool, is_traced: bool, words: str, dense: Make
) -> None:
    module = build().train()
    weights, buffers = stack([dense(module, r) for r in range(2)])
    lifted = stacked.gradients(module, weights, buffers, *batch(0, 2), how=how)
    assert (lifted.stacked, lifted.traced) == (is_stacked, is_traced)
    assert re.search(words, lifted.reason) if words else lifted.reason == ""


@pytest.mark.parametrize("build", UNSTACKABLE)
def test_stacking_that_was_asked_for_and_cannot_be_is_refused(
    build: Callable[[], nn.Module], vectors: Data, dense: Make
) -> None:
    module = build()
    recipe = Recipe(steps=2, batch=10, stacking="stacked")
    with pytest.raises(ValueError, match="stacking is 'stacked', but this module cannot be stacked: "):
        train(module, vectors, data, [dense(module, r) for r in range(2)], recipe)


@pytest.mark.parametrize("build", UNSTACKABLE)
def test_what_cannot_be_stacked_trains_one_by_one_and_says_why(
    build: Callable[[], nn.Module], vectors: Data, dense: Make
) -> None:
    torch.manual_seed(0)
    module = build()
    recipe = Recipe(steps=12, batch=10, evaluate_every=3, optimizer="sgd", lr=0.05)
    tickets = [dense(module, r, density=0.8) for r in range(2)]
    both = train(module, vectors, data, tickets, recipe)
    for ticket, path in zip(tickets, both, strict=True):
        assert isinstance(path, Trajectory)
        assert path.about["stacked"] is False
        assert "cannot be stacked" in str(path.about["reason"])
        alone = train(module, vectors, data, [ticket], recipe)[0]
        assert isinstance(alone, Trajectory)
        # One by one, the others are not there: bit for bit.
        assert torch.equal(alone.curve.validation_loss, path.curve.validation_loss)
        assert all(torch.equal(w, alone.saved[12].weights[n]) for n, w in path.saved[12].weights.items())


def trained(module: nn.Module, source: Data, tickets: list[Ticket], **options: Any) -> list[Trajectory]:
    recipe = Recipe(steps=12, batch=10, evaluate_every=3, optimizer="sgd", lr=0.05, momentum=0.9, **options)
    results = train(module, source, data, tickets, recipe, save=[5])
    return [r for r in results if isinstance(r, Trajectory)]


@pytest.mark.parametrize("build", STACKABLE)
def test_a_stack_is_its_members_alone_however_it_is_carried_out(
    build: Callable[[], nn.Module], vectors: Data, dense: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    module = build()
    tickets = [dense(module, r, density=0.8) for r in range(3)]
    runs = [trained(module, vectors, tickets, stacking=how) for how in WAYS]
    runs.append([trained(module, vectors, [t], stacking="stacked")[0] for t in tickets])

    def untraceable(*_: Any) -> Any:
        raise RuntimeError("no traces today")

    monkeypatch.setattr(stacked, "_trace", untraceable)
    runs += [trained(copy.deepcopy(module), vectors, tickets, stacking=how) for how in WAYS]
    assert [run[0].about["stacked"] for run in runs[1:4]] == [True, False, True]
    assert all("no traces today" in str(run[0].about["reason"]) for run in runs[4:])
    for run in runs[1:]:
        assert len(run) == 3
        for one, two in zip(runs[0], run, strict=True):
            # Twelve steps of float32 whose sums run in another order, 1e-7 each, carried on by momentum .9.
            for part in ("weights", "buffers"):
                for name, value in getattr(one.saved[12], part).items():
                    torch.testing.assert_close(
                        getattr(two.saved[12], part)[name], value, rtol=1e-4, atol=1e-5
                    )
            torch.testing.assert_close(
                one.curve.validation_loss, two.curve.validation_loss, rtol=1e-5, atol=1e-5
            )
            assert one.saved[5].step == two.saved[5].step == 5


def own_splits(shared: Data, shifts: list[int]) -> Any:
    """Per replicate, each part with its examples rolled round by a number of its own: x [S, N, 6], y [S, N]."""
    parts = {
        name: data.Split(
            torch.stack([getattr(shared, name).x.roll(s, 0) * (s + 1) for s in shifts]),
            torch.stack([getattr(shared, name).y.roll(s, 0) for s in shifts]),
        )
        for name in ("train", "validation", "test")
    }
    return type("Own", (), parts)()


@pytest.mark.parametrize("how", WAYS)
def test_replicates_with_data_of_their_own_are_trained_and_measured_on_those(
    how: str, vectors: Data, dense: Make
) -> None:
    module = mlp()
    tickets = [dense(module, r, density=0.8) for r in range(3)]
    lost = Failed("earlier", 3, Seeds(1, 9))
    recipe = Recipe(steps=12, batch=10, evaluate_every=3, optimizer="sgd", lr=0.05, stacking=how)  # type: ignore[arg-type]
    together = train(
        module,
        own_splits(vectors, [0, 7, 1, 2]),
        data,
        [tickets[0], lost, *tickets[1:]],
        recipe,
        per_replicate=True,
    )
    assert together[1] is lost
    for r, path in enumerate([together[0], *together[2:]]):
        one = own_splits(vectors, [r])
        plain = {
            n: data.Split(getattr(one, n).x[0], getattr(one, n).y[0]) for n in ("train", "validation", "test")
        }
        alone = train(module, type("One", (), plain)(), data, [tickets[r]], recipe)[0]
        assert isinstance(path, Trajectory)
        assert isinstance(alone, Trajectory)
        # As for any stack: float32 sums in another order over twelve steps.
        for name, value in alone.saved[12].weights.items():
            torch.testing.assert_close(path.saved[12].weights[name], value, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            path.curve.train_loss[1:], alone.curve.train_loss[1:], rtol=1e-5, atol=1e-5
        )
        torch.testing.assert_close(
            path.curve.validation_loss, alone.curve.validation_loss, rtol=1e-5, atol=1e-5
        )
        assert torch.equal(path.curve.validation_accuracy, alone.curve.validation_accuracy)


def test_data_for_another_number_of_replicates_are_refused(vectors: Data, dense: Make) -> None:
    module = mlp()
    with pytest.raises(ValueError, match="3 training sets for 2 replicates"):
        train(
            module,
            own_splits(vectors, [0, 1, 2]),
            data,
            [dense(module), dense(module, 1)],
            Recipe(steps=2, batch=5),
            per_replicate=True,
        )


def test_a_module_that_writes_to_its_input_leaves_the_data_alone(vectors: Data, dense: Make) -> None:
    module, plain = Overwriting(), Doubling()
    before = [part.x.clone() for part in (vectors.train, vectors.validation, vectors.test)]
    tickets = [dense(module, r) for r in range(2)]
    one, two = trained(module, vectors, tickets), trained(plain, vectors, tickets)
    assert all(
        torch.equal(part.x, x)
        for part, x in zip((vectors.train, vectors.validation, vectors.test), before, strict=True)
    )
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a.curve.validation_loss, b.curve.validation_loss, rtol=1e-5, atol=1e-6)


def test_a_trace_is_kept_for_its_shapes_and_mode(dense: Make) -> None:
    module = mlp().train()
    weights, buffers = stack([dense(module, r) for r in range(3)])
    x, y = batch(0)
    kept = stacked.gradients(module, weights, buffers, x, y, how="auto")
    assert stacked.gradients(module, weights, buffers, *batch(1), how="auto") is kept
    assert stacked.gradients(module, weights, buffers, x[:, :5], y[:, :5], how="auto") is not kept
    assert stacked.gradients(module, weights, buffers, x, y, how="one by one") is not kept
    wide = {n: w.double() for n, w in weights.items()}
    assert stacked.gradients(module, wide, buffers, x.double(), y, how="auto") is not kept
    assert stacked.gradients(module.eval(), weights, buffers, x, y, how="auto") is not kept
