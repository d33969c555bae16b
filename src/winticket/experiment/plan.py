"""Plan an experiment: its trainings as tasks. Nothing is trained here except short trials on noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from inspect import signature
from itertools import islice
from typing import Any, cast

from winticket.controls import arm_of
from winticket.experiment.checks import check
from winticket.experiment.names import METHODS
from winticket.experiment.resolved import Resolved, resolve
from winticket.experiment.spec import Experiment
from winticket.procedures import transfer
from winticket.run import Store, Task, derive, stored_needs, walk, whole_of
from winticket.stages import (
    PlannedLevel,
    Setup,
    carried,
    control_ticket,
    dense_ticket,
    needs_end,
    needs_neighbour,
    neighbours,
    retraining,
    spared,
    trained,
    trained_control_ticket,
    widened,
)
from winticket.train import relative_cost

Cell = tuple[int, str, int]
"""Level (0: nothing pruned), arm, number of the stack's first replicate."""

GATE, EXACT, SOURCE = "dense doubled", "dense in float32", "source"
BESIDE = (GATE, EXACT, SOURCE)
"""Trainings that are no arm: the dense network trained twice as long, and in float32 beside a lower precision; the
source trainings of a transfer."""


@dataclass(frozen=True)
class Plan:
    """Every training of an experiment as a task, by its cell.

    question  the experiment with everything that it names looked up
    tasks     one task per cell (level, arm, first replicate of a stack)

    >>> planned = plan(Experiment.of("digits", steps=20, levels=2, replicates=2, controls=()))
    >>> planned.counts
    (50200, 40260, 32298)
    >>> [cell[:2] for cell in planned.tasks]
    [(0, 'dense'), (0, 'dense doubled'), (1, 'ticket'), (2, 'ticket')]
    """

    question: Resolved
    tasks: Mapping[Cell, Task]

    @property
    def experiment(self) -> Experiment:
        return self.question.experiment

    @property
    def setup(self) -> Setup:
        return self.question.setup

    @property
    def counts(self) -> tuple[int, ...]:
        """Eligible weights kept at levels 0..levels."""
        return self.question.counts

    def densities(self) -> list[float]:
        """The densities over eligible weights at levels 0..levels."""
        return [count / self.counts[0] for count in self.counts]

    def source_densities(self) -> list[float]:
        """The densities of the experiment that finds the tickets: the source of a transfer, else this experiment."""
        if self.question.source is None:
            return self.densities()
        counts = self.question.source.counts
        return [count / counts[0] for count in counts]

    def count(self, first: int) -> int:
        """Replicates in the stack that begins with replicate `first`."""
        return min(self.experiment.stack, self.experiment.replicates - first)

    def steps(self, cells: list[Cell]) -> int:
        """Optimiser steps of all trainings in these cells, summed over replicates."""
        steps, start = self.setup.recipe.steps, self.experiment.rewind_step
        each = {"dense": steps, GATE: 2 * steps, EXACT: steps}
        each |= {arm: steps for arm, made_by in self.question.controls.items() if arm_of(made_by).from_start}
        arms = sum(
            self.count(first) * each.get(arm, steps - start) for _, arm, first in cells if arm != SOURCE
        )
        return arms + sum(
            self.count(first) * self._source_steps(level) for level, arm, first in cells if arm == SOURCE
        )

    def _source_steps(self, level: int) -> int:
        source = self.experiment.source or self.experiment
        return source.recipe.steps - (source.rewind_step if level else 0)

    def replicates(self, cells: list[Cell]) -> int:
        """Number of trainings in these cells, one per replicate."""
        return sum(self.count(first) for _, _, first in cells)

    def behind(self, cell: Cell) -> list[Cell]:
        """The cells of all trainings that must finish before the one in this cell."""
        known = {task.key: at for at, task in self.tasks.items()}
        needed: dict[Cell, None] = {}
        waiting = [self.tasks[cell]]
        while waiting:
            for need in trainings_needed(waiting.pop()):
                if known[need.key] not in needed:
                    needed[known[need.key]] = None
                    waiting.append(need)
        return list(needed)

    def keys(self) -> list[str]:
        """The keys of all results: of the trainings, and of states in the course of them."""
        return [task.key for task in walk(self.tasks.values()) if task.stored]

    def missing_states(self, store: Store, missing: Sequence[Cell]) -> list[Task]:
        """States in the course of a training that the `missing` trainings need and the store lacks."""
        needed = walk([self.tasks[cell] for cell in missing])
        states = [t for t in needed if t.stored and whole_of(t) is not None]
        stored = store.among([t.key for t in states])
        return [t for t in states if t.key not in stored]

    def repeated(self, states: Sequence[Task], missing: Sequence[Cell]) -> list[Task]:
        """The missing states whose training is in the store, so that it must be repeated up to them."""
        keys = {self.tasks[cell].key for cell in missing}
        return [t for t in states if (whole := whole_of(t)) and whole.key not in keys]

    def order(self, repeated: Sequence[Task]) -> dict[str, list[str]]:
        """By key, the trainings and repetitions that each training waits for."""
        keys = {task.key for task in repeated}
        waits: dict[str, list[str]] = {key: [] for key in keys}
        for task in self.tasks.values():
            waits[task.key] = [need.key for need in trainings_needed(task)]
            if keys:
                waits[task.key] += [need.key for need in stored_needs(task) if need.key in keys]
        return waits

    def missing(self, store: Store) -> list[Cell]:
        """The cells without a result in the store."""
        stored = store.among([task.key for task in self.tasks.values()])
        return [cell for cell, task in self.tasks.items() if task.key not in stored]

    def failed(self, store: Store) -> list[Cell]:
        """The missing cells whose training, or one that it needs, is stored as failed."""
        lost: dict[str, Cell] = {}
        missing = self.missing(store)
        failures = store.among([self.tasks[cell].key for cell in missing], "failure")
        for cell in missing if failures else ():
            task = self.tasks[cell]
            failed = task.key in failures and store.failure(task.key) is not None
            if failed or any(need.key in lost for need in trainings_needed(task)):
                lost[task.key] = cell
        return list(lost.values())


def trainings_needed(planned: Task) -> list[Task]:
    """The nearest trainings that a task needs; a state in the course of a training counts as that training."""
    needed: dict[str, Task] = {}
    for need in stored_needs(planned):
        whole = whole_of(need)
        for training in (need,) if whole is None else (whole, *trainings_needed(need)):
            needed[training.key] = training
    return list(needed.values())


def plan(experiment: Experiment) -> Plan:
    """The tasks of an experiment. Nothing is trained, except a user's own model or functions for a moment on noise.

    Raises ValueError for whatever is wrong with the experiment, and FileNotFoundError if its data do not exist.

    >>> planned = plan(Experiment.of("digits", steps=20, levels=3, replicates=5))
    >>> planned.counts
    (50200, 40260, 32298, 25919)
    >>> len(planned.tasks), planned.replicates(list(planned.tasks))
    (11, 55)
    """
    question = resolve(experiment)
    check(question)
    setup, counts = question.setup, question.counts
    costs = [relative_cost(setup.module(), count / counts[0], setup.recipe) for count in counts]
    tasks: dict[Cell, Task] = {}
    for first in range(0, experiment.replicates, experiment.stack):
        last = min(first + experiment.stack, experiment.replicates)
        tasks.update(_stack(question, range(first, last), costs))
    return Plan(question, {**_sources(tasks), **tasks})


def _sources(tasks: Mapping[Cell, Task]) -> dict[Cell, Task]:
    """The trainings outside `tasks` that they need: those that find the tickets of a transfer."""
    known = {t.key for t in tasks.values()}
    sources: dict[Cell, Task] = {}
    for needed in walk(tasks.values()):
        if needed.stored and needed.key not in known and whole_of(needed) is None:
            label = {**needed.label, "arm": SOURCE}
            cell = (cast(int, label["level"]), SOURCE, cast(int, label["first"]))
            sources[cell] = replace(needed, label=label)
    return sources


def parameters(planned: Plan) -> list[dict[str, Any]]:
    """The network's parameters as JSON: name, shape, size, and why each is spared (None if it is pruned).

    >>> planned = plan(Experiment.of("digits", model="lenet-20-10", steps=20))
    >>> parameters(planned)[0]
    {'name': 'fc1.weight', 'shape': [20, 64], 'size': 1280, 'spared': None}
    """
    reasons = spared(planned.setup)
    return [
        {"name": name, "shape": list(p.shape), "size": p.numel(), "spared": reasons.get(name)}
        for name, p in planned.setup.module().named_parameters()
    ]


def _stack(question: Resolved, replicates: range, costs: Sequence[float]) -> Iterator[tuple[Cell, Task]]:
    """The tasks of one stack of replicates. Their keys depend on no other stack, level or arm.

    `costs` are the relative costs of a step at levels 0..levels.
    """
    experiment, setup = question.experiment, question.setup
    first = replicates[0]
    at: Callable[..., Task] = partial(trained, first=first, count=len(replicates))
    dense, search = _search(question, replicates)
    whole_network = at(setup, dense, arm="dense", level=0)
    yield (0, "dense", first), whole_network
    if experiment.gate:
        # Only the end of this training is read, so its grid is in proportion and has no early points.
        once = setup.recipe
        twice = replace(
            once, steps=2 * once.steps, evaluate_every=2 * once.evaluate_every, early_points=False
        )
        longer = replace(setup, recipe=twice)
        yield (0, GATE, first), at(longer, dense, arm=GATE, level=0)
    if experiment.precision_check and setup.recipe.precision != "float32":
        exact = in_float32(setup)
        # The same node as in a search in float32, so that a store has its result once.
        start = dense if question.source else derive(dense_ticket, exact, tuple(replicates))
        yield (0, EXACT, first), at(exact, start, arm=EXACT, level=0)
    later = retraining(setup, question.rewind)
    remaining = 1 - experiment.rewind_step / experiment.recipe.steps
    for level, planned in enumerate(search, 1):
        ticket = planned.ticket
        if planned.search:
            yield (level, "search", first), planned.search
        cost = costs[level]
        yield (level, "ticket", first), at(later, ticket, arm="ticket", level=level, cost=cost * remaining)
        for arm, made_by in question.controls.items():
            rival = _rival(setup, ticket, whole_network, len(replicates), made_by)
            whole = arm_of(made_by).from_start
            yield (
                (level, arm, first),
                at(
                    setup if whole else later,
                    rival,
                    arm=arm,
                    level=level,
                    cost=cost * (1 if whole else remaining),
                ),
            )


def searched_again(question: Resolved, noise: int, replicates: range) -> list[Task]:
    """The tickets of levels 1 and up of the same search with other SGD noise, each the task of a stack of tickets.

    Inits and splits are those of the replicates. Only the trainings that the tickets need are planned. A transfer's
    tickets come from its source, so it is the source's search that is planned again.
    """
    found = question.source or question
    noisy = replace(found, setup=replace(found.setup, noise=noise))
    _, search = _search(noisy, replicates)
    levels = question.experiment.carried if question.source else range(1, len(question.counts))
    tickets = [planned.ticket for planned in islice(search, max(levels))]
    return [tickets[level - 1] for level in levels]


def in_float32(setup: Setup) -> Setup:
    """The setup with its recipe in float32."""
    return replace(setup, recipe=replace(setup.recipe, precision="float32"))


def _search(question: Resolved, replicates: range) -> tuple[Task, Iterator[PlannedLevel]]:
    """The stack of dense tickets, and the planned search of every level."""
    experiment, setup = question.experiment, question.setup
    if question.source is not None:
        return _transferred(question, question.source, replicates)
    procedure = METHODS[experiment.method]
    options = {**question.functions, "every": experiment.every, "search_lr": experiment.search_lr}
    takes = signature(procedure).parameters
    accepted: dict[str, Any] = {name: value for name, value in options.items() if name in takes}
    if experiment.rewind_step:
        accepted["rewind_step"] = experiment.rewind_step
    search = procedure(setup, list(question.densities), replicates, **accepted)
    return derive(dense_ticket, setup, tuple(replicates)), search


def _transferred(
    question: Resolved, source: Resolved, replicates: range
) -> tuple[Task, Iterator[PlannedLevel]]:
    """The source's tickets in this setup. The dense network starts from the same weights as the tickets."""
    setup, levels = question.setup, question.experiment.carried
    dense, search = _search(source, replicates)
    tickets = [planned.ticket for planned in islice(search, max(levels))]
    begin = tickets[0] if source.experiment.rewind_step else dense
    chosen = [tickets[level - 1] for level in levels]
    if question.another_width():
        return derive(widened, setup, source.setup, dense, whole=True), transfer(setup, chosen, source.setup)
    return derive(carried, setup, begin, whole=True), transfer(setup, chosen)


def _rival(setup: Setup, ticket: Task, dense: Task, count: int, made_by: Callable[..., Any]) -> Task:
    """The task that derives a control of each ticket in a stack of `count`; `dense` is the stack's dense training."""
    if needs_neighbour(made_by):
        return neighbours(setup, ticket, dense, count, control=made_by)
    if needs_end(made_by):
        return derive(trained_control_ticket, setup, ticket, dense, control=made_by)
    return derive(control_ticket, setup, ticket, control=made_by)
