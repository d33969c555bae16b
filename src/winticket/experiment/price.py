"""What a plan will cost: trainings, steps, seconds, bytes. Trains for a moment on noise, and keeps nothing."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from winticket import data
from winticket.procedures.setup import Setup
from winticket.procedures.stages import dense_ticket, place
from winticket.run import Store, stored_needs, walk
from winticket.ticket import Failed, Ticket, Trajectory
from winticket.train import evaluate, may_stack, pace_examples, train

if TYPE_CHECKING:
    from winticket.experiment.plan import Place, Plan

PROBE_STEPS = 24
PROBE_SECONDS = 1.0
START_SECONDS = 3.0  # a worker process importing torch, roughly, on any machine of these years
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


def cost(
    planned: "Plan", store: Store, *, workers: int, measure: bool = True, retry_failed: bool = False
) -> Cost:
    """What a plan will cost beyond what the store has; `measure` trains for a moment on noise to time a step."""
    lost = [] if retry_failed else planned.failed(store)
    missing = [place for place in planned.missing(store) if place not in lost]
    return Cost(
        trainings=planned.replicates(missing),
        reused=planned.replicates(list(planned.tasks))
        - planned.replicates(missing)
        - planned.replicates(lost),
        failed=planned.replicates(lost),
        steps=planned.steps(missing),
        seconds=_seconds(planned, missing, max(workers, 1)) if measure and missing else None,
        bytes=_bytes(planned, missing),
        workers=workers,
    )


def trial(
    setup: Setup, stack: Sequence[Ticket], *, steps: int = PROBE_STEPS
) -> tuple[Trajectory | Failed, ...]:
    """A short training on noise, with the recipe's own batch and optimiser."""
    recipe = replace(setup.recipe, steps=steps, evaluate_every=steps, early_points=False, warmup=0)
    rows = recipe.batch
    generator = torch.Generator().manual_seed(0)
    if setup.tokens:
        x = torch.randint(setup.classes, (rows, *setup.input_shape), generator=generator)
        some = data.Split(x, x.roll(-1, 1))
    else:
        noise = torch.rand(rows, *setup.input_shape, generator=generator)
        some = data.Split(noise, torch.arange(rows) % setup.classes)
    few = data.Split(some.x[:1], some.y[:1])
    return train(
        setup.module(), _Noise(some, few, few), data, stack, recipe, device=place(), engine=setup.engine
    )


@dataclass(frozen=True)
class _Noise:
    train: data.Split
    validation: data.Split
    test: data.Split


def _seconds(planned: "Plan", missing: list["Place"], workers: int) -> float | None:
    """Work shared by the workers, or the longest chain of trainings that wait for one another."""
    try:
        each, start = _step_seconds(
            planned.setup, min(planned.experiment.stack, planned.experiment.replicates)
        )
    except Exception:  # noqa: BLE001 - a model that noise does not suit may yet train on data; the training will tell
        return None
    steps = sum(planned.tasks[p].weight for p in missing)
    at_once = min(workers, len(missing))
    chain = max(_chain(planned, missing, first) for first in {first for _, _, first in missing})
    return max(steps / at_once, chain) * each + len(missing) / at_once * TASK_SECONDS + start


def _step_seconds(setup: Setup, count: int) -> tuple[float, float]:
    """Seconds of one step of one dense replicate here, in a stack of `count`, with its evaluation; and to start."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if not may_stack(setup.module(), place(), setup.recipe.stacking):
            count = 1  # the replicates take turns, so one tells for all
        stack = [dense_ticket(setup, r) for r in range(count)]
        begun = time.perf_counter()
        trial(setup, stack, steps=2)  # traces and warms up
        traced = time.perf_counter()
        trial(setup, stack, steps=2)
        stepping = (time.perf_counter() - traced) / 2
        if stepping * PROBE_STEPS < PROBE_SECONDS:  # worth a better look
            again = time.perf_counter()
            trial(setup, stack, steps=PROBE_STEPS)
            stepping = (time.perf_counter() - again) / PROBE_STEPS
        measuring = _evaluation_seconds(setup, stack) / setup.recipe.steps
    finally:
        torch.set_num_threads(threads)
    return (stepping + measuring) / count, START_SECONDS + traced - begun


def _evaluation_seconds(setup: Setup, stack: list[Ticket]) -> float:
    """Seconds of a training's curves: validation examples, all or the first few, at each point, and test examples."""
    rows = 250
    blank = setup.blank(rows)
    part = data.Split(blank, blank if setup.tokens else torch.zeros(rows, dtype=torch.int64))
    first = stack[0].start
    weights = {k: torch.stack([t.start.weights[k] for t in stack]).to(place()) for k in first.weights}
    buffers = {k: torch.stack([t.start.buffers[k] for t in stack]).to(place()) for k in first.buffers}
    evaluate(setup.module(), weights, buffers, part, how=setup.recipe.stacking)
    begun = time.perf_counter()
    evaluate(setup.module(), weights, buffers, part, how=setup.recipe.stacking)
    seconds = time.perf_counter() - begun
    _, validation, test = setup.found().sizes(validation=setup.validation, test=setup.test)
    points, regular = len(setup.recipe.grid()), len(setup.recipe.regular())
    answers = torch.empty(validation, *setup.input_shape) if setup.tokens else torch.empty(validation)
    few = pace_examples(data.Split(answers, answers))
    return seconds * (validation * regular + few * (points - regular) + 2 * test) / rows


def _chain(planned: "Plan", missing: list["Place"], first: int) -> float:
    """Weight of the longest chain of a stack's trainings that wait for one another."""
    own = {planned.tasks[p].key: planned.tasks[p] for p in missing if p[2] == first}
    longest: dict[str, float] = {}
    for task in walk(own.values()):
        if task.stored:
            before = max((longest[need.key] for need in stored_needs(task)), default=0.0)
            longest[task.key] = before + (own[task.key].weight if task.key in own else 0.0)
    return max(longest.values())


def _bytes(planned: "Plan", missing: list["Place"]) -> int:
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
