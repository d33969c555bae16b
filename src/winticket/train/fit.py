"""Whether tickets, module and recipe fit one another: known before anything is computed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor, nn

from winticket.ticket import Ticket
from winticket.train.recipe import Recipe

Shapes = dict[str, tuple[int, ...]]


def common_start(alive: Sequence[Ticket], module: nn.Module, recipe: Recipe) -> int:
    """The step that all tickets of a stack start from.

    ValueError where they start at different steps or after the recipe's end, their weights or buffers are not
    the module's, their masks cover different layers, or they carry the state of another optimiser than the
    recipe's.
    """
    steps = {t.start.step for t in alive}
    if len(steps) > 1:
        raise ValueError(f"a stack shares its start step; given are start steps {sorted(steps)}")
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


def _same(what: str, given: Mapping[str, Tensor], other: str, wanted: Iterable[tuple[str, Tensor]]) -> None:
    one, two = _shapes(given.items()), _shapes(wanted)
    wrong = [name for name in {**two, **one} if one.get(name) != two.get(name)]
    if wrong:
        name = wrong[0]
        raise ValueError(
            f"{what} and {other} do not fit: {name!r} is {one.get(name, 'absent')} in the first and "
            f"{two.get(name, 'absent')} in the second ({len(wrong)} such names)"
        )


def _shapes(named: Iterable[tuple[str, Tensor]]) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in named}


def _check_optimizer(ticket: Ticket, first: Ticket, recipe: Recipe) -> None:
    kept = {"momentum_buffer"} if recipe.momentum else set()
    slots = kept if recipe.optimizer == "sgd" else {"step", "exp_avg", "exp_avg_sq"}
    given = set(ticket.start.optimizer)
    if given and given != {f"{slot}/{name}" for slot in slots for name in ticket.start.weights}:
        raise ValueError(
            f"the ticket carries optimiser state ({', '.join(sorted({k.split('/')[0] for k in given}))}) that does not "
            f"fit this recipe, where {recipe.optimizer} keeps {', '.join(sorted(slots)) or 'none'} of each parameter; "
            "use the recipe that made it, or start afresh with State(..., optimizer={})"
        )
    one, two = (
        {k: v.item() if k.startswith("step/") else None for k, v in t.start.optimizer.items()}
        for t in (ticket, first)
    )
    if one != two:
        raise ValueError(
            "the tickets of a stack go on with optimiser state of the same age, or all start afresh"
        )
