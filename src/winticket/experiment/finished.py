"""The trained networks of a run: any arm, level and replicate, with its accuracy and what is needed to rebuild it."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import msgspec
import torch
from torch import nn

from winticket import data as datasets
from winticket import ship
from winticket.data import Split
from winticket.experiment.plan import BESIDE, Plan
from winticket.experiment.runs import Runs, Trained, collect, trajectory
from winticket.outside import Unreadable, converted
from winticket.results import Build, Judged, Origin, Shipment
from winticket.run import Store, StoreError
from winticket.ship import shipping
from winticket.ship.card import last_part
from winticket.ship.formats import Source
from winticket.ticket import Failed, State, Ticket


@dataclass(frozen=True)
class Finished:
    """A finished run: its document, its plan, and the store that has its trainings."""

    document: Judged
    plan: Plan
    store: Store
    trust: tuple[str, ...] = ()


class _Data(msgspec.Struct):
    """What is read of a ticket's about["data"]."""

    name: str
    fingerprint: str
    split_seed: int
    validation: int
    test: int
    mean: list[float]
    std: list[float]
    scale: float
    class_names: list[str]


class _Build(msgspec.Struct):
    """What is read of a ticket's about["build"] beside `Ticket.build_model`."""

    tokens: bool = False


class _About(msgspec.Struct):
    """What is read of a trained ticket's `about`, which may come from a file."""

    trained: Origin
    build: _Build
    data: _Data
    input_shape: list[int]
    classes: int
    recipe: dict[str, Any] = {}


@dataclass(frozen=True)
class TrainedNetwork:
    """A sparse (or dense) network at the end of a training.

    ticket   its mask, and as start the trained weights and buffers; `ticket.about` says what it takes to rebuild it
    origin   which training it is the end of, and its accuracies
    trust    modules of the user's that its model may import
    """

    ticket: Ticket
    origin: Origin
    trust: tuple[str, ...] = ()

    def __repr__(self) -> str:
        one = self.origin
        return (
            f"TrainedNetwork({one['arm']!r}, density {one['density']:.4g}, replicate {one['replicate']}, "
            f"test accuracy {one['test_accuracy']:.4f})"
        )

    def model(self) -> nn.Module:
        """The network as a torch module in evaluation mode, with its trained weights; pruned ones are 0.

        ValueError if it names a module that is not trusted, or cannot be built.
        """
        return self.ticket.build_model(trust=self.trust).eval()

    def test_examples(self) -> Split:
        """The test examples of its replicate, normalised.

        ValueError or OSError if the data cannot be read, have changed, or would be fetched without being trusted.
        """
        facts = _about(self.ticket).data
        known = facts.name in datasets.names() or Path(facts.name).expanduser().exists()
        if not known and facts.name not in self.trust:
            raise ValueError(
                f"the data are {facts.name!r}, which is not on this machine and would be fetched from the Hub; to "
                f"allow that, pass --trust {facts.name} (in Python trust=[{facts.name!r}])"
            )
        loaded = datasets.load(
            facts.name, seed=facts.split_seed, validation=facts.validation, test=facts.test
        )
        if loaded.fingerprint != facts.fingerprint:
            raise ValueError(f"the data {facts.name!r} are not those that the network was trained on")
        return loaded.test

    def network(self) -> ship.Network:
        """The network without torch, as formats are made of it; it is compared with the model first.

        Raises ValueError, naming operation and layer, if it has an operation that cannot be shipped.
        """
        about, model = _about(self.ticket), self.model()
        facts = about.data
        identity = facts.scale == 1 and set(facts.mean) == {0} and set(facts.std) == {1}
        numbered = facts.class_names == [str(number) for number in range(len(facts.class_names))]
        network = ship.capture(
            model,
            self.ticket.mask,
            example=torch.zeros(1, *about.input_shape, dtype=torch.int64 if about.build.tokens else None),
            preprocessing=None
            if identity
            else ship.Preprocessing(facts.scale, tuple(facts.mean), tuple(facts.std)),
            classes=() if numbered else facts.class_names,
        )
        return dataclasses.replace(network, about=_brief(self.origin))

    def ship(
        self, folder: str | Path, *, to: str = "safetensors", values: str = "fp32", name: str = ""
    ) -> Shipment:
        """Write the network to a file in `folder`, read it back, evaluate it on the test data, and write a model card.

        to      a format: "safetensors" (the compact file) or "torch" (a state dict, as safetensors too)
        values  how kept weights are stored: "fp32", "fp16", "bf16" or "int8"; state dicts are fp32
        name    of the file, without its ending (default: arm, density and replicate)

        Raises ValueError for what is not possible, before anything is written; OSError if the folder cannot be written;
        ShipmentError if what was written does not compute what the trained network computes.
        """
        shipping.check(to, values)
        model, network = self.model(), self.network()
        examples, reason = None, None
        try:
            examples = self.test_examples()
        except (ValueError, OSError, LookupError, ImportError) as error:
            reason = str(error)
        return shipping.write(
            Source(network, model),
            Path(folder),
            to=to,
            values=values,
            name=name or _name(self.origin),
            origin=self.origin,
            about=msgspec.to_builtins(_about(self.ticket)),
            examples=None if examples is None else (examples.x.numpy(), examples.y.numpy()),
            not_evaluated=reason,
        )


def _about(ticket: Ticket) -> _About:
    """What a ticket says about itself. ValueError, naming the entry, if that is not what this module writes."""
    try:
        return converted(dict(ticket.about), _About)
    except Unreadable as error:
        raise ValueError(f"the ticket's about is not that of a trained network: {error}") from error


def _brief(origin: Origin) -> dict[str, Any]:
    """What a file says of itself, in few bytes; the card beside it says the rest."""
    return {
        "data": last_part(origin["data"]),
        "model": origin["model"],
        "arm": origin["arm"],
        "replicate": origin["replicate"],
        "test_accuracy": origin["test_accuracy"],
    }


def _name(origin: Origin) -> str:
    arm = re.sub(r"[^\w-]+", "-", origin["arm"])
    return f"{arm}-{100 * origin['density']:.3g}pct-r{origin['replicate'] + 1}"


def from_ticket(ticket: Ticket, *, trust: Sequence[str] = ()) -> TrainedNetwork:
    """The trained network that a ticket file holds which `TrainedNetwork.ticket.save` wrote.

    ValueError if the ticket does not say that its start is the end of a training.
    """
    if "trained" not in ticket.about:
        raise ValueError(
            "the ticket holds the start of a training, not its end, so there is no trained network to ship"
        )
    return TrainedNetwork(ticket, _about(ticket).trained, tuple(trust))


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
    plan, number = run.plan, _level(run, arm, level, density)
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


def _level(run: Finished, arm: str, level: int | None, density: float | None) -> int:
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
    saved: Any = run.document.get("saved_ticket")
    usual = None if saved is None else int(saved["level"])
    if len(numbers) == 1:
        return numbers[0]
    if usual not in numbers:
        raise ValueError(
            f"the run has saved no ticket; say which level of arm {arm!r} to take (level= or --level)"
        )
    return usual


def _entries(run: Finished, level: int, arm: str) -> Runs:
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
    accuracies = {n: entry.accuracy() for n, entry in enumerate(runs) if isinstance(entry, Trained)}
    if replicate is None:
        if not accuracies:
            raise ValueError(
                f"every replicate of arm {arm!r} failed at this level, so there is nothing to ship"
            )
        return max(accuracies, key=lambda n: accuracies[n])
    if not 0 <= replicate < len(runs):
        raise ValueError(
            f"replicate {replicate} is not one of the {len(runs)} of this run, 0 to {len(runs) - 1}"
        )
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
    measured, verdict = run.document["levels"][level]["arms"][arm], run.document["verdict"]
    return {
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


def about_of(
    plan: Plan, judged: Judged, ticket: Ticket, *, level: int, last: Mapping[str, float]
) -> dict[str, Any]:
    """What a ticket of a plan says about itself: everything that is needed to train it again, and its accuracies."""
    setup, verdict = plan.setup, judged["verdict"]
    replicate = ticket.seeds.replicate
    loaded = setup.dataset(torch.device("cpu"), replicate)
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
    return {
        "name": setup.model,
        "input_shape": list(setup.input_shape),
        "classes": setup.classes,
        "generator_seed": ticket.seeds.derive("init"),
        "init": setup.init,
        "tokens": setup.tokens,
    }
