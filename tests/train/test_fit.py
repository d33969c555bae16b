"""Tickets, module and recipe that do not fit one another are refused, with the reason, before any compute."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from winticket import data
from winticket.ticket import Mask, State, Ticket, Trajectory
from winticket.train import Recipe, train
from winticket.train.feed import Data

Make = Callable[..., Ticket]


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def _without(ticket: Ticket, name: str) -> Ticket:
    weights = {n: w for n, w in ticket.start.weights.items() if n != name}
    return replace(ticket, start=State(weights, {}, {}, 0))


def _adam_state(ticket: Ticket, step: float) -> dict[str, Tensor]:
    moments = ("exp_avg", "exp_avg_sq")
    state = {f"{slot}/{n}": torch.zeros_like(w) for slot in moments for n, w in ticket.start.weights.items()}
    return {**state, **{f"step/{n}": torch.tensor(step) for n in ticket.start.weights}}


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        (lambda t: t, {"save": [0]}, "save asks for steps [0], but training runs from 0 to 4"),
        (lambda t: t, {"save": [2, 5]}, "save asks for steps [2, 5], but training runs from 0 to 4"),
        (
            lambda t: replace(t, start=replace(t.start, step=3)),
            {},
            "must start at one step, but these start at [0, 3]",
        ),
        (
            lambda t: _without(t, "2.bias"),
            {},
            "the weights of replicate 1's ticket and the Sequential do not fit: '2.bias' is absent in the first and "
            "(3,) in the second (names that differ: 1)",
        ),
        (
            lambda t: replace(t, start=replace(t.start, buffers={"spare": torch.ones(1)})),
            {},
            "the buffers of replicate 1's ticket and the Sequential do not fit: 'spare' is (1,) in the first",
        ),
        (
            lambda t: replace(t, start=replace(t.start, optimizer={"exp_avg/2.bias": torch.ones(3)})),
            {},
            "the ticket holds optimiser state (exp_avg) that does not fit this recipe: adam keeps exp_avg, "
            "exp_avg_sq, step for each parameter",
        ),
        (
            lambda t: replace(t, start=replace(t.start, optimizer=_adam_state(t, 2.0))),
            {},
            "must hold optimiser state of the same number of steps, or all hold none",
        ),
        (
            lambda t: replace(t, mask=Mask({"0.weight": t.mask.keep["0.weight"]})),
            {},
            "the mask of replicate 1's ticket and another of the stack do not fit: '2.weight' is absent",
        ),
    ],
)
def test_stacks_that_cannot_be_trained_are_refused(
    change: Callable[[Ticket], Ticket], options: dict[str, Any], words: str, vectors: Data, dense: Make
) -> None:
    module = mlp()
    with pytest.raises(ValueError, match=re.escape(words)):
        train(
            module,
            vectors,
            data,
            [dense(module), change(dense(module, 1))],
            Recipe(steps=4, batch=10),
            **options,
        )


def test_tickets_of_another_network_are_refused(vectors: Data, dense: Make) -> None:
    with pytest.raises(
        ValueError,
        match=re.escape(
            "the Sequential do not fit: '0.weight' is (8, 6) in the first and (3, 6) in the second"
        ),
    ):
        train(nn.Sequential(nn.Linear(6, 3)), vectors, data, [dense(mlp())], Recipe(steps=4, batch=10))


def test_the_state_of_another_optimiser_is_refused(vectors: Data, dense: Make) -> None:
    module = mlp()
    path = train(module, vectors, data, [dense(module)], Recipe(steps=4, batch=10), save=[2])[0]
    assert isinstance(path, Trajectory)
    ticket = replace(path.ticket, start=path.saved[2])
    with pytest.raises(
        ValueError,
        match=r"\(exp_avg, exp_avg_sq, step\) that does not fit this recipe: sgd keeps momentum_buffer",
    ):
        train(module, vectors, data, [ticket], Recipe(steps=4, batch=10, optimizer="sgd", momentum=0.9))


def test_a_recipe_that_does_not_reach_the_tickets_is_refused(vectors: Data, dense: Make) -> None:
    module = mlp()
    ticket = dense(module)
    late = replace(ticket, start=replace(ticket.start, step=9))
    with pytest.raises(ValueError, match="the tickets start at step 9, after the 4 steps of the recipe"):
        train(module, vectors, data, [late], Recipe(steps=4, batch=10))
