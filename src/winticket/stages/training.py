"""Training a stack of tickets: the expensive stage, whose results are stored."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from winticket import data
from winticket.run import Json, Task, task
from winticket.stages.setup import Setup
from winticket.ticket import Curve, Failed, Ticket, Trajectory
from winticket.train import Changes, Learning, train

REVISION = 1


def device() -> torch.device:
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
    return train_tickets(setup, stack, save=save, checkpoint=checkpoint, report=report)


def train_tickets(
    setup: Setup,
    stack: Sequence[Ticket | Failed],
    *,
    save: Sequence[int] = (),
    changes: Changes | None = None,
    learning: Learning | None = None,
    checkpoint: Any = None,
    report: Callable[[int, int], None] | None = None,
) -> tuple[Trajectory | Failed, ...]:
    """As `train_stack`; with masks that change on the way, or learning a mask, as `winticket.train.train` has it."""
    if not any(isinstance(t, Ticket) for t in stack):
        return tuple(t for t in stack if isinstance(t, Failed))
    return train(
        setup.module(),
        examples(setup, stack, device()),
        data,
        stack,
        setup.recipe,
        save=save,
        device=device(),
        engine=setup.engine,
        changes=changes,
        learning=learning,
        own=setup.own_split,
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


def no_curve() -> Curve:
    """The curve of a network that was not trained."""
    nothing = torch.empty(0, dtype=torch.float64)
    return Curve(torch.empty(0, dtype=torch.int64), *[nothing] * 6)


def trained(
    setup: Setup,
    stack: Task,
    *,
    arm: str,
    level: int,
    first: int,
    count: int,
    cost: float = 1.0,
    save: tuple[int, ...] = (),
    how: Callable[..., Any] = train_stack,
    **options: Any,
) -> Task:
    """The task that trains a stack of `count` replicates from number `first`, labelled for people.

    States at the steps in `save` are kept. `cost` is what a step takes in units of the dense network's; with the number
    of steps it makes the task's weight. `how` is the stage that trains, with its options.
    """
    label: dict[str, Json] = {"arm": arm, "level": level, "first": first, "count": count}
    weight = cost * setup.recipe.steps * count
    if how is train_stack:
        options = {"save": save}
    return task(how, setup, stack, label=label, weight=weight, **options)
