"""A plan's stored trainings, read: what each replicate of every arm and level did."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from winticket import models
from winticket.experiment.plan import BESIDE, SOURCE, Place, Plan
from winticket.run import Store
from winticket.ticket import Curve, Failed, Seeds, Trajectory
from winticket.units import effective_count, takes_whole_units


@dataclass(frozen=True)
class Trained:
    """What document and figures need of one finished training; its weights stay in the store."""

    curve: Curve
    how: Mapping[str, Any]
    emptied: tuple[str, ...]
    classes: tuple[int, ...] = ()
    """Output units that no weight goes into, though their layer has some."""
    effective: int | None = None
    """Under a mask of whole units: kept weights that do not merely read dead ones."""
    searched_steps: int | None = None
    """Where the mask was drawn from the middle of a training: after how many steps of it."""
    settled: bool = True
    seconds: float | None = None
    """An equal share of what its stack took, from where it was last taken up."""


Replicate = Trained | Failed


@dataclass(frozen=True)
class Runs:
    """Every training of a plan by level and arm, one entry per replicate; what failed is a `Failed` in its place."""

    plan: Plan
    by_place: Mapping[tuple[int, str], tuple[Replicate, ...]]

    def arms(self, level: int) -> dict[str, tuple[Replicate, ...]]:
        return {arm: runs for (at, arm), runs in self.by_place.items() if at == level and arm not in BESIDE}


def collect(plan: Plan, store: Store, *, only: Collection[Place] | None = None) -> Runs:
    """Read the results of a plan, or `only` of some places.

    A stack whose task failed is as many failed replicates, each with the reason.
    """
    places = [place for place in plan.tasks if only is None or place in only]
    stacks: dict[tuple[int, str], list[Replicate]] = {}
    for place in sorted(places, key=lambda p: p[2]):
        stacks.setdefault(place[:2], []).extend(_stack(plan, store, place))
    order = dict.fromkeys(place[:2] for place in places)
    return Runs(plan, {at: tuple(stacks[at]) for at in order})


def trajectory(plan: Plan, store: Store, *, level: int, arm: str, replicate: int) -> Trajectory:
    """A finished training with its weights, from the store."""
    first = replicate - replicate % plan.experiment.stack
    found: Trajectory = store.get(plan.tasks[level, arm, first].key)[replicate - first]
    return found


def _stack(plan: Plan, store: Store, place: Place) -> tuple[Replicate, ...]:
    level, arm, first = place
    key = plan.tasks[place].key
    if store.has(key):
        planned = None if arm == SOURCE else plan.counts[level]
        entries, seconds = store.get(key), store.meta(key).get("seconds")
        share = float(str(seconds)) / len(entries) if seconds is not None else None
        # Tickets of a transfer's source are of another network.
        module = None if arm == SOURCE else plan.setup.module()
        return tuple(_slim(entry, module, planned=planned, seconds=share) for entry in entries)
    failure = store.failure(key)
    if failure is not None:
        reason = failure.traceback.strip().splitlines()[-1]
    else:
        reason = "not run: a training that it depends on failed"
    seeds = (Seeds(plan.setup.seed, r) for r in range(first, first + plan.count(first)))
    return tuple(Failed(reason, None, s) for s in seeds)


def _slim(
    entry: Trajectory | Failed, module: nn.Module | None, *, planned: int | None, seconds: float | None
) -> Replicate:
    if isinstance(entry, Failed):
        return entry
    mask, output = entry.ticket.mask, models.output_layer(module) if module else None
    if planned is not None and mask.count() != planned:
        reason = (
            f"its allocation kept {mask.count()} weights where {planned} were planned; an allocation keeps the same "
            "count whatever the scores"
        )
        return Failed(reason, None, entry.ticket.seeds)
    alive = mask.keep.keys() - set(mask.emptied())
    told = entry.ticket.about
    searched = told.get("searched_steps")
    return Trained(
        entry.curve,
        entry.about,
        mask.emptied(),
        mask.empty_units(output) if output is not None and output in alive else (),
        effective_count(module, mask) if module and takes_whole_units(mask) else None,
        int(str(searched)) if searched is not None else None,
        bool(told.get("settled", True)),
        seconds,
    )


def accuracies(entries: Sequence[Replicate]) -> tuple[float | None, ...]:
    """Test accuracies at the end of training (fractions), None where a replicate failed."""
    return tuple(r.curve.last()["test_accuracy"] if isinstance(r, Trained) else None for r in entries)


def early_stops(entries: Sequence[Replicate]) -> tuple[int | None, ...]:
    """Steps of least validation loss, None where a replicate failed or its loss was never finite."""
    return tuple(r.curve.early_stop_step() if isinstance(r, Trained) else None for r in entries)


def at_early_stop(entries: Sequence[Replicate]) -> tuple[float | None, ...]:
    """Test accuracies (fractions) at those steps."""
    return tuple(r.curve.accuracy_at_early_stop() if isinstance(r, Trained) else None for r in entries)


def curves_of(entries: Sequence[Replicate]) -> tuple[Curve | None, ...]:
    return tuple(r.curve if isinstance(r, Trained) else None for r in entries)
