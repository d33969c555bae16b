"""Masks that change on the way, against plain PyTorch; and masks that are learned, against a float64 derivation."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from winticket import data
from winticket.ticket import Failed, Mask, State, Ticket, Trajectory, same_bits
from winticket.train import Gradient, Learning, Recipe, dense_gradient, engine, evaluate, train
from winticket.train.feed import Data
from winticket.train.flops import forward

Make = Callable[..., Ticket]
AT = (4, 7)


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 3))


def random_keep(module: nn.Module, seed: int, density: float = 0.4) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {
        n: torch.rand(p.shape, generator=draw) < density for n, p in module.named_parameters() if p.ndim == 2
    }


@dataclass
class Scripted:
    """Masks that were fixed before, at AT; what was seen there is kept."""

    module: nn.Module
    seen: list[tuple[State, Mapping[str, Tensor]]]

    def steps(self, start: int, end: int) -> Sequence[int]:
        return [t for t in AT if start < t < end]

    def change(self, ticket: Ticket, now: State, gradient: Gradient) -> Mask:
        self.seen.append((now, gradient()))
        return Mask(random_keep(self.module, 1000 * now.step + ticket.seeds.replicate))


OPTIMIZERS: dict[str, dict[str, Any]] = {
    "momentum": {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 0.01},
    "adam": {"optimizer": "adam", "lr": 0.01},
}


def by_hand(module: nn.Module, source: Data, ticket: Ticket, recipe: Recipe) -> dict[str, Tensor]:
    """The same training in eager PyTorch: masked gradients, masked weights, new weights and their moments at 0."""
    net = copy.deepcopy(module)
    net.load_state_dict(dict(ticket.start.weights))
    parameters = dict(net.named_parameters())
    if recipe.optimizer == "sgd":
        optimizer: torch.optim.Optimizer = torch.optim.SGD(
            net.parameters(), lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        )
    else:
        optimizer = torch.optim.Adam(net.parameters(), lr=recipe.lr)
    keep = dict(ticket.mask.keep)
    rows = torch.cat(
        [data.permutation(len(source.train.y), seed=ticket.seeds.derive("order"), epoch=e) for e in range(9)]
    )
    for step in range(recipe.steps):
        if step in AT:
            new = random_keep(module, 1000 * step + ticket.seeds.replicate)
            for name in keep:
                stays = keep[name] & new[name]
                for slot in ("momentum_buffer", "exp_avg", "exp_avg_sq"):
                    if slot in optimizer.state[parameters[name]]:
                        optimizer.state[parameters[name]][slot].mul_(stays)
                parameters[name].data.mul_(stays)
            keep = new
        with torch.no_grad():
            for name, k in keep.items():
                parameters[name].mul_(k)
        chosen = rows[step * recipe.batch : (step + 1) * recipe.batch]
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(source.train.x[chosen]), source.train.y[chosen]).backward()  # type: ignore[no-untyped-call]
        for name, k in keep.items():
            gradient = parameters[name].grad
            assert gradient is not None
            gradient.mul_(k)
        optimizer.step()
        with torch.no_grad():
            for name, k in keep.items():
                parameters[name].mul_(k)
    return {name: p.detach() for name, p in parameters.items()}


@pytest.mark.parametrize("engine", ["dense", "sparse"])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_changing_mask_is_what_plain_pytorch_does(
    kind: str, engine: Any, vectors: Data, dense: Make
) -> None:
    module = mlp()
    recipe = Recipe(steps=12, batch=10, evaluate_every=4, **OPTIMIZERS[kind])
    tickets = [dense(module, r, density=0.4) for r in range(2)]
    paths = train(module, vectors, data, tickets, recipe, engine=engine, changes=Scripted(module, []))
    for ticket, path in zip(tickets, paths, strict=True):
        assert isinstance(path, Trajectory)
        last = random_keep(module, 7000 + ticket.seeds.replicate)
        assert same_bits(path.ticket.mask.keep, last)
        assert same_bits(path.ticket.start.weights, ticket.start.weights)
        wanted = by_hand(module, vectors, ticket, recipe)
        for name, value in path.saved[12].weights.items():
            torch.testing.assert_close(value, wanted[name], rtol=2e-4, atol=2e-6)
            if name in last:
                assert not bool(value[~last[name]].any())


def test_what_decides_a_change_sees_the_weights_and_the_dense_gradient_of_the_next_batch(
    vectors: Data, dense: Make
) -> None:
    module, ticket = mlp(), dense(mlp(), density=0.4)
    recipe = Recipe(steps=9, batch=10, optimizer="sgd", lr=0.05)
    script = Scripted(module, [])
    train(module, vectors, data, [ticket], recipe, changes=script)
    assert [state.step for state, _ in script.seen] == list(AT)
    state, gradient = script.seen[0]
    assert not bool(state.weights["0.weight"][~ticket.mask.keep["0.weight"]].any())
    rows = data.permutation(45, seed=ticket.seeds.derive("order"), epoch=0)[4 * 10 : 45]
    more = data.permutation(45, seed=ticket.seeds.derive("order"), epoch=1)[:5]
    chosen = torch.cat([rows, more])
    wanted = dense_gradient(module, state.weights, {}, vectors.train.x[chosen], vectors.train.y[chosen])
    for name, value in gradient.items():
        torch.testing.assert_close(value, wanted[name])
    assert bool(gradient["0.weight"][~ticket.mask.keep["0.weight"]].any())  # pruned weights have theirs


def test_a_dense_gradient_is_autograds_and_leaves_statistics_alone() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
    x, y = torch.randn(8, 4), torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    weights = {n: p.detach().clone() for n, p in module.named_parameters()}
    buffers = {n: b.clone() for n, b in module.named_buffers()}
    found = dense_gradient(module, weights, buffers, x, y)
    assert same_bits(buffers, dict(copy.deepcopy(module).named_buffers()))
    nn.functional.cross_entropy(module(x), y).backward()  # type: ignore[no-untyped-call]
    for name, p in module.named_parameters():
        assert p.grad is not None
        torch.testing.assert_close(found[name], p.grad)


class Stopped(BaseException):
    pass


class InMemory:
    """A checkpoint that stops the run right after its n-th save."""

    def __init__(self, stops: Sequence[int]) -> None:
        self.stops, self.kept, self.saves = set(stops), None, 0

    def load(self) -> Any:
        return copy.deepcopy(self.kept)

    def due(self) -> bool:
        return True

    def save(self, value: Any) -> None:
        self.kept, self.saves = copy.deepcopy(value), self.saves + 1
        if self.saves in self.stops:
            raise Stopped


LEARNING = {kind: Learning(kind, {"0.weight": 50, "2.weight": 20}) for kind in ("top", "sampled")}


@pytest.mark.parametrize("how", ["changes", "sparse changes", "top", "sampled"])
def test_what_stops_and_goes_on_is_what_did_not(how: str, vectors: Data, dense: Make) -> None:
    module = mlp()
    recipe = Recipe(steps=10, batch=10, evaluate_every=2, optimizer="adam", lr=0.01)
    tickets = [dense(module, r, density=0.4) for r in range(2)]

    def go(checkpoint: InMemory | None) -> Any:
        extra: dict[str, Any] = {"engine": "sparse" if "sparse" in how else "dense"}
        extra |= {"changes": Scripted(module, [])} if "changes" in how else {"learning": LEARNING[how]}
        return train(module, vectors, data, tickets, recipe, checkpoint=checkpoint, **extra)

    whole, checkpoint, parts = go(None), InMemory([1, 2, 3]), None
    for _ in range(9):
        try:
            parts = go(checkpoint)
            break
        except Stopped:
            continue
    assert parts is not None
    assert checkpoint.saves >= 4  # three interrupted runs took up where they were
    for a, b in zip(whole, parts, strict=True):
        assert same_bits(a.ticket.mask.keep, b.ticket.mask.keep)
        assert same_bits(a.saved[10].weights, b.saved[10].weights)
        assert same_bits(vars(a.curve), vars(b.curve))
        assert a.about["work"] == pytest.approx(b.about["work"])


def test_the_early_stop_is_measured_with_the_weights_and_the_mask_that_it_had(
    vectors: Data, dense: Make
) -> None:
    """The least validation loss lies before the last change: test data are looked at with those weights."""
    module, ticket = mlp(), dense(mlp(), density=0.4)
    recipe = Recipe(steps=12, batch=10, evaluate_every=1, optimizer="sgd", lr=0.5)

    class Ruin(Scripted):
        def change(self, ticket: Ticket, now: State, gradient: Gradient) -> Mask:
            few = {n: torch.zeros_like(k) for n, k in ticket.mask.keep.items()}
            return Mask({n: k.index_fill(0, torch.tensor([0]), True) for n, k in few.items()})

    (path,) = train(module, vectors, data, [ticket], recipe, engine="sparse", changes=Ruin(module, []))
    assert isinstance(path, Trajectory)
    early = path.curve.early_stop_step()
    assert early is not None
    assert 0 < early <= AT[0]
    (before,) = train(module, vectors, data, [ticket], replace(recipe, steps=early), engine="sparse")
    assert isinstance(before, Trajectory)
    assert path.curve.accuracy_at_early_stop() == before.curve.last()["test_accuracy"]
    assert path.curve.at(early)["test_loss"] == pytest.approx(before.curve.last()["test_loss"], abs=1e-6)


def test_who_diverges_keeps_its_mask_and_the_others_go_on(vectors: Data, dense: Make) -> None:
    module = mlp()
    tickets = [dense(module, r, density=0.4) for r in range(2)]
    broken = {n: w * (torch.nan if n == "0.weight" else 1) for n, w in tickets[1].start.weights.items()}
    bad = replace(tickets[1], start=replace(tickets[1].start, weights=broken))
    recipe = Recipe(steps=12, batch=10)
    script = Scripted(module, [])
    one, two = train(module, vectors, data, [tickets[0], bad], recipe, changes=script)
    assert isinstance(one, Trajectory)
    assert isinstance(two, Failed)
    assert len(script.seen) == len(AT)


def test_who_has_diverged_does_not_decide_how_the_others_are_computed(
    vectors: Data, dense: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_trusted", set())  # as in a process that has trained nothing yet
    torch.manual_seed(3)
    module = nn.Sequential(nn.Linear(6, 14), nn.ReLU(), nn.Linear(14, 3))
    tickets = [dense(module, r, density=0.4) for r in range(2)]
    huge = {n: w * 1e38 for n, w in tickets[0].start.weights.items()}
    bad = replace(tickets[0], start=replace(tickets[0].start, weights=huge))
    recipe = Recipe(steps=6, batch=10)
    lost, sound = train(module, vectors, data, [bad, tickets[1]], recipe, engine="sparse")
    _, alone = train(module, vectors, data, tickets, recipe, engine="sparse")
    assert isinstance(lost, Failed)
    assert isinstance(sound, Trajectory)
    assert isinstance(alone, Trajectory)
    assert sound.about["sparse"] == ["0.weight", "2.weight"]
    assert same_bits(sound.saved[6].weights, alone.saved[6].weights)


def test_states_on_the_way_are_refused(vectors: Data, dense: Make) -> None:
    module = mlp()
    with pytest.raises(ValueError, match="only if the mask stays the same"):
        train(
            module,
            vectors,
            data,
            [dense(module)],
            Recipe(steps=9, batch=10),
            save=(3,),
            changes=Scripted(module, []),
        )


# ---------------------------------------------------------------------------------------------- supermasks


class _Chosen(torch.autograd.Function):
    """Straight through: the mask of the largest, with the gradient of what it was made from."""

    @staticmethod
    def forward(_: Any, score: Tensor, count: int) -> Tensor:
        keep = torch.zeros(score.numel(), dtype=score.dtype)
        keep[score.flatten().argsort(descending=True)[:count]] = 1
        return keep.view(score.shape)

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Any:
        return gradient, None


def _chosen(score: Tensor, count: int) -> Tensor:
    keep: Tensor = _Chosen.apply(score, count)  # type: ignore[no-untyped-call]
    return keep


def test_edge_popup_against_a_plain_float64_derivation(vectors: Data, dense: Make) -> None:
    """Ramanujan et al. 2020, §3.2: w fixed, s ← s - lr · ∂L/∂(w m) · w, by autograd through |s|; to 1e-6."""
    module = mlp().double()
    ticket = dense(mlp())
    start = State({n: w.double() for n, w in ticket.start.weights.items()}, {}, {}, 0)
    ticket = replace(ticket, start=start)
    parts = {
        name: replace(getattr(vectors, name), x=getattr(vectors, name).x.double())
        for name in ("train", "validation", "test")
    }
    source = replace(vectors, **parts)  # type: ignore[type-var]
    recipe = Recipe(steps=15, batch=10, optimizer="sgd", lr=0.2, momentum=0.9, weight_decay=1e-3)
    learning = LEARNING["top"]
    (path,) = train(module, source, data, [ticket], recipe, learning=learning)
    assert isinstance(path, Trajectory)

    scores = {}
    for name in learning.counts:
        w = start.weights[name]
        draw = torch.Generator().manual_seed(ticket.seeds.derive("scores", name))
        uniform = 2 * torch.rand(w.shape, generator=draw) - 1
        scores[name] = (uniform / math.sqrt(w.shape[1])).double().requires_grad_()
    optimizer = torch.optim.SGD(list(scores.values()), lr=0.2, momentum=0.9, weight_decay=1e-3)
    rows = torch.cat([data.permutation(45, seed=ticket.seeds.derive("order"), epoch=e) for e in range(4)])
    for step in range(15):
        chosen = rows[step * 10 : (step + 1) * 10]
        optimizer.zero_grad()
        masked = {n: start.weights[n] * _chosen(s.abs(), learning.counts[n]) for n, s in scores.items()}
        out = torch.func.functional_call(module, {**start.weights, **masked}, (source.train.x[chosen],))
        nn.functional.cross_entropy(out, source.train.y[chosen]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    for name, score in scores.items():
        wanted = _chosen(score.abs().detach(), learning.counts[name]).bool()
        assert torch.equal(path.ticket.mask.keep[name], wanted)
    # The loss of the learned mask, to 1e-6, and not only its places.
    masked = {n: (start.weights[n] * path.ticket.mask.keep[n]).unsqueeze(0) for n in scores}
    weights = {n: masked.get(n, w.unsqueeze(0)) for n, w in start.weights.items()}
    loss, _ = evaluate(module, weights, {}, source.validation)
    assert path.curve.last()["validation_loss"] == pytest.approx(float(loss[0]), abs=1e-6)


@pytest.mark.parametrize("kind", LEARNING)
def test_no_weight_changes_while_a_mask_is_learned(kind: str, vectors: Data, dense: Make) -> None:
    module = mlp()
    tickets = [dense(module, r) for r in range(2)]
    recipe = Recipe(steps=40, batch=10, optimizer="adam", lr=0.05, weight_decay=0.01)
    for ticket, path in zip(
        tickets, train(module, vectors, data, tickets, recipe, learning=LEARNING[kind]), strict=True
    ):
        assert isinstance(path, Trajectory)
        assert {n: k for n, (k, _) in path.ticket.mask.layers().items()} == LEARNING[kind].counts
        assert same_bits(path.ticket.start.weights, ticket.start.weights)
        assert same_bits(path.saved[40].weights, path.ticket.mask.apply(ticket.start.weights))
        first, last = path.curve.at(0)["validation_loss"], path.curve.last()["validation_loss"]
        assert last < first  # and yet it has learned


def test_sampled_gradients_reach_scores_through_the_probability() -> None:
    """∂L/∂s = ∂L/∂(w m) · w · σ'(s), by hand at two scores."""
    from winticket.ticket import Seeds
    from winticket.train import Supermask

    mask = Supermask(Learning("sampled", {"w": 1}), {"w": torch.tensor([[[2.0, -3.0]]])}, [Seeds(0, 0)])
    mask.scores["w"].copy_(torch.tensor([[[0.0, math.log(3.0)]]]))  # probabilities 1/2 and 3/4
    found = mask.of_scores({"w": torch.tensor([[[1.0, 4.0]]])})["w"]
    torch.testing.assert_close(found, torch.tensor([[[0.5, -2.25]]]))
    kept = mask.keep()["w"].flatten().tolist()
    assert kept == [False, True]
    counted = torch.zeros(2)
    weights = {"w": torch.zeros(1, 1, 2)}
    torch.manual_seed(0)
    for _ in range(4000):
        mask.put(weights)
        counted += (weights["w"][0, 0] != 0).float()
    # Four standard errors of a share of 4000 draws.
    assert (counted / 4000).tolist() == pytest.approx([0.5, 0.75], abs=4 * 0.5 / 4000**0.5)


# ---------------------------------------------------------------------------------------------- operations


def test_operations_by_hand() -> None:
    """A 3x3 convolution at 8x8 positions and a linear layer: 2 per multiplication and addition, per weight kept."""
    net = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 3))
    count = forward(net, torch.zeros(2, 2, 8, 8))
    assert count is not None
    assert count.total == 2 * (4 * 2 * 9 * 64 + 256 * 3)
    assert count.each == {"0.weight": 128.0, "3.weight": 2.0}
    kept = {"0.weight": (20, 72), "3.weight": (100, 768)}
    assert count.masked(kept) == 128 * 20 + 2 * 100


def test_a_trainings_operations_are_three_per_forward_one(vectors: Data, dense: Make) -> None:
    module, ticket = mlp(), dense(mlp(), density=0.4)
    (path,) = train(module, vectors, data, [ticket], Recipe(steps=7, batch=10))
    assert isinstance(path, Trajectory)
    assert path.about["work"] == 3 * 7 * 10 * 2 * ticket.mask.count()
    assert path.about["steps"] == 7
