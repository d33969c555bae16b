"""A stack in training: its tensors, how they begin, are put aside, taken up again and given other masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from winticket.sparse import Converted
from winticket.ticket import Mask, State, Ticket
from winticket.train import stacked
from winticket.train.changing import Changes
from winticket.train.curves import Curves
from winticket.train.engine import Engine, convert, trusted
from winticket.train.recipe import Recipe
from winticket.train.slots import load_slots, slots_of
from winticket.train.step import Step
from winticket.train.supermask import Learning, Supermask
from winticket.units import gone, zeroed


@dataclass(frozen=True)
class Asked:
    """What a training was asked for and does not change."""

    module: nn.Module
    recipe: Recipe
    device: torch.device
    engine: Engine
    example: Tensor
    changes: Changes | None
    learning: Learning | None


@dataclass
class Run:
    """A stack in training. Mutable: the one place where tensors are written in place."""

    asked: Asked
    tickets: list[Ticket]  # with the masks as they are now
    converted: Converted
    start: int
    weights: dict[str, Tensor]  # as the converted module has them
    learned: dict[str, Tensor]  # what the optimiser updates: the weights, or a supermask's scores
    buffers: dict[str, Tensor]
    masks: dict[str, Tensor]
    optimizer: torch.optim.Optimizer
    step: int
    losses: Tensor
    curves: Curves
    supermask: Supermask | None = None
    saved: dict[int, dict[str, dict[str, Tensor]]] = field(default_factory=dict)
    update: Step | None = None
    work: list[float] = field(default_factory=list)  # operations so far, of each replicate
    gone: list[dict[str, Tensor]] = field(
        default_factory=list
    )  # what dead units took along, of each replicate
    kept: list[dict[str, tuple[int, int]]] = field(
        default_factory=list
    )  # (weights that compute, all) by layer

    @property
    def recipe(self) -> Recipe:
        return self.asked.recipe

    @property
    def module(self) -> nn.Module:
        return self.converted.module

    @property
    def all_buffers(self) -> dict[str, Tensor]:
        return {**self.buffers, **self.converted.indices}


def begin(alive: Sequence[Ticket], asked: Asked) -> Run:
    module, recipe, device = asked.module, asked.recipe, asked.device
    # A mask that is learned chooses from all weights.
    masked = [t.start.weights if asked.learning else t.mask.apply(t.start.weights) for t in alive]
    lost = [{} if asked.learning else gone(module, t.mask) for t in alive]
    masked = [zeroed(w, dead) for w, dead in zip(masked, lost, strict=True)]
    weights = {k: torch.stack([w[k] for w in masked]).to(device) for k in masked[0]}
    buffers = {k: torch.stack([t.start.buffers[k] for t in alive]).to(device) for k in alive[0].start.buffers}
    live = [
        {k: keep & ~dead[k] if k in dead else keep for k, keep in t.mask.keep.items()}
        for t, dead in zip(alive, lost, strict=True)
    ]
    keep = {k: torch.stack([one[k] for one in live]).to(device) for k in alive[0].mask.keep}
    # What no mask covers and dead units take along: biases, and BatchNorm's scale and shift.
    beside = {
        k: torch.stack([~dead[k] if k in dead else torch.ones(shape, dtype=torch.bool) for dead in lost])
        for k, shape in ((k, w.shape) for k, w in masked[0].items() if k not in keep)
        if any(k in dead for dead in lost)
    }
    together = stacked.may_stack(module, device, recipe.stacking)
    converted = convert(module, keep, recipe, engine=asked.engine, stacked=together, example=asked.example)
    converted = trusted(module, converted, weights, buffers, asked.example)
    pruned = {k for k, m in keep.items() if not bool(m.all())} - set(converted.structures)
    weights, masks = converted.pack(weights), {k: keep[k].to(weights[k].dtype) for k in keep if k in pruned}
    masks |= {k: live.to(weights[k]) for k, live in beside.items()}
    learned, supermask = weights, None
    if asked.learning:
        supermask = Supermask(asked.learning, weights, [t.seeds for t in alive])
        supermask.settle(weights)
        learned, masks = supermask.scores, {}
    optimizer = _optimizer(recipe, list(learned.values()))
    if alive[0].start.optimizer:
        slots = {}
        for slot in alive[0].start.optimizer:
            values = [t.start.optimizer[slot] for t in alive]
            slots[slot] = values[0] if slot.startswith("step/") else torch.stack(values)
        load_slots(optimizer, learned, converted.pack(slots))
    start = alive[0].start.step
    losses = torch.full((recipe.steps - start, len(alive)), torch.nan, device=device)
    return Run(
        asked=asked,
        tickets=list(alive),
        converted=converted,
        start=start,
        weights=weights,
        learned=learned,
        buffers=buffers,
        masks=masks,
        optimizer=optimizer,
        step=start,
        losses=losses,
        curves=Curves(len(alive)),
        supermask=supermask,
        work=[0.0] * len(alive),
        gone=lost,
        kept=[{k: (int(m.sum()), m.numel()) for k, m in one.items()} for one in live],
    )


def _optimizer(recipe: Recipe, parameters: list[Tensor]) -> torch.optim.Optimizer:
    """Torch's own, over stacked parameters: every update in it is elementwise, so replicates do not meet."""
    fused = all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in parameters)
    shared: dict[str, Any] = {"lr": recipe.lr, "weight_decay": recipe.weight_decay, "fused": fused}
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=recipe.momentum, nesterov=recipe.nesterov, **shared)
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, **shared)


def remasked(run: Run, masks: Sequence[Mask], now: Mapping[str, Mapping[str, Tensor]]) -> Run:
    """The run with other masks; what is new in a mask starts at 0, in the optimiser's state as well."""
    tickets = []
    for r, (ticket, mask) in enumerate(zip(run.tickets, masks, strict=True)):
        state = one(now, r, run.step, ticket, run.gone[r])
        stays = {name: keep & ticket.mask.keep[name] for name, keep in mask.keep.items()}
        slots = {
            key: value.masked_fill(~stays[name], 0)
            if (name := key.partition("/")[2]) in stays and value.ndim  # a count of steps has none
            else value
            for key, value in state.optimizer.items()
        }
        tickets.append(replace(ticket, mask=mask, start=replace(state, optimizer=slots)))
    fresh = begin(tickets, run.asked)
    fresh.start, fresh.losses, fresh.curves, fresh.work = run.start, run.losses, run.curves, run.work
    return fresh


def snapshot(run: Run) -> dict[str, dict[str, Tensor]]:
    return {
        "weights": {k: v.detach().clone() for k, v in run.converted.unpack(run.weights).items()},
        "buffers": {k: v.clone() for k, v in run.buffers.items()},
        "optimizer": run.converted.unpack(slots_of(run.optimizer, run.learned)),
    }


def set_aside(run: Run) -> dict[str, Any]:
    early = run.curves.weights
    return {
        "step": run.step,
        "now": snapshot(run),
        "keep": [dict(t.mask.keep) for t in run.tickets] if run.asked.changes else [],
        "scores": dict(run.supermask.scores) if run.supermask else {},
        "work": list(run.work),
        "losses": run.losses,
        "saved": dict(run.saved),
        "rows": list(run.curves.rows),
        "least": run.curves.least,
        "point": run.curves.point,
        "early": {
            "weights": early if run.asked.changes else run.converted.unpack(early),
            "buffers": dict(run.curves.buffers),
        },
    }


def restore(run: Run, kept: dict[str, Any]) -> Run:
    if kept["keep"]:
        masks = [replace(t.mask, keep=k) for t, k in zip(run.tickets, kept["keep"], strict=True)]
        run = remasked(run, masks, snapshot(run))
    for name, value in kept["scores"].items():
        run.learned[name].copy_(value)
    for name, value in run.converted.pack(kept["now"]["weights"]).items():
        run.weights[name].copy_(value)
    for name, value in kept["now"]["buffers"].items():
        run.buffers[name].copy_(value)
    run.optimizer.state.clear()
    load_slots(run.optimizer, run.learned, run.converted.pack(kept["now"]["optimizer"]))
    run.step, run.saved, run.work = kept["step"], dict(kept["saved"]), list(kept["work"])
    curves = run.curves
    curves.rows, curves.least, curves.point = list(kept["rows"]), kept["least"], kept["point"]
    device = run.losses.device
    early = _on(kept["early"]["weights"], device)
    curves.weights = early if run.asked.changes else run.converted.pack(early)
    curves.buffers = _on(kept["early"]["buffers"], device)
    run.losses.copy_(kept["losses"])
    return run


def _on(tensors: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: value.to(device) for name, value in tensors.items()}


def one(
    parts: Mapping[str, Mapping[str, Tensor]], r: int, step: int, ticket: Ticket, dead: Mapping[str, Tensor]
) -> State:
    """Replicate r's state, on the CPU; pruned weights are +0.0, since a product with the mask also gives -0.0."""
    weights = zeroed(ticket.mask.apply({k: v[r].detach().cpu() for k, v in parts["weights"].items()}), dead)
    buffers = {k: v[r].detach().cpu().clone() for k, v in parts["buffers"].items()}
    optimizer = {
        k: (v if k.startswith("step/") else v[r]).detach().cpu().clone()
        for k, v in parts["optimizer"].items()
    }
    return State(weights, buffers, optimizer, step)
