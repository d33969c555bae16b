"""From an experiment to its tasks. Nothing here trains anything to keep."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from inspect import signature
from itertools import islice
from typing import Any, cast

from winticket.experiment.checks import check
from winticket.experiment.names import METHODS, control, stages
from winticket.experiment.spec import Experiment
from winticket.experiment.transfers import Transfer, another_width
from winticket.procedures import transfer
from winticket.run import Store, Task, step, stored_needs, walk
from winticket.stages import (
    Found,
    Setup,
    carried,
    control_ticket,
    dense_ticket,
    looks,
    needs_neighbour,
    neighbours,
    retraining,
    spared,
    trained,
    widened,
)
from winticket.train import relative_cost

Place = tuple[int, str, int]
"""Level (0: nothing pruned), arm, number of the stack's first replicate."""

GATE, SOURCE = "dense doubled", "source"
BESIDE = (GATE, SOURCE)
"""Trainings that are no arm: the dense network trained twice as long, and those that find tickets for a transfer."""


@dataclass(frozen=True)
class Plan:
    """Every training of an experiment as a task, by its place; `counts` are eligible weights kept by level."""

    experiment: Experiment
    setup: Setup
    tasks: Mapping[Place, Task]
    counts: tuple[int, ...]

    def densities(self) -> list[float]:
        """The density over eligible weights at levels 0..levels."""
        return [count / self.counts[0] for count in self.counts]

    def source_densities(self) -> list[float]:
        """The same of the experiment that finds the tickets: this one, unless they are carried over."""
        if not isinstance(self.experiment, Transfer):
            return self.densities()
        counts = self.experiment.source.counts(self.experiment.source.setup())
        return [count / counts[0] for count in counts]

    def count(self, first: int) -> int:
        """Replicates in the stack that begins with replicate `first`."""
        return min(self.experiment.stack, self.experiment.replicates - first)

    def steps(self, places: list[Place]) -> int:
        """Optimiser steps of one network in these places."""
        steps, start = self.setup.recipe.steps, self.experiment.rewind_step
        each = {"dense": steps, GATE: 2 * steps, "reinit": steps}
        own = sum(
            self.count(first) * each.get(arm, steps - start) for _, arm, first in places if arm != SOURCE
        )
        return own + sum(
            self.count(first) * self._source_steps(level) for level, arm, first in places if arm == SOURCE
        )

    def _source_steps(self, level: int) -> int:
        found = self.experiment.source if isinstance(self.experiment, Transfer) else self.experiment
        return found.recipe.steps - (found.rewind_step if level else 0)

    def replicates(self, places: list[Place]) -> int:
        """Trainings of one replicate in these places."""
        return sum(self.count(first) for _, _, first in places)

    def behind(self, place: Place) -> list[Place]:
        """The trainings that one in this place needs to have been done, itself not included."""
        known = {task.key: at for at, task in self.tasks.items()}
        found: dict[Place, None] = {}
        waiting = [self.tasks[place]]
        while waiting:
            for need in stored_needs(waiting.pop()):
                if known[need.key] not in found:
                    found[known[need.key]] = None
                    waiting.append(need)
        return list(found)

    def missing(self, store: Store) -> list[Place]:
        """The places whose results are not in the store."""
        return [place for place, task in self.tasks.items() if not store.has(task.key)]

    def failed(self, store: Store) -> list[Place]:
        """The places that are missing because they, or a training they need, are stored as failed."""
        lost: dict[str, Place] = {}
        for place in self.missing(store):
            task = self.tasks[place]
            if store.failure(task.key) is not None or any(need.key in lost for need in stored_needs(task)):
                lost[task.key] = place
        return list(lost.values())


def plan(experiment: Experiment) -> Plan:
    """Lay out an experiment's tasks. Raises ValueError for whatever is wrong with it, before any training."""
    setup = experiment.setup()
    counts = tuple(experiment.counts(setup))
    check(experiment, setup)
    tasks: dict[Place, Task] = {}
    for first in range(0, experiment.replicates, experiment.stack):
        last = min(first + experiment.stack, experiment.replicates)
        tasks.update(_stack(experiment, setup, range(first, last), counts))
    return Plan(experiment, setup, {**_sources(tasks), **tasks}, counts)


def _sources(tasks: Mapping[Place, Task]) -> dict[Place, Task]:
    """What the tasks need and is none of them: the trainings that find the tickets of a transfer."""
    known = {t.key for t in tasks.values()}
    found: dict[Place, Task] = {}
    for needed in walk(tasks.values()):
        if needed.stored and needed.key not in known:
            label = {**needed.label, "arm": SOURCE}
            place = (cast(int, label["level"]), SOURCE, cast(int, label["first"]))
            found[place] = replace(needed, label=label)
    return found


def parameters(planned: Plan) -> list[dict[str, Any]]:
    """Each of the network's parameters: name, shape, size, and why it is spared, None where it is pruned; JSON."""
    reasons = spared(planned.setup)
    return [
        {"name": name, "shape": list(p.shape), "size": p.numel(), "spared": reasons.get(name)}
        for name, p in planned.setup.module().named_parameters()
    ]


def _stack(
    experiment: Experiment, setup: Setup, replicates: range, counts: Sequence[int]
) -> Iterator[tuple[Place, Task]]:
    """The tasks of one stack of replicates, whose keys depend on no other stack, level or arm."""
    first = replicates[0]
    at: Callable[..., Task] = partial(trained, first=first, count=len(replicates))
    dense, search = _search(experiment, setup, replicates)
    whole_network = at(setup, dense, arm="dense", level=0, save=_saved(experiment, setup))
    yield (0, "dense", first), whole_network
    if experiment.gate:
        # Only the end of this training is read: its grid is in proportion, and has no early points.
        once = setup.recipe
        twice = replace(
            once, steps=2 * once.steps, evaluate_every=2 * once.evaluate_every, early_points=False
        )
        longer = replace(setup, recipe=twice)
        yield (0, GATE, first), at(longer, dense, arm=GATE, level=0)
    later = retraining(setup, stages(experiment)["rewind"])
    left = 1 - experiment.rewind_step / experiment.recipe.steps
    for level, found in enumerate(search, 1):
        ticket = found.ticket
        if found.search:
            yield (level, "search", first), found.search
        cost = relative_cost(
            setup.module(), counts[level] / counts[0], setup.recipe, engine=experiment.engine
        )
        yield (level, "ticket", first), at(later, ticket, arm="ticket", level=level, cost=cost * left)
        for arm in experiment.controls:
            rival = _rival(setup, ticket, whole_network, len(replicates), control(arm))
            whole = arm == "reinit"  # is trained from step 0
            yield (
                (level, arm, first),
                at(
                    setup if whole else later, rival, arm=arm, level=level, cost=cost * (1 if whole else left)
                ),
            )


def _saved(experiment: Experiment, setup: Setup) -> tuple[int, ...]:
    """The steps of the dense network's training that tickets come from, its end apart."""
    if experiment.method == "early-bird" and not isinstance(experiment, Transfer):
        return looks(setup)
    return (experiment.rewind_step,) if experiment.rewind_step else ()


def _search(experiment: Experiment, setup: Setup, replicates: range) -> tuple[Task, Iterator[Found]]:
    """The stack of dense tickets, and what is found at every level."""
    if isinstance(experiment, Transfer):
        return _carried(experiment, setup, replicates)
    procedure = METHODS[experiment.method]
    options = {**stages(experiment), "every": experiment.every, "search_lr": experiment.search_lr}
    takes = signature(procedure).parameters
    where: dict[str, Any] = {name: value for name, value in options.items() if name in takes}
    if experiment.rewind_step:
        where["rewind_step"] = experiment.rewind_step
    search = procedure(setup, experiment.densities(setup), replicates, **where)
    return step(dense_ticket, setup, tuple(replicates)), search


def _carried(experiment: Transfer, setup: Setup, replicates: range) -> tuple[Task, Iterator[Found]]:
    """The source's stacks, put into this setup; dense begins where the tickets do."""
    there = experiment.source.setup()
    dense, search = _search(experiment.source, there, replicates)
    tickets = [found.ticket for found in islice(search, max(experiment.carried))]
    begin = tickets[0] if experiment.source.rewind_step else dense
    chosen = [tickets[level - 1] for level in experiment.carried]
    if another_width(setup, there):
        return step(widened, setup, there, dense, whole=True), transfer(setup, chosen, there)
    return step(carried, setup, begin, whole=True), transfer(setup, chosen)


def _rival(setup: Setup, ticket: Task, dense: Task, count: int, made_by: Callable[..., Any]) -> Task:
    """The step that makes a control of each ticket in a stack of `count`; `dense` is the stack's dense training."""
    if needs_neighbour(made_by):
        return neighbours(setup, ticket, dense, count, control=made_by)
    return step(control_ticket, setup, ticket, control=made_by)
