"""A finished run, and the networks that it trained: any arm, level and replicate."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch

from winticket.experiment.plan import BESIDE, Plan
from winticket.experiment.runs import Runs, Trained, collect, trajectory
from winticket.experiment.trained_network import TrainedNetwork
from winticket.results import Build, Judged, Origin
from winticket.run import Store, StoreError
from winticket.ticket import Failed, State, Ticket


class Opened(Protocol):
    """What is read of a run, finished or not."""

    @property
    def document(self) -> Mapping[str, Any] | None: ...
    @property
    def plan(self) -> Plan: ...
    @property
    def store(self) -> Store: ...


@dataclass(frozen=True)
class Finished:
    """A finished run: its document, its plan, and the store that has its trainings."""

    document: Judged
    plan: Plan
    store: Store
    trust: tuple[str, ...] = ()


def trained(
    run: Finished,
    *,
    arm: str = "ticket",
    level: int | None = None,
    density: float | None = None,
    replicate: int | None = None,
) -> TrainedNetwork:
    """One trained network of a run.

    arm        of the run, as "ticket", "dense", "reinit"
    level      number of its level; or `density`, the level with the nearest one on a logarithmic scale (default: the
               saved ticket's level)
    replicate  from 0 (default: the one with the best validation accuracy)

    Raises ValueError for what the run does not have, naming what it has, and StoreError if the store lacks the
    training.
    """
    plan, number = run.plan, level_of(run, arm, level, density)
    entries = _entries(run, number, arm)
    chosen = _replicate(entries, arm, replicate)
    entry = entries.by_cell[number, arm][chosen]
    assert isinstance(entry, Trained)
    path = trajectory(plan, run.store, level=number, arm=arm, replicate=chosen)
    last = path.saved[max(path.saved)]
    about = about_of(plan, run.document, path.ticket, level=number, last=entry.curve.last())
    origin = _origin(run, entries, entry, about, (arm, number, chosen), density=path.ticket.mask.density())
    ticket = Ticket(
        path.ticket.mask,
        State(last.weights, last.buffers, {}, last.step),
        "trained",
        path.ticket.seeds,
        {**about, "trained": cast("Any", origin)},
    )
    return TrainedNetwork(ticket, origin, run.trust)


def level_of(run: Opened, arm: str, level: int | None, density: float | None) -> int:
    """The number of a level that has the arm. ValueError, naming what there is."""
    by_arm: dict[str, list[int]] = {}
    for number, name, _ in run.plan.tasks:
        if name not in BESIDE:
            by_arm.setdefault(name, []).append(number)
    if arm not in by_arm:
        raise ValueError(f"the run has no arm {arm!r}; it has {', '.join(by_arm)}")
    densities, numbers = run.plan.densities(), sorted(set(by_arm[arm]))
    if level is not None and density is not None:
        raise ValueError("give a level or a density, not both")
    if density is not None:
        if not 0 < density <= 1:
            raise ValueError(f"density is {density}; it is a share of the weights, above 0 and at most 1")
        return min(numbers, key=lambda number: abs(math.log(densities[number] / density)))
    if level is not None:
        if level not in numbers:
            there = ", ".join(f"{number} ({100 * densities[number]:.3g} %)" for number in numbers)
            raise ValueError(
                f"arm {arm!r} has no level {level}; its levels, with the weights kept, are {there}"
            )
        return level
    saved: Any = run.document.get("saved_ticket") if run.document else None
    usual = None if saved is None else int(saved["level"])
    if len(numbers) == 1:
        return numbers[0]
    if usual not in numbers:
        raise ValueError(
            f"the run has saved no ticket; say which level of arm {arm!r} to take (level= or --level)"
        )
    return usual


def replicate_of(run: Opened, level: int, arm: str, replicate: int | None) -> int:
    """The number of a replicate that has finished. ValueError, naming what there is; StoreError if there is none."""
    return _replicate(_entries(run, level, arm), arm, replicate)


def _entries(run: Opened, level: int, arm: str) -> Runs:
    """The replicates of an arm at a level. StoreError if the store has none of them."""
    cells = [cell for cell in run.plan.tasks if cell[:2] == (level, arm)]
    if not any(run.store.has(run.plan.tasks[cell].key) for cell in cells):
        raise StoreError(
            f"the store {run.store.path} has no training of arm {arm!r} at level {level} of this run; pass the store "
            "that has it, or run the same search again"
        )
    return collect(run.plan, run.store, only=cells)


def _replicate(entries: Runs, arm: str, replicate: int | None) -> int:
    (cell,) = entries.by_cell
    runs = entries.by_cell[cell]
    sign = entries.plan.setup.scale().sign
    accuracies = {n: sign * entry.accuracy() for n, entry in enumerate(runs) if isinstance(entry, Trained)}
    if replicate is None:
        if not accuracies:
            raise ValueError(
                f"every replicate of arm {arm!r} failed at this level, so there is no network of it"
            )
        return max(accuracies, key=lambda n: accuracies[n])
    if not 0 <= replicate < len(runs):
        raise ValueError(f"replicate is {replicate}; the run has 0 to {len(runs) - 1}, counted from 0")
    if replicate not in accuracies:
        failed = runs[replicate]
        assert isinstance(failed, Failed)
        raise ValueError(f"this replicate of arm {arm!r} failed: {failed.reason}")
    return replicate


def _origin(
    run: Finished,
    entries: Runs,
    entry: Trained,
    about: Mapping[str, Any],
    cell: tuple[str, int, int],
    *,
    density: float,
) -> Origin:
    arm, level, replicate = cell
    metric = run.document.get("metric")
    measured, verdict = run.document["levels"][level]["arms"][arm], run.document["verdict"]
    origin: Origin = {
        "data": str(about["experiment"]["data"]),
        "model": about["model"],
        "method": about["experiment"].get("method"),
        "arm": arm,
        "level": level,
        "replicate": replicate,
        "density": density,
        "steps": int(entry.curve.step[-1]),
        "test_accuracy": entry.curve.last()["test_accuracy"],
        "mean_test_accuracy": measured["accuracy"],
        "accuracy_ci": measured["accuracy_ci"],
        "replicates": len(measured["accuracies"]) - measured["failed"],
        "outcome": verdict["outcome"],
        "won": arm == "ticket" and run.document["levels"][level]["density"] in verdict["claimed"],
        "won_at": verdict["density"],
        "reason": verdict["reason"],
        "environment": dict(entries.environments[0]) if entries.environments else {},
    }
    if metric is not None:
        origin["metric"] = metric
    return origin


def about_of(
    plan: Plan, judged: Judged, ticket: Ticket, *, level: int, last: Mapping[str, float]
) -> dict[str, Any]:
    """What a ticket of a plan says about itself: everything that is needed to train it again, and its accuracies."""
    setup, verdict = plan.setup, judged["verdict"]
    replicate = ticket.seeds.replicate
    loaded = setup.dataset(torch.device("cpu"), replicate)
    made = setup.loss_and_metric()
    units: dict[str, list[float]] = {}
    if made is not None and made.centre is not None and made.spread is not None:
        units = {"centre": made.centre.tolist(), "spread": made.spread.tolist()}
    return {
        "model": setup.model,
        "init": setup.init,
        "input_shape": list(setup.input_shape),
        "classes": setup.classes,
        "build": build_of(plan, ticket),
        "recipe": dataclasses.asdict(setup.recipe),
        "data": {
            "name": setup.data,
            "fingerprint": setup.fingerprint,
            "split_seed": setup.split_seed(replicate),
            "own_split": setup.own_split,
            "validation": len(loaded.validation.y),
            "test": len(loaded.test.y),
            "mean": list(loaded.mean),
            "std": list(loaded.std),
            "scale": loaded.scale,
            "class_names": list(loaded.class_names),
            **units,
        },
        "experiment": judged["experiment"],
        "level": level,
        "verdict": {name: verdict[name] for name in ("outcome", "density", "reason")},
        "validation_accuracy": last["validation_accuracy"],
        "test_accuracy": last["test_accuracy"],
    }


def build_of(plan: Plan, ticket: Ticket) -> Build:
    """The arguments of `winticket.models.build` for a network that the ticket fits."""
    setup = plan.setup
    build: Build = {
        "name": setup.model,
        "input_shape": list(setup.input_shape),
        "classes": setup.classes,
        "generator_seed": ticket.seeds.derive("init"),
        "init": setup.init,
        "tokens": setup.tokens,
    }
    if setup.target != "classes":
        build["target"] = setup.target
    return build
