"""Training a stack of tickets: the expensive stage, whose results are stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from winticket import data
from winticket.run import Json, Parts, Task, part_of, step, task
from winticket.stages.setup import Setup
from winticket.ticket import Failed, State, Ticket, Trajectory
from winticket.train import Changes, Learning, train

REVISION = 1


def device() -> torch.device:
    """Where trainings are computed."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def train_stack(
    setup: Setup,
    stack: Sequence[Ticket | Failed],
    *,
    on_the_way: Parts | None = None,
    checkpoint: Any = None,
    report: Callable[[int, int], None] | None = None,
) -> tuple[Trajectory | Failed, ...]:
    """Train a stack of tickets by the setup's recipe, on a GPU where there is one.

    The trajectories hold the last state. States on the way are results of their own (`states`), which this training
    hands over if they are wanted in the same run; what is kept of it is no part of its key.
    """
    wanted = [tuple(options["steps"]) for options in on_the_way.wanted] if on_the_way else []
    save = tuple(sorted({step for steps in wanted for step in steps}))
    runs = train_tickets(setup, stack, save=save, checkpoint=checkpoint, report=report)
    for number, steps in enumerate(wanted):
        found = _at(runs, steps)
        if on_the_way and found is not None:
            on_the_way.keep(number, found)
    return tuple(_ended(run) for run in runs)


@part_of(2)
def states(
    setup: Setup,
    stack: Sequence[Ticket | Failed],
    runs: Sequence[Trajectory | Failed],
    *,
    steps: tuple[int, ...],
    checkpoint: Any = None,
    report: Callable[[int, int], None] | None = None,
) -> tuple[dict[int, State] | Failed, ...]:
    """The states of a stack's training after some of its steps, by step, with the optimiser's.

    `runs` are that training's results. If it did not hand the states over, it is repeated up to the last of `steps`.
    """
    alive = [run if isinstance(run, Failed) else ticket for ticket, run in zip(stack, runs, strict=True)]
    again = train_tickets(setup, alive, save=steps, until=max(steps), checkpoint=checkpoint, report=report)
    found = _at(again, steps)
    if found is None:
        raise AssertionError(f"a training up to step {max(steps)} has no state of some of {steps}")
    return found


def with_states(run: Trajectory, saved: Mapping[int, State]) -> Trajectory:
    """A trajectory together with states on its way."""
    return replace(run, saved={**saved, **run.saved})


def _at(
    runs: Sequence[Trajectory | Failed], steps: Sequence[int]
) -> tuple[dict[int, State] | Failed, ...] | None:
    """Each replicate's states after those steps; None if one is not there, as after a stop before it was wanted."""
    if any(isinstance(run, Trajectory) and not run.saved.keys() >= set(steps) for run in runs):
        return None
    return tuple(
        run if isinstance(run, Failed) else {step: run.saved[step] for step in steps} for run in runs
    )


def _ended(run: Trajectory | Failed) -> Trajectory | Failed:
    """With the last state alone, from which nothing goes on."""
    if isinstance(run, Failed):
        return run
    last = max(run.saved)
    return replace(run, saved={last: replace(run.saved[last], optimizer={})})


def train_tickets(
    setup: Setup,
    stack: Sequence[Ticket | Failed],
    *,
    save: Sequence[int] = (),
    until: int | None = None,
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
        until=until,
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


def trained(
    setup: Setup,
    stack: Task,
    *,
    arm: str,
    level: int,
    first: int,
    count: int,
    cost: float = 1.0,
    how: Callable[..., Any] = train_stack,
    **options: Any,
) -> Task:
    """The task that trains a stack of `count` replicates from number `first`, labelled for people.

    `cost` is what a step takes in units of the dense network's; with the number of steps it makes the task's weight.
    `how` is the stage that trains, with its options.
    """
    label: dict[str, Json] = {"arm": arm, "level": level, "first": first, "count": count}
    weight = cost * setup.recipe.steps * count
    return task(how, setup, stack, label=label, weight=weight, **options)


def at_steps(setup: Setup, stack: Task, path: Task, steps: tuple[int, ...]) -> Task:
    """The training `path` of a stack together with its states after `steps`, which are a result of their own."""
    if not steps:
        return path
    label: dict[str, Json] = {**path.label, "states": list(steps)}
    weight = path.weight * max(steps) / setup.recipe.steps
    return step(with_states, path, task(states, setup, stack, path, steps=steps, label=label, weight=weight))
