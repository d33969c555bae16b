"""How large a shipped file is, and what was removed of its network."""

from __future__ import annotations

from collections.abc import Iterator

from winticket.results import Shipment
from winticket.ship.markdown import safe, table
from winticket.ship.words import kilobytes, last_part


def size_rows(shipment: Shipment) -> list[tuple[str, str]]:
    """(What, its size): the file, the dense state dict; for a compact file the information in it, for C its memory."""
    memory, dense = (
        shipment["memory"],
        ("state dict of the dense network", kilobytes(shipment["dense_bytes"])),
    )
    if memory is not None:
        ram = memory["scratch"] + memory["buffers"]
        split = f"scratch {kilobytes(memory['scratch'])}, input and output {kilobytes(memory['buffers'])}"
        return [
            (
                "flash",
                f"{kilobytes(memory['flash'])} of constants{_smaller(shipment, memory['flash'])}; code is extra",
            ),
            ("RAM", f"{kilobytes(ram)}: {split}"),
            dense,
        ]
    page = shipment["format"] == "web"
    smaller = "" if page else _smaller(shipment, shipment["bytes"])
    rows = [
        (
            "this page, its networks in it" if page else "this file",
            f"{kilobytes(shipment['bytes'])}{smaller}",
        ),
        dense,
    ]
    if parts := shipment["parts"]:
        above = 100 * (shipment["bytes"] / parts["information"] - 1) if parts["information"] else 0.0
        rows += [
            (
                "information in masks and values",
                f"{kilobytes(parts['information'])}; the file is {above:.1f} % above",
            ),
            ("- masks", kilobytes(parts["masks"])),
            (f"- values ({shipment['values']}), biases, scales", kilobytes(parts["values"])),
            ("- description of the operations", kilobytes(parts["description"])),
        ]
    return rows


def _smaller(shipment: Shipment, size: int) -> str:
    times = shipment["dense_bytes"] / max(1, size)
    return f", {times:.1f} times smaller than dense" if times > 1 else ""


def small(shipment: Shipment) -> Iterator[str]:
    """How large it is."""
    yield "## How small it is"
    yield ""
    yield from table(size_rows(shipment), ("", "size"))
    yield ""
    information = (
        " The information in a mask is its entropy, in a value its bits." if shipment["parts"] else ""
    )
    yield f"{shipment['kept']:,} of {shipment['weights']:,} weights of layers are kept.{information}"


def removed_sentence(shipment: Shipment) -> str:
    """What `--shrink` removed, in a sentence; empty if it was not asked for."""
    if (shrunk := shipment["shrunk"]) is None:
        return ""
    first = next((one for one in shrunk["layers"] if one["inputs_before"] is not None), None)
    read = first and f", and {first['name']} reads {first['inputs']:,} of {first['inputs_before']:,} inputs"
    return (
        f"{shrunk['units']:,} of {shrunk['units_before']:,} units are left{read or ''}. Outputs on noise differ from "
        f"the whole network's by {shrunk['largest_difference']:.1g} of the largest or less"
    )


def removed(shipment: Shipment) -> Iterator[str]:
    """What `--shrink` removed, layer by layer; nothing if it was not asked for."""
    if (shrunk := shipment["shrunk"]) is None:
        return
    yield "## What was removed"
    yield ""
    yield (
        f"{safe(removed_sentence(shipment))}, in float64. `{safe(last_part(shrunk['maps']))}` has the numbers that "
        "units and inputs had in the original."
    )
    yield ""
    rows = [
        (
            safe(one["name"]),
            f"{one['units']:,} of {one['units_before']:,}",
            "" if one["inputs"] is None else f"{one['inputs']:,} of {one['inputs_before']:,}",
        )
        for one in shrunk["layers"]
    ]
    yield from table(rows, ("layer", "units", "inputs"))
    for note in shrunk["notes"]:
        yield ""
        yield safe(note)
