"""What a plan will cost: trainings, steps, seconds, bytes. Trains for a moment on noise, and keeps nothing."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from winticket import data
from winticket.experiment.execution import Execution
from winticket.run import Task
from winticket.stages import Setup, dense_ticket, device, trial
from winticket.ticket import Mask, Ticket
from winticket.train import Engine, evaluate, may_stack, pace_examples, relative_cost

if TYPE_CHECKING:
    from winticket.experiment.plan import Cell, Plan

PROBE_STEPS = 24
PROBE_SECONDS = 1.0
START_SECONDS = 3.0  # a worker process importing torch, roughly, on any machine of these years
SPARSE_FROM = 0.455
"""Density from which steps cost what the dense network's do, as `winticket.train.relative_cost` has it."""
TASK_SECONDS = 0.05  # reading a task's inputs and writing its results, flushed to the disk


@dataclass(frozen=True)
class Cost:
    """What is left to do: trainings of one replicate, their optimiser steps, seconds on `workers`, bytes on disk.

    `reused` are trainings that the store has, `failed` those it has as failed and what depends on them: neither
    is run. `seconds` is None where it was not measured.
    """

    trainings: int
    reused: int
    failed: int
    steps: int
    seconds: float | None
    bytes: int
    workers: int
    work: Mapping[str, float] = field(default_factory=dict, repr=False)
    """Seconds that each training will take by itself, by the key of its task; empty where it was not measured."""
    repeated: tuple[Task, ...] = field(default=(), repr=False)
    """States whose training is in the store already, and is repeated up to them."""


def cost(planned: Plan, execution: Execution, *, measure: bool = True) -> Cost:
    """What a plan will cost beyond what the store has; `measure` trains for a moment on noise to time a step.

    Raises ValueError for a recipe whose arithmetic the engine cannot do here.
    """
    execution.check(planned.setup.recipe)
    store, workers = execution.store, execution.workers
    lost = [] if execution.retry_failed else planned.failed(store)
    missing = [cell for cell in planned.missing(store) if cell not in lost]
    states = planned.missing_states(store, missing)
    repeated = planned.repeated(states, missing)
    work = _work(planned, missing, repeated, engine=execution.engine) if measure else {}
    return Cost(
        trainings=planned.replicates(missing),
        reused=planned.replicates(list(planned.tasks))
        - planned.replicates(missing)
        - planned.replicates(lost),
        failed=planned.replicates(lost),
        steps=planned.steps(missing) + sum(round(task.weight) for task in repeated),
        seconds=START_SECONDS + _makespan(planned.order(repeated), work, max(workers, 1)) if work else None,
        bytes=_bytes(planned, missing) + _states_bytes(planned, states),
        workers=workers,
        work=work,
        repeated=tuple(repeated),
    )


def _makespan(order: Mapping[str, Sequence[str]], work: Mapping[str, float], workers: int) -> float:
    """Seconds until the last of the trainings is done, in the order in which they wait for one another."""
    from winticket.report.forecast import makespan  # with the report comes matplotlib, which takes its time

    return makespan(work, {key: order[key] for key in work}, workers=workers)


def _work(
    planned: Plan, missing: list[Cell], repeated: Sequence[Task], *, engine: Engine
) -> dict[str, float]:
    """Seconds that each missing training will take by itself, by key; none where noise does not suit the model."""
    try:
        speed = _speed(planned, engine)
    except Exception:  # noqa: BLE001 - a model that noise does not suit may yet train on data; the training will tell
        return {}
    work: dict[str, float] = {}
    here, source = planned.densities(), planned.source_densities()
    for at in missing:
        level, arm, _ = at
        density = (source if arm == "source" else here)[level]
        task = planned.tasks[at]
        steps = task.weight / _promised(planned, density)
        work[task.key] = steps * speed.step_seconds(density) + speed.start + TASK_SECONDS
    for task in repeated:  # a dense training, up to the last of the states
        work[task.key] = task.weight * speed.step_seconds(1.0) + speed.start + TASK_SECONDS
    return work


def _promised(planned: Plan, density: float) -> float:
    """The cost of a step that the weights of the plan's tasks were made with."""
    return relative_cost(planned.setup.module(), density, planned.setup.recipe)


@dataclass(frozen=True)
class _Speed:
    """Seconds of a step of one replicate here: of the dense network, and under a mask of the density `sparsest`."""

    dense: float
    sparse: float
    sparsest: float
    measuring: float
    """Seconds of the curves' evaluation, spread over the steps."""
    start: float
    """Seconds before a training's first step."""

    def step_seconds(self, density: float) -> float:
        """Between the two that were measured a step takes in proportion, up to where sparse kernels begin."""
        if density >= SPARSE_FROM or self.sparsest >= SPARSE_FROM:
            return self.dense + self.measuring
        share = max(density - self.sparsest, 0.0) / (SPARSE_FROM - self.sparsest)
        return self.sparse + share * (self.dense - self.sparse) + self.measuring


def _speed(planned: Plan, engine: Engine) -> _Speed:
    """Time a few steps on noise, in a stack of the plan's size, by one thread as the workers have it."""
    setup, densities = planned.setup, planned.densities()
    count = min(planned.experiment.stack, planned.experiment.replicates)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if not may_stack(setup.module(), device(), setup.recipe.stacking):
            count = 1  # the replicates take turns, so one tells for all
        whole = [dense_ticket(setup, r) for r in range(count)]
        dense, start = _step_seconds(setup, whole, engine=engine)
        sparse = dense
        if relative_cost(setup.module(), min(densities), setup.recipe, engine=engine) < 1:
            thinned = [_thinned(ticket, min(densities)) for ticket in whole]
            sparse, later = _step_seconds(setup, thinned, engine=engine)
            start = (start + later) / 2
        measuring = _evaluation_seconds(setup, whole) / setup.recipe.steps
    finally:
        torch.set_num_threads(threads)
    return _Speed(dense / count, sparse / count, min(densities), measuring / count, start)


def _thinned(ticket: Ticket, density: float) -> Ticket:
    """The same ticket under a random mask that keeps about the same share of every layer."""
    generator = torch.Generator().manual_seed(ticket.seeds.replicate)
    keep = {n: torch.rand(k.shape, generator=generator) < density for n, k in ticket.mask.keep.items()}
    return replace(ticket, mask=Mask(keep))


def _step_seconds(setup: Setup, stack: Sequence[Ticket], *, engine: Engine) -> tuple[float, float]:
    """Seconds of one step of the stack here, and those before the first: two lengths of training tell them apart."""
    few = 2
    trial(setup, stack, steps=few, engine=engine)  # traces and warms up
    short = _clocked(setup, stack, few, engine=engine)
    long = _clocked(setup, stack, 2 * few, engine=engine)
    more = few
    if (long - short) / few * PROBE_STEPS < PROBE_SECONDS:  # worth a better look
        more = PROBE_STEPS
        long = _clocked(setup, stack, few + more, engine=engine)
    each = max(long - short, 0.0) / more
    return each, max(short - few * each, 0.0)


def _clocked(setup: Setup, stack: Sequence[Ticket], steps: int, *, engine: Engine) -> float:
    begun = time.perf_counter()
    trial(setup, stack, steps=steps, engine=engine)
    return time.perf_counter() - begun


def _evaluation_seconds(setup: Setup, stack: list[Ticket]) -> float:
    """Seconds of a training's curves: validation examples, all or the first few, at each point, and test examples."""
    rows = 250
    blank = setup.blank(rows)
    part = data.Split(blank, blank if setup.tokens else torch.zeros(rows, dtype=torch.int64))
    first = stack[0].start
    weights = {k: torch.stack([t.start.weights[k] for t in stack]).to(device()) for k in first.weights}
    buffers = {k: torch.stack([t.start.buffers[k] for t in stack]).to(device()) for k in first.buffers}
    evaluate(setup.module(), weights, buffers, part, how=setup.recipe.stacking)
    begun = time.perf_counter()
    evaluate(setup.module(), weights, buffers, part, how=setup.recipe.stacking)
    seconds = time.perf_counter() - begun
    _, validation, test = setup.facts().sizes(validation=setup.validation, test=setup.test)
    points, regular = len(setup.recipe.grid()), len(setup.recipe.regular())
    answers = torch.empty(validation, *setup.input_shape) if setup.tokens else torch.empty(validation)
    few = pace_examples(data.Split(answers, answers))
    return seconds * (validation * regular + few * (points - regular) + 2 * test) / rows


def _states_bytes(planned: Plan, states: Sequence[Task]) -> int:
    """Disk that states on the way take: weights and what the optimiser remembers of each."""
    recipe = planned.setup.recipe
    remembered = (1 if recipe.momentum else 0) if recipe.optimizer == "sgd" else 2
    each = 4 * (1 + remembered) * sum(p.numel() for p in planned.setup.module().parameters())
    count = 0
    for task in states:
        steps, stack = task.options["steps"], task.label["count"]
        assert isinstance(steps, tuple)
        assert isinstance(stack, int)
        count += stack * len(steps)
    return each * count


def _bytes(planned: Plan, missing: list[Cell]) -> int:
    """Disk that the missing results take: a start, an end, a mask and a curve per replicate.

    Weights of which most are zero are stored as positions and values.
    """
    parameters = sum(p.numel() for p in planned.setup.module().parameters())
    eligible = planned.counts[0]
    curve = 7 * 8 * len(planned.setup.recipe.grid())
    total = 0
    for level, arm, first in missing:
        kept = planned.source_densities()[level] * eligible if arm == "source" else planned.counts[level]
        left = parameters - eligible + int(kept)
        end = 4 * (left if left < parameters / 2 else parameters)
        start = end if arm in planned.experiment.controls else 4 * parameters
        total += planned.count(first) * (start + end + 3 * eligible // 8 + curve)
    return total
