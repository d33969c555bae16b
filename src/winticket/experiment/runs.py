"""Read a plan's trainings from the store, by level, arm and replicate. Each stack is decoded once."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from winticket import models
from winticket.experiment.masks import Kept, network_of, plane
from winticket.experiment.plan import BESIDE, SOURCE, Cell, Plan
from winticket.results import Masks, Scalar
from winticket.run import Store
from winticket.run.keys import Json
from winticket.ticket import Curve, Failed, Seeds, Ticket, Trajectory
from winticket.units import effective_count, takes_whole_units


@dataclass(frozen=True)
class Trained:
    """What document and figures need from one finished training; its weights stay in the store."""

    curve: Curve
    how: Mapping[str, Any]
    emptied: tuple[str, ...]
    classes: tuple[int, ...] = ()
    """Output units without incoming weights, although their layer has some."""
    effective: int | None = None
    """Number of kept weights that do not merely read dead units; None unless whole units are pruned."""
    searched_steps: int | None = None
    """Steps of the search after which the mask was drawn; None unless it was drawn in the middle of a training."""
    settled: bool = True
    """False if the mask had not settled when it was drawn."""
    seconds: float | None = None
    """An equal share of the seconds that the stack took since it was last resumed."""

    def accuracy(self) -> float:
        """Validation accuracy at the last step, as a fraction, or the value of another metric."""
        return self.curve.last()["validation_accuracy"]


Replicate = Trained | Failed


@dataclass(frozen=True)
class Runs:
    """Every training of a plan.

    by_cell       by (level, arm), one entry per replicate: `Trained`, or `Failed` with the reason
    tickets       by level, the ticket with the best validation accuracy; the first replicate wins ties
    environments  the distinct environments in which results were computed, the most recent one first
    masks         what the tickets keep; None unless every cell was read
    """

    plan: Plan
    by_cell: Mapping[tuple[int, str], tuple[Replicate, ...]]
    tickets: Mapping[int, Ticket] = field(default_factory=dict, repr=False)
    environments: tuple[Mapping[str, Scalar], ...] = ()
    masks: Masks | None = field(default=None, repr=False)

    def arms(self, level: int) -> dict[str, tuple[Replicate, ...]]:
        """The replicates of every arm at a level, by arm."""
        return {arm: runs for (at, arm), runs in self.by_cell.items() if at == level and arm not in BESIDE}


def collect(plan: Plan, store: Store, *, only: Collection[Cell] | None = None) -> Runs:
    """Read the results of a plan, or `only` those of some cells, one stack after the other.

    A stack without a result counts as failed replicates, each with the reason. Raises StoreError if a result cannot be
    read.
    """
    cells = [cell for cell in plan.tasks if only is None or cell in only]
    stacks: dict[tuple[int, str], list[Replicate]] = {}
    best: dict[int, tuple[float, Ticket]] = {}
    metas: dict[Cell, Mapping[str, Json]] = {}
    sign = plan.setup.scale().sign
    kept = Kept(plane(plan.setup, plan.question.eligible)) if only is None else None
    for cell in sorted(cells, key=lambda cell: cell[2]):
        level, arm, _ = cell
        key = plan.tasks[cell].key
        if not store.has(key):
            stacks.setdefault((level, arm), []).extend(_failed(plan, store, cell))
            continue
        metas[cell] = store.meta(key)
        stack: Sequence[Trajectory | Failed] = store.get(key)
        entries = _trained(plan, cell, stack, metas[cell])
        stacks.setdefault((level, arm), []).extend(entries)
        for path, entry in zip(stack, entries, strict=True) if arm == "ticket" else ():
            if isinstance(path, Failed) or isinstance(entry, Failed):
                continue
            if kept is not None:
                kept.add(level, path.ticket.mask)
            score = sign * entry.accuracy()
            if level not in best or score > best[level][0]:
                best[level] = score, path.ticket
    return Runs(
        plan,
        {cell[:2]: tuple(stacks[cell[:2]]) for cell in cells},
        {level: ticket for level, (_, ticket) in best.items()},
        _environments([metas[cell] for cell in cells if cell in metas]),
        None if kept is None else kept.means(plan.densities(), network_of(plan)),
    )


def trajectory(plan: Plan, store: Store, *, level: int, arm: str, replicate: int) -> Trajectory:
    """A finished training with its weights, from the store. KeyError if the store does not have it."""
    first = replicate - replicate % plan.experiment.stack
    path: Trajectory = store.get(plan.tasks[level, arm, first].key)[replicate - first]
    return path


def _trained(
    plan: Plan, cell: Cell, stack: Sequence[Trajectory | Failed], meta: Mapping[str, Json]
) -> tuple[Replicate, ...]:
    """The entries of a stored stack."""
    level, arm, _ = cell
    planned = None if arm == SOURCE else plan.counts[level]
    seconds = meta.get("seconds")
    share = float(str(seconds)) / len(stack) if seconds is not None else None
    # A transfer's source may have another network.
    module = None if arm == SOURCE else plan.setup.module()
    return tuple(_slim(path, module, planned=planned, seconds=share) for path in stack)


def _failed(plan: Plan, store: Store, cell: Cell) -> tuple[Failed, ...]:
    """The entries of a stack that has no result."""
    failure, first = store.failure(plan.tasks[cell].key), cell[2]
    if failure is not None:
        reason = failure.traceback.strip().splitlines()[-1]
    else:
        reason = "not run: a training that it depends on failed"
    seeds = (Seeds(plan.setup.seed, r) for r in range(first, first + plan.count(first)))
    return tuple(Failed(reason, None, s) for s in seeds)


def _slim(
    path: Trajectory | Failed, module: nn.Module | None, *, planned: int | None, seconds: float | None
) -> Replicate:
    if isinstance(path, Failed):
        return path
    mask, output = path.ticket.mask, models.output_layer(module) if module else None
    if planned is not None and mask.count() != planned:
        reason = (
            f"its allocation kept {mask.count()} weights, but {planned} were planned; an allocation must keep the same "
            "count for all scores"
        )
        return Failed(reason, None, path.ticket.seeds)
    alive = mask.keep.keys() - set(mask.emptied())
    about = path.ticket.about
    searched = about.get("searched_steps")
    return Trained(
        path.curve,
        path.about,
        mask.emptied(),
        mask.empty_units(output) if output is not None and output in alive else (),
        effective_count(module, mask) if module and takes_whole_units(mask) else None,
        int(str(searched)) if searched is not None else None,
        bool(about.get("settled", True)),
        seconds,
    )


def _environments(metas: Sequence[Mapping[str, Json]]) -> tuple[Mapping[str, Scalar], ...]:
    distinct: dict[str, Mapping[str, Scalar]] = {}
    for meta in sorted(metas, key=lambda m: str(m.get("when")), reverse=True):
        environment: Any = meta.get("environment") or {}
        distinct.setdefault(json.dumps(environment, sort_keys=True), dict(environment))
    return tuple(distinct.values())


def accuracies(entries: Sequence[Replicate]) -> tuple[float | None, ...]:
    """Test accuracies at the last step (fractions) by replicate; None if the replicate failed."""
    return tuple(r.curve.last()["test_accuracy"] if isinstance(r, Trained) else None for r in entries)


def early_stops(entries: Sequence[Replicate]) -> tuple[int | None, ...]:
    """Steps of least validation loss by replicate; None if the replicate failed or its loss was never finite."""
    return tuple(r.curve.early_stop_step() if isinstance(r, Trained) else None for r in entries)


def at_early_stop(entries: Sequence[Replicate]) -> tuple[float | None, ...]:
    """Test accuracies (fractions) at the steps of least validation loss; None as for `early_stops`."""
    return tuple(r.curve.accuracy_at_early_stop() if isinstance(r, Trained) else None for r in entries)


def curves_of(entries: Sequence[Replicate]) -> tuple[Curve | None, ...]:
    """Learning curves by replicate; None if the replicate failed."""
    return tuple(r.curve if isinstance(r, Trained) else None for r in entries)
