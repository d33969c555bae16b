"""From an experiment to its tasks, and what they will cost. Nothing here trains anything to keep."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch

from winticket import data
from winticket.experiment.spec import METHODS, Experiment, control, stages
from winticket.procedures.setup import Setup
from winticket.procedures.stages import control_ticket, dense_ticket, trained
from winticket.run import Store, Task, step
from winticket.ticket import Ticket
from winticket.train import evaluate, train

Place = tuple[int, str, int]
"""Level (0: nothing pruned), arm, number of the stack's first replicate."""

GATE = "dense doubled"
PROBE_STEPS = 24


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

    def missing(self, store: Store | None) -> list[Place]:
        """The places whose results are not in the store."""
        return [p for p, t in self.tasks.items() if store is None or not store.has(t.key)]


@dataclass(frozen=True)
class Cost:
    """What is left to do: trainings of one replicate, their optimiser steps, seconds on `workers`, bytes on disk.

    `seconds` is None where it was not measured.
    """

    trainings: int
    reused: int
    steps: int
    seconds: float | None
    bytes: int
    workers: int


def plan(experiment: Experiment) -> Plan:
    """Lay out an experiment's tasks. Raises ValueError for whatever is wrong with it, before any training."""
    setup = experiment.setup()
    counts = tuple(experiment.counts(setup))
    _check_batch(experiment)
    setup.initial(0)
    tasks: dict[Place, Task] = {}
    for first in range(0, experiment.replicates, experiment.stack):
        last = min(first + experiment.stack, experiment.replicates)
        tasks.update(_stack(experiment, setup, range(first, last)))
    return Plan(experiment, setup, tasks, counts)


def cost(planned: Plan, store: Store | None, *, workers: int, measure: bool = True) -> Cost:
    """What a plan will cost beyond what the store has; `measure` trains for a moment on noise to time a step."""
    missing = planned.missing(store)
    replicates = sum(planned.count(first) for _, _, first in missing)
    everything = sum(planned.count(first) for _, _, first in planned.tasks)
    steps = int(sum(planned.tasks[p].weight for p in missing))
    seconds = None
    if measure and missing:
        per_step = seconds_per_step(
            planned.setup, min(planned.experiment.stack, planned.experiment.replicates)
        )
        chain = max(_chain(planned, missing, first) for first in {first for _, _, first in missing})
        seconds = max(steps / workers, chain) * per_step
    return Cost(replicates, everything - replicates, steps, seconds, _bytes(planned, missing), workers)


def seconds_per_step(setup: Setup, count: int) -> float:
    """Seconds that one step of one replicate takes here, in a stack of `count`, with its share of evaluation."""
    module = setup.module()
    recipe = replace(setup.recipe, steps=PROBE_STEPS, evaluate_every=PROBE_STEPS, warmup=0)
    rows = max(recipe.batch, 64)
    noise = data.Split(torch.zeros(rows, *setup.input_shape), torch.zeros(rows, dtype=torch.int64))
    pretend = _Noise(noise, data.Split(noise.x[:1], noise.y[:1]))
    stack = [dense_ticket(setup, r) for r in range(count)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        train(module, pretend, data, stack, recipe)  # traces and warms up
        begun = time.perf_counter()
        train(module, pretend, data, stack, recipe)
        step_seconds = (time.perf_counter() - begun) / PROBE_STEPS
        evaluation = _evaluation_seconds(setup, stack)
    finally:
        torch.set_num_threads(threads)
    points = len(setup.recipe.grid())
    return (step_seconds + evaluation * points / setup.recipe.steps) / count


@dataclass(frozen=True)
class _Noise:
    train: data.Split
    few: data.Split

    @property
    def validation(self) -> data.Split:
        return self.few

    @property
    def test(self) -> data.Split:
        return self.few


def _evaluation_seconds(setup: Setup, stack: list[Ticket]) -> float:
    """Seconds of one point of the curves: a forward pass over the validation and test examples."""
    rows = 250
    part = data.Split(torch.zeros(rows, *setup.input_shape), torch.zeros(rows, dtype=torch.int64))
    weights = {k: torch.stack([t.start.weights[k] for t in stack]) for k in stack[0].start.weights}
    buffers = {k: torch.stack([t.start.buffers[k] for t in stack]) for k in stack[0].start.buffers}
    evaluate(setup.module(), weights, buffers, part, how=setup.recipe.stacking)
    begun = time.perf_counter()
    evaluate(setup.module(), weights, buffers, part, how=setup.recipe.stacking)
    seconds = time.perf_counter() - begun
    loaded = setup.dataset(torch.device("cpu"))
    return seconds * (len(loaded.validation.y) + len(loaded.test.y)) / rows


def _stack(experiment: Experiment, setup: Setup, replicates: range) -> Iterator[tuple[Place, Task]]:
    """The tasks of one stack of replicates, whose keys depend on no other stack, level or arm."""
    first = replicates[0]
    at: Callable[..., Task] = partial(trained, first=first, count=len(replicates))
    dense = step(dense_ticket, setup, tuple(replicates))
    yield (0, "dense", first), at(setup, dense, arm="dense", level=0)
    if experiment.gate:
        longer = replace(setup, recipe=replace(setup.recipe, steps=2 * setup.recipe.steps))
        yield (0, GATE, first), at(longer, dense, arm=GATE, level=0)
    search = METHODS[experiment.method](setup, experiment.densities(), replicates, **stages(experiment))
    for level, ticket in enumerate(search, 1):
        yield (level, "ticket", first), at(setup, ticket, arm="ticket", level=level)
        for arm in experiment.controls:
            rival = step(control_ticket, setup, ticket, control=control(arm))
            yield (level, arm, first), at(setup, rival, arm=arm, level=level)


def _chain(planned: Plan, missing: list[Place], first: int) -> float:
    """Steps that have to follow one another: a stack's dense training and its tickets', level by level."""
    own = {p: planned.tasks[p].weight for p in missing if p[2] == first}
    return max(sum(w for p, w in own.items() if p[1] in ("dense", "ticket")), *own.values())


def _check_batch(experiment: Experiment) -> None:
    sizes = data.find_source(experiment.data).sizes(validation=experiment.validation, test=experiment.test)
    if experiment.recipe.batch > sizes[0]:
        raise ValueError(
            f"batch {experiment.recipe.batch} is larger than the {sizes[0]} training examples of {experiment.data}"
        )


def _bytes(planned: Plan, missing: list[Place]) -> int:
    """Disk that the missing results take: a start, an end, a mask and a curve per replicate.

    Weights of which most are zero are stored as positions and values.
    """
    parameters = sum(p.numel() for p in planned.setup.module().parameters())
    eligible = planned.counts[0]
    curve = 6 * 8 * len(planned.setup.recipe.grid())
    total = 0
    for level, arm, first in missing:
        left = parameters - eligible + planned.counts[level]
        end = 4 * (left if left < parameters / 2 else parameters)
        start = end if arm in planned.experiment.controls else 4 * parameters
        total += planned.count(first) * (start + end + 3 * eligible // 8 + curve)
    return total
