"""A trained network of a run: its weights and mask, its accuracy, and what is needed to rebuild and ship it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from numpy.typing import NDArray
from torch import nn

from winticket import data as datasets
from winticket import ship
from winticket.catalogue import is_folder
from winticket.data import Split
from winticket.data.reading import Reading
from winticket.experiment.documents import why_not_here
from winticket.importing import require_trust
from winticket.objective import Objective, Scale
from winticket.outside import Unreadable, converted
from winticket.places import exists_here
from winticket.results import Origin, Shipment
from winticket.ship import shipping
from winticket.ship.as_transformers import fitted
from winticket.ship.choices import check, check_name
from winticket.ship.format import Source
from winticket.ship.shrinking import TOKENS_ALONE, shrink_network
from winticket.ship.shrinking_modules import shrink_model, shrink_text_model
from winticket.ship.words import last_part
from winticket.ticket import Ticket


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
    centre: list[float] | None = None
    spread: list[float] | None = None


class _Build(msgspec.Struct):
    """What is read of a ticket's about["build"] beside `Ticket.build_model`."""

    name: str
    tokens: bool = False
    target: str = "classes"


class _About(msgspec.Struct):
    """What is read of a trained ticket's `about`, which may come from a file."""

    trained: Origin
    build: _Build
    data: _Data
    input_shape: list[int]
    classes: int
    recipe: dict[str, Any] = {}
    experiment: dict[str, Any] = {}


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
            f"{_tested(one).replace('_', ' ')} {one['test_accuracy']:.4f})"
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
        known = facts.name in datasets.names() or exists_here(facts.name)
        if not known and facts.name not in self.trust:
            raise ValueError(f"the data are {facts.name!r}, {why_not_here(facts.name)}")
        loaded = datasets.load(
            facts.name,
            seed=facts.split_seed,
            validation=facts.validation,
            test=facts.test,
            window=_about(self.ticket).input_shape[0] if _about(self.ticket).build.tokens else None,
            reading=_reading(_about(self.ticket).experiment),
        )
        if loaded.fingerprint != facts.fingerprint:
            raise ValueError(f"the data {facts.name!r} are not those that the network was trained on")
        return loaded.test

    def score(self) -> Callable[[NDArray[Any], NDArray[Any]], float] | None:
        """The metric of outputs and targets, as the run judges by it; None if that is accuracy.

        Outputs are in units of `spread` around `centre`, as the network gives numbers; targets are in their own unit.
        ValueError if the metric is a function of a module that is not trusted.
        """
        if "metric" not in self.origin:
            return None
        about = _about(self.ticket)
        for name in ("loss", "metric"):
            if ":" in str(named := about.experiment.get(name, "")):
                require_trust(str(named), self.trust, where=f"the ticket's {name}")
        kinds = {"numbers": "regression", "labels": "multi-label", "positions": "segmentation"}
        task = kinds.get(about.build.target, "next-token" if about.build.tokens else "classification")
        metric = Objective(task, metric=about.experiment.get("metric")).metric_function()
        centre, spread = (
            torch.tensor(value if value is not None else [usual])
            for value, usual in ((about.data.centre, 0.0), (about.data.spread, 1.0))
        )

        def score(outputs: NDArray[Any], y: NDArray[Any]) -> float:
            computed = torch.from_numpy(outputs.copy())
            return metric(
                computed * spread + centre if task == "regression" else computed, torch.from_numpy(y)
            )

        return score

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
        self,
        folder: str | Path,
        *,
        to: str = "safetensors",
        values: str = "fp32",
        name: str = "",
        dense: TrainedNetwork | None = None,
        shrink: bool = False,
    ) -> Shipment:
        """Write the network to a file in `folder`, read it back, evaluate it on the test data, and write a model card.

        to      a format: "safetensors" (the compact file), "torch" (a state dict, as safetensors too), "onnx",
                "tflite", "tflite-sparse", "c", "hub" (a folder with a compact file) or "web" (a page)
        values  how kept weights are stored: "fp32" or "int8" in C, and in compact files and pages also "fp16" and
                "bf16"; other formats are fp32
        name    of the file, without its ending (default: arm, density and replicate)
        dense   a network that the page compares it with, as `result.trained(arm="dense")`; pages alone take it
        shrink  whether to remove units and inputs that the mask has cut off; their numbers are written beside the file

        Raises ValueError for what is not possible, before anything is written; OSError if the folder cannot be written;
        ShipmentError if what was written does not compute what the trained network computes.
        """
        check(to, values)
        check_name(name)
        if dense is not None and to != "web":
            raise ValueError(f"dense is for pages (to='web'); format {to} holds one network")
        source = self._source(to, shrink=shrink, dense=dense)
        examples, reason, score = None, None, None
        try:
            examples, score = self.test_examples(), self.score()
        except (ValueError, OSError, LookupError, ImportError) as error:
            reason = str(error)
        return shipping.write(
            source,
            Path(folder),
            to=to,
            values=values,
            name=name or _name(self.origin) + ("-shrunk" if shrink else ""),
            origin=self.origin,
            about=msgspec.to_builtins(_about(self.ticket)),
            examples=None if examples is None else (examples.x.numpy(), examples.y.numpy()),
            score=score,
            not_evaluated=reason,
            exact=values == "fp32",
        )

    def _source(self, to: str, *, shrink: bool, dense: TrainedNetwork | None) -> Source:
        """The network as a format takes it; a state dict is one of a smaller module."""
        if _about(self.ticket).build.tokens:
            return self._text_source(to, shrink=shrink)
        model, network = self.model(), self.network()
        other = None if dense is None else dense.network()
        if not shrink:
            return Source(network, model, dense=other)
        mask = self.ticket.mask
        shrunk = shrink_model(model, mask, network) if to == "torch" else shrink_network(network)
        return Source(shrunk.network, model, shrunk=shrunk, dense=other)

    def _text_source(self, to: str, *, shrink: bool) -> Source:
        """A network that reads tokens, as a module alone. ValueError for other formats than state dicts."""
        about, mask = _about(self.ticket), self.ticket.mask
        pretrained = about.build.name if is_folder(about.build.name) else ""
        if to != "torch" and not (to == "hub" and pretrained):
            raise ValueError(TOKENS_ALONE)
        model = self.model()
        shrunk = (
            shrink_text_model(
                model, mask, length=about.input_shape[0], tokens=about.classes, pretrained=bool(pretrained)
            )
            if shrink
            else None
        )
        if to == "hub" and shrunk is not None and shrunk.module is not None:
            fitted(shrunk.module.config, shrunk.module)  # refused before anything is written
        counts = mask.count(), mask.total()
        return Source(None, model, shrunk=shrunk, counts=counts, pretrained=pretrained)


def _about(ticket: Ticket) -> _About:
    """What a ticket says about itself. ValueError, naming the entry, if that is not what this module writes."""
    try:
        return converted(dict(ticket.about), _About)
    except Unreadable as error:
        raise ValueError(f"the ticket's about is not that of a trained network: {error}") from error


def _reading(experiment: Mapping[str, Any]) -> Reading:
    """How the data of an experiment are read, by its description."""
    return converted(experiment.get("reading", {}), Reading)


def _brief(origin: Origin) -> dict[str, Any]:
    """What a file says of itself, in few bytes; the card beside it says the rest."""
    return {
        "data": last_part(origin["data"]),
        "model": last_part(origin["model"]),
        "arm": origin["arm"],
        "replicate": origin["replicate"],
        _tested(origin): origin["test_accuracy"],
    }


def _tested(origin: Origin) -> str:
    """What a file calls the score: test_accuracy, test_RMSE."""
    return f"test_{Scale.of_json(origin.get('metric')).name.replace(' ', '_')}"


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
