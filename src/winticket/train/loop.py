"""The only training loop: it takes a stack of tickets and returns a trajectory for each."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from winticket.objective import LossAndMetric
from winticket.ticket import Failed, Ticket, Trajectory
from winticket.train import flops
from winticket.train.changing import Changes, dense_gradient
from winticket.train.curves import MEASURED, curve
from winticket.train.engine import Engine
from winticket.train.feed import Data, Feed, Order
from winticket.train.fit import common_start
from winticket.train.precision import check_precision, matrix_products
from winticket.train.recipe import Recipe
from winticket.train.running import (
    Settings,
    Training,
    begin,
    replicate_state,
    restore,
    snapshot,
    to_checkpoint,
    with_masks,
)
from winticket.train.stretch import stretch
from winticket.train.supermask import Learning

PAUSE = 250  # a training can be checkpointed at least once in so many steps


class Checkpoint(Protocol):
    """Keeps the state of a training in progress; supplied by the executor."""

    def load(self) -> Any: ...
    def save(self, value: Any) -> None: ...
    def due(self) -> bool: ...


def train(
    module: nn.Module,
    data: Data,
    order: Order,
    stack: Sequence[Ticket | Failed],
    recipe: Recipe,
    *,
    save: Sequence[int] = (),
    until: int | None = None,
    device: str | torch.device = "cpu",
    engine: Engine = "auto",
    per_replicate: bool = False,
    objective: LossAndMetric | None = None,
    changes: Changes | None = None,
    learning: Learning | None = None,
    checkpoint: Checkpoint | None = None,
    report: Callable[[int, int], None] | None = None,
) -> tuple[Trajectory | Failed, ...]:
    """Train every ticket of a stack together, by one recipe, and return a trajectory for each.

    `module` defines the computation. Weights and buffers come from the tickets, which must agree in shapes and in
    start step. A pruned weight is exactly 0 before the first step and after every one. If a ticket's start holds
    optimiser state, training resumes from it; otherwise the optimiser starts fresh. States are saved with the
    optimiser's state after the steps in `save`, and without it at the end, since nothing resumes from there. Training
    stops after step `until` (default: the recipe's last). A replicate whose loss stops being finite becomes a
    `Failed` and leaves the others' numbers alone; a `Failed` in the stack is returned unchanged.

    The replicates share `data`; with `per_replicate`, every tensor in it has a leading dimension and replicate r uses
    entry r. If an example has T answers, classes are y [N, T], logits are [N, T, K], and loss and accuracy are means
    over all answers. Replicate r sees the examples in the order of `seeds.derive("order")`, in batches of
    `recipe.batch` that may span two epochs, so all arms of a replicate see the same batches. With an `objective`, its
    loss is minimised, the curves' "accuracies" are its metric in the metric's own unit, and targets are as
    `objective.trained` makes them.

    Curves have a point at each step of `recipe.grid(start)`; `train_loss` is the mean since the previous point (nan at
    the first). Early points evaluate only the first few hundred validation examples, and `pace_accuracy` is the
    accuracy on those. Regular points evaluate all of them; so does every point if there are no more than those few
    hundred. Test data are evaluated only at the two points that are reported: the one with the least validation loss
    and the last. At all other points `test_loss` and `test_accuracy` are nan.

    `engine` says how layers with pruned weights are computed: "auto" uses the sparse kernels for layers that they make
    faster, "dense" never does, and "sparse" does for every layer that they support. The numbers agree to float
    tolerance; see `winticket.train.engine`.

    With `changes` the mask changes during training. With `learning` the mask is learned, dense, and no weight is
    updated. Either way the trajectories' tickets have the last mask and their original start, and `save` must be empty.
    `about["work"]` counts the floating-point operations of the whole training, by the weights kept: a step takes three
    times those of a forward pass.

    Raises ValueError if tickets, module and recipe do not fit one another, if `until` or `save` lies outside the
    training, or if this device or engine does not have the recipe's precision.

    >>> from types import SimpleNamespace
    >>> import torch
    >>> from winticket import data
    >>> from winticket.ticket import Mask, Seeds, State
    >>> x = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
    >>> examples = data.Split(x, (x[:, 0] > 0).long())
    >>> dataset = SimpleNamespace(train=examples, validation=examples, test=examples)
    >>> module = torch.nn.Linear(4, 2)
    >>> start = State({"weight": torch.zeros(2, 4), "bias": torch.zeros(2)}, {}, {}, step=0)
    >>> mask = Mask({"weight": torch.tensor([[True, False, False, False]] * 2)})
    >>> stack = [Ticket(mask, start, "ticket", Seeds(0, replicate)) for replicate in range(2)]
    >>> paths = train(module, dataset, data, stack, Recipe(steps=100, batch=30, lr=0.1))
    >>> [path.curve.test_accuracy[-1].item() > 0.98 for path in paths]
    [True, True]
    """
    living = next((ticket for ticket in stack if isinstance(ticket, Ticket)), None)
    if living is None:
        return tuple(t for t in stack if isinstance(t, Failed))
    # A copy of another's weights fills a failed replicate's slot, so that nobody else's noise or sums move.
    alive = [t if isinstance(t, Ticket) else replace(living, seeds=t.seeds) for t in stack]
    start = common_start(alive, module, recipe)
    end = _checked_end(start, recipe, until=until, save=save)
    device = torch.device(device)
    check_precision(recipe.precision, device, engine)
    if save and (changes or learning):
        raise ValueError("states can be saved during training only if the mask stays the same")
    example = (data.train.x[0, :2] if per_replicate else data.train.x[:2]).to(device)
    engine = "dense" if learning else engine
    settings = Settings(module.to(device), recipe, device, engine, example, changes, learning, objective)
    training = begin(alive, settings)
    training.curves.per_replicate = per_replicate
    feed = Feed(data.train, order, alive, recipe, per_replicate=per_replicate)
    if checkpoint and (stored := checkpoint.load()) is not None:
        training = restore(training, stored)
    with (
        matrix_products("float32"),
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
    ):
        training = _advance(training, data, feed, tuple(save), end=end, checkpoint=checkpoint, report=report)
        results = _finish(training, alive, data)
    return tuple(t if isinstance(t, Failed) else result for t, result in zip(stack, results, strict=True))


def _checked_end(start: int, recipe: Recipe, *, until: int | None, save: Sequence[int]) -> int:
    """The step that training stops after. ValueError if `until` or a step in `save` lies outside the training."""
    end = recipe.steps if until is None else until
    if until is not None and not start < end <= recipe.steps:
        raise ValueError(f"until is step {until}, but training runs from {start} to {recipe.steps}")
    if any(not start < s <= end for s in save):
        raise ValueError(f"save asks for steps {list(save)}, but training runs from {start} to {end}")
    return end


def _advance(
    training: Training,
    data: Data,
    feed: Feed,
    save: tuple[int, ...],
    *,
    end: int,
    checkpoint: Checkpoint | None,
    report: Callable[[int, int], None] | None,
) -> Training:
    """Train to step `end`, a stretch at a time: to the next grid point, save, change or pause."""
    start, steps, changes = training.start, training.recipe.steps, training.settings.changes
    grid, regular = training.recipe.grid(start), set(training.recipe.regular(start))
    changing = set(changes.steps(start, steps)) if changes else set()
    operations = _operations(training)
    if not training.curves.rows:
        _measure(training, data)
    planned = sorted({end, *grid, *save, *changing, *range(start, steps, PAUSE)})
    while training.step < end:
        before = training.step
        stretch(training, feed, planned[bisect_right(planned, before)], report, pauses=checkpoint is not None)
        stop = training.step
        training.work = [
            done + (stop - before) * each for done, each in zip(training.work, operations, strict=True)
        ]
        if stop in save:
            training.saved[stop] = snapshot(training)
        if stop in grid:
            since = max(g for g in grid if g < stop)
            _measure(training, data, training.losses[since - start : stop - start], whole=stop in regular)
        if not bool(torch.isfinite(training.losses[before - start : stop - start].sum(0)).any()):
            break  # every replicate has diverged; there is nothing left to train
        if changes and stop in changing:
            training = _changed(training, changes, feed)
            operations = _operations(training)
        if checkpoint and stop < steps and checkpoint.due():
            checkpoint.save(to_checkpoint(training))
    return training


def _changed(training: Training, changes: Changes, feed: Feed) -> Training:
    """The training under the next masks; a replicate that has diverged keeps its mask."""
    module, device = training.settings.module, training.settings.device
    now, masks = snapshot(training), []
    rows, drawn = feed.stretch(training.step, training.step + 1)
    x, y = (t.to(device) for t in feed.batch(rows, drawn, 0))
    count = flops.forward(module, training.settings.example)
    finite = torch.isfinite(training.losses[: training.step - training.start]).all(0).tolist()
    for r, ticket in enumerate(training.tickets):

        def gradient(r: int = r, ticket: Ticket = ticket) -> Mapping[str, Tensor]:
            if count:  # pruned weights cost nothing forward and by inputs; by weights, every weight costs
                operations = 2 * count.masked(training.computing[r]) + count.total
                training.work[r] += training.recipe.batch * operations
            # Dropout's noise depends on this replicate alone, whichever others have diverged.
            torch.default_generator.manual_seed(ticket.seeds.derive("change", training.step))
            weights, buffers = ({k: v[r] for k, v in now[part].items()} for part in ("weights", "buffers"))
            objective = training.settings.objective
            gradients = dense_gradient(module, weights, buffers, x[r], y[r], objective=objective)
            return {name: g.cpu() for name, g in gradients.items()}

        state = replicate_state(now, r, training.step, ticket, training.dead[r])
        # The weights of the last update have not been in any loss yet, so they are looked at too.
        sound = finite[r] and all(bool(w.isfinite().all()) for w in state.weights.values())
        masks.append(changes.change(ticket, state, gradient) if sound else ticket.mask)
    return with_masks(training, masks, now)


def _operations(training: Training) -> list[float]:
    """The operations of a step of each replicate, by the weights kept; nan if they cannot be counted.

    A step computes three times: forward, the gradient by inputs, the gradient by weights.
    """
    count = flops.forward(training.settings.module, training.settings.example)
    if count is None:
        return [math.nan] * len(training.tickets)
    learning, operations = training.settings.learning, []
    for ticket, computing in zip(training.tickets, training.computing, strict=True):
        kept = (
            {n: (c, ticket.mask.keep[n].numel()) for n, c in learning.counts.items()}
            if learning
            else computing
        )
        # Learning a mask needs the gradients of all weights, kept or not.
        by_weight = count.total if learning else count.masked(kept)
        operations.append(training.recipe.batch * (2 * count.masked(kept) + by_weight))
    return operations


def _measure(training: Training, data: Data, losses: Tensor | None = None, *, whole: bool = True) -> None:
    """Add a point to the curves; `losses` [T, S] are those since the point before."""
    if training.supermask:
        training.supermask.settle(training.weights)
    # If masks change, the weights of the early stop must outlive the current layout, so they are kept unpacked.
    kept = training.converted.unpack(training.weights) if training.settings.changes else None
    training.curves.measure(
        training.module,
        training.weights,
        training.buffers,
        data,
        losses,
        indices=training.converted.indices,
        how=training.recipe.stacking,
        kept=kept,
        whole=whole,
    )


def _finish(training: Training, alive: Sequence[Ticket], data: Data) -> list[Trajectory | Failed]:
    """Evaluate the test data, and make each replicate's trajectory."""
    start, grid = training.start, training.recipe.grid(training.start)[: len(training.curves.rows)]
    if training.supermask:
        training.supermask.settle(training.weights)
    table = training.curves.finish(
        training.module,
        training.weights,
        training.buffers,
        data,
        indices=training.converted.indices,
        how=training.recipe.stacking,
        early=training.settings.module if training.settings.changes else None,
    )
    masks = training.supermask.masks() if training.supermask else [t.mask for t in training.tickets]
    states, about = _states(training), _about(training, alive)
    evaluated = torch.stack(training.curves.rows)[..., MEASURED]
    results: list[Trajectory | Failed] = []
    for r, ticket in enumerate(alive):
        diverged = _diverged(training.losses[: training.step - start, r], evaluated[:, r], grid, start)
        if diverged is not None:
            results.append(
                Failed(f"the loss stopped being finite at step {diverged}", diverged, ticket.seeds)
            )
            continue
        mask = masks[r] if masks[r] is ticket.mask else replace(masks[r], layout=ticket.mask.layout)
        final = replace(ticket, mask=mask)
        saved = {
            step: replicate_state(parts, r, step, final, training.dead[r]) for step, parts in states.items()
        }
        work = training.work[r] if math.isfinite(training.work[r]) else None
        results.append(Trajectory(final, saved, curve(table[:, r], grid), {**about, "work": work}))
    return results


def _states(training: Training) -> dict[int, Mapping[str, Mapping[str, Tensor]]]:
    """The stack's state by step: those saved on request, and the last one, without the optimiser's."""
    last = {
        "weights": training.converted.unpack(training.weights),
        "buffers": training.buffers,
        "optimizer": {},
    }
    return {**training.saved, training.step: {**last, **training.saved.get(training.step, {})}}


def _about(training: Training, alive: Sequence[Ticket]) -> dict[str, Any]:
    """How the stack was computed, for the trajectories' `about`."""
    lifted = training.update.lifted if training.update else None
    return {
        "stacked": lifted.stacked if lifted else None,
        "stack": len(alive),
        "reason": lifted.reason if lifted else "",
        "recorded": training.update.recorded if training.update else "",
        "sparse": sorted(training.converted.structures),
        "optimizer_state": "restored" if alive[0].start.optimizer else "fresh",
        "steps": training.step - training.start,
    }


def _diverged(losses: Tensor, evaluated: Tensor, grid: Sequence[int], start: int) -> int | None:
    """The first step with a loss that is not finite, in training or in evaluation; None if there is none."""
    bad = torch.nonzero(~torch.isfinite(losses))
    if len(bad):
        return start + int(bad[0]) + 1
    measured = torch.nonzero(~torch.isfinite(evaluated))
    return grid[int(measured[0])] if len(measured) else None
