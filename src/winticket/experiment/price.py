"""Forecast what a plan costs: trainings, steps, seconds, bytes. It trains for a moment on noise and keeps nothing."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from winticket import data, objective
from winticket.experiment.execution import Execution
from winticket.experiment.plan import EXACT, Cell, Plan, in_float32
from winticket.run import Task
from winticket.run.cluster import Work
from winticket.stages import Setup, dense_ticket, device, trial
from winticket.ticket import Mask, Ticket
from winticket.train import Engine, evaluate, evaluate_outputs, may_stack, pace_examples, relative_cost

PROBE_STEPS = 24
PROBE_SECONDS = 1.0
START_SECONDS = 3.0  # Roughly the time in which a worker process imports torch.
SPARSE_FROM = 0.455
"""From this density on, a step costs as much as in the dense network (see `winticket.train.relative_cost`)."""
TASK_SECONDS = 0.05  # Time to read a task's inputs and to write its results, flushed to disk.


@dataclass(frozen=True)
class Cost:
    """The cost of what remains to be computed.

    trainings  trainings to compute, counted per replicate
    reused     trainings that are in the store already
    failed     trainings that the store records as failed, and those that depend on them; they do not run
    steps      optimiser steps
    seconds    wall-clock time on `workers` processes; None if it was not measured
    bytes      disk space
    workers    processes that compute; 0 for the calling one
    """

    trainings: int
    reused: int
    failed: int
    steps: int
    seconds: float | None
    bytes: int
    workers: int
    memory: int = 0
    """Bytes that the process which computes the largest training is estimated to need at most; 0 if unknown."""
    beside: int = 0
    """States in the course of trainings that are stored beside the trainings' own results."""
    work: Mapping[str, float] = field(default_factory=dict, repr=False)
    """Seconds of each training by itself, by the key of its task; empty if they were not measured."""
    repeated: tuple[Task, ...] = field(default=(), repr=False)
    """States whose training is in the store already, so that it must be repeated up to them.

    Priced from the beginning; if the store has an earlier state, the training is repeated from there and costs less.
    """

    def as_json(self) -> dict[str, Any]:
        """The numbers; of `repeated`, how many they are."""
        numbers = {name: value for name, value in vars(self).items() if name not in ("work", "repeated")}
        return {**numbers, "repeated": len(self.repeated)}


def cost(planned: Plan, execution: Execution, *, measure: bool = True) -> Cost:
    """The cost of a plan beyond what the store has already. With `measure`, it times a few steps on noise.

    Raises ValueError if the engine cannot compute in the recipe's precision on this device.

    >>> from winticket.experiment import Experiment, plan
    >>> planned = plan(Experiment.of("digits", steps=20, levels=3, replicates=5, controls=(), gate=False))
    >>> forecast = cost(planned, Execution.local("memory://runs"), measure=False)
    >>> forecast.trainings, forecast.steps, forecast.reused, forecast.seconds
    (20, 400, 0, None)
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
        seconds=START_SECONDS + Work(work, planned.order(repeated)).makespan(max(workers, 1))
        if work
        else None,
        bytes=_bytes(planned, missing) + _states_bytes(planned, states),
        workers=workers,
        memory=max((planned.tasks[cell].memory for cell in missing), default=0),
        beside=len(states) - len(repeated),
        work=work,
        repeated=tuple(repeated),
    )


def _work(
    planned: Plan, missing: list[Cell], repeated: Sequence[Task], *, engine: Engine
) -> dict[str, float]:
    """Seconds of each missing training by itself, by key; empty if none is missing or the model fails on noise."""
    if not missing and not repeated:
        return {}
    try:
        speed = _speed(planned, engine)
    except Exception:  # noqa: BLE001 - a model that cannot train on noise may still train on data
        return {}
    work: dict[str, float] = {}
    densities, source = planned.densities(), planned.source_densities()
    promised = {density: _promised(planned, density) for density in {*densities, *source}}
    for at in missing:
        level, arm, _ = at
        density = (source if arm == "source" else densities)[level]
        task = planned.tasks[at]
        steps = task.weight / promised[density]
        each = speed.exact if arm == EXACT else speed.step_seconds(density)
        work[task.key] = steps * each + speed.start + TASK_SECONDS
    for task in repeated:  # A dense training up to the last of the states.
        work[task.key] = task.weight * speed.step_seconds(1.0) + speed.start + TASK_SECONDS
    return work


def _promised(planned: Plan, density: float) -> float:
    """The relative cost of a step from which the plan computed the weight of its tasks."""
    return relative_cost(planned.setup.module(), density, planned.setup.recipe)


@dataclass(frozen=True)
class _Speed:
    """Seconds per step of one replicate on this machine: dense, and under a mask of the density `sparsest`."""

    dense: float
    sparse: float
    sparsest: float
    measuring: float
    """Seconds per step for evaluating the learning curves."""
    start: float
    """Seconds before a training's first step."""
    exact: float
    """Seconds per step of the dense network in float32, evaluation included."""

    def step_seconds(self, density: float) -> float:
        """Seconds of a step, interpolated between the measured densities; dense from the density SPARSE_FROM on."""
        if density >= SPARSE_FROM or self.sparsest >= SPARSE_FROM:
            return self.dense + self.measuring
        share = max(density - self.sparsest, 0.0) / (SPARSE_FROM - self.sparsest)
        return self.sparse + share * (self.dense - self.sparse) + self.measuring


def _speed(planned: Plan, engine: Engine) -> _Speed:
    """Time a few steps on noise, in a stack of the plan's size and with one thread, as workers compute."""
    setup, densities = planned.setup, planned.densities()
    count = min(planned.experiment.stack, planned.experiment.replicates)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if not may_stack(setup.module(), device(), setup.recipe.stacking):
            count = 1  # The replicates take turns, so one stands for all.
        whole = [dense_ticket(setup, r) for r in range(count)]
        dense, start = _step_seconds(setup, whole, engine=engine)
        sparse = dense
        if relative_cost(setup.module(), min(densities), setup.recipe, engine=engine) < 1:
            thinned = [_thinned(ticket, min(densities)) for ticket in whole]
            sparse, later = _step_seconds(setup, thinned, engine=engine)
            start = (start + later) / 2
        measuring = _evaluation_seconds(setup, whole) / setup.recipe.steps
        exact = dense
        if (0, EXACT, 0) in planned.tasks:
            exact, _ = _step_seconds(in_float32(setup), whole, engine=engine)
    finally:
        torch.set_num_threads(threads)
    return _Speed(
        dense / count, sparse / count, min(densities), measuring / count, start, (exact + measuring) / count
    )


def _thinned(ticket: Ticket, density: float) -> Ticket:
    """The ticket under a random mask that keeps about the share `density` of every layer."""
    generator = torch.Generator().manual_seed(ticket.seeds.replicate)
    keep = {n: torch.rand(k.shape, generator=generator) < density for n, k in ticket.mask.keep.items()}
    return replace(ticket, mask=Mask(keep))


def _step_seconds(setup: Setup, stack: Sequence[Ticket], *, engine: Engine) -> tuple[float, float]:
    """Seconds of one step of the stack, and before the first step; two trainings of different length separate them."""
    few = 2
    trial(setup, stack, steps=few, engine=engine)  # Traces and warms up.
    short = _clocked(setup, stack, few, engine=engine)
    long = _clocked(setup, stack, 2 * few, engine=engine)
    more = few
    if (
        long - short
    ) / few * PROBE_STEPS < PROBE_SECONDS:  # The steps are short, so more of them are affordable.
        more = PROBE_STEPS
        long = _clocked(setup, stack, few + more, engine=engine)
    each = max(long - short, 0.0) / more
    return each, max(short - few * each, 0.0)


def _clocked(setup: Setup, stack: Sequence[Ticket], steps: int, *, engine: Engine) -> float:
    begun = time.perf_counter()
    trial(setup, stack, steps=steps, engine=engine)
    return time.perf_counter() - begun


def _evaluation_seconds(setup: Setup, stack: list[Ticket]) -> float:
    """Seconds to evaluate a training's curves: at each point all or a few validation examples; test examples."""
    rows = 250
    blank, made = setup.blank(rows), setup.loss_and_metric()
    task = made.objective.task if made else "classification"
    noise = blank if setup.tokens else objective.noise_targets(task, rows, setup.classes, setup.input_shape)
    part = data.Split(blank, noise)
    first = stack[0].start
    weights = {k: torch.stack([t.start.weights[k] for t in stack]).to(device()) for k in first.weights}
    buffers = {k: torch.stack([t.start.buffers[k] for t in stack]).to(device()) for k in first.buffers}

    def evaluated() -> None:
        if made is None:
            evaluate(setup.module(), weights, buffers, part, how=setup.recipe.stacking)
            return
        _, outputs = evaluate_outputs(
            setup.module(), weights, buffers, part, objective=made, how=setup.recipe.stacking
        )
        for one in outputs:
            made.score_needed(one, part.y)

    evaluated()
    begun = time.perf_counter()
    evaluated()
    seconds = time.perf_counter() - begun
    _, validation, test = setup.facts().sizes(validation=setup.validation, test=setup.test)
    points, regular = len(setup.recipe.grid()), len(setup.recipe.regular())
    several = setup.input_shape if setup.tokens else part.y.shape[1:]
    answers = torch.empty(validation, *several, device="meta")
    few = pace_examples(data.Split(answers, answers), alone=made is not None and made.one_answer)
    return seconds * (validation * regular + few * (points - regular) + 2 * test) / rows


def _states_bytes(planned: Plan, states: Sequence[Task]) -> int:
    """Bytes of states in the course of a training: weights, and the optimiser's state of each."""
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
    """Bytes of the missing results: start, end, mask and curve of each replicate.

    Weights that are mostly zero are stored as positions and values.
    """
    parameters = sum(p.numel() for p in planned.setup.module().parameters())
    eligible = planned.counts[0]
    curve = 7 * 8 * len(planned.setup.recipe.grid())
    total = 0
    for level, arm, first in missing:
        kept = planned.source_densities()[level] * eligible if arm == "source" else planned.counts[level]
        nonzero = parameters - eligible + int(kept)
        end = 4 * (nonzero if nonzero < parameters / 2 else parameters)
        start = end if arm in planned.experiment.controls else 4 * parameters
        total += planned.count(first) * (start + end + 3 * eligible // 8 + curve)
    return total
