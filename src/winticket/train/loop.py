"""The only training loop: a stack of tickets in, their trajectories out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from winticket.ticket import Failed, Ticket, Trajectory
from winticket.train import flops, stacked
from winticket.train.changing import Changes, dense_gradient
from winticket.train.curves import MEASURED, curve
from winticket.train.engine import Engine
from winticket.train.feed import Data, Feed, Order
from winticket.train.fit import common_start
from winticket.train.precision import check_precision, matrix_products
from winticket.train.recipe import Recipe
from winticket.train.running import Asked, Run, begin, one, remasked, restore, set_aside, snapshot
from winticket.train.step import Step
from winticket.train.supermask import Learning

PAUSE = 250  # steps after which, at the latest, a training can be put aside


class Checkpoint(Protocol):
    """Where a training in progress is put aside; supplied by the executor."""

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
    own: bool = False,
    changes: Changes | None = None,
    learning: Learning | None = None,
    checkpoint: Checkpoint | None = None,
    report: Callable[[int, int], None] | None = None,
) -> tuple[Trajectory | Failed, ...]:
    """Train every ticket of a stack by one recipe, together, and return a trajectory for each.

    `module` gives the computation; weights and buffers come from the tickets, which agree in shapes and in start
    step. A pruned weight is exactly 0 before the first step and after every one. A ticket whose start has optimiser
    state goes on with it, else the optimiser starts afresh. States are saved at the steps in `save`, with the
    optimiser's, and at the end, without (nothing goes on from there). With `until`, training stops
    after that step. A replicate whose loss stops being finite
    becomes a `Failed` and leaves the others' numbers alone; a `Failed` that comes in goes out as it is.

    `data` are shared by the replicates, or, with `own`, each has its own under a leading dimension for the stack. Where
    classes are y [N, T], an example wants T answers, logits [N, T, K], and loss and accuracy are means over all of
    them. Replicate r sees the examples in the order of `seeds.derive("order")`, in batches of `recipe.batch` that run
    on over the ends of epochs; so every arm of a replicate sees the same. Curves have a point at each step of
    `recipe.grid(start)`: `train_loss` is the mean since the point before (nan at the first).
    Validation data are looked at at each of them: at the early points only the first few hundred examples, from which
    `pace_accuracy` is; at the regular ones all, and where there are no more than those few hundred, at every point.
    Test data are looked at only at the two points that are reported, that of least validation loss and the last;
    elsewhere `test_loss` and `test_accuracy` are nan.

    `engine` says how layers with pruned weights are computed: "auto" on the sparse kernels where those are faster,
    "dense", or "sparse" wherever that can be. The numbers agree to float tolerance; see `winticket.train.engine`.

    With `changes` the mask changes on the way; with `learning` no weight is updated and a mask is learned (dense). The
    trajectories' tickets then have the last mask, with the start that they came with, and nothing is saved on the way.
    `about["work"]` are floating-point operations of the whole training, 3 per forward one, by the weights kept.
    """
    living = next((ticket for ticket in stack if isinstance(ticket, Ticket)), None)
    if living is None:
        return tuple(t for t in stack if isinstance(t, Failed))
    # A failed replicate's place is held by another's weights: whose noise and whose sums are whose does not move.
    alive = [t if isinstance(t, Ticket) else replace(living, seeds=t.seeds) for t in stack]
    start = common_start(alive, module, recipe)
    end = recipe.steps if until is None else until
    if until is not None and not start < end <= recipe.steps:
        raise ValueError(f"until is step {until}, but training runs from {start} to {recipe.steps}")
    if any(not start < s <= end for s in save):
        raise ValueError(f"save asks for steps {list(save)}, but training runs from {start} to {end}")
    check_precision(recipe.precision, torch.device(device), engine)
    if save and (changes or learning):
        raise ValueError("states are saved on the way only where the mask is one and the same")
    example = data.train.x[0, :2] if own else data.train.x[:2]
    device = torch.device(device)
    engine = "dense" if learning else engine
    asked = Asked(module.to(device), recipe, device, engine, example.to(device), changes, learning)
    run = begin(alive, asked)
    run.curves.own = own
    feed = Feed(data.train, order, alive, recipe, own=own)
    kept = checkpoint.load() if checkpoint else None
    if kept is not None:
        run = restore(run, kept)
    with (
        matrix_products("float32"),
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
    ):
        run = _advance(run, data, feed, tuple(save), end=end, checkpoint=checkpoint, report=report)
        results = _finish(run, alive, data)
    return tuple(t if isinstance(t, Failed) else result for t, result in zip(stack, results, strict=True))


def _advance(
    run: Run,
    data: Data,
    feed: Feed,
    save: tuple[int, ...],
    *,
    end: int,
    checkpoint: Checkpoint | None,
    report: Callable[[int, int], None] | None,
) -> Run:
    """Train `run` to step `end`, a stretch at a time: to the next grid point, save, change or pause."""
    start, steps, changes = run.start, run.recipe.steps, run.asked.changes
    grid, regular = run.recipe.grid(start), set(run.recipe.regular(start))
    changing = set(changes.steps(start, steps)) if changes else set()
    operations = _operations(run)
    if not run.curves.rows:
        _measure(run, data)
    for stop in sorted({end, *grid, *save, *changing, *range(start, steps, PAUSE)}):
        if stop <= run.step:
            continue
        if stop > end:
            break
        before = run.step
        _stretch(run, feed, stop, report)
        run.step = stop
        run.work = [done + (stop - before) * each for done, each in zip(run.work, operations, strict=True)]
        if stop in save:
            run.saved[stop] = snapshot(run)
        if stop in grid:
            since = max(g for g in grid if g < stop)
            _measure(run, data, run.losses[since - start : stop - start], whole=stop in regular)
        if not bool(torch.isfinite(run.losses[before - start : stop - start].sum(0)).any()):
            break  # every replicate has diverged; there is nothing left to train
        if changes and stop in changing:
            run = _changed(run, changes, feed)
            operations = _operations(run)
        if checkpoint and stop < steps and checkpoint.due():
            checkpoint.save(set_aside(run))
    return run


def _changed(run: Run, changes: Changes, feed: Feed) -> Run:
    """The run with the masks that follow; a replicate that has diverged keeps its own."""
    now, masks = snapshot(run), []
    rows, drawn = feed.stretch(run.step, run.step + 1)
    x, y = (t.to(run.asked.device) for t in feed.batch(rows, drawn, 0))
    count = flops.forward(run.asked.module, run.asked.example)
    sound = torch.isfinite(run.losses[: run.step - run.start]).all(0).tolist()
    for r, ticket in enumerate(run.tickets):

        def gradient(r: int = r, ticket: Ticket = ticket) -> Mapping[str, Tensor]:
            if count:  # weights that are 0 are so forward and by inputs; by weights all count
                run.work[r] += run.recipe.batch * (2 * count.masked(run.kept[r]) + count.total)
            # Dropout's noise in it is the replicate's own, whoever else has diverged.
            torch.default_generator.manual_seed(ticket.seeds.derive("change", run.step))
            weights, buffers = ({k: v[r] for k, v in now[part].items()} for part in ("weights", "buffers"))
            found = dense_gradient(run.asked.module, weights, buffers, x[r], y[r])
            return {name: g.cpu() for name, g in found.items()}

        state = one(now, r, run.step, ticket, run.gone[r])
        # The last update's weights were in no loss yet.
        goes_on = sound[r] and all(bool(w.isfinite().all()) for w in state.weights.values())
        masks.append(changes.change(ticket, state, gradient) if goes_on else ticket.mask)
    return remasked(run, masks, now)


def _stretch(run: Run, feed: Feed, stop: int, report: Callable[[int, int], None] | None) -> None:
    """The hot loop: gather, gradient, update, mask."""
    recipe, module, first, start = run.recipe, run.module, run.step, run.start
    device = run.losses.device
    seed_noise = torch.cuda.manual_seed if device.type == "cuda" else torch.default_generator.manual_seed
    rows, drawn = feed.stretch(first, stop)
    module.train()
    if run.update is None:
        x, y = (t.to(device) for t in feed.batch(rows, drawn, 0))
        x = stacked.channels_last(module, x, recipe.stacking)
        lifted = stacked.gradients(
            module, run.weights, run.all_buffers, x, y, how=recipe.stacking, precision=recipe.precision
        )
        run.update = Step(
            lifted,
            run.weights,
            buffers=run.all_buffers,
            masks=run.masks,
            optimizer=run.optimizer,
            recipe=recipe,
            supermask=run.supermask,
        )
    update, lifted = run.update, run.update.lifted
    losses: list[Tensor] = []
    gradient_mode = torch.inference_mode if lifted.traced else torch.no_grad
    with gradient_mode(), matrix_products(recipe.precision):
        for step in range(first, stop):
            x, y = (t.to(device) for t in feed.batch(rows, drawn, step - first, laid=lifted.batch_last))
            if not lifted.stacked:
                x = stacked.channels_last(module, x, recipe.stacking)
            # Dropout's noise is a function of the step alone, so that a run continued or rewound repeats it.
            seed_noise(feed.noise + step)
            losses.append(update(x, y, recipe.rate(step)))
            if report:
                report(step + 1, recipe.steps)
        run.losses[first - start : stop - start] = torch.stack(losses)


def _operations(run: Run) -> list[float]:
    """The operations of a step by replicate, nan where they cannot be counted: by the weights kept, three times."""
    count = flops.forward(run.asked.module, run.asked.example)
    if count is None:
        return [math.nan] * len(run.tickets)
    found: list[float] = []
    for ticket, alive in zip(run.tickets, run.kept, strict=True):
        learning = run.asked.learning
        kept = (
            {n: (c, ticket.mask.keep[n].numel()) for n, c in learning.counts.items()} if learning else alive
        )
        # A mask is learned by the gradients of all weights, kept or not.
        by_weight = count.total if learning else count.masked(kept)
        found.append(run.recipe.batch * (2 * count.masked(kept) + by_weight))
    return found


def _measure(run: Run, data: Data, losses: Tensor | None = None, *, whole: bool = True) -> None:
    if run.supermask:
        run.supermask.settle(run.weights)
    run.curves.measure(
        run.module,
        run.weights,
        run.buffers,
        data,
        losses,
        indices=run.converted.indices,
        how=run.recipe.stacking,
        # Where masks change, what is kept of the early stop has to outlast this one's layout.
        kept=run.converted.unpack(run.weights) if run.asked.changes else None,
        whole=whole,
    )


def _finish(run: Run, alive: Sequence[Ticket], data: Data) -> list[Trajectory | Failed]:
    start, grid = run.start, run.recipe.grid(run.start)[: len(run.curves.rows)]
    if run.supermask:
        run.supermask.settle(run.weights)
    table = run.curves.finish(
        run.module,
        run.weights,
        run.buffers,
        data,
        indices=run.converted.indices,
        how=run.recipe.stacking,
        early=run.asked.module if run.asked.changes else None,
    )
    masks = run.supermask.masks() if run.supermask else [t.mask for t in run.tickets]
    how = run.update.lifted if run.update else None
    states = {
        **run.saved,
        run.step: {
            "weights": run.converted.unpack(run.weights),
            "buffers": run.buffers,
            "optimizer": {},
            **run.saved.get(run.step, {}),
        },
    }
    about = {
        "stacked": how.stacked if how else None,
        "stack": len(alive),
        "reason": how.reason if how else "",
        "recorded": run.update.recorded if run.update else "",
        "sparse": sorted(run.converted.structures),
        "optimizer_state": "restored" if alive[0].start.optimizer else "fresh",
        "steps": run.step - start,
    }
    evaluated = torch.stack(run.curves.rows)[..., MEASURED]
    results: list[Trajectory | Failed] = []
    for r, ticket in enumerate(alive):
        diverged = _diverged(run.losses[: run.step - start, r], evaluated[:, r], grid, start)
        if diverged is not None:
            results.append(
                Failed(f"the loss stopped being finite at step {diverged}", diverged, ticket.seeds)
            )
            continue
        mask = masks[r] if masks[r] is ticket.mask else replace(masks[r], layout=ticket.mask.layout)
        found = replace(ticket, mask=mask)
        saved = {step: one(parts, r, step, found, run.gone[r]) for step, parts in states.items()}
        told = {**about, "work": run.work[r] if math.isfinite(run.work[r]) else None}
        results.append(Trajectory(found, saved, curve(table[:, r], grid), told))
    return results


def _diverged(losses: Tensor, evaluated: Tensor, grid: Sequence[int], start: int) -> int | None:
    """The first step with a loss that is not finite, in training or in evaluation; None if there is none."""
    bad = torch.nonzero(~torch.isfinite(losses))
    if len(bad):
        return start + int(bad[0]) + 1
    measured = torch.nonzero(~torch.isfinite(evaluated))
    return grid[int(measured[0])] if len(measured) else None
