"""masked() in the loops that people have: accumulation, autocast, compiled models, clipping, averaged weights."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from winticket.loops import masked
from winticket.ticket import Mask, Seeds, State, Ticket

STEPS = 4


class Lion:
    """Of another make (Chen et al. 2023): no `torch.optim.Optimizer`, momentum that remembers pruned weights."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        self.momentum = [torch.full_like(p, 0.1) for p in self.parameters]

    def zero_grad(self) -> None:
        for p in self.parameters:
            p.grad = None

    @torch.no_grad()
    def step(self) -> None:
        for p, m in zip(self.parameters, self.momentum, strict=True):
            assert p.grad is not None
            p.mul_(0.999).sub_((0.9 * m + 0.1 * p.grad).sign(), alpha=0.01)
            m.mul_(0.99).add_(p.grad, alpha=0.01)


OPTIMIZERS: dict[str, Callable[[Iterable[nn.Parameter]], Any]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum, decay": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "another make": Lion,
}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def half(model: nn.Module) -> Mask:
    generator = torch.Generator().manual_seed(1)
    names = ("0.weight", "3.weight")
    return Mask({n: torch.rand(model.get_parameter(n).shape, generator=generator) < 0.5 for n in names})


def revived(model: nn.Module, mask: Mask) -> int:
    """Pruned weights that are not exactly 0."""
    return sum(int((model.get_parameter(n).detach()[~k] != 0).sum()) for n, k in mask.keep.items())


def batch(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(16, 6, generator=generator), torch.randint(0, 3, (16,), generator=generator)


def loss_of(model: Callable[[Tensor], Tensor], step: int) -> Tensor:
    x, y = batch(step)
    return F.cross_entropy(model(x), y)


Update = Callable[[Callable[[Tensor], Tensor], Any, int], None]


def plain(model: Callable[[Tensor], Tensor], optimizer: Any, step: int) -> None:
    optimizer.zero_grad()
    loss_of(model, step).backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def accumulated(model: Callable[[Tensor], Tensor], optimizer: Any, step: int) -> None:
    optimizer.zero_grad()
    for part in range(3):
        (loss_of(model, 10 * step + part) / 3).backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def autocast(model: Callable[[Tensor], Tensor], optimizer: Any, step: int) -> None:
    optimizer.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = loss_of(model, step)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def scaled(model: Callable[[Tensor], Tensor], optimizer: Any, step: int) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    optimizer.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = loss_of(model, step)
    scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    scaler.unscale_(optimizer)
    for group in optimizer.param_groups:
        nn.utils.clip_grad_norm_(group["params"], 0.5)
    scaler.step(optimizer)
    scaler.update()


def closure(model: Callable[[Tensor], Tensor], optimizer: Any, step: int) -> None:
    def again() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, step)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(again)


UPDATES: dict[str, Update] = {"plain": plain, "accumulated": accumulated, "autocast": autocast}
TORCH_ONLY: dict[str, Update] = {"scaled and clipped": scaled, "closure": closure}
CASES = [
    *((kind, update) for kind in OPTIMIZERS for update in UPDATES),
    *((kind, update) for kind in OPTIMIZERS if kind != "another make" for update in TORCH_ONLY),
]


@pytest.mark.parametrize(("kind", "update"), CASES)
def test_pruned_weights_are_zero_after_every_step(kind: str, update: str) -> None:
    model = network()
    mask, optimizer = half(model), OPTIMIZERS[kind](model.parameters())
    plain(model, optimizer, 99)  # what the dense network left in the optimiser pushes pruned weights
    before = model.get_parameter("0.weight").detach().clone()
    with masked(model, mask, optimizer=optimizer):
        for step in range(STEPS):
            (UPDATES | TORCH_ONLY)[update](model, optimizer, step)
            assert revived(model, mask) == 0
    assert bool((model.get_parameter("0.weight") != before)[mask.keep["0.weight"]].any())
    # What followed the steps is gone with the block.
    plain(model, optimizer, 98)
    assert kind == "sgd" or revived(model, mask) > 0
    assert "step" not in vars(optimizer)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("kind", ["momentum, decay", "adamw", "another make"])
@pytest.mark.parametrize("order", ["compiled before", "compiled within", "compiled given"])
def test_compiled_models(kind: str, backend: str, order: str) -> None:
    torch.compiler.reset()
    model, reference = network(), network()
    mask, optimizer = half(model), OPTIMIZERS[kind](model.parameters())
    plain(model, optimizer, 99)
    model.load_state_dict(reference.state_dict())
    compiled = torch.compile(model, backend=backend)
    if order != "compiled within":
        compiled(batch(0)[0])
        model.load_state_dict(reference.state_dict())
    given: Any = compiled if order == "compiled given" else model
    with masked(given, mask, optimizer=optimizer) as inside:
        assert inside is given
        for step in range(STEPS):
            plain(compiled, optimizer, step)
            assert revived(model, mask) == 0
        names = {name.removeprefix("_orig_mod.") for name in given.state_dict()}
        assert names == set(reference.state_dict())
    uncompiled = OPTIMIZERS[kind](reference.parameters())
    plain(reference, uncompiled, 99)
    reference.load_state_dict(network().state_dict())
    with masked(reference, mask, optimizer=uncompiled):
        for step in range(STEPS):
            plain(reference, uncompiled, step)
    for name, value in reference.state_dict().items():
        # One graph may add up in another order than single operators.
        torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-4, atol=1e-6)


def test_a_compiled_model_given_is_masked_before_its_forward_pass() -> None:
    # An optimiser of another make that masked() was not told of, and a graph compiled before the block.
    torch.compiler.reset()
    model = network()
    mask, compiled = half(model), torch.compile(model, backend="eager")
    compiled(batch(0)[0])
    given: Any = compiled
    with masked(given, mask):
        with torch.no_grad():
            model.get_parameter("0.weight").fill_(1.0)
        compiled(batch(0)[0])
        assert revived(model, mask) == 0


def test_gradients_of_pruned_weights_are_zero_and_no_norm_counts_them() -> None:
    model = network()
    dense, mask = copy.deepcopy(model), half(model)
    with torch.no_grad():
        for name, keep in mask.keep.items():
            dense.get_parameter(name).mul_(keep)
    loss_of(dense, 0).backward()  # type: ignore[no-untyped-call]
    alive: list[Tensor] = []
    for name, p in dense.named_parameters():
        assert p.grad is not None
        keep = mask.keep.get(name, torch.ones_like(p, dtype=torch.bool))
        alive.append(p.grad[keep])
    with masked(model, mask):
        loss_of(model, 0).backward()  # type: ignore[no-untyped-call]
        for name, keep in mask.keep.items():
            gradient = model.get_parameter(name).grad
            assert gradient is not None
            assert not gradient[~keep].any()
            of_dense = dense.get_parameter(name).grad
            assert of_dense is not None
            assert of_dense[~keep].any()  # else this test shows nothing
            assert torch.equal(gradient[keep], of_dense[keep])
        norm = nn.utils.clip_grad_norm_(model.parameters(), 0.01)
    expected = torch.cat(alive).double().norm()
    everything = torch.stack([p.grad.norm() for p in dense.parameters() if p.grad is not None]).norm()
    assert float(norm) == pytest.approx(float(expected), rel=1e-6)  # float32 sums
    assert float(everything) > 1.01 * float(expected)
    model.zero_grad()
    loss_of(model, 0).backward()  # type: ignore[no-untyped-call]
    gradient = model.get_parameter("0.weight").grad
    assert gradient is not None
    assert gradient[~mask.keep["0.weight"]].any()  # the block is over


def test_gradients_are_masked_of_parameters_that_came_later_or_were_frozen() -> None:
    model = network()
    mask = half(model)
    model.get_parameter("0.weight").requires_grad_(False)
    with masked(model, mask):
        fresh = {name: value.clone() for name, value in model.state_dict().items()}
        model.load_state_dict(fresh, assign=True)  # other Parameters under the same names
        model.get_parameter("0.weight").requires_grad_(True)
        loss_of(model, 0).backward()  # type: ignore[no-untyped-call]
        for name, keep in mask.keep.items():
            gradient = model.get_parameter(name).grad
            assert gradient is not None
            assert not gradient[~keep].any()


def test_tensors_that_stand_in_for_weights_are_left_alone_and_the_weights_are_still_watched() -> None:
    model = network()
    dense = {name: value.detach().clone() for name, value in model.named_parameters()}
    mask = half(model)
    with masked(model, mask):
        loss = loss_of(model, 0)
        given = {name: value.clone().requires_grad_() for name, value in dense.items()}
        functional_call(model, given, (batch(1)[0],))  # between a forward pass and its backward pass
        loss.backward()  # type: ignore[no-untyped-call]
        assert all(torch.equal(given[name], value) for name, value in dense.items())
        for name, keep in mask.keep.items():
            gradient = model.get_parameter(name).grad
            assert gradient is not None
            assert not gradient[~keep].any()


AVERAGES: dict[str, Callable[[nn.Module], AveragedModel]] = {
    "mean": AveragedModel,
    "ema": lambda m: AveragedModel(m, multi_avg_fn=get_ema_multi_avg_fn(0.9)),  # type: ignore[no-untyped-call]
    "ema with buffers": lambda m: AveragedModel(
        m,
        multi_avg_fn=get_ema_multi_avg_fn(0.9),  # type: ignore[no-untyped-call]
        use_buffers=True,
    ),
}


@pytest.mark.parametrize("kind", AVERAGES)
def test_averaged_weights_are_zero_where_pruned(kind: str) -> None:
    model = network()
    mask, optimizer = half(model), OPTIMIZERS["adamw"](model.parameters())
    early = AVERAGES[kind](model)  # a copy of the dense network: it wants the mask as well
    with masked(model, mask), masked(early, mask):
        late = AVERAGES[kind](model)
        for step in range(STEPS):
            plain(model, optimizer, step)
            for average in (early, late):
                average.update_parameters(model)
                assert revived(average.module, mask) == 0
    assert bool((late.module.get_parameter("0.weight") != model.get_parameter("0.weight")).any())
    with torch.no_grad():  # nothing of the block stays on the average either
        for average in (early, late):
            average.module.get_parameter("0.weight").fill_(1.0)
            average(batch(0)[0])
            assert bool((average.module.get_parameter("0.weight") == 1).all())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_made_within_are_free_at_once(copied: Callable[[nn.Module], nn.Module]) -> None:
    model = network()
    mask = half(model)
    with masked(model, mask):
        twin = copied(model)
        assert revived(twin, mask) == 0
        with torch.no_grad():
            twin.get_parameter("0.weight").fill_(1.0)
        twin(batch(0)[0])
        assert bool((twin.get_parameter("0.weight") == 1).all())
        loss_of(model, 0).backward()  # type: ignore[no-untyped-call]
        gradient = model.get_parameter("0.weight").grad
        assert gradient is not None
        assert not gradient[~mask.keep["0.weight"]].any()


def test_a_step_that_was_wrapped_before_is_given_back() -> None:
    model = network()
    mask, optimizer = half(model), Lion(model.parameters())
    calls: list[int] = []
    inner = optimizer.step

    def logged() -> None:
        calls.append(1)
        inner()

    optimizer.step = logged  # type: ignore[method-assign]
    several: Sequence[Any] = [optimizer, torch.optim.SGD(model.parameters(), lr=0.1)]
    with masked(model, mask, optimizer=several):
        plain(model, optimizer, 0)
        assert calls == [1]
        assert revived(model, mask) == 0
    assert optimizer.step is logged


def test_a_ticket_goes_into_the_model_that_is_wrapped() -> None:
    model = network()
    state = State(
        {n: p.detach() + 1 for n, p in model.named_parameters()},
        {n: b.clone() for n, b in model.named_buffers()},
        {},
        0,
    )
    ticket = Ticket(half(model), state, "ticket", Seeds(0, 0))
    average = AveragedModel(model)
    with masked(average, ticket):
        expected = ticket.mask.apply(ticket.start.weights)
        assert all(torch.equal(p, expected[n]) for n, p in average.module.named_parameters())
