"""The stages that plans are made of: each ties one room's function to a setup.

`train_stack` is the expensive one and is stored; the others work on one replicate, cost next to nothing and are
evaluated by whoever needs them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
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


def train_stack(
    setup: Setup,
    stack: Sequence[Ticket | Failed],
    *,
    save: Sequence[int] = (),
    checkpoint: Any = None,
    report: Callable[[int, int], None] | None = None,
) -> tuple[Trajectory | Failed, ...]:
    """Train a stack of tickets by the setup's recipe, on a GPU where there is one."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return train(
        setup.module(),
        setup.dataset(device),
        data,
        stack,
        setup.recipe,
        save=save,
        device=device,
        checkpoint=checkpoint,
        report=report,
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


def trained(setup: Setup, stack: Task, *, arm: str, level: int, first: int, count: int) -> Task:
    """The task that trains a stack of `count` replicates from number `first`, labelled for people."""
    label: dict[str, Json] = {"arm": arm, "level": level, "first": first, "count": count}
    return task(train_stack, setup, stack, label=label, weight=float(setup.recipe.steps * count))
