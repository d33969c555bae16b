"""The card of a file that was made of a compact file: what that says of itself, and what could be seen here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from winticket.results import Claims, Shipment
from winticket.ship.card_accuracy import good
from winticket.ship.card_inputs import inputs
from winticket.ship.card_size import removed, small
from winticket.ship.markdown import joined, safe, table
from winticket.ship.words import density_percent, last_part

UNCHECKED = "Made of a compact file; nobody has checked what that says of itself."
"""What is known of such a network, in a sentence."""


def card_of_file(
    shipment: Shipment, about: Mapping[str, Any], *, what: str, use: Sequence[str], language: str = "python"
) -> str:
    """The card of a shipment that comes from no run.

    about: `input_shape`, `classes` and, under `data`, the preprocessing and names of classes, as the file has them;
    what: what the file is; use: lines of code, in a language, that use it.
    """
    claims = shipment["claims"]
    assert claims is not None
    return joined(
        _what(shipment, claims, what),
        _said(claims),
        good(shipment),
        small(shipment),
        removed(shipment),
        inputs(about),
        ("## How to use it", "", f"```{language}", *use, "```"),
    )


def _what(shipment: Shipment, claims: Claims, what: str) -> Iterator[str]:
    share = density_percent(shipment["kept"] / shipment["weights"]) if shipment["weights"] else "100 %"
    yield f"# {safe(last_part(shipment['file']))}"
    yield ""
    yield (
        f"`{last_part(shipment['file'])}` is a trained network of which {share} of the weights of layers are kept. "
        f"winticket {safe(shipment['winticket'])} wrote it as {what}. It was made of the compact file "
        f"`{safe(last_part(claims['file']))}` alone, without a run."
    )


def _said(claims: Claims) -> Iterator[str]:
    yield "## What the compact file says of itself"
    yield ""
    if not claims["said"]:
        yield "It says nothing of where it comes from."
        return
    yield "Nobody has checked this here: neither its run nor its data came with it."
    yield ""
    yield from table([(safe(name), safe(value)) for name, value in claims["said"].items()], ("", ""))
