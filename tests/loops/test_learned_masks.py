"""Masks that are learned in a loop of one's own, against the engine and against a score's gradient by hand."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DataParallel

import winticket
from winticket import allocate, data
from winticket.data import find_dataset
from winticket.loops import Learned, masked
from winticket.procedures import Setup
from winticket.stages import dense_ticket, sparse_start, train_mask
from winticket.ticket import Mask, Seeds, Ticket, Trajectory, same_bits
from winticket.train import Recipe

METHODS: dict[str, Callable[..., Any]] = {"top": winticket.edge_popup, "sampled": winticket.supermask}
NAMES = {"top": "edge_popup", "sampled": "supermask"}
STEPS = 8


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))


def loss_of(model: Callable[[Tensor], Tensor], step: int) -> Tensor:
    generator = torch.Generator().manual_seed(step)
    x, y = torch.randn(32, 8, generator=generator), torch.randint(0, 4, (32,), generator=generator)
    return F.cross_entropy(model(x), y)


def update(model: Callable[[Tensor], Tensor], optimizer: Any, step: int) -> None:
    optimizer.zero_grad()
    loss_of(model, step).backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def sgd(learned: Learned) -> torch.optim.Optimizer:
    return torch.optim.SGD(learned.parameters(), lr=0.5, momentum=0.9)


@pytest.mark.parametrize("kind", METHODS)
def test_masks_are_those_of_the_librarys_own_training(kind: str) -> None:
    source = find_dataset("digits")
    recipe = Recipe(steps=60, batch=30, evaluate_every=30, optimizer="sgd", lr=0.5, momentum=0.9)
    shape, classes = source.input_shape, source.classes
    setup = Setup("digits", source.fingerprint, shape, classes, "lenet-12-8", "glorot-normal", recipe)
    ticket = dense_ticket(setup, 1)
    begun = sparse_start(ticket, density=0.4, allocate=allocate.erk)
    (path,) = train_mask(setup, [begun], kind=kind)
    assert isinstance(path, Trajectory)

    model = setup.module()
    ticket.load_into(model)
    model.train()
    examples = setup.dataset(torch.device("cpu"), 1).train
    orders = [data.permutation(len(examples.y), seed=ticket.seeds.derive("order"), epoch=e) for e in range(2)]
    noise = ticket.seeds.derive("dropout")
    with METHODS[kind](model, 0.4, allocate=allocate.erk, seeds=ticket.seeds) as learned:
        first, optimizer = learned.mask, sgd(learned)
        for step, chosen in enumerate(torch.split(torch.cat(orders), recipe.batch)[: recipe.steps]):
            torch.manual_seed(noise + step)  # as the library's training does for dropout, and for samples
            optimizer.zero_grad()
            F.cross_entropy(model(examples.x[chosen]), examples.y[chosen]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    assert same_bits(learned.mask.keep, path.ticket.mask.keep)
    assert not same_bits(learned.mask.keep, first.keep)
    assert same_bits(learned.ticket.start.weights, path.ticket.start.weights)
    ended = {n: p.detach() for n, p in model.named_parameters()}
    assert same_bits(ended, path.saved[recipe.steps].weights)


@pytest.mark.parametrize("kind", METHODS)
def test_a_scores_gradient_by_hand(kind: str) -> None:
    """∂L/∂s = ∂L/∂(w m) · w · sign(s), or · σ'(s), with L = 2 (w m)₀ - 3 (w m)₁, so ∂L/∂(w m) = (2, -3)."""
    model = nn.Sequential(nn.Linear(2, 1, bias=False))
    weight, values = torch.tensor([[0.5, 4.0]]), torch.tensor([[-1.0, 0.5]])
    with torch.no_grad():
        model.get_parameter("0.weight").copy_(weight)
    with METHODS[kind](model, 0.5) as learned:
        score = learned.scores["0.weight"]
        with torch.no_grad():
            score.copy_(values)
        model(torch.tensor([[2.0, -3.0]])).sum().backward()
        chance = torch.sigmoid(values)
        slope = values.sign() if kind == "top" else chance * (1 - chance)
        torch.testing.assert_close(score.grad, torch.tensor([[2 * 0.5, -3 * 4.0]]) * slope)
        kept = torch.tensor([[True, False] if kind == "top" else [False, True]])  # the largest |s|, or s
        model.eval()
        assert torch.equal(model.get_submodule("0").get_parameter("parametrizations.weight.original"), weight)
        layer: Any = model[0]
        assert torch.equal(layer.weight, torch.where(kept, weight, 0))
    assert torch.equal(learned.mask.keep["0.weight"], kept)
    assert torch.equal(model.get_parameter("0.weight").detach(), torch.where(kept, weight, 0))


def test_samples_are_drawn_with_the_scores_probability_in_training_alone() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4000, 1, bias=False))
    with METHODS["sampled"](model, 0.25) as learned:
        layer: Any = model[0]
        first, second = (layer.weight.detach() != 0 for _ in range(2))
        model.eval()
        settled = layer.weight.detach() != 0
        with torch.no_grad():
            learned.scores["0.weight"].add_(1.0)
    assert not torch.equal(first, second)
    for drawn in (first, second):  # four standard errors of a share of 4000
        assert float(drawn.double().mean()) == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / 4000) ** 0.5)
    assert int(settled.sum()) == 1000


@pytest.mark.parametrize("optimiser", ["sgd", "adamw, decay", "accumulated"])
@pytest.mark.parametrize("kind", METHODS)
def test_nothing_of_the_model_changes_but_its_zeros(kind: str, optimiser: str, tmp_path: Path) -> None:
    model = network()
    model[0].bias.requires_grad_(False)
    before = {n: v.clone() for n, v in model.state_dict().items()}
    parameters, flags = list(model.parameters()), [p.requires_grad for p in model.parameters()]
    with METHODS[kind](model, {"0.weight": 0.3, "*": 0.5}) as learned:
        optimizer = torch.optim.AdamW(learned.parameters(), lr=0.1, weight_decay=0.1)
        if optimiser != "adamw, decay":
            optimizer = sgd(learned)  # type: ignore[assignment]
        first = learned.mask
        for step in range(STEPS):
            optimizer.zero_grad()
            for part in range(3 if optimiser == "accumulated" else 1):
                loss_of(model, 10 * step + part).backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(learned.parameters(), 1.0)
            optimizer.step()
            assert {n: kept for n, (kept, _) in learned.mask.layers().items()} == {
                "0.weight": 38,
                "3.weight": 32,
            }
            assert all(p.grad is None for p in parameters)
        untrained = loss_of(model.eval(), 0)
        model.train()
    after = {n: v.clone() for n, v in model.state_dict().items()}
    assert list(after) == list(before)
    assert [id(p) for p in model.parameters()] == [id(p) for p in parameters]
    assert [p.requires_grad for p in model.parameters()] == flags
    assert type(model[0]) is nn.Linear
    assert not hasattr(model[0], "parametrizations")
    assert not same_bits(learned.mask.keep, first.keep)
    weights = {n: before[n] for n, _ in model.named_parameters()}
    assert same_bits({n: after[n] for n in weights}, learned.mask.apply(weights))
    assert not torch.equal(after["1.running_mean"], before["1.running_mean"])
    assert torch.equal(loss_of(model.eval(), 0), untrained.detach())  # the network that was found
    learned.ticket.save(tmp_path / "t.safetensors")
    ticket = Ticket.load(tmp_path / "t.safetensors")
    assert same_bits({**ticket.start.weights, **ticket.start.buffers}, before)
    assert ticket.about == {"method": NAMES[kind], "allocate": "layerwise"}
    update(model.train(), torch.optim.SGD(model.parameters(), lr=0.1), 0)  # the block is over
    assert all(bool((model.state_dict()[n] != after[n]).any()) for n in ("0.weight", "1.weight", "3.bias"))


@pytest.mark.parametrize("kind", METHODS)
def test_it_learns(kind: str) -> None:
    model = network()
    with METHODS[kind](model, 0.5) as learned:
        optimizer, losses = torch.optim.SGD(learned.parameters(), lr=5.0, momentum=0.9), []
        for _ in range(60):
            update(model, optimizer, 0)
            losses.append(float(loss_of(model.eval(), 0).detach()))
            model.train()
    assert min(losses[-10:]) < losses[0] - 0.1


def found_by(kind: str, go: Callable[[nn.Module, Learned], None]) -> Mask:
    model = network()
    torch.manual_seed(7)
    with METHODS[kind](model, 0.3, seeds=Seeds(2, 5)) as learned:
        go(model, learned)
    found: Mask = learned.mask
    return found


def plain(model: nn.Module, learned: Learned) -> None:
    optimizer = sgd(learned)
    for step in range(STEPS):
        update(model, optimizer, step)


def over_all_parameters(model: nn.Module, learned: Learned) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    for step in range(STEPS):
        update(model, optimizer, step)


def compiled(model: nn.Module, learned: Learned) -> None:
    torch.compiler.reset()
    within, optimizer = torch.compile(model, backend="aot_eager"), sgd(learned)
    for step in range(STEPS):
        update(within, optimizer, step)


def scaled(model: nn.Module, learned: Learned) -> None:
    optimizer, scaler = sgd(learned), torch.amp.GradScaler("cpu", init_scale=1024.0)
    for step in range(STEPS):
        optimizer.zero_grad()
        scaler.scale(loss_of(model, step)).backward()  # type: ignore[no-untyped-call]
        scaler.step(optimizer)
        scaler.update()


@pytest.mark.filterwarnings(
    "ignore:.*should not be instantiated:DeprecationWarning"
)  # torch's own, compiling
@pytest.mark.parametrize("loop", [over_all_parameters, scaled, compiled], ids=lambda f: str(f.__name__))
@pytest.mark.parametrize("kind", METHODS)
def test_the_loops_that_people_have_find_the_same_mask(
    kind: str, loop: Callable[[nn.Module, Learned], None]
) -> None:
    if loop is compiled and kind == "sampled":
        assert found_by(kind, loop).count() == 57  # a graph draws its samples in an order of its own
        return
    assert same_bits(found_by(kind, loop).keep, found_by(kind, plain).keep)


@pytest.mark.filterwarnings(
    "ignore:.*should not be instantiated:DeprecationWarning"
)  # torch's own, compiling
def test_a_model_that_was_compiled_before_is_followed() -> None:
    torch.compiler.reset()
    model = network()
    used: Any = torch.compile(model, backend="aot_eager")
    before = loss_of(used.eval(), 0).detach()
    used.train()
    with METHODS["top"](used, 0.3, seeds=Seeds(2, 5)) as learned:
        plain(used, learned)
        inside = loss_of(used.eval(), 0).detach()
    assert same_bits(learned.mask.keep, found_by("top", plain).keep)
    assert not torch.equal(before, inside)
    torch.testing.assert_close(loss_of(used, 0).detach(), inside)


class Tied(nn.Module):
    """An encoder and a decoder of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 8, bias=False)
        self.two.weight = self.one.weight
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.two(self.one(x).relu()))
        return logits


def test_a_tied_weight_has_one_score_and_stays_tied() -> None:
    model = Tied()
    names = list(model.state_dict())
    with METHODS["top"](model, 0.5) as learned:
        assert list(learned.scores) == ["one.weight", "head.weight"]
        assert torch.equal(model.one.weight, model.two.weight)
        plain(model, learned)
    assert model.one.weight is model.two.weight
    assert list(model.state_dict()) == names
    assert int((model.two.weight.detach() != 0).sum()) == 32


# --------------------------------------------------------------------------------------- ends and mistakes


def test_an_exception_leaves_the_model_whole_under_the_mask_so_far() -> None:
    model, before = network(), network()
    with pytest.raises(ZeroDivisionError), METHODS["top"](model, 0.3) as learned:  # noqa: PT012
        plain(model, learned)
        raise ZeroDivisionError
    assert list(model.state_dict()) == list(before.state_dict())
    weights = {n: p.detach() for n, p in before.named_parameters()}
    assert same_bits({n: p.detach() for n, p in model.named_parameters()}, learned.mask.apply(weights))
    assert all(p.requires_grad for p in model.parameters())
    learned.ticket.load_into(model)
    with METHODS["sampled"](model, 0.3) as again:  # nothing is left that would refuse
        plain(model, again)


def test_one_block_alone_sees_to_a_mask_that_is_learned() -> None:
    model = network()
    mask = Mask({"0.weight": torch.ones(16, 8, dtype=torch.bool)})
    words = "another block already keeps a mask on this model"
    with METHODS["top"](model, 0.3) as learned:
        plain(model, learned)
        for inner in (
            masked(model, mask),
            METHODS["sampled"](model, 0.3),
            winticket.rigl(model, 0.3, steps=20),
        ):
            with pytest.raises(ValueError, match=words), inner:
                raise AssertionError("the block must not begin")
        with pytest.raises(ValueError, match="the model's weights are parametrized, as they are within"):
            winticket.prune(model, 0.3)
    with masked(model, mask), pytest.raises(ValueError, match=words), METHODS["top"](model, 0.3):
        raise AssertionError("the block must not begin")


def test_an_optimiser_over_the_weights_is_refused_before_its_first_step() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with (  # noqa: PT012
        pytest.raises(ValueError, match="this SGD trains weights of the model, but no weight may change"),
        METHODS["top"](model, 0.3) as learned,
    ):
        other = network()
        update(other, torch.optim.SGD(other.parameters(), lr=0.1), 0)  # another model's is not meant
        assert len(learned.parameters()) == 2
        update(model, optimizer, 0)


@pytest.mark.parametrize("kind", METHODS)
def test_scores_that_were_never_trained_are_told(kind: str) -> None:
    with pytest.warns(RuntimeWarning, match="no score has changed") as caught, METHODS[kind](network(), 0.3):
        pass
    assert caught[0].filename == __file__


def test_a_wrapped_model_is_refused() -> None:
    with (
        pytest.raises(ValueError, match=r"edge_popup adds scores to the model.*wrap it within the block"),
        METHODS["top"](DataParallel(network()), 0.3),
    ):
        raise AssertionError("the block must not begin")


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize(
    ("density", "how", "words"),
    [
        (1.0, {}, "density is 1.0; give the share"),
        (0.0, {}, "density is 0.0; give the share"),
        (
            0.5,
            {"allocate": partial(allocate.n_of_m, m=2)},
            "keeps the number of weights in every layer, but n_of_m does",
        ),
        (0.5, {"allocate": allocate.global_top}, "but global_top does not go by layer"),
        (0.3, {"exclude": ["9.*"]}, "exclude '9.*' fits no eligible weight"),
    ],
)
def test_mistakes_are_told_before_any_training(kind: str, density: float, how: Any, words: str) -> None:
    model = network()
    with pytest.raises(ValueError, match=re.escape(words)), METHODS[kind](model, density, **how):
        raise AssertionError("the block must not begin")
    assert same_bits(dict(model.state_dict()), dict(network().state_dict()))


@pytest.mark.parametrize("kind", METHODS)
def test_a_layer_that_is_to_keep_nothing_is_told(kind: str) -> None:
    model = network()
    with (
        pytest.warns(RuntimeWarning, match="the mask that is learned keeps no weight in 0.weight") as caught,
        METHODS[kind](model, {"0.weight": 0.001, "*": 0.5}) as learned,
    ):
        plain(model, learned)
    assert [w.filename for w in caught] == [__file__]
    assert learned.mask.layers() == {"0.weight": (0, 128), "3.weight": (32, 64)}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", METHODS)
def test_scores_of_half_precision_weights_are_fine_enough(kind: str, dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Linear(200, 60, bias=False)).to(dtype)
    whole = nn.Sequential(nn.Linear(200, 60, bias=False))
    seeds = Seeds(0, 0)
    with (
        METHODS[kind](model, 0.01, seeds=seeds) as learned,
        METHODS[kind](whole, 0.01, seeds=seeds) as wanted,
    ):
        assert same_bits(learned.mask.keep, wanted.mask.keep)  # drawn from all places
        score = learned.scores["0.weight"]
        out = model(torch.ones(1, 200, dtype=dtype))
        assert out.dtype == dtype
        out.sum().backward()
        assert score.dtype == score.grad.dtype == torch.float32
        before = score.detach().clone()
        torch.optim.SGD(learned.parameters(), lr=1e-3 if kind == "top" else 1.0).step()
        moved = score.detach() != before
        assert moved.double().mean() > 0.9
        if kind == "sampled":
            with torch.no_grad():
                score.fill_(-8.0)  # one in three thousand
                draws = [model(torch.eye(200, dtype=dtype)).count_nonzero() for _ in range(20)]
                kept = sum(int(draw) for draw in draws)
            assert 40 < kept < 130
        wanted.scores["0.weight"].data.add_(1)
    assert model.get_parameter("0.weight").dtype == dtype


def test_gradients_from_before_the_block_move_nothing_and_are_there_again() -> None:
    model = network()
    loss_of(model, 0).backward()  # type: ignore[no-untyped-call]
    weights, gradients = ({n: f(p) for n, p in model.named_parameters()} for f in (clone, of_grad))
    with METHODS["top"](model, 0.5) as learned:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)  # scores are among them
        for step in range(3):
            optimizer.zero_grad(set_to_none=False)
            loss_of(model, step).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    assert same_bits({n: clone(p) for n, p in model.named_parameters()}, learned.mask.apply(weights))
    assert same_bits({n: of_grad(p) for n, p in model.named_parameters()}, gradients)


def clone(parameter: nn.Parameter) -> Tensor:
    return parameter.detach().clone()


def of_grad(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad.clone()


@pytest.mark.parametrize("kind", METHODS)
def test_a_training_that_diverged_is_told(kind: str) -> None:
    model = network()
    with pytest.warns(RuntimeWarning, match=r"scores of 0\.weight are not finite: the training has diverged"):  # noqa: PT031, SIM117
        with METHODS[kind](model, 0.5) as learned:
            plain(model, learned)
            with torch.no_grad():
                learned.scores["0.weight"][0, 0] = torch.nan
