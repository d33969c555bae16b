"""The stages that plans are made of: each ties one room's function to a setup.

`train_stack` is the expensive one and is stored; the others work on one replicate, cost next to nothing and are
evaluated by whoever needs them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from inspect import signature
from typing import Any

import torch

from winticket import data, models
from winticket.criteria import Criterion, Evidence
from winticket.procedures.setup import Setup
from winticket.run import Json, Task, task
from winticket.ticket import Failed, Mask, Seeds, Ticket, Trajectory
from winticket.train import train

REVISION = 1

Density = float | Mapping[str, float]


def dense_ticket(setup: Setup, replicate: int) -> Ticket:
    """The whole network at its own initialisation: one replicate's θ₀ with nothing pruned."""
    seeds = Seeds(setup.seed, replicate)
    start = setup.initial(seeds.derive("init"))
    return Ticket(Mask.full({n: start.weights[n] for n in prunable(setup)}), start, "dense", seeds)


def prunable(setup: Setup) -> tuple[str, ...]:
    """Eligible weights less the patterns in `setup.exclude`. ValueError where a pattern fits none, or all go."""
    names = models.eligible(setup.module())
    for pattern in setup.exclude:
        if not any(fnmatchcase(n, pattern) for n in names):
            raise ValueError(
                f"exclude {pattern!r} fits no eligible weight of {setup.model}; there are {', '.join(names)}"
            )
    left = tuple(n for n in names if not any(fnmatchcase(n, p) for p in setup.exclude))
    if not left:
        raise ValueError(
            f"{setup.model} has no weight left to prune: {', '.join(names) or 'no Linear or Conv layer'}"
        )
    return left


def place() -> torch.device:
    """Where trainings are computed."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def train_stack(
    setup: Setup,
    stack: Sequence[Ticket | Failed],
    *,
    save: Sequence[int] = (),
    checkpoint: Any = None,
    report: Callable[[int, int], None] | None = None,
) -> tuple[Trajectory | Failed, ...]:
    """Train a stack of tickets by the setup's recipe, on a GPU where there is one."""
    if not any(isinstance(t, Ticket) for t in stack):
        return tuple(t for t in stack if isinstance(t, Failed))
    return train(
        setup.module(),
        examples(setup, stack, place()),
        data,
        stack,
        setup.recipe,
        save=save,
        device=place(),
        engine=setup.engine,
        checkpoint=checkpoint,
        report=report,
    )


@dataclass(frozen=True)
class Examples:
    """Data of a stack: the parts of a dataset, or one of each per replicate under a leading dimension."""

    train: data.Split
    validation: data.Split
    test: data.Split


def examples(setup: Setup, stack: Sequence[Ticket | Failed], device: torch.device) -> Examples:
    """What a stack trains and is measured on: shared, or each replicate's own split, stacked."""
    if not setup.own_split:
        shared = setup.dataset(device)
        return Examples(shared.train, shared.validation, shared.test)
    own = [setup.dataset(device, t.seeds.replicate) for t in stack]

    def stacked(parts: Sequence[data.Split]) -> data.Split:
        return data.Split(torch.stack([p.x for p in parts]), torch.stack([p.y for p in parts]))

    return Examples(
        stacked([d.train for d in own]), stacked([d.validation for d in own]), stacked([d.test for d in own])
    )


def prune(
    path: Trajectory,
    *,
    density: Density,
    criterion: Criterion,
    allocate: Callable[..., Mask],
    rewind: Callable[[Trajectory, Mask], Ticket],
) -> Ticket:
    """Score the trained weights, keep the best, rewind: the next level's ticket."""
    ticket = path.ticket
    seed = ticket.seeds.derive("criterion", ticket.mask.count())
    evidence = Evidence(
        now=path.saved[max(path.saved)],
        start=ticket.start,
        mask=ticket.mask,
        generator=torch.Generator().manual_seed(seed),
    )
    return replace(rewind(path, allocate(criterion(evidence), ticket.mask, density=density)), origin="ticket")


def control_ticket(setup: Setup, ticket: Ticket, *, control: Callable[..., Ticket]) -> Ticket:
    """A control of the ticket, with a seed of its own for each control, replicate and size of ticket."""
    name = str(getattr(control, "__name__", control))
    options: dict[str, Any] = {"seed": ticket.seeds.derive("control", name, ticket.mask.count())}
    if "draw" in signature(control).parameters:
        options["draw"] = setup.initial
    return control(ticket, **options)


def trained(
    setup: Setup, stack: Task, *, arm: str, level: int, first: int, count: int, cost: float = 1.0
) -> Task:
    """The task that trains a stack of `count` replicates from number `first`, labelled for people.

    `cost` is what a step takes in units of the dense network's; with the number of steps it makes the task's weight.
    """
    label: dict[str, Json] = {"arm": arm, "level": level, "first": first, "count": count}
    return task(train_stack, setup, stack, label=label, weight=cost * setup.recipe.steps * count)
