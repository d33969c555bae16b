"""A stack's update with the optimiser's state, the masks and the weights' bfloat16 copies in one pass over memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from winticket.sparse import Gradient, OnePass, Rule, Target, missing
from winticket.train.recipe import Recipe

Update = Callable[[Sequence[Any], float | Tensor], None]
"""Takes gradients, some as factors if that was agreed on, and the learning rate."""


def rule_of(optimizer: torch.optim.Optimizer, recipe: Recipe) -> Rule:
    """The recipe's optimiser as the kernels know it."""
    group = optimizer.param_groups[0]
    return Rule(
        recipe.optimizer,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
        betas=group.get("betas", (0.0, 0.0)),
        eps=group.get("eps", 0.0),
    )


def slots_for(optimizer: torch.optim.Optimizer, parameter: Tensor, recipe: Recipe) -> tuple[Tensor, ...]:
    """The optimiser's state of a parameter, which torch would make at its first step."""
    state = optimizer.state[parameter]
    if recipe.optimizer == "sgd":
        names: tuple[str, ...] = ("momentum_buffer",) if recipe.momentum else ()
    else:
        names = ("exp_avg", "exp_avg_sq")
        state.setdefault("step", torch.zeros((), dtype=torch.float32))
    return tuple(state.setdefault(name, torch.zeros_like(parameter)) for name in names)


def supported(parameters: Sequence[Tensor]) -> bool:
    """True if the compiled update takes these parameters."""
    return not missing and all(
        p.device.type == "cpu" and p.dtype == torch.float32 and p.is_contiguous() for p in parameters
    )


def one_pass(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, Tensor],
    recipe: Recipe,
    *,
    masks: Mapping[str, Tensor],
    copies: Mapping[str, Tensor],
    halves: frozenset[str] = frozenset(),
) -> Update | None:
    """The update of `parameters`, their masks and their bfloat16 `copies`; None if the kernels cannot make it.

    Gradients come in the order of `parameters`; those named in `halves` are bfloat16.
    """
    whole = list(parameters.values())
    if not supported(whole) or not all(group["fused"] for group in optimizer.param_groups):
        return None
    targets = [
        Target(p, slots_for(optimizer, p, recipe), masks.get(name), copies.get(name), name in halves)
        for name, p in parameters.items()
    ]
    update = OnePass(targets, rule_of(optimizer, recipe))
    counts = [state["step"] for p in whole if "step" in (state := optimizer.state[p])]

    def call(gradients: Sequence[Gradient], rate: float | Tensor) -> None:
        update(gradients, float(rate), taken=int(counts[0]) if counts else 0)
        if counts:
            torch._foreach_add_(counts, 1)

    return call
