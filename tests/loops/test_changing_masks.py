"""Masks that change in a loop of one's own: against the engine, and against RigL written out in plain PyTorch."""

from __future__ import annotations

import copy
import inspect
import math
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import winticket
from winticket import allocate, criteria, data
from winticket.data import find_dataset
from winticket.loops import Sparse, masked
from winticket.procedures import Setup
from winticket.stages import dense_ticket, sparse_start, train_regrowing, train_thinning
from winticket.ticket import Mask, Seeds, Ticket, Trajectory, same_bits
from winticket.train import Recipe
from winticket.train.rules import at_random

STEPS, EVERY = 20, 4
AT = (4, 8, 12)
"""Multiples of four in the first three quarters."""


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))


def batch(step: int, part: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(100 * step + part)
    return torch.randn(32, 8, generator=generator), torch.randint(0, 4, (32,), generator=generator)


def loss_of(model: Callable[[Tensor], Tensor], step: int, part: int = 0) -> Tensor:
    x, y = batch(step, part)
    return F.cross_entropy(model(x), y)


def update(model: Callable[[Tensor], Tensor], optimizer: Any, step: int, parts: int = 1) -> None:
    optimizer.zero_grad()
    for part in range(parts):
        (loss_of(model, step, part) / parts).backward()  # type: ignore[no-untyped-call]
    optimizer.step()


OPTIMIZERS: dict[str, Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]] = {
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
}
METHODS: dict[str, Callable[..., Any]] = {
    "set": winticket.set_,
    "rigl": winticket.rigl,
    "gradual": winticket.gradual,
}


def revived(model: nn.Module, mask: Mask) -> int:
    return sum(int((model.get_parameter(n).detach()[~k] != 0).sum()) for n, k in mask.keep.items())


# --------------------------------------------------------------------------------------- against other code


def magnitude_by_hand(model: nn.Module, names: Iterable[str]) -> dict[str, Tensor]:
    return {name: model.get_parameter(name).detach().abs() for name in names}


def taylor_by_hand(model: nn.Module, names: Iterable[str]) -> dict[str, Tensor]:
    """(w · ∂L/∂w)² of one batch, of a copy in float64, as in training (Molchanov et al. 2019)."""
    twin, (x, y) = copy.deepcopy(model).double().train(), batch(500)
    twin.zero_grad()
    F.cross_entropy(twin(x.double()), y).backward()  # type: ignore[no-untyped-call]
    found = {}
    for name in names:
        weight = twin.get_parameter(name)
        assert weight.grad is not None
        found[name] = (weight.detach() * weight.grad) ** 2
    return found


def rigl_by_hand(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    keep: dict[str, Tensor],
    *,
    parts: int = 1,
    score: Callable[[nn.Module, Iterable[str]], dict[str, Tensor]] = magnitude_by_hand,
) -> dict[str, Tensor]:
    """Evci et al. 2020, algorithm 1, one weight after the other; nothing of the library is used. The last mask."""
    weights = dict(model.named_parameters())
    keep = {name: k.clone() for name, k in keep.items()}
    for step in range(1, STEPS + 1):
        for name, k in keep.items():
            weights[name].data[~k] = 0
        optimizer.zero_grad()
        for part in range(parts):
            (loss_of(model, step - 1, part) / parts).backward()  # type: ignore[no-untyped-call]
        dense = {}
        for name, k in keep.items():
            gradient = weights[name].grad
            assert gradient is not None
            dense[name] = gradient.clone()
            gradient[~k] = 0
        optimizer.step()
        for name, k in keep.items():
            weights[name].data[~k] = 0
        if step % EVERY or step > 0.75 * STEPS:
            continue
        share = 0.3 / 2 * (1 + math.cos(math.pi * step / (0.75 * STEPS)))
        scores = score(model, keep)
        for name, k in keep.items():
            size, slope = scores[name].flatten(), dense[name].abs().flatten()
            alive = k.flatten().nonzero().flatten().tolist()
            count = int(share * len(alive))
            gone = sorted(alive, key=size.neg().tolist().__getitem__)[len(alive) - count :]
            left = set(alive) - set(gone)
            free = [i for i in range(k.numel()) if i not in left]
            new = sorted(free, key=slope.neg().tolist().__getitem__)[:count]
            keep[name] = torch.zeros(k.numel(), dtype=torch.bool)
            keep[name][sorted(left) + new] = True
            # What has gone and comes back at once goes on as it was, as in the authors' code (reinit_when_same=False).
            moved = sorted(set(gone) ^ set(new))
            for value in (weights[name].data, *optimizer.state[weights[name]].values()):
                if value.shape == weights[name].shape:
                    value.view(-1)[moved] = 0
            keep[name] = keep[name].view(k.shape)
    return keep


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_rigl_is_the_algorithm_written_out(kind: str, parts: int) -> None:
    model, reference = network(), network()
    optimizer = OPTIMIZERS[kind](model.parameters())
    with winticket.rigl(model, 0.3, steps=STEPS, every=EVERY, allocate=allocate.erk) as sparse:
        first = sparse.mask
        for step in range(STEPS):
            update(model, optimizer, step, parts)
    wanted = rigl_by_hand(reference, OPTIMIZERS[kind](reference.parameters()), dict(first.keep), parts=parts)
    assert same_bits(sparse.mask.keep, wanted)
    assert not same_bits(sparse.mask.keep, first.keep)
    for name, value in reference.state_dict().items():
        # The same operators in the same order; theirs has -0 here and there.
        assert torch.equal(model.state_dict()[name], value), name


@pytest.fixture(scope="module")
def setup() -> Setup:
    source = find_dataset("digits")
    recipe = Recipe(steps=40, batch=30, evaluate_every=20, optimizer="adamw", lr=0.01, weight_decay=0.01)
    shape, classes = source.input_shape, source.classes
    return Setup("digits", source.fingerprint, shape, classes, "lenet-12-8", "glorot-normal", recipe)


@pytest.mark.parametrize("method", ["set", "gradual"])
def test_masks_and_weights_are_those_of_the_librarys_own_training(setup: Setup, method: str) -> None:
    ticket, recipe = dense_ticket(setup, 2), setup.recipe
    options: dict[str, Any] = {"criterion": criteria.magnitude, "every": 5}
    if method == "set":
        begun = sparse_start(ticket, density=0.2, allocate=allocate.erk)
        (path,) = train_regrowing(setup, [begun], grow=at_random, **options)
    else:
        options["allocate"] = allocate.erk
        (path,) = train_thinning(setup, [ticket], density=0.2, **options)
    assert isinstance(path, Trajectory)

    model = setup.module()
    ticket.load_into(model)
    model.train()
    examples = setup.dataset(torch.device("cpu"), 2).train
    orders = [data.permutation(len(examples.y), seed=ticket.seeds.derive("order"), epoch=e) for e in range(2)]
    rows = torch.cat(orders)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    how: dict[str, Any] = {"steps": recipe.steps, "every": 5, "allocate": allocate.erk}
    with METHODS[method](model, 0.2, seeds=ticket.seeds, **how) as sparse:
        for chosen in torch.split(rows, recipe.batch)[: recipe.steps]:
            optimizer.zero_grad()
            F.cross_entropy(model(examples.x[chosen]), examples.y[chosen]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    assert same_bits(sparse.mask.keep, path.ticket.mask.keep)
    assert same_bits(sparse.ticket.start.weights, path.ticket.start.weights)
    for name, value in path.saved[recipe.steps].weights.items():
        # A stack of one adds up in another order, and Adam's first steps divide small numbers.
        torch.testing.assert_close(model.get_parameter(name).detach(), value, rtol=1e-3, atol=1e-5)


# --------------------------------------------------------------------------------------- what always holds


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("method", ["set", "rigl"])
def test_counts_stay_and_new_weights_begin_at_nothing(method: str, kind: str, tmp_path: Path) -> None:
    model = network()
    optimizer = OPTIMIZERS[kind](model.parameters())
    update(model, optimizer, 99)  # the optimiser remembers the dense network
    start = {n: v.clone() for n, v in model.state_dict().items()}
    changed = []
    how: dict[str, Any] = {"steps": STEPS, "every": EVERY, "seeds": Seeds(3, 1)}
    with METHODS[method](model, 0.3, allocate=allocate.layerwise, **how) as sparse:
        layers = sparse.mask.layers()
        assert {n: kept for n, (kept, _) in layers.items()} == {"0.weight": 38, "3.weight": 19}
        for step in range(1, STEPS + 1):
            before = sparse.mask
            update(model, optimizer, step)
            assert sparse.step == step
            assert sparse.mask.layers() == layers
            assert revived(model, sparse.mask) == 0
            for name, keep in sparse.mask.keep.items():
                new = keep & ~before.keep[name]
                weight = model.get_parameter(name)
                if not bool(new.any()):
                    assert torch.equal(keep, before.keep[name])
                    continue
                changed.append(step)
                assert not bool(weight.detach()[new].any())
                slots = [v for v in optimizer.state[weight].values() if v.shape == weight.shape]
                assert len(slots) == {"momentum": 1, "adam": 3, "adamw": 2}[kind]
                assert all(not bool(v[new].any()) for v in slots)
                assert all(bool(v[keep & before.keep[name]].any()) for v in slots)
    assert set(changed) == set(AT)
    assert revived(model, sparse.mask) == 0
    sparse.ticket.save(tmp_path / "t.safetensors")
    ticket = Ticket.load(tmp_path / "t.safetensors")
    assert same_bits({**ticket.start.weights, **ticket.start.buffers}, start)
    assert ticket.origin == "ticket"
    assert ticket.about == {
        "method": method,
        "criterion": "magnitude",
        "allocate": "layerwise",
        "steps": STEPS,
        "every": EVERY,
    }
    update(model, optimizer, 0)  # the block is over
    assert revived(model, sparse.mask) > 0


@pytest.mark.filterwarnings("ignore:.*output unit:RuntimeWarning")
def test_gradual_pruning_follows_the_cubic() -> None:
    """Zhu & Gupta 2017, eq. 1, from 1 to .25 in 15 of 20 steps: .25 + .75 (1 - t/15)³ of 192."""
    model = network()
    optimizer, counts = OPTIMIZERS["adam"](model.parameters()), {}
    with winticket.gradual(model, 0.25, steps=STEPS, every=5, allocate=allocate.global_top) as sparse:
        for step in range(1, STEPS + 1):
            before = sparse.mask
            update(model, optimizer, step)
            assert sparse.mask.within(before)
            assert revived(model, sparse.mask) == 0
            counts[step] = sparse.mask.count()
    wanted = {1: 192, 5: round(192 * (0.25 + 0.75 * 8 / 27)), 10: round(192 * (0.25 + 0.75 / 27)), 15: 48}
    assert counts == {t: wanted[max(w for w in wanted if w <= t)] for t in counts}


Loop = Callable[[nn.Module, Sparse], None]


def found_by(go: Loop, method: str = "rigl", **how: Any) -> Mask:
    model = network()
    with METHODS[method](model, 0.3, steps=STEPS, every=EVERY, **how) as sparse:
        go(model, sparse)
    found: Mask = sparse.mask
    return found


def plain(model: nn.Module, sparse: Sparse) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(STEPS):
        update(model, optimizer, step)


def left_out(model: nn.Module, sparse: Sparse, *, to_none: bool) -> None:
    """As a GradScaler does where a gradient is not finite: the step is left out, gradients reset, another one made."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(STEPS):
        optimizer.zero_grad()
        (loss_of(model, 77) * torch.inf).backward()  # type: ignore[no-untyped-call]
        optimizer.zero_grad(set_to_none=to_none)
        loss_of(model, step).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def scaled(model: nn.Module, sparse: Sparse) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for step in range(STEPS):
        optimizer.zero_grad()
        scaler.scale(loss_of(model, step)).backward()  # type: ignore[no-untyped-call]
        scaler.step(optimizer)
        scaler.update()


def scaled_and_left_out(model: nn.Module, sparse: Sparse, *, fused: bool) -> None:
    """Every third loss is not finite, and the step is left out: by the scaler, or by the fused optimiser itself."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for step in range(STEPS):
        for good in (False, True) if step % 3 == 0 else (True,):
            optimizer.zero_grad()
            noise = 1.0 if good else torch.inf
            scaler.scale(loss_of(model, step) * noise).backward()  # type: ignore[no-untyped-call]
            scaler.step(optimizer)
            scaler.update()
            assert sparse.step == step + good


def other_gradients_beside(model: nn.Module, sparse: Sparse) -> None:
    """Gradients that are looked at and never reach `.grad`, before the update's own and after it."""
    optimizer, weights = torch.optim.SGD(model.parameters(), lr=0.1), list(model.parameters())
    for step in range(STEPS):
        optimizer.zero_grad()
        for _ in range(2):
            (loss_of(model, step) / 2).backward(retain_graph=True)  # type: ignore[no-untyped-call]
            found = torch.autograd.grad(100 * loss_of(model, step, 9), weights, create_graph=True)
            norm = torch.stack([g.square().sum() for g in found]).sum()
            torch.autograd.grad(norm, weights)
        optimizer.step()


def in_halves(model: nn.Module, sparse: Sparse) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(STEPS):
        optimizer.zero_grad()
        for _ in range(2):
            (loss_of(model, step) / 2).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def by_closure(model: nn.Module, sparse: Sparse) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(STEPS):

        def again(step: int = step) -> float:
            optimizer.zero_grad()
            loss = loss_of(model, step)
            loss.backward()  # type: ignore[no-untyped-call]
            return float(loss.detach())

        optimizer.step(again)


def another_model_beside(model: nn.Module, sparse: Sparse) -> None:
    other, optimizer = network(), torch.optim.SGD(model.parameters(), lr=0.1)
    others = torch.optim.SGD(other.parameters(), lr=0.1)
    for step in range(STEPS):
        update(other, others, step)
        update(model, optimizer, step)


def several_optimizers(model: nn.Module, sparse: Sparse) -> None:
    parts = [list(model.get_submodule("0").parameters()), list(model.parameters())[2:]]
    optimizers = [torch.optim.SGD(part, lr=0.1) for part in parts]
    sparse.at(0)
    for step in range(STEPS):
        model.zero_grad()
        loss_of(model, step).backward()  # type: ignore[no-untyped-call]
        for optimizer in optimizers:
            optimizer.step()
        sparse.at(step + 1)


class Descent:
    """Plain SGD of another make: no `torch.optim.Optimizer`."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def zero_grad(self) -> None:
        self.model.zero_grad()

    @torch.no_grad()
    def step(self) -> None:
        for p in self.model.parameters():
            assert p.grad is not None
            p.sub_(p.grad, alpha=0.1)


def told(model: nn.Module, sparse: Sparse) -> None:
    optimizer = Descent(model)
    for step in range(STEPS):
        update(model, optimizer, step)
        sparse.at(step + 1)


class Wrapping(torch.optim.Optimizer):
    """A torch optimiser that drives another within its step, twice where it is told, as sharpness-aware ones do."""

    def __init__(self, parameters: Iterable[nn.Parameter], *, times: int = 1, momentum: float = 0.0) -> None:
        super().__init__(parameters, {})
        self.inner, self.times = torch.optim.SGD(self.param_groups, lr=0.1, momentum=momentum), times

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        if closure is not None:
            closure()
        for _ in range(self.times):
            self.inner.step()


class Derived(torch.optim.SGD):
    """Its step is hooked, and so is the one that it derives from."""

    def step(self, closure: Any = None) -> Any:
        return super().step(closure)


def wrapping(model: nn.Module, sparse: Sparse) -> None:
    optimizer = Wrapping(model.parameters())
    for step in range(STEPS):
        update(model, optimizer, step)
        assert sparse.step == step + 1


def derived(model: nn.Module, sparse: Sparse) -> None:
    torch.optim.SGD(model.parameters(), lr=0.1)  # which has its own step hooked
    optimizer = Derived(model.parameters(), lr=0.1)
    for step in range(STEPS):
        update(model, optimizer, step)
        assert sparse.step == step + 1


def within_a_step_of_something_else(model: nn.Module, sparse: Sparse) -> None:
    """A search over learning rates whose loss is a training: its own steps are none of the model's."""
    rate = nn.Parameter(torch.tensor(0.1))
    outer = torch.optim.SGD([rate], lr=0.0)
    outer.step(lambda: plain(model, sparse))


def after_steps_that_raised(model: nn.Module, sparse: Sparse) -> None:
    def fails() -> None:
        raise ZeroDivisionError

    optimizer: Any
    for optimizer in (Wrapping(model.parameters()), torch.optim.SGD(model.parameters(), lr=0.1)):
        with pytest.raises(ZeroDivisionError):
            optimizer.step(fails)
    plain(model, sparse)  # by another optimiser


def compiled_model(model: nn.Module, sparse: Sparse) -> None:
    torch.compiler.reset()
    compiled, optimizer = (
        torch.compile(model, backend="aot_eager"),
        torch.optim.SGD(model.parameters(), lr=0.1),
    )
    for step in range(STEPS):
        update(compiled, optimizer, step)


def compiled_steps(model: nn.Module, sparse: Sparse) -> None:
    torch.compiler.reset()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    step_compiled = torch.compile(optimizer.step, backend="eager")
    for step in range(STEPS):
        optimizer.zero_grad()
        loss_of(model, step).backward()  # type: ignore[no-untyped-call]
        step_compiled()


LOOPS: dict[str, Loop] = {
    "left out": partial(left_out, to_none=True),
    "left out, zeros": partial(left_out, to_none=False),
    "scaled": scaled,
    "scaled, left out": partial(scaled_and_left_out, fused=False),
    "scaled, left out, fused": partial(scaled_and_left_out, fused=True),
    "closure": by_closure,
    "another model": another_model_beside,
    "several optimizers": several_optimizers,
    "another make, told": told,
    "wrapping": wrapping,
    "derived": derived,
    "within a step of something else": within_a_step_of_something_else,
    "after steps that raised": after_steps_that_raised,
    "compiled": compiled_model,
    "compiled steps": compiled_steps,
}


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # torch's own, compiling steps
@pytest.mark.parametrize("loop", LOOPS)
def test_the_loops_that_people_have_find_the_same_mask(loop: str) -> None:
    assert same_bits(found_by(LOOPS[loop]).keep, found_by(plain).keep)


def test_gradients_that_are_only_looked_at_do_not_count() -> None:
    assert same_bits(found_by(other_gradients_beside).keep, found_by(in_halves).keep)


def test_a_model_that_changes_its_type_on_the_way_is_still_seen() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with winticket.rigl(model, 0.3, steps=STEPS, every=EVERY) as sparse:
        for step in range(STEPS):
            if step == EVERY - 1:  # the update after which the mask changes is waited for
                model.double()
            x, y = batch(step)
            optimizer.zero_grad()
            F.cross_entropy(model(x.to(next(model.parameters()).dtype)), y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            assert revived(model, sparse.mask) == 0
    assert same_bits(sparse.mask.keep, found_by(plain).keep)


def test_an_optimiser_of_another_make_that_is_named_is_counted() -> None:
    model = network()
    optimizer = Descent(model)
    with winticket.rigl(model, 0.3, steps=STEPS, every=EVERY, optimizer=optimizer) as sparse:
        for step in range(STEPS):
            update(model, optimizer, step)
            assert sparse.step == step + 1
    assert same_bits(sparse.mask.keep, found_by(plain).keep)
    assert "step" not in vars(optimizer)


class Driving:
    """Of another make, with a torch optimiser inside."""

    def __init__(self, model: nn.Module) -> None:
        self.inner = torch.optim.SGD(model.parameters(), lr=0.1)

    def zero_grad(self) -> None:
        self.inner.zero_grad()

    def step(self, fails: bool = False) -> None:
        self.inner.step()
        if fails:
            raise ZeroDivisionError


def test_an_optimiser_of_another_make_around_one_of_torch_is_counted_once() -> None:
    model, other = network(), network()
    optimizer = Driving(model)
    with (
        winticket.rigl(model, 0.3, steps=STEPS, every=EVERY, optimizer=optimizer) as sparse,
        masked(other, Mask({}), optimizer=optimizer),  # another block that follows it
    ):
        for step in range(STEPS):
            update(model, optimizer, step)
            assert sparse.step == step + 1
        with pytest.raises(ZeroDivisionError):
            optimizer.step(fails=True)
        optimizer.step()
        assert sparse.step == STEPS + 1  # what raised is not counted, and stands in nothing's way
    assert same_bits(sparse.mask.keep, found_by(plain).keep)


def test_an_optimiser_within_another_forgets_what_is_new_as_well() -> None:
    model = network()
    optimizer = Wrapping(model.parameters(), times=2, momentum=0.9)
    with winticket.rigl(model, 0.3, steps=STEPS, every=EVERY) as sparse:
        new = 0
        for step in range(STEPS):
            before = sparse.mask
            update(model, optimizer, step)
            assert sparse.step == step + 1
            for name, keep in sparse.mask.keep.items():
                fresh = keep & ~before.keep[name]
                new += int(fresh.sum())
                momentum = optimizer.inner.state[model.get_parameter(name)]["momentum_buffer"]
                assert not bool(momentum[fresh].any())
    assert new > 0


def test_seeds_decide_the_random_parts_alone() -> None:
    one, again, other = (found_by(plain, "set", seeds=Seeds(*s)) for s in ((1, 0), (1, 0), (1, 1)))
    assert same_bits(one.keep, again.keep)
    assert not same_bits(one.keep, other.keep)


@pytest.mark.parametrize("criterion", [criteria.taylor, criteria.movement, criteria.synflow])
def test_criteria_that_look_at_more_than_weights(criterion: criteria.Criterion) -> None:
    mask = found_by(plain, criterion=criterion, batches=[batch(500)])
    assert mask.count() == 58
    assert not same_bits(mask.keep, found_by(plain).keep)


def test_the_gradient_is_the_loops_own_whatever_the_criterion_looks_at() -> None:
    model, reference = network(), network()
    options: dict[str, Any] = {"criterion": criteria.taylor, "batches": [batch(500)]}
    with winticket.rigl(model, 0.3, steps=STEPS, every=EVERY, **options) as sparse:
        first = sparse.mask
        plain(model, sparse)
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.1)
    wanted = rigl_by_hand(reference, optimizer, dict(first.keep), score=taylor_by_hand)
    assert same_bits(sparse.mask.keep, wanted)
    for name, value in reference.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


# --------------------------------------------------------------------------------------- ends and mistakes


def test_an_exception_leaves_the_mask_and_nothing_else() -> None:
    model = network()
    optimizer, before = OPTIMIZERS["momentum"](model.parameters()), network()
    with pytest.raises(ZeroDivisionError), winticket.rigl(model, 0.3, steps=STEPS, every=EVERY) as sparse:  # noqa: PT012
        for step in range(6):
            update(model, optimizer, step)
        raise ZeroDivisionError
    assert revived(model, sparse.mask) == 0
    assert list(model.state_dict()) == list(before.state_dict())
    assert same_bits(sparse.ticket.start.weights, {n: p.detach() for n, p in before.named_parameters()})
    with pytest.raises(RuntimeError, match="there is no training now"):
        sparse.at(7)
    update(model, optimizer, 6)
    assert sparse.step == 6
    assert revived(model, sparse.mask) > 0
    with winticket.rigl(model, 0.3, steps=STEPS, every=EVERY):  # nothing is left that would refuse
        pass_steps(model)


def pass_steps(model: nn.Module) -> None:
    plain(model, None)  # type: ignore[arg-type]


def test_one_block_alone_sees_to_a_mask_that_changes() -> None:
    model = network()
    mask = Mask({"0.weight": torch.ones(16, 8, dtype=torch.bool)})
    words = "another block already keeps a mask on this model"
    with winticket.set_(model, 0.3, steps=STEPS, every=EVERY):
        for inner in (
            masked(model, mask),
            winticket.rigl(model, 0.3, steps=STEPS),
            masked(model[0], Mask({})),
        ):
            with pytest.raises(ValueError, match=words), inner:
                raise AssertionError("the block must not begin")
        with masked(network(), mask):  # another model
            pass_steps(model)
    with masked(model, mask), pytest.raises(ValueError, match=words), winticket.gradual(model, 0.3, steps=9):
        raise AssertionError("the block must not begin")


@pytest.mark.parametrize("method", METHODS)
def test_a_block_that_ends_early_or_was_never_counted_is_told(method: str) -> None:
    model = network()
    with (  # noqa: PT031
        pytest.warns(RuntimeWarning, match=r"ended at step 0 of 20.*at\(step\)") as caught,
        METHODS[method](model, 0.3, steps=STEPS, every=EVERY) as sparse,
    ):
        for step in range(STEPS):
            update(model, Descent(model), step)
    assert caught[0].filename == __file__
    assert sparse.mask.density() == (1.0 if method == "gradual" else 58 / 192)


def test_steps_that_are_told_rise_and_leave_no_change_out() -> None:
    model = network()
    with (  # noqa: PT031
        pytest.warns(RuntimeWarning, match="ended at step 2 of 20"),
        winticket.set_(model, 0.3, steps=STEPS, every=EVERY) as sparse,
    ):
        sparse.at(2)
        with pytest.raises(ValueError, match="step 1 was reported after step 2; steps must rise"):
            sparse.at(1)
        with pytest.raises(
            ValueError, match="step 9 was reported after step 2, and the mask changes at step 4"
        ):
            sparse.at(9)


def test_gradients_that_say_nothing_are_told() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with (  # noqa: PT012
        pytest.raises(RuntimeError, match="no gradient of the masked weights arrived for step 4"),
        winticket.rigl(model, 0.3, steps=STEPS, every=EVERY),
    ):
        loss_of(model, 0).backward()  # type: ignore[no-untyped-call]
        for _ in range(EVERY):
            optimizer.step()
    with (  # noqa: PT012
        pytest.raises(RuntimeError, match=r"torch.autograd.grad does not count"),
        winticket.rigl(model, 0.3, steps=STEPS, every=EVERY),
    ):
        weights = list(model.parameters())
        for step in range(EVERY):
            for weight, found in zip(
                weights, torch.autograd.grad(loss_of(model, step), weights), strict=True
            ):
                weight.grad = found
            optimizer.step()
    with (  # noqa: PT012
        pytest.raises(RuntimeError, match=r"the gradient of 0.weight is not finite at step 4"),
        winticket.rigl(model, 0.3, steps=STEPS, every=EVERY),
    ):
        for step in range(EVERY):
            optimizer.zero_grad()
            (loss_of(model, step) * torch.inf).backward()  # type: ignore[no-untyped-call]
            optimizer.step()


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("set", "the scores of layer '0.weight' are not all finite"),
        ("gradual", "the scores of layer '0.weight' are not all finite"),
        ("rigl", "the gradient of 0.weight is not finite at step 4"),
    ],
)
def test_a_training_that_has_diverged_is_told_at_the_next_change(method: str, words: str) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with (  # noqa: PT012
        pytest.raises((ValueError, RuntimeError), match=re.escape(words) + ".* diverged"),
        METHODS[method](model, 0.3, steps=STEPS, every=EVERY),
    ):
        for step in range(STEPS):
            optimizer.zero_grad()
            (loss_of(model, step) * (torch.nan if step == 1 else 1.0)).backward()  # type: ignore[no-untyped-call]
            optimizer.step()


@pytest.mark.parametrize("kind", [torch.optim.LBFGS, torch.optim.Rprop])
def test_optimisers_whose_state_cannot_begin_anew_are_refused_before_their_first_step(kind: Any) -> None:
    model = network()
    before = {n: v.clone() for n, v in model.state_dict().items()}
    with (
        pytest.raises(
            ValueError, match=f"{kind.__name__} keeps a state in which new weights cannot start at 0"
        ),
        winticket.rigl(model, 0.3, steps=STEPS) as sparse,
    ):
        kind(model.parameters()).step(lambda: 0.0)
    assert same_bits(sparse.mask.apply(dict(model.state_dict())), sparse.mask.apply(before))


@pytest.mark.parametrize(
    ("method", "density", "how", "words"),
    [
        ("rigl", 1.0, {}, "density is 1.0; give the share"),
        ("set", 0.0, {}, "density is 0.0; give the share"),
        ("gradual", 1.5, {}, "density is 1.5; give the share"),
        ("rigl", 0.3, {"steps": 0}, "steps is 0 and every None; both are at least 1"),
        ("set", 0.3, {"every": 0}, "steps is 20 and every 0; both are at least 1"),
        (
            "rigl",
            0.3,
            {"every": 16},
            "every is 16, but method rigl changes its mask in the first 0.75 of the 20",
        ),
        (
            "gradual",
            0.3,
            {"every": 15},
            "every is 15, but method gradual prunes in the first 0.75 of the 20 steps of training, and would prune "
            "once, at step 15; give less, or train longer",
        ),
        ("gradual", 0.3, {"steps": 1}, "method gradual prunes while it trains, and training has 1 steps"),
        (
            "rigl",
            0.5,
            {"allocate": partial(allocate.n_of_m, m=2)},
            "rigl keeps the number of weights in every layer, but n_of_m does not go by layer; possible: "
            "layerwise, uniform, erk",
        ),
        ("gradual", 0.5, {"allocate": allocate.n_of_m}, "does not give a pattern of 4"),
        ("set", 0.3, {"exclude": ["9.*"]}, "exclude '9.*' fits no eligible weight"),
        ("gradual", 0.3, {"criterion": criteria.snip}, "snip needs training examples"),
    ],
)
def test_mistakes_are_told_before_any_training(method: str, density: float, how: Any, words: str) -> None:
    model = network()
    with (
        pytest.raises(ValueError, match=re.escape(words)),
        METHODS[method](model, density, **{"steps": STEPS, **how}),
    ):
        raise AssertionError("the block must not begin")
    assert same_bits(dict(model.state_dict()), dict(network().state_dict()))


@pytest.mark.parametrize("method", ["set", "rigl"])
def test_a_frozen_layer_is_to_be_excluded(method: str) -> None:
    model = network()
    model.get_submodule("0").requires_grad_(False)
    words = (
        f"0.weight is frozen, and {method} would exchange its weights for zeros that no optimiser moves; exclude it "
        "(exclude=['0.weight'])"
    )
    with (
        pytest.raises(ValueError, match=re.escape(words)),
        METHODS[method](model, 0.3, steps=STEPS),
    ):
        raise AssertionError("the block must not begin")
    assert same_bits(dict(model.state_dict()), dict(network().state_dict()))
    before = model.get_parameter("0.weight").clone()
    with METHODS[method](model, 0.3, steps=STEPS, exclude=["0.*"]) as sparse:
        pass_steps(model)
    assert list(sparse.mask.keep) == ["3.weight"]
    assert torch.equal(model.get_parameter("0.weight"), before)
    with winticket.gradual(model, 0.3, steps=STEPS) as sparse:  # which gives no place to a new weight
        pass_steps(model)
    assert sparse.mask.layers()["0.weight"] == (38, 128)


@pytest.mark.parametrize("method", ["set", "rigl"])
def test_a_layer_that_is_frozen_on_the_way_keeps_its_mask(method: str) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    how: dict[str, Any] = {"steps": STEPS, "every": EVERY, "seeds": Seeds(0, 0)}
    with METHODS[method](model, 0.3, allocate=allocate.layerwise, **how) as sparse:
        first, masks = sparse.mask, {}
        for step in range(1, STEPS + 1):
            model.get_submodule("0").requires_grad_(not 5 <= step <= 8)
            update(model, optimizer, step)
            masks[step] = sparse.mask
    assert not torch.equal(masks[4].keep["0.weight"], first.keep["0.weight"])
    assert torch.equal(masks[8].keep["0.weight"], masks[4].keep["0.weight"])
    assert not torch.equal(masks[8].keep["3.weight"], masks[4].keep["3.weight"])
    assert not torch.equal(masks[12].keep["0.weight"], masks[8].keep["0.weight"])


def test_a_layer_without_a_gradient_keeps_its_mask_and_its_weights() -> None:
    model = nn.ModuleDict({"used": network(), "unused": nn.Linear(8, 4)})
    start = model.get_parameter("unused.weight").detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with winticket.rigl(model, 0.3, steps=STEPS, every=EVERY) as sparse:
        first = sparse.mask
        for step in range(STEPS):
            update(model["used"], optimizer, step)
    assert torch.equal(sparse.mask.keep["unused.weight"], first.keep["unused.weight"])
    assert not torch.equal(sparse.mask.keep["used.0.weight"], first.keep["used.0.weight"])
    weight = model.get_parameter("unused.weight").detach()
    assert torch.equal(weight, start * first.keep["unused.weight"])


@pytest.mark.parametrize("method", ["set", "rigl"])
def test_a_layer_that_begins_with_nothing_is_told(method: str) -> None:
    model = network()
    how = {"steps": STEPS, "every": EVERY}
    words = "the mask that training starts with keeps no weight in 3.weight"
    with (
        pytest.warns(RuntimeWarning, match=words) as caught,
        METHODS[method](model, {"3.weight": 0.001, "*": 0.5}, **how) as sparse,
    ):
        pass_steps(model)
    assert [w.filename for w in caught] == [__file__]
    assert sparse.mask.layers() == {"0.weight": (64, 128), "3.weight": (0, 64)}


def test_a_layer_that_gradual_pruning_empties_is_told_once() -> None:
    model = network()
    with torch.no_grad():
        model.get_parameter("3.weight").mul_(1e-6)
    how: dict[str, Any] = {"steps": STEPS, "every": EVERY, "allocate": allocate.global_top}
    with (  # noqa: PT031
        pytest.warns(RuntimeWarning, match="the mask after step 4 keeps no weight in 3.weight") as caught,
        winticket.gradual(model, 0.3, **how) as sparse,
    ):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        for step in range(STEPS):
            update(model, optimizer, step)
    assert len(caught) == 1
    assert sparse.mask.emptied() == ("3.weight",)


def test_gradual_pruning_takes_any_optimiser() -> None:
    model = network()
    optimizer = torch.optim.Rprop(model.parameters(), lr=0.01)
    with winticket.gradual(model, 0.25, steps=STEPS) as sparse:
        for step in range(STEPS):
            update(model, optimizer, step)
            assert revived(model, sparse.mask) == 0
    assert sparse.mask.count() == 48


@pytest.mark.parametrize("method", [winticket.rigl, winticket.set_, winticket.gradual])
def test_help_shows_every_option(method: Callable[..., object]) -> None:
    parameters = inspect.signature(method).parameters
    shared = [
        "every",
        "criterion",
        "allocate",
        "include",
        "exclude",
        "batches",
        "example",
        "loss",
        "seeds",
        "optimizer",
    ]
    assert list(parameters) == ["model", "density", "steps", *shared]
    assert all(parameters[name].kind is inspect.Parameter.KEYWORD_ONLY for name in ("steps", *shared))
    assert all(f"`{name}`" in (method.__doc__ or "") for name in ("density", "steps", *shared))


def test_a_misspelt_option_names_the_method() -> None:
    with pytest.raises(TypeError, match=r"rigl\(\) got an unexpected keyword argument 'evry'"):
        winticket.rigl(nn.Linear(2, 2), 0.5, steps=3, evry=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"gradual\(\) missing a required argument: 'steps'"):
        winticket.gradual(nn.Linear(2, 2), 0.5)  # type: ignore[call-arg]
