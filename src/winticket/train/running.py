"""The mutable state of a stack in training: how it begins, is checkpointed, is restored and gets other masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from winticket.objective import LossAndMetric
from winticket.sparse import Converted
from winticket.ticket import Mask, State, Ticket
from winticket.train import stacked
from winticket.train.chain import Chain
from winticket.train.changing import Changes
from winticket.train.curves import Curves
from winticket.train.engine import Engine, convert, trusted
from winticket.train.recipe import Recipe
from winticket.train.slots import load_slots, slots_of
from winticket.train.step import Step
from winticket.train.supermask import Learning, Supermask
from winticket.units import dead_parameters, zeroed

Parts = Mapping[str, Mapping[str, Tensor]]
"""A stack's state: "weights", "buffers" and "optimizer", each name -> tensor [S, ...]."""


@dataclass(frozen=True)
class Settings:
    """What does not change during a training."""

    module: nn.Module
    recipe: Recipe
    device: torch.device
    engine: Engine
    example: Tensor
    changes: Changes | None
    learning: Learning | None
    objective: LossAndMetric | None = None


@dataclass
class Training:
    """A stack in training. Mutable: only here are tensors written in place."""

    settings: Settings
    tickets: list[Ticket]  # with their current masks
    converted: Converted
    start: int
    weights: dict[str, Tensor]  # as the converted module has them
    learned: dict[str, Tensor]  # what the optimiser updates: the weights, or a supermask's scores
    buffers: dict[str, Tensor]
    masks: dict[str, Tensor]  # factors for the weights that stay 0 and are not on sparse kernels
    optimizer: torch.optim.Optimizer
    step: int
    losses: Tensor
    curves: Curves
    supermask: Supermask | None = None
    saved: dict[int, dict[str, dict[str, Tensor]]] = field(default_factory=dict)
    update: Step | None = None
    chain: Chain | None = None  # takes the steps instead of `update`, if it can
    work: list[float] = field(default_factory=list)  # each replicate's operations so far
    dead: list[dict[str, Tensor]] = field(default_factory=list)  # each replicate's parameters of dead units
    computing: list[dict[str, tuple[int, int]]] = field(
        default_factory=list
    )  # each replicate's (weights that compute, all weights) by layer

    @property
    def recipe(self) -> Recipe:
        return self.settings.recipe

    @property
    def module(self) -> nn.Module:
        return self.converted.module

    @property
    def all_buffers(self) -> dict[str, Tensor]:
        return {**self.buffers, **self.converted.indices}


def begin(alive: Sequence[Ticket], settings: Settings) -> Training:
    """The tickets' start as a stack: masked, on the device, with layers on sparse kernels if those are faster."""
    module, device = settings.module, settings.device
    # A mask that is learned chooses among all weights.
    dead = [{} if settings.learning else dead_parameters(module, t.mask) for t in alive]
    masked = [
        zeroed(t.start.weights if settings.learning else t.mask.apply(t.start.weights), of_units)
        for t, of_units in zip(alive, dead, strict=True)
    ]
    computing = [
        {k: keep & ~of_units[k] if k in of_units else keep for k, keep in t.mask.keep.items()}
        for t, of_units in zip(alive, dead, strict=True)
    ]
    keep = {k: torch.stack([one[k] for one in computing]).to(device) for k in alive[0].mask.keep}
    weights = {k: torch.stack([w[k] for w in masked]).to(device) for k in masked[0]}
    buffers = {k: torch.stack([t.start.buffers[k] for t in alive]).to(device) for k in alive[0].start.buffers}
    converted = _converted(settings, keep, weights, buffers)
    weights = converted.pack(weights)
    masks = _factors(converted, keep, weights, dead)
    learned, supermask = weights, None
    if settings.learning:
        supermask = Supermask(settings.learning, weights, [t.seeds for t in alive])
        supermask.settle(weights)
        learned, masks = supermask.scores, {}
    start = alive[0].start.step
    return Training(
        settings=settings,
        tickets=list(alive),
        converted=converted,
        start=start,
        weights=weights,
        learned=learned,
        buffers=buffers,
        masks=masks,
        optimizer=_resumed_optimizer(settings.recipe, learned, converted, [t.start for t in alive]),
        step=start,
        losses=torch.full((settings.recipe.steps - start, len(alive)), torch.nan, device=device),
        curves=Curves(len(alive), objective=settings.objective),
        supermask=supermask,
        work=[0.0] * len(alive),
        dead=dead,
        computing=[{k: (int(m.sum()), m.numel()) for k, m in one.items()} for one in computing],
    )


def _converted(
    settings: Settings,
    keep: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    buffers: Mapping[str, Tensor],
) -> Converted:
    """The module for masks `keep` [S, *shape], with the layers that `engine` puts on sparse kernels."""
    module, recipe = settings.module, settings.recipe
    together = stacked.may_stack(module, settings.device, recipe.stacking)
    converted = convert(
        module, keep, recipe, engine=settings.engine, stacked=together, example=settings.example
    )
    return trusted(module, converted, weights, buffers, settings.example)


def _factors(
    converted: Converted,
    keep: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    dead: Sequence[Mapping[str, Tensor]],
) -> dict[str, Tensor]:
    """Factors [S, *shape], 1 or 0, that keep pruned weights and dead units' parameters at 0 after an update.

    A layer on sparse kernels needs none: it has its kept weights alone.
    """
    pruned = [k for k, m in keep.items() if not bool(m.all()) and k not in converted.structures]
    factors = {k: keep[k].to(weights[k].dtype) for k in pruned}
    # No mask covers a dead unit's bias, nor the scale and shift of its BatchNorm.
    for name, weight in weights.items():
        if name not in keep and any(name in of_units for of_units in dead):
            none = torch.zeros(weight.shape[1:], dtype=torch.bool)
            factors[name] = torch.stack([~of_units.get(name, none) for of_units in dead]).to(weight)
    return factors


def _resumed_optimizer(
    recipe: Recipe, learned: Mapping[str, Tensor], converted: Converted, starts: Sequence[State]
) -> torch.optim.Optimizer:
    """The recipe's optimiser of `learned`, with the state that the starts hold, if any."""
    optimizer = _optimizer(recipe, list(learned.values()))
    slots = {}
    for slot in starts[0].optimizer:
        values = [start.optimizer[slot] for start in starts]
        slots[slot] = values[0] if slot.startswith("step/") else torch.stack(values)
    load_slots(optimizer, learned, converted.pack(slots))
    return optimizer


def _optimizer(recipe: Recipe, parameters: list[Tensor]) -> torch.optim.Optimizer:
    """PyTorch's optimiser over stacked parameters. Its updates are elementwise, so replicates do not mix."""
    fused = all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in parameters)
    shared: dict[str, Any] = {"lr": recipe.lr, "weight_decay": recipe.weight_decay, "fused": fused}
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=recipe.momentum, nesterov=recipe.nesterov, **shared)
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, **shared)


def with_masks(training: Training, masks: Sequence[Mask], now: Parts) -> Training:
    """The training from state `now` under other masks; a weight new in a mask starts at 0, and so do its moments."""
    tickets = []
    for r, (ticket, mask) in enumerate(zip(training.tickets, masks, strict=True)):
        state = replicate_state(now, r, training.step, ticket, training.dead[r])
        stays = {name: keep & ticket.mask.keep[name] for name, keep in mask.keep.items()}
        slots = {
            key: value.masked_fill(~stays[name], 0)
            if (name := key.partition("/")[2]) in stays and value.ndim  # the count of steps has no dimension
            else value
            for key, value in state.optimizer.items()
        }
        tickets.append(replace(ticket, mask=mask, start=replace(state, optimizer=slots)))
    fresh = begin(tickets, training.settings)
    fresh.start, fresh.losses = training.start, training.losses
    fresh.curves, fresh.work = training.curves, training.work
    return fresh


def snapshot(training: Training) -> dict[str, dict[str, Tensor]]:
    """A copy of the stack's current state, in the original module's names and shapes."""
    return {
        "weights": {k: v.detach().clone() for k, v in training.converted.unpack(training.weights).items()},
        "buffers": {k: v.clone() for k, v in training.buffers.items()},
        "optimizer": training.converted.unpack(slots_of(training.optimizer, training.learned)),
    }


def to_checkpoint(training: Training) -> dict[str, Any]:
    """All that `restore` needs to continue exactly from here."""
    early, changes = training.curves.weights, training.settings.changes
    return {
        "step": training.step,
        "now": snapshot(training),
        "keep": [dict(t.mask.keep) for t in training.tickets] if changes else [],
        "scores": dict(training.supermask.scores) if training.supermask else {},
        "work": list(training.work),
        "losses": training.losses,
        "saved": dict(training.saved),
        "rows": list(training.curves.rows),
        "least": training.curves.least,
        "point": training.curves.point,
        "early": {
            "weights": early if changes else training.converted.unpack(early),
            "buffers": dict(training.curves.buffers),
        },
    }


def restore(training: Training, stored: dict[str, Any]) -> Training:
    """The training as it was when `to_checkpoint` returned `stored`."""
    if stored["keep"]:
        masks = [replace(t.mask, keep=k) for t, k in zip(training.tickets, stored["keep"], strict=True)]
        training = with_masks(training, masks, snapshot(training))
    for name, value in stored["scores"].items():
        training.learned[name].copy_(value)
    for name, value in training.converted.pack(stored["now"]["weights"]).items():
        training.weights[name].copy_(value)
    for name, value in stored["now"]["buffers"].items():
        training.buffers[name].copy_(value)
    training.optimizer.state.clear()
    load_slots(training.optimizer, training.learned, training.converted.pack(stored["now"]["optimizer"]))
    training.step, training.saved, training.work = stored["step"], dict(stored["saved"]), list(stored["work"])
    curves = training.curves
    curves.rows, curves.least, curves.point = list(stored["rows"]), stored["least"], stored["point"]
    device = training.losses.device
    early = _on(stored["early"]["weights"], device)
    curves.weights = early if training.settings.changes else training.converted.pack(early)
    curves.buffers = _on(stored["early"]["buffers"], device)
    training.losses.copy_(stored["losses"])
    return training


def _on(tensors: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: value.to(device) for name, value in tensors.items()}


def replicate_state(parts: Parts, r: int, step: int, ticket: Ticket, dead: Mapping[str, Tensor]) -> State:
    """Replicate r's state, on the CPU. Pruned weights are +0.0: multiplying by the mask may have left -0.0."""
    weights = zeroed(ticket.mask.apply({k: v[r].detach().cpu() for k, v in parts["weights"].items()}), dead)
    buffers = {k: v[r].detach().cpu().clone() for k, v in parts["buffers"].items()}
    optimizer = {
        k: (v if k.startswith("step/") else v[r]).detach().cpu().clone()
        for k, v in parts["optimizer"].items()
    }
    return State(weights, buffers, optimizer, step)
