"""The update in one pass against torch.optim, for every instruction set of this processor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from winticket.sparse import Factors, OnePass, Rule, Target, instruction_sets, multiplies
from winticket.sparse.native import kernels

pytestmark = pytest.mark.skipif(kernels is None, reason="built without sparse kernels")

SHAPES = (
    (3, 5, 7),
    (2, 64),
    (1,),
    (70_000,),
)  # a rest beside whole vectors, whole ones, no vector, several shares
RULES: dict[str, tuple[Rule, Any, dict[str, Any]]] = {
    "sgd": (Rule("sgd", weight_decay=0.1), torch.optim.SGD, {"weight_decay": 0.1}),
    "momentum": (Rule("sgd", momentum=0.9), torch.optim.SGD, {"momentum": 0.9}),
    "nesterov": (
        Rule("sgd", momentum=0.8, nesterov=True, weight_decay=0.01),
        torch.optim.SGD,
        {"momentum": 0.8, "nesterov": True, "weight_decay": 0.01},
    ),
    "adam": (Rule("adam", weight_decay=0.01), torch.optim.Adam, {"weight_decay": 0.01}),
    "adamw": (
        Rule("adamw", weight_decay=0.3, betas=(0.7, 0.95), eps=1e-6),
        torch.optim.AdamW,
        {"weight_decay": 0.3, "betas": (0.7, 0.95), "eps": 1e-6},
    ),
}


@pytest.fixture(params=instruction_sets(), autouse=True)
def _instructions(request: pytest.FixtureRequest) -> Iterator[None]:
    before = kernels.forced()
    kernels.use(request.param)
    yield
    kernels.use(before)


def targets(rule: Rule, *, masked: bool, half: bool) -> list[Target]:
    torch.manual_seed(0)
    count = (1 if rule.momentum else 0) if rule.kind == "sgd" else 2
    made = []
    for shape in SHAPES:
        weight = torch.randn(shape)
        keep = (torch.rand(shape) < 0.5).float() if masked else None
        copy = torch.zeros(shape, dtype=torch.bfloat16) if half else None
        made.append(Target(weight, tuple(torch.zeros(shape) for _ in range(count)), keep, copy, half))
    return made


def gradients(step: int, *, half: bool) -> list[Tensor]:
    generator = torch.Generator().manual_seed(step)
    kind = torch.bfloat16 if half else torch.float32
    return [torch.randn(shape, generator=generator).to(kind) for shape in SHAPES]


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", RULES)
def test_updates_are_those_of_torch_optim_in_float64(kind: str, masked: bool, half: bool) -> None:
    rule, optimizer_type, options = RULES[kind]
    ours = targets(rule, masked=masked, half=half)
    theirs = [t.weight.double().requires_grad_() for t in ours]
    optimizer = optimizer_type(theirs, lr=0.1, **options)
    update = OnePass(ours, rule)
    for step in range(5):
        drawn, rate = gradients(step, half=half), 0.05 / (step + 1)
        update(drawn, rate, taken=step)
        optimizer.param_groups[0]["lr"] = rate
        for parameter, gradient in zip(theirs, drawn, strict=True):
            parameter.grad = gradient.double()
        optimizer.step()
        with torch.no_grad():
            for parameter, target in zip(theirs, ours, strict=True):
                parameter.mul_(1 if target.keep is None else target.keep)
    for parameter, target in zip(theirs, ours, strict=True):
        # Float32 rounds each of a dozen operations of five updates.
        torch.testing.assert_close(target.weight.double(), parameter.detach(), rtol=1e-5, atol=1e-6)
        if half:
            assert target.copy is not None
            assert torch.equal(target.copy, target.weight.bfloat16())
        for slot, name in zip(
            target.slots,
            ("momentum_buffer",) if rule.kind == "sgd" else ("exp_avg", "exp_avg_sq"),
            strict=False,
        ):
            torch.testing.assert_close(slot.double(), optimizer.state[parameter][name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", RULES)
def test_several_threads_update_as_one_does(kind: str) -> None:
    rule, results, threads = RULES[kind][0], [], torch.get_num_threads()
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            ours = targets(rule, masked=True, half=True)
            update = OnePass(ours, rule)
            for step in range(3):
                update(gradients(step, half=True), 0.01, taken=step)
            results.append([t for target in ours for t in (target.weight, target.copy, *target.slots)])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True) if a is not None and b is not None)


@pytest.mark.skipif(not multiplies(), reason="the processor has no AMX")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    ("stack", "batch", "rows", "columns"),
    [(2, 60, 30, 70), (3, 33, 17, 19), (1, 1, 1, 1), (1, 64, 16, 64), (2, 100, 5, 128)],
)
def test_factors_make_the_gradient_that_their_product_is(
    stack: int, batch: int, rows: int, columns: int, turned: bool, threads: int
) -> None:
    """The product in float64, rounded to bfloat16, by an update that leaves nothing of the weight but the gradient."""
    torch.manual_seed(0)
    by_output = torch.randn(stack, batch, rows).bfloat16()
    x = (
        torch.randn(stack, columns, batch).bfloat16().mT
        if turned
        else torch.randn(stack, batch, columns).bfloat16()
    )
    weight, copy = torch.zeros(stack, rows, columns), torch.zeros(stack, rows, columns, dtype=torch.bfloat16)
    keep = (torch.rand_like(weight) < 0.5).float()
    update = OnePass([Target(weight, (), keep, copy, half=True)], Rule("sgd"))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        update([Factors(by_output, x)], 1.0, taken=0)
    finally:
        torch.set_num_threads(before)
    exact = torch.bmm(by_output.double().mT, x.double())
    # Float32 sums of up to 100 products, then eight bits of mantissa.
    torch.testing.assert_close(-weight.double(), exact * keep, rtol=2**-8, atol=1e-5)
    assert torch.equal(weight.bfloat16().float(), weight)
    assert torch.equal(copy.float(), weight)


def test_factors_of_another_gradient_are_refused() -> None:
    update = OnePass([Target(torch.ones(2, 3, 4), half=True)], Rule("sgd"))
    if not multiplies():
        with pytest.raises(TypeError, match="factors need bfloat16 and a processor with AMX"):
            update([Factors(torch.ones(2, 5, 3).bfloat16(), torch.ones(2, 5, 4).bfloat16())], 0.1, taken=0)
        return
    half = torch.bfloat16
    with pytest.raises(ValueError, match=r"factors of a gradient \(2, 3, 5\) of a weight \(2, 3, 4\)"):
        update([Factors(torch.ones(2, 6, 3, dtype=half), torch.ones(2, 6, 5, dtype=half))], 0.1, taken=0)
    with pytest.raises(ValueError, match=r"factors are \[S, B, rows\] and \[S, B, columns\]"):
        update([Factors(torch.ones(2, 6, 3, dtype=half), torch.ones(2, 7, 4, dtype=half))], 0.1, taken=0)
    with pytest.raises(TypeError, match="factors need bfloat16"):
        update([Factors(torch.ones(2, 6, 3), torch.ones(2, 6, 4))], 0.1, taken=0)


def test_copies_round_as_torch_rounds() -> None:
    """Ties go to the even number, what is too large to infinity, and NaN stays NaN."""
    values = torch.tensor(
        [
            1 + 2**-8,
            1 + 3 * 2**-8,
            1 + 2**-8 + 2**-20,
            -1 - 2**-8,
            3.4e38,
            torch.inf,
            -torch.inf,
            torch.nan,
            -0.0,
        ]
    ).repeat(3)
    copy = torch.zeros(len(values), dtype=torch.bfloat16)
    OnePass([Target(values, copy=copy)], Rule("sgd"))([torch.zeros_like(values)], 0.0, taken=0)
    torch.testing.assert_close(copy, values.bfloat16(), rtol=0, atol=0, equal_nan=True)
    assert torch.equal(copy[:4].float(), torch.tensor([1.0, 1 + 2**-6, 1 + 2**-7, -1.0]))


def test_what_cannot_be_updated_is_refused() -> None:
    weight = torch.ones(4)
    with pytest.raises(TypeError, match=r"takes contiguous torch\.float32 on the CPU, not torch\.float64"):
        OnePass([Target(weight.double())], Rule("sgd"))
    with pytest.raises(TypeError, match=r"takes contiguous torch\.bfloat16"):
        OnePass([Target(weight, copy=torch.zeros(4))], Rule("sgd"))
    with pytest.raises(ValueError, match="adam keeps 2 tensors for a weight, not 0"):
        OnePass([Target(weight)], Rule("adam"))
    with pytest.raises(ValueError, match=r"a weight \(4,\) beside a tensor \(3,\)"):
        OnePass([Target(weight, keep=torch.ones(3))], Rule("sgd"))
    update = OnePass([Target(weight)], Rule("sgd"))
    with pytest.raises(TypeError, match=r"takes a contiguous gradient in torch\.float32"):
        update([torch.ones(4, dtype=torch.bfloat16)], 0.1, taken=0)
    with pytest.raises(ValueError, match=r"a gradient \(3,\) of a weight \(4,\)"):
        update([torch.ones(3)], 0.1, taken=0)
