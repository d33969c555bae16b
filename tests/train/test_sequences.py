"""Several answers per example: the loss, the accuracy, stacks and splits of a character transformer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from winticket import data, models
from winticket.sparse import missing
from winticket.ticket import Mask, Seeds, State, Ticket, Trajectory
from winticket.train import Recipe, evaluate, train

CHARACTERS, LENGTH, STEPS = 7, 6, 8


class Text:
    """Windows of a text in which the next character mostly follows from the last two."""

    def __init__(self, *shifts: int) -> None:
        noise = torch.Generator().manual_seed(0)
        text = [1, 2]
        for jump in torch.randint(10, (1000,), generator=noise).tolist():
            text.append((text[-1] + text[-2] + (jump == 0)) % CHARACTERS)
        windows = torch.tensor(text[:994]).unfold(0, LENGTH + 1, LENGTH)

        def part(first: int, last: int) -> data.Split:
            chosen = [windows.roll(s, 0)[first:last] for s in shifts] or [windows[first:last]]
            rows = torch.stack(chosen) if shifts else chosen[0]
            return data.Split(rows[..., :-1].clone(), rows[..., 1:].clone())

        self.train, self.validation, self.test = part(0, 120), part(120, 141), part(141, 164)


@pytest.fixture(scope="module")
def module() -> nn.Module:
    return models.build(
        "chargpt-1-16", input_shape=(LENGTH,), classes=CHARACTERS, generator_seed=0, tokens=True
    )


def ticket(replicate: int, density: float = 1.0) -> Ticket:
    drawn = models.build(
        "chargpt-1-16", input_shape=(LENGTH,), classes=CHARACTERS, generator_seed=replicate, tokens=True
    )
    weights = {name: p.detach().clone() for name, p in drawn.named_parameters()}
    noise = torch.Generator().manual_seed(replicate)
    keep = {n: torch.rand(weights[n].shape, generator=noise) < density for n in models.eligible(drawn)}
    return Ticket(Mask(keep), State(weights, {}, {}, 0), "ticket", Seeds(1, replicate))


def paths(module: nn.Module, text: Text, tickets: list[Ticket], **choices: Any) -> list[Trajectory]:
    rest = {name: choices.pop(name) for name in ("engine", "per_replicate") if name in choices}
    usual: dict[str, Any] = {"steps": STEPS, "batch": 10, "evaluate_every": 4, "optimizer": "sgd", "lr": 0.1}
    results = train(module, text, data, tickets, Recipe(**{**usual, **choices}), **rest)
    assert all(isinstance(r, Trajectory) for r in results)
    return [r for r in results if isinstance(r, Trajectory)]


def agree(one: Trajectory, two: Trajectory) -> None:
    """Eight steps of float32 whose sums run in another order."""
    for name, value in one.saved[STEPS].weights.items():
        assert torch.allclose(two.saved[STEPS].weights[name], value, rtol=1e-4, atol=1e-5), name
    for column in ("train_loss", "validation_loss", "test_loss"):
        a, b = getattr(one.curve, column), getattr(two.curve, column)
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5, equal_nan=True)
    assert torch.equal(one.curve.validation_accuracy, two.curve.validation_accuracy)


def test_loss_and_accuracy_are_over_every_character(module: nn.Module) -> None:
    """By autograd and cross-entropy over all positions; a step is SGD's, on the gradient of that mean."""
    text, one = Text(), ticket(0)
    (path,) = paths(module, text, [one], steps=1, evaluate_every=1)

    def loss(weights: dict[str, Tensor], part: data.Split) -> Tensor:
        logits = functional_call(module, weights, (part.x,))
        total = -F.log_softmax(logits, -1).gather(-1, part.y.unsqueeze(-1))
        return total.sum() / part.y.numel()

    weights = {n: w.clone().requires_grad_() for n, w in one.start.weights.items()}
    rows = data.permutation(120, seed=one.seeds.derive("order"), epoch=0)[:10]
    batch = data.Split(text.train.x[rows], text.train.y[rows])
    before = loss(weights, batch)
    before.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(path.curve.train_loss[1], before.detach().double(), rtol=1e-5, atol=1e-6)
    after: dict[str, Tensor] = {}
    for name, w in weights.items():
        assert w.grad is not None
        after[name] = (w - 0.1 * w.grad).detach()
        torch.testing.assert_close(path.saved[1].weights[name], after[name], rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        right = (functional_call(module, after, (text.test.x,)).argmax(-1) == text.test.y).double().mean()
        torch.testing.assert_close(
            path.curve.test_loss[1], loss(after, text.test).double(), rtol=1e-5, atol=1e-6
        )
    assert path.curve.last()["test_accuracy"] == pytest.approx(float(right), abs=1e-12)


@pytest.mark.parametrize("kernels", [True, False])
def test_a_perfect_predictor_scores_exactly_one(kernels: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from winticket.train import stacked

    if not kernels:
        monkeypatch.setattr(stacked, "missing", "not today")
    table = nn.Embedding(CHARACTERS, CHARACTERS)
    x = torch.arange(41 * LENGTH).view(41, LENGTH) % CHARACTERS  # no whole number of batches
    weights = {"weight": 50 * torch.eye(CHARACTERS).roll(1, 1).unsqueeze(0)}
    loss, accuracy = evaluate(table, weights, {}, data.Split(x, (x + 1) % CHARACTERS))
    assert accuracy.tolist() == [1.0]
    assert loss.item() < 1e-12
    wrong = (x + 1) % CHARACTERS
    wrong[0, 0] = 0 if wrong[0, 0] else 1
    _, accuracy = evaluate(table, weights, {}, data.Split(x, wrong))
    assert accuracy.item() == 1 - 1 / (41 * LENGTH)


def test_a_stack_is_its_members_alone(module: nn.Module) -> None:
    tickets = [ticket(r, 0.6) for r in range(3)]
    together = paths(module, Text(), tickets, stacking="stacked")
    assert together[0].about["stacked"] is True
    for how in ("auto", "one by one"):
        for path, one in zip(together, tickets, strict=True):
            agree(path, paths(module, Text(), [one], stacking=how)[0])


@pytest.mark.parametrize("how", ["auto", "one by one"])
def test_replicates_with_texts_of_their_own(how: str, module: nn.Module) -> None:
    shifts = (0, 50)
    tickets = [ticket(r, 0.6) for r in range(2)]
    together = paths(module, Text(*shifts), tickets, per_replicate=True, stacking=how)
    for path, one, shift in zip(together, tickets, shifts, strict=True):
        agree(path, paths(module, Text(shift), [one], per_replicate=True, stacking=how)[0])
    agree(together[0], paths(module, Text(), [tickets[0]])[0])


def test_as_many_replicates_as_examples_are_no_own_data() -> None:
    """Three windows shared by three replicates: what x and y look like says nothing about whose they are."""
    tickets = [ticket(r) for r in range(3)]
    drawn = models.build(
        "chargpt-1-16", input_shape=(LENGTH,), classes=CHARACTERS, generator_seed=0, tokens=True
    )
    stack = {n: torch.stack([t.start.weights[n] for t in tickets]) for n in tickets[0].start.weights}
    x = Text().test.x[:3]
    shared = evaluate(drawn, stack, {}, data.Split(x, x))
    own = evaluate(drawn, stack, {}, data.Split(x.unsqueeze(1), x.unsqueeze(1)), per_replicate=True)
    for r in range(3):
        alone = evaluate(drawn, {n: w[r : r + 1] for n, w in stack.items()}, {}, data.Split(x, x))
        torch.testing.assert_close(shared[0][r], alone[0][0])
        one = data.Split(x[r : r + 1], x[r : r + 1])
        each = evaluate(drawn, {n: w[r : r + 1] for n, w in stack.items()}, {}, one)
        torch.testing.assert_close(own[0][r], each[0][0])


@pytest.mark.skipif(bool(missing), reason=f"built without sparse kernels: {missing}")
def test_the_sparse_kernels_train_the_same(module: nn.Module) -> None:
    tickets = [ticket(r, 0.2) for r in range(2)]
    dense = paths(module, Text(), tickets, engine="dense")
    for one, two in zip(paths(module, Text(), tickets, engine="sparse"), dense, strict=True):
        assert one.about["sparse"] == sorted(models.eligible(module))
        for name, value in two.saved[STEPS].weights.items():
            assert torch.allclose(one.saved[STEPS].weights[name], value, rtol=1e-4, atol=1e-5), name


def test_it_learns(module: nn.Module) -> None:
    """Nine in ten characters follow from the two before; the one before alone tells little."""
    (path,) = paths(module, Text(), [ticket(0)], steps=400, optimizer="adam", lr=0.01, evaluate_every=100)
    assert path.curve.last()["test_accuracy"] > 0.4
    assert path.curve.validation_accuracy[0] < 0.3
