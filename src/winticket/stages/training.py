"""Training a stack of tickets: the expensive stage, whose results are stored."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from winticket import data
from winticket.run import Json, Parts, Task, Variants, derive, part_of, task
from winticket.stages.setup import SPLITS, Setup
from winticket.ticket import Failed, State, Ticket, Trajectory
from winticket.train import Changes, Engine, Learning, check_engine, peak_bytes, train

REVISION = 1


def device() -> torch.device:
    """The device that trainings run on: the GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


Context = Mapping[str, Json]
"""How a run computes, for stages with a parameter `context`: its engine. It is in no key and changes last bits only."""


def engine_of(context: Context | None) -> Engine:
    """How layers with pruned weights are computed: as the run's context says, "auto" by default."""
    engine: Any = (context or {}).get("engine", "auto")
    check_engine(engine)
    return engine  # type: ignore[no-any-return]


def train_stack(
    setup: Setup,
    stack: Sequence[Ticket | Failed],
    *,
    on_the_way: Parts | None = None,
    checkpoint: Any = None,
    context: Context | None = None,
    report: Callable[[int, int], None] | None = None,
) -> tuple[Trajectory | Failed, ...]:
    """Train a stack of tickets by the setup's recipe, on a GPU if there is one.

    The trajectories hold the last state only. States at earlier steps are separate results (`states`). This training
    hands them over if the same run needs them; which states are kept is no part of its key.

    >>> from winticket.experiment import Experiment
    >>> setup = Experiment.of("digits", steps=20).setup()
    >>> from winticket.stages import dense_ticket
    >>> [path] = train_stack(setup, [dense_ticket(setup, 0)])
    >>> list(path.saved)
    [20]
    """
    requests = [tuple(options["steps"]) for options in on_the_way.wanted] if on_the_way else []
    save = tuple(sorted({step for steps in requests for step in steps}))
    paths = train_tickets(setup, stack, save=save, checkpoint=checkpoint, context=context, report=report)
    for number, steps in enumerate(requests):
        saved = _at(paths, steps)
        if on_the_way and saved is not None:
            on_the_way.keep(number, saved)
    return tuple(_ended(path) for path in paths)


@part_of(2)
def states(
    setup: Setup,
    stack: Sequence[Ticket | Failed],
    runs: Sequence[Trajectory | Failed],
    *,
    steps: tuple[int, ...],
    checkpoint: Any = None,
    context: Context | None = None,
    report: Callable[[int, int], None] | None = None,
    variants: Variants | None = None,
) -> tuple[dict[int, State] | Failed, ...]:
    """The states of a stack's training after some of its steps, with the optimiser's state: step -> state.

    `runs` are the results of that training. If it did not hand the states over, it is repeated up to the last of
    `steps`, from the nearest earlier state that the store has. Training continues from a state bit for bit, so the
    result is the same wherever it began.
    """
    alive = [run if isinstance(run, Failed) else ticket for ticket, run in zip(stack, runs, strict=True)]
    before, reached = _nearest(alive, min(steps), variants)
    again = train_tickets(
        setup,
        before,
        save=[step for step in steps if step != reached],
        until=max(steps),
        checkpoint=None if checkpoint is None else _Since(checkpoint, reached),
        context=context,
        report=report,
    )
    if reached in steps:
        again = tuple(
            replace(path, saved={reached: ticket.start, **path.saved})
            if isinstance(path, Trajectory) and isinstance(ticket, Ticket)
            else path
            for path, ticket in zip(again, before, strict=True)
        )
    saved = _at(again, steps)
    if saved is None:
        raise AssertionError(f"a training up to step {max(steps)} has no state of some of {steps}")
    return saved


def _nearest(
    stack: Sequence[Ticket | Failed], step: int, variants: Variants | None
) -> tuple[list[Ticket | Failed], int | None]:
    """The stack at the latest stored state up to `step`, and the step of that state; as it is and None without one."""
    start = next((ticket.start.step for ticket in stack if isinstance(ticket, Ticket)), step)
    stored = variants.first({"steps": (at,)} for at in range(step, start, -1)) if variants else None
    if stored is None:
        return list(stack), None
    options, states_at = stored
    (reached,) = options["steps"]
    return [
        replace(ticket, start=state[reached])
        if isinstance(ticket, Ticket) and not isinstance(state, Failed)
        else ticket
        for ticket, state in zip(stack, states_at, strict=True)
    ], reached


class _Since:
    """A checkpoint of a training that began at a given step; one that began elsewhere is no use to it."""

    def __init__(self, checkpoint: Any, step: int | None) -> None:
        self._checkpoint, self._step = checkpoint, step

    def load(self) -> Any:
        stored = self._checkpoint.load()
        if not isinstance(stored, Mapping) or not stored.keys() >= {"since", "training"}:
            return None
        return stored["training"] if stored["since"] == self._step else None

    def save(self, value: Any) -> None:
        self._checkpoint.save({"since": self._step, "training": value})

    def due(self) -> bool:
        return bool(self._checkpoint.due())


def with_states(run: Trajectory, saved: Mapping[int, State]) -> Trajectory:
    """The trajectory with states at earlier steps added."""
    return replace(run, saved={**saved, **run.saved})


def _at(
    runs: Sequence[Trajectory | Failed], steps: Sequence[int]
) -> tuple[dict[int, State] | Failed, ...] | None:
    """Each replicate's states after those steps; None if a state is missing, as after a resumed training.

    A training that was interrupted before another run asked for the state did not save it.
    """
    if any(isinstance(run, Trajectory) and not run.saved.keys() >= set(steps) for run in runs):
        return None
    return tuple(
        run if isinstance(run, Failed) else {step: run.saved[step] for step in steps} for run in runs
    )


def _ended(run: Trajectory | Failed) -> Trajectory | Failed:
    """The trajectory with its last state only, without the optimiser's: no training continues from there."""
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
    context: Context | None = None,
    report: Callable[[int, int], None] | None = None,
) -> tuple[Trajectory | Failed, ...]:
    """As `train_stack`, with masks that change (`changes`) or are learned (`learning`); see `winticket.train.train`."""
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
        engine=engine_of(context),
        changes=changes,
        learning=learning,
        per_replicate=setup.own_split,
        objective=setup.loss_and_metric(),
        checkpoint=checkpoint,
        report=report,
    )


@dataclass(frozen=True)
class Examples:
    """The data of a stack: the parts of one dataset, or each replicate's parts along a leading dimension."""

    train: data.Split
    validation: data.Split
    test: data.Split


def examples(setup: Setup, stack: Sequence[Ticket | Failed], device: torch.device) -> Examples:
    """The data that a stack trains and is evaluated on: one shared split, or a stack of each replicate's split.

    Targets are as the setup's loss sees them.
    """
    made = setup.loss_and_metric()

    def seen(part: data.Split) -> data.Split:
        return part if made is None else data.Split(part.x, made.trained(part.y))

    if not setup.own_split:
        shared = setup.dataset(device)
        return Examples(seen(shared.train), seen(shared.validation), seen(shared.test))
    splits = [setup.dataset(device, t.seeds.replicate) for t in stack]

    def stacked(parts: Sequence[data.Split]) -> data.Split:
        return data.Split(torch.stack([p.x for p in parts]), torch.stack([seen(p).y for p in parts]))

    return Examples(
        stacked([d.train for d in splits]),
        stacked([d.validation for d in splits]),
        stacked([d.test for d in splits]),
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
    """The task that trains a stack of `count` replicates, the first of which is number `first`.

    `arm` and `level` label it for people. `cost` is the cost of a step in steps of the dense network; times the number
    of steps and replicates it is the task's weight. `how` is the stage that trains; it takes the other options.
    """
    place: dict[str, Json] = {"arm": arm, "level": level, "first": first, "count": count}
    label = {**place, **setup.in_words()}
    weight = cost * setup.recipe.steps * count
    memory = _memory(setup, first, count, pruned=level > 0)
    return task(how, setup, stack, label=label, weight=weight, memory=memory, **options)


@functools.lru_cache(maxsize=256)
def _memory(setup: Setup, first: int, count: int, *, pruned: bool) -> int:
    """Bytes that a process on the CPU needs at most to train a stack; see `winticket.train.peak_bytes`.

    0, not known, if the data cannot be read here: a plan may be made without them.
    """
    example = setup.blank(2)
    answers = setup.input_shape[0] if setup.tokens else 1
    try:
        rows = sum(setup.facts().sizes(validation=setup.validation, test=setup.test))
    except (ValueError, OSError, LookupError):
        return 0
    once = rows * (example[0].numel() * example.element_size() + 8 * answers)
    # A process keeps the split of every replicate that it has met; a stack of them is one more copy.
    copies = 1 + count + min(first + count, SPLITS) if setup.own_split else 3
    return peak_bytes(
        setup.module(),
        setup.recipe,
        example,
        stack=count,
        answers=answers,
        data=copies * once,
        pruned=pruned,
    )


def at_steps(setup: Setup, stack: Task, path: Task, steps: tuple[int, ...]) -> Task:
    """The training `path` of a stack with its states after `steps`, which are a separate result."""
    if not steps:
        return path
    label: dict[str, Json] = {**path.label, "states": list(steps)}
    weight = path.weight * max(steps) / setup.recipe.steps
    return derive(
        with_states,
        path,
        task(states, setup, stack, path, steps=steps, label=label, weight=weight, memory=path.memory),
    )
