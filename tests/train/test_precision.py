"""Less than float32 in a step: what it changes, what stays, where it is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from winticket import data
from winticket.ticket import Ticket, Trajectory
from winticket.train import Recipe, check_precision, curves, loop, train
from winticket.train.feed import Data
from winticket.train.precision import matrix_products
from winticket.train.step import Step

Make = Callable[..., Ticket]


def module(*, normalised: bool) -> nn.Module:
    torch.manual_seed(0)
    middle = [nn.BatchNorm1d(32)] if normalised else []
    return nn.Sequential(nn.Linear(6, 32), *middle, nn.ReLU(), nn.Linear(32, 3))


@pytest.mark.parametrize("stacking", ["auto", "one by one"])
@pytest.mark.parametrize("normalised", [False, True])
def test_bf16_rounds_the_products_and_learns_all_the_same(
    normalised: bool, stacking: str, vectors: Data, dense: Make
) -> None:
    network = module(normalised=normalised)
    stack = [dense(network, r, density=0.6) for r in range(2)]
    exact, rounded = (
        train(
            network,
            vectors,
            data,
            stack,
            Recipe(steps=60, batch=15, lr=0.01, stacking=stacking, precision=precision),  # type: ignore[arg-type]
        )
        for precision in ("float32", "bf16")
    )
    for ticket, one, two in zip(stack, exact, rounded, strict=True):
        assert isinstance(one, Trajectory)
        assert isinstance(two, Trajectory)
        a, b = one.curve.train_loss[-1], two.curve.train_loss[-1]
        assert a != b
        assert float(b) == pytest.approx(float(a), abs=0.03)  # eight bits of mantissa
        for name, value in two.saved[60].weights.items():
            assert value.dtype == torch.float32
            assert not bool(value[~ticket.mask.keep[name]].any()) if name in ticket.mask.keep else True


def test_products_in_tf32_are_asked_for_and_given_back() -> None:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    for precision, allowed in (("tf32", True), ("float32", False)):
        with matrix_products(precision):  # type: ignore[arg-type]
            assert torch.backends.cuda.matmul.allow_tf32 is allowed
            assert torch.backends.cudnn.allow_tf32 is allowed
        assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before


def test_a_precision_that_is_not_there_is_refused(vectors: Data, dense: Make) -> None:
    network = module(normalised=False)
    with pytest.raises(ValueError, match="tf32 exists only on NVIDIA GPUs, and this training runs on cpu"):
        train(network, vectors, data, [dense(network)], Recipe(steps=2, batch=10, precision="tf32"))
    with pytest.raises(ValueError, match="the sparse kernels compute in float32"):
        check_precision("bf16", torch.device("cpu"), "sparse")
    with pytest.raises(ValueError, match="precision is 'half'; possible: float32, tf32, bf16"):
        Recipe(steps=2, precision="half")  # type: ignore[arg-type]


def test_evaluation_is_float32_whatever_the_steps_are(
    vectors: Data, dense: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, set[bool]] = {"steps": set(), "evaluation": set()}
    allowed = torch.backends.cuda.matmul

    def watched(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def told(*arguments: Any, **options: Any) -> Any:
            seen[name].add(allowed.allow_tf32)
            return work(*arguments, **options)

        return told

    monkeypatch.setattr(loop, "check_precision", lambda *_: None)
    monkeypatch.setattr(curves, "evaluate", watched("evaluation", curves.evaluate))
    monkeypatch.setattr(Step, "__call__", watched("steps", Step.__call__))
    network = module(normalised=False)
    train(network, vectors, data, [dense(network)], Recipe(steps=4, batch=10, precision="tf32"))
    assert seen == {"steps": {True}, "evaluation": {False}}
