"""From an experiment to its tasks. Nothing here trains anything to keep."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from winticket.experiment.checks import check
from winticket.experiment.spec import METHODS, Experiment, control, stages
from winticket.procedures.setup import Setup
from winticket.procedures.stages import control_ticket, dense_ticket, spared, trained
from winticket.run import Store, Task, step, stored_needs
from winticket.train import relative_cost

Place = tuple[int, str, int]
"""Level (0: nothing pruned), arm, number of the stack's first replicate."""

GATE = "dense doubled"


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

    def count(self, first: int) -> int:
        """Replicates in the stack that begins with replicate `first`."""
        return min(self.experiment.stack, self.experiment.replicates - first)

    def steps(self, places: list[Place]) -> int:
        """Optimiser steps of one network in these places."""
        steps, start = self.setup.recipe.steps, self.experiment.rewind_step
        each = {"dense": steps, GATE: 2 * steps, "reinit": steps}
        return sum(self.count(first) * each.get(arm, steps - start) for _, arm, first in places)

    def replicates(self, places: list[Place]) -> int:
        """Trainings of one replicate in these places."""
        return sum(self.count(first) for _, _, first in places)

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
    return Plan(experiment, setup, tasks, counts)


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
    dense = step(dense_ticket, setup, tuple(replicates))
    save = (experiment.rewind_step,) if experiment.rewind_step else ()
    yield (0, "dense", first), at(setup, dense, arm="dense", level=0, save=save)
    if experiment.gate:
        longer = replace(setup, recipe=replace(setup.recipe, steps=2 * setup.recipe.steps))
        yield (0, GATE, first), at(longer, dense, arm=GATE, level=0)
    where: dict[str, Any] = {"rewind_step": experiment.rewind_step} if experiment.rewind_step else {}
    search = METHODS[experiment.method](
        setup, experiment.densities(setup), replicates, **stages(experiment), **where
    )
    left = 1 - experiment.rewind_step / experiment.recipe.steps
    for level, ticket in enumerate(search, 1):
        cost = relative_cost(
            setup.module(), counts[level] / counts[0], setup.recipe, engine=experiment.engine
        )
        yield (level, "ticket", first), at(setup, ticket, arm="ticket", level=level, cost=cost * left)
        for arm in experiment.controls:
            rival = step(control_ticket, setup, ticket, control=control(arm))
            whole = arm == "reinit"  # is trained from step 0
            yield (
                (level, arm, first),
                at(setup, rival, arm=arm, level=level, cost=cost * (1 if whole else left)),
            )
