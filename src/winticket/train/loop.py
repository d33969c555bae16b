"""The only training loop: a stack of tickets in, their trajectories out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from winticket.sparse import Converted
from winticket.ticket import Failed, State, Ticket, Trajectory
from winticket.train import stacked
from winticket.train.curves import Curves, curve
from winticket.train.engine import Engine, convert, trusted
from winticket.train.feed import Data, Feed, Order
from winticket.train.fit import common_start
from winticket.train.precision import check_precision, matrix_products
from winticket.train.recipe import Recipe
from winticket.train.step import Step

PAUSE = 250  # steps after which, at the latest, a training can be put aside


class Checkpoint(Protocol):
    """Where a training in progress is put aside; supplied by the executor."""

    def load(self) -> Any: ...
    def save(self, value: Any) -> None: ...
    def due(self) -> bool: ...


@dataclass
class _Run:
    """A stack in training. Mutable: the one place where tensors are written in place."""

    converted: Converted
    recipe: Recipe
    start: int
    weights: dict[str, Tensor]  # as the converted module has them
    buffers: dict[str, Tensor]
    masks: dict[str, Tensor]
    optimizer: torch.optim.Optimizer
    step: int
    losses: Tensor
    curves: Curves
    saved: dict[int, dict[str, dict[str, Tensor]]] = field(default_factory=dict)
    update: Step | None = None

    @property
    def module(self) -> nn.Module:
        return self.converted.module

    @property
    def all_buffers(self) -> dict[str, Tensor]:
        return {**self.buffers, **self.converted.indices}


def train(
    module: nn.Module,
    data: Data,
    order: Order,
    stack: Sequence[Ticket | Failed],
    recipe: Recipe,
    *,
    save: Sequence[int] = (),
    device: str | torch.device = "cpu",
    engine: Engine = "auto",
    own: bool = False,
    checkpoint: Checkpoint | None = None,
    report: Callable[[int, int], None] | None = None,
) -> tuple[Trajectory | Failed, ...]:
    """Train every ticket of a stack by one recipe, together, and return a trajectory for each.

    `module` gives the computation; weights and buffers come from the tickets, which agree in shapes and in start
    step. A pruned weight is exactly 0 before the first step and after every one. A ticket whose start has optimiser
    state goes on with it, else the optimiser starts afresh. States are saved at the steps in `save`, with the
    optimiser's, and at the end, without (nothing goes on from there). A replicate whose loss stops being finite
    becomes a `Failed` and leaves the others' numbers alone; a `Failed` that comes in goes out as it is.

    `data` are shared by the replicates, or, with `own`, each has its own under a leading dimension for the stack. Where
    classes are y [N, T], an example wants T answers, logits [N, T, K], and loss and accuracy are means over all of
    them. Replicate r sees the examples in the order of `seeds.derive("order")`, in batches of `recipe.batch` that run
    on over the ends of epochs; so every arm of a replicate sees the same. Curves have a point at each step of
    `recipe.grid(start)`: `train_loss` is the mean since the point before (nan at the first).
    Validation data are looked at at each of them, test data only at the two that are reported, that of least
    validation loss and the last; elsewhere `test_loss` and `test_accuracy` are nan.

    `engine` says how layers with pruned weights are computed: "auto" on the sparse kernels where those are faster,
    "dense", or "sparse" wherever that can be. The numbers agree to float tolerance; see `winticket.train.engine`.
    """
    living = next((ticket for ticket in stack if isinstance(ticket, Ticket)), None)
    if living is None:
        return tuple(t for t in stack if isinstance(t, Failed))
    # A failed replicate's place is held by another's weights: whose noise and whose sums are whose does not move.
    alive = [t if isinstance(t, Ticket) else replace(living, seeds=t.seeds) for t in stack]
    start = common_start(alive, module, recipe)
    if any(not start < s <= recipe.steps for s in save):
        raise ValueError(
            f"save asks for steps {list(save)}, but training runs from {start} to {recipe.steps}"
        )
    check_precision(recipe.precision, torch.device(device), engine)
    example = data.train.x[0, :2] if own else data.train.x[:2]
    run = _begin(alive, module.to(device), recipe, torch.device(device), engine=engine, example=example)
    run.curves.own = own
    feed = Feed(data.train, order, alive, recipe, own=own)
    kept = checkpoint.load() if checkpoint else None
    if kept is not None:
        _restore(run, kept)
    with (
        matrix_products("float32"),
        torch.random.fork_rng(devices=[device] if torch.device(device).type == "cuda" else []),
    ):
        _advance(run, data, feed, tuple(save), checkpoint=checkpoint, report=report)
        results = _finish(run, alive, data)
    return tuple(t if isinstance(t, Failed) else result for t, result in zip(stack, results, strict=True))


def _begin(
    alive: Sequence[Ticket],
    module: nn.Module,
    recipe: Recipe,
    device: torch.device,
    *,
    engine: Engine,
    example: Tensor,
) -> _Run:
    masked = [t.mask.apply(t.start.weights) for t in alive]
    weights = {k: torch.stack([w[k] for w in masked]).to(device) for k in masked[0]}
    buffers = {k: torch.stack([t.start.buffers[k] for t in alive]).to(device) for k in alive[0].start.buffers}
    keep = {k: torch.stack([t.mask.keep[k] for t in alive]).to(device) for k in alive[0].mask.keep}
    together = stacked.may_stack(module, device, recipe.stacking)
    example = example.to(device)
    converted = convert(module, keep, recipe, engine=engine, stacked=together, example=example)
    converted = trusted(module, converted, weights, buffers, example)
    pruned = {k for k, m in keep.items() if not bool(m.all())} - set(converted.structures)
    weights, masks = converted.pack(weights), {k: keep[k].to(weights[k].dtype) for k in keep if k in pruned}
    optimizer = _optimizer(recipe, list(weights.values()))
    if alive[0].start.optimizer:
        slots = {}
        for slot in alive[0].start.optimizer:
            values = [t.start.optimizer[slot] for t in alive]
            slots[slot] = values[0] if slot.startswith("step/") else torch.stack(values)
        _load_slots(optimizer, weights, converted.pack(slots))
    start = alive[0].start.step
    losses = torch.full((recipe.steps - start, len(alive)), torch.nan, device=device)
    return _Run(
        converted, recipe, start, weights, buffers, masks, optimizer, start, losses, Curves(len(alive))
    )


def _optimizer(recipe: Recipe, parameters: list[Tensor]) -> torch.optim.Optimizer:
    """Torch's own, over stacked parameters: every update in it is elementwise, so replicates do not meet."""
    fused = all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in parameters)
    shared: dict[str, Any] = {"lr": recipe.lr, "weight_decay": recipe.weight_decay, "fused": fused}
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=recipe.momentum, nesterov=recipe.nesterov, **shared)
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, **shared)


def _slots(optimizer: torch.optim.Optimizer, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The optimiser's state as "slot/parameter" -> tensor."""
    return {
        f"{slot}/{name}": value.detach().clone()
        for name, parameter in weights.items()
        for slot, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def _load_slots(
    optimizer: torch.optim.Optimizer, weights: Mapping[str, Tensor], slots: Mapping[str, Tensor]
) -> None:
    for key, value in slots.items():
        slot, name = key.split("/", 1)
        if name not in weights:
            raise ValueError(
                f"optimiser state {key!r} belongs to no parameter; there are {', '.join(weights)}"
            )
        optimizer.state[weights[name]][slot] = value.detach().clone().to(weights[name].device)


def _advance(
    run: _Run,
    data: Data,
    feed: Feed,
    save: tuple[int, ...],
    *,
    checkpoint: Checkpoint | None,
    report: Callable[[int, int], None] | None,
) -> None:
    """Train `run` to the end of the recipe, a stretch at a time: to the next grid point, save or pause."""
    start, steps = run.start, run.recipe.steps
    grid = run.recipe.grid(start)
    if not run.curves.rows:
        _measure(run, data)
    for stop in sorted({*grid, *save, *range(start, steps, PAUSE)}):
        if stop <= run.step:
            continue
        before = run.step
        _stretch(run, feed, stop, report)
        run.step = stop
        if stop in save:
            run.saved[stop] = _snapshot(run)
        if stop in grid:
            since = max(g for g in grid if g < stop)
            _measure(run, data, run.losses[since - start : stop - start])
        if not bool(torch.isfinite(run.losses[before - start : stop - start].sum(0)).any()):
            break  # every replicate has diverged; there is nothing left to train
        if checkpoint and stop < steps and checkpoint.due():
            checkpoint.save(_set_aside(run))


def _stretch(run: _Run, feed: Feed, stop: int, report: Callable[[int, int], None] | None) -> None:
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


def _measure(run: _Run, data: Data, losses: Tensor | None = None) -> None:
    run.curves.measure(
        run.module,
        run.weights,
        run.buffers,
        data,
        losses,
        indices=run.converted.indices,
        how=run.recipe.stacking,
    )


def _snapshot(run: _Run) -> dict[str, dict[str, Tensor]]:
    return {
        "weights": {k: v.detach().clone() for k, v in run.converted.unpack(run.weights).items()},
        "buffers": {k: v.clone() for k, v in run.buffers.items()},
        "optimizer": run.converted.unpack(_slots(run.optimizer, run.weights)),
    }


def _set_aside(run: _Run) -> dict[str, Any]:
    return {
        "step": run.step,
        "now": _snapshot(run),
        "losses": run.losses,
        "saved": dict(run.saved),
        "rows": list(run.curves.rows),
        "least": run.curves.least,
        "point": run.curves.point,
        "early": {"weights": run.converted.unpack(run.curves.weights), "buffers": dict(run.curves.buffers)},
    }


def _restore(run: _Run, kept: dict[str, Any]) -> None:
    for name, value in run.converted.pack(kept["now"]["weights"]).items():
        run.weights[name].copy_(value)
    for name, value in kept["now"]["buffers"].items():
        run.buffers[name].copy_(value)
    run.optimizer.state.clear()
    _load_slots(run.optimizer, run.weights, run.converted.pack(kept["now"]["optimizer"]))
    run.step, run.saved = kept["step"], dict(kept["saved"])
    curves = run.curves
    curves.rows, curves.least, curves.point = list(kept["rows"]), kept["least"], kept["point"]
    device = run.losses.device
    curves.weights = run.converted.pack(_on(kept["early"]["weights"], device))
    curves.buffers = _on(kept["early"]["buffers"], device)
    run.losses.copy_(kept["losses"])


def _on(tensors: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: value.to(device) for name, value in tensors.items()}


def _finish(run: _Run, alive: Sequence[Ticket], data: Data) -> list[Trajectory | Failed]:
    start, grid = run.start, run.recipe.grid(run.start)[: len(run.curves.rows)]
    table = run.curves.finish(
        run.module,
        run.weights,
        run.buffers,
        data,
        indices=run.converted.indices,
        how=run.recipe.stacking,
    )
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
    }
    results: list[Trajectory | Failed] = []
    for r, ticket in enumerate(alive):
        diverged = _diverged(run.losses[: run.step - start, r], table[:, r], grid, start)
        if diverged is not None:
            results.append(
                Failed(f"the loss stopped being finite at step {diverged}", diverged, ticket.seeds)
            )
            continue
        saved = {step: _one(parts, r, step, ticket) for step, parts in states.items()}
        results.append(Trajectory(ticket, saved, curve(table[:, r], grid), about))
    return results


def _diverged(losses: Tensor, rows: Tensor, grid: Sequence[int], start: int) -> int | None:
    """The first step with a loss that is not finite, in training or in evaluation; None if there is none."""
    bad = torch.nonzero(~torch.isfinite(losses))
    if len(bad):
        return start + int(bad[0]) + 1
    measured = torch.nonzero(~torch.isfinite(rows[:, 1:3]).all(1))
    return grid[int(measured[0])] if len(measured) else None


def _one(parts: Mapping[str, Mapping[str, Tensor]], r: int, step: int, ticket: Ticket) -> State:
    """Replicate r's state, on the CPU; pruned weights are +0.0, since a product with the mask also gives -0.0."""
    weights = ticket.mask.apply({k: v[r].detach().cpu() for k, v in parts["weights"].items()})
    buffers = {k: v[r].detach().cpu().clone() for k, v in parts["buffers"].items()}
    optimizer = {
        k: (v if k.startswith("step/") else v[r]).detach().cpu().clone()
        for k, v in parts["optimizer"].items()
    }
    return State(weights, buffers, optimizer, step)
