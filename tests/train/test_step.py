"""One update: torch's optimisers without their bookkeeping, and steps that are recorded and replayed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from winticket.sparse import instruction_sets, missing
from winticket.train import Recipe
from winticket.train.onepass import one_pass
from winticket.train.stacked import Lifted, gradients
from winticket.train.step import EAGER, Step, direct_update

RECIPES = {
    "sgd": Recipe(steps=9, optimizer="sgd", lr=0.1),
    "momentum": Recipe(steps=9, optimizer="sgd", lr=0.1, momentum=0.9, weight_decay=0.01),
    "nesterov": Recipe(steps=9, optimizer="sgd", lr=0.1, momentum=0.9, nesterov=True),
    "adam": Recipe(steps=9, optimizer="adam", lr=0.01, weight_decay=0.1),
    "clipped": Recipe(steps=9, optimizer="sgd", lr=0.1, momentum=0.9, clip_norm=0.5),
    "adamw": Recipe(steps=9, optimizer="adamw", lr=0.01, weight_decay=0.1),
}


def optimizer_of(recipe: Recipe, parameters: list[Tensor]) -> torch.optim.Optimizer:
    shared: dict[str, Any] = {"lr": recipe.lr, "weight_decay": recipe.weight_decay, "fused": True}
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=recipe.momentum, nesterov=recipe.nesterov, **shared)
    return (torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW)(parameters, **shared)


@pytest.mark.parametrize("kind", RECIPES)
def test_the_direct_update_is_torchs_bit_for_bit(kind: str) -> None:
    recipe = RECIPES[kind]
    torch.manual_seed(0)
    ours = [torch.randn(3, 5), torch.randn(7)]
    theirs = [p.clone() for p in ours]
    one, two = optimizer_of(recipe, ours), optimizer_of(recipe, theirs)
    update = None
    for step in range(6):
        drawn = [torch.randn_like(p) for p in ours]
        rate = recipe.lr / (step + 1)
        for optimizer, parameters in ((one, ours), (two, theirs)):
            if update and optimizer is one:
                update(drawn, rate)
                continue
            for parameter, gradient in zip(parameters, drawn, strict=True):
                parameter.grad = gradient.clone()
            optimizer.param_groups[0]["lr"] = rate
            optimizer.step()
        update = update or direct_update(one, ours, recipe)
        assert update is not None
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    for a, b in zip(one.state.values(), two.state.values(), strict=True):
        assert all(torch.equal(a[slot], b[slot]) for slot in b if isinstance(b[slot], Tensor))


def test_an_optimiser_without_a_fused_form_is_left_to_torch() -> None:
    parameter = torch.zeros(3)
    recipe = RECIPES["adam"]
    optimizer = torch.optim.Adam([parameter], lr=recipe.lr, foreach=True)
    parameter.grad = torch.ones(3)
    optimizer.step()
    assert direct_update(optimizer, [parameter], recipe) is None


class Tape:
    """Stands for a CUDA graph: records nothing but which tensors are read, and does the work again when replayed."""

    def __init__(self, *, fail: str = "") -> None:
        self.fail, self.replays = fail, 0

    def __call__(self, work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        if self.fail:
            raise RuntimeError(self.fail)
        result = work().clone()

        def replay() -> Tensor:
            self.replays += 1
            result.copy_(work())
            return result

        return replay


def make(recipe: Recipe, recorder: Any, *, normalised: bool = False) -> tuple[Step, dict[str, Tensor]]:
    torch.manual_seed(1)
    middle = [nn.BatchNorm1d(8)] if normalised else []
    module = nn.Sequential(nn.Linear(6, 8), *middle, nn.ReLU(), nn.Linear(8, 3))
    weights = {n: torch.randn(2, *p.shape) * 0.3 for n, p in module.named_parameters()}
    buffers = {n: torch.stack([b, b]) for n, b in module.named_buffers()}
    masks = {"0.weight": (torch.rand(2, 8, 6) < 0.5).float()}
    weights["0.weight"] *= masks["0.weight"]
    x, y = batch(0)
    lifted: Lifted = gradients(module, weights, buffers, x, y, how="stacked")
    step = Step(
        lifted,
        weights,
        buffers=buffers,
        masks=masks,
        optimizer=optimizer_of(recipe, list(weights.values())),
        recipe=recipe,
        recorder=recorder,
    )
    return step, {**weights, **buffers}


def batch(number: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(number)
    return torch.randn(2, 10, 6, generator=generator), torch.randint(3, (2, 10), generator=generator)


def run(step: Step, count: int = 9) -> list[Tensor]:
    with torch.no_grad():
        return [step(*batch(number), 2.0 ** -(6 + number)) for number in range(count)]  # exact in float32


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("kind", RECIPES)
def test_replayed_steps_are_the_steps_themselves(kind: str, normalised: bool) -> None:
    tape = Tape()
    recorded, ours = make(RECIPES[kind], tape, normalised=normalised)
    alone, theirs = make(RECIPES[kind], None, normalised=normalised)
    for a, b in zip(run(recorded), run(alone), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-6, atol=1e-7)
    assert tape.replays == 9 - EAGER  # once on trial, and from then on for each step
    assert not recorded.unrecorded


@pytest.mark.parametrize(
    ("tape", "why"),
    [
        (
            Tape(fail="operation not permitted when stream is capturing\nmore"),
            "recording failed: operation not",
        ),
        (None, "differs"),
    ],
)
def test_what_cannot_be_recorded_goes_on_step_by_step(tape: Tape | None, why: str) -> None:
    class Wrong(Tape):
        """Replays twice."""

        def __call__(self, work: Callable[[], Tensor]) -> Callable[[], Tensor]:
            replay = super().__call__(work)
            return lambda: (replay(), replay())[1]

    recorded, ours = make(RECIPES["momentum"], tape or Wrong(), normalised=True)
    alone, theirs = make(RECIPES["momentum"], None, normalised=True)
    losses = zip(run(recorded), run(alone), strict=True)
    assert all(torch.equal(a, b) for a, b in losses)
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    assert why in recorded.unrecorded


def test_recording_leaves_the_noise_of_every_step_alone() -> None:
    def losses(recorder: Any) -> tuple[list[float], str]:
        torch.manual_seed(1)
        module = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 3))
        weights = {n: torch.randn(2, *p.shape) * 0.3 for n, p in module.named_parameters()}
        x, y = batch(0)
        step = Step(
            gradients(module, weights, {}, x, y, how="stacked"),
            weights,
            buffers={},
            masks={},
            optimizer=optimizer_of(RECIPES["sgd"], list(weights.values())),
            recipe=RECIPES["sgd"],
            recorder=recorder,
        )
        found = []
        with torch.no_grad():
            for number in range(7):
                torch.manual_seed(100 + number)
                found.append(float(step(*batch(number), 2.0**-6).sum()))
        return found, step.recorded

    alone, _ = losses(None)
    recorded, how = losses(Tape())
    assert recorded == pytest.approx(alone, rel=1e-6)
    assert how == "replayed"


@pytest.mark.skipif(bool(missing), reason="built without sparse kernels")
@pytest.mark.parametrize("kind", RECIPES)
def test_the_update_in_one_pass_is_torchs_bit_for_bit(kind: str) -> None:
    """With whole vectors: of what is left over, torch's kernels round some products otherwise than of the rest."""
    recipe = RECIPES[kind]
    torch.manual_seed(0)
    ours = {"weight": torch.randn(4, 32), "bias": torch.randn(64)}
    theirs = [p.clone() for p in ours.values()]
    masks = {"weight": (torch.rand(4, 32) < 0.5).float()}
    one, two = optimizer_of(recipe, list(ours.values())), optimizer_of(recipe, theirs)
    update = one_pass(one, ours, recipe, masks=masks, copies={})
    assert update is not None
    for step in range(6):
        drawn, rate = [torch.randn_like(p) for p in theirs], recipe.lr / (step + 1)
        update(drawn, rate)
        for parameter, gradient in zip(theirs, drawn, strict=True):
            parameter.grad = gradient
        two.param_groups[0]["lr"] = rate
        two.step()
        theirs[0] *= masks["weight"]
    vector = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    tolerance = 0.0 if vector and instruction_sets()[0] in ("avx2", "avx512") else 1e-6
    for a, b in zip(ours.values(), theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
    for mine, its in zip(ours.values(), theirs, strict=True):
        a, b = one.state.get(mine, {}), two.state.get(its, {})
        for slot in (slot for slot in b if isinstance(b[slot], Tensor)):
            torch.testing.assert_close(a[slot], b[slot], rtol=tolerance, atol=tolerance)
