"""The model card: a Markdown page beside each shipped file, with what it is, how good, how small, and where from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from winticket.results import Origin, Shipment
from winticket.ship.card_accuracy import good
from winticket.ship.card_inputs import inputs
from winticket.ship.card_size import removed, small
from winticket.ship.markdown import joined, safe, table
from winticket.ship.words import density_percent, last_part

_RECIPE = (
    "optimizer",
    "lr",
    "momentum",
    "weight_decay",
    "schedule",
    "steps",
    "batch",
    "warmup",
    "flip",
    "crop",
)


def card(
    shipment: Shipment, about: Mapping[str, Any], *, what: str, use: Sequence[str], language: str = "python"
) -> str:
    """The card of a shipment.

    about: of the ticket, with recipe and data; what: what the file is; use: lines of code, in a language, that use it.
    """
    origin = origin_of(shipment)
    return joined(
        _what(shipment, what),
        good(shipment),
        small(shipment),
        removed(shipment),
        _verdict(origin),
        inputs(about),
        ("## How to use it", "", f"```{language}", *use, "```"),
        _from(origin, about),
        _environment(origin),
    )


def origin_of(shipment: Shipment) -> Origin:
    """The training that a shipment comes from; for shipments that come from one."""
    origin = shipment["origin"]
    assert origin is not None
    return origin


def _what(shipment: Shipment, what: str) -> Iterator[str]:
    origin = origin_of(shipment)
    share = density_percent(origin["density"])
    yield f"# {safe(last_part(origin['model']))} for {safe(last_part(origin['data']))}, {share} of its weights"
    yield ""
    yield (
        f"`{last_part(shipment['file'])}` is a trained network of which {share} of the weights that may be pruned are "
        f"kept. winticket {safe(shipment['winticket'])} wrote it as {what}."
    )


def standing(origin: Origin) -> str:
    """Whether this network has won, in a sentence."""
    if origin["arm"] != "ticket":
        return f"This network is no ticket, but arm {origin['arm']} of a run that judges tickets."
    if origin["won"]:
        return "Tickets of this density win."
    at = f"; they win at {density_percent(origin['won_at'])}" if origin["won_at"] else ""
    return f"Tickets of this density are not shown to win{at}."


def _verdict(origin: Origin) -> Iterator[str]:
    yield "## The verdict of its run"
    yield ""
    yield f"**{safe(standing(origin))}** {safe(origin['reason'])}"


def _from(origin: Origin, about: Mapping[str, Any]) -> Iterator[str]:
    data, recipe = about.get("data") or {}, about.get("recipe") or {}
    rows = [
        ("data", f"{safe(last_part(origin['data']))}, fingerprint {safe(str(data.get('fingerprint'))[:12])}"),
        ("model", safe(last_part(origin["model"]))),
        ("method", safe(origin["method"] or "not known")),
        ("arm, level, replicate", f"{safe(origin['arm'])}, {origin['level']}, {origin['replicate'] + 1}"),
        ("density", f"{origin['density']:.4g} of the weights that may be pruned"),
        ("trained to step", f"{origin['steps']:,}"),
        *((safe(name), safe(recipe[name])) for name in _RECIPE if recipe.get(name) not in (None, 0, False)),
    ]
    yield "## Where it comes from"
    yield ""
    yield from table(rows, ("", ""))


def _environment(origin: Origin) -> Iterator[str]:
    rows = [(safe(name), safe(value)) for name, value in origin["environment"].items() if value is not None]
    yield "## Environment of its training"
    yield ""
    yield from table(rows, ("", ""))
