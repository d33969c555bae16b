"""Checks, before anything is computed, that tickets, module and recipe fit one another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor, nn

from winticket.ticket import Ticket
from winticket.train.recipe import Recipe

Shapes = dict[str, tuple[int, ...]]


def common_start(alive: Sequence[Ticket], module: nn.Module, recipe: Recipe) -> int:
    """The step that all tickets of a stack start from.

    Raises ValueError if the tickets start at different steps or after the recipe's end, if their weights or buffers
    are not the module's, if their masks cover different layers, or if they hold the state of an optimiser other than
    the recipe's.
    """
    steps = {t.start.step for t in alive}
    if len(steps) > 1:
        raise ValueError(f"the tickets of a stack must start at one step, but these start at {sorted(steps)}")
    start = steps.pop()
    if start > recipe.steps:
        raise ValueError(f"the tickets start at step {start}, after the {recipe.steps} steps of the recipe")
    for ticket in alive:
        whose = f"replicate {ticket.seeds.replicate}'s ticket"
        _same(
            f"the weights of {whose}",
            ticket.start.weights,
            f"the {type(module).__name__}",
            module.named_parameters(),
        )
        _same(
            f"the buffers of {whose}",
            ticket.start.buffers,
            f"the {type(module).__name__}",
            module.named_buffers(),
        )
        _same(f"the mask of {whose}", ticket.mask.keep, "another of the stack", alive[0].mask.keep.items())
        _check_optimizer(ticket, alive[0], recipe)
    return start


def _same(
    first: str, tensors: Mapping[str, Tensor], second: str, others: Iterable[tuple[str, Tensor]]
) -> None:
    """ValueError if names or shapes differ; `first` and `second` are what the message calls the two."""
    one, two = _shapes(tensors.items()), _shapes(others)
    wrong = [name for name in {**two, **one} if one.get(name) != two.get(name)]
    if wrong:
        name = wrong[0]
        raise ValueError(
            f"{first} and {second} do not fit: {name!r} is {one.get(name, 'absent')} in the first and "
            f"{two.get(name, 'absent')} in the second (names that differ: {len(wrong)})"
        )


def _shapes(named: Iterable[tuple[str, Tensor]]) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in named}


def _check_optimizer(ticket: Ticket, first: Ticket, recipe: Recipe) -> None:
    momentum = {"momentum_buffer"} if recipe.momentum else set()
    slots = momentum if recipe.optimizer == "sgd" else {"step", "exp_avg", "exp_avg_sq"}
    stored = set(ticket.start.optimizer)
    if stored and stored != {f"{slot}/{name}" for slot in slots for name in ticket.start.weights}:
        raise ValueError(
            f"the ticket holds optimiser state ({', '.join(sorted({k.split('/')[0] for k in stored}))}) that does not "
            f"fit this recipe: {recipe.optimizer} keeps {', '.join(sorted(slots)) or 'none'} for each parameter; "
            "use the recipe that made the ticket, or start with a fresh optimiser: State(..., optimizer={})"
        )
    one, two = (
        {k: v.item() if k.startswith("step/") else None for k, v in t.start.optimizer.items()}
        for t in (ticket, first)
    )
    if one != two:
        raise ValueError(
            "the tickets of a stack must hold optimiser state of the same number of steps, or all hold none"
        )
