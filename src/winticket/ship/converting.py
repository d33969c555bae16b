"""A compact file as another format, without the run that it comes from."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from winticket.outside import Unreadable, read_file, read_header
from winticket.results import Claims, Shipment
from winticket.results.measures import Scalar
from winticket.ship import shipping
from winticket.ship.choices import HOLDS, check, check_name
from winticket.ship.coding import VALUES
from winticket.ship.compact import CompactFileError, load
from winticket.ship.compact_layout import FORMAT, KINDS_OF_VALUES, NAME
from winticket.ship.format import NotEvaluated, Source
from winticket.ship.formats import FORMATS
from winticket.ship.hub_files import MODEL
from winticket.ship.network import Network
from winticket.ship.shrinking import shrink_network

MOST_BYTES = 1 << 30
"""Most bytes of a network's dense tensors: what is converted is computed too, by dense tensors."""
MOST_CLAIMS, LONGEST_CLAIM = 20, 200
"""Most entries of what a file says of itself that are passed on, and the longest text of one."""
NO_DATA = "a compact file has no test data with it"


def is_compact(path: Path) -> bool | None:
    """Whether a path is a compact file, or a folder that `winticket ship --to hub` wrote; None if it is damaged.

    >>> is_compact(Path("no-such.safetensors"))
    False
    """
    file = path / MODEL if path.is_dir() else path
    if file.suffix != ".safetensors" or not file.is_file():
        return False
    try:
        return read_header(read_file(file))[1].get(FORMAT, "").startswith(NAME)
    except Unreadable:
        return None


def convert(
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str] | None = None,
    *,
    to: str,
    values: str | None = None,
    name: str = "",
    shrink: bool = False,
) -> Shipment:
    """Write the network of a compact file to `folder` in another format, with a card; no run and no data are needed.

    path    a compact file, or a folder that `winticket ship --to hub` wrote
    folder  default: that of the file
    to      a format, as `winticket ship --to` takes it
    values  how kept weights are stored; default: as in the file if the format can, else fp32
    name    of the new file, without its ending; default: that of the file
    shrink  whether to remove units and inputs that the masks have cut off

    What is written is read back and compared with the network on noise, unless that takes very long. Its accuracy is
    not known; the card says what the file says of itself.

    Raises CompactFileError for a file that is none; ValueError for what is not possible, before anything is written;
    ShipmentError if what was written computes something else.
    """
    path = Path(path)
    network = load(path)
    file = path / MODEL if path.is_dir() else path
    held = _held(file)
    values = values or (held if held in HOLDS.get(to, ()) else "fp32")
    check(to, values)
    check_name(name)
    folder = Path(file.parent if folder is None else folder)
    name = name or _name(path) + ("-shrunk" if shrink else "")
    target = folder / FORMATS[to].named(name, values)
    if target.exists() and target.samefile(file):
        raise ValueError(
            f"{target} is the file itself; give another name with --name, or a folder with --out"
        )
    _check_size(network)
    return shipping.write(
        _source(network, shrink=shrink),
        folder,
        to=to,
        values=values,
        name=name,
        origin=None,
        about=_about(network),
        claims=_claims(network, path),
        not_evaluated=NO_DATA,
        exact=values == "fp32" or (values == held and not shrink),
    )


def _source(network: Network, *, shrink: bool) -> Source:
    if not shrink:
        return Source(network)
    try:
        shipping.check_small(network)
    except NotEvaluated as reason:
        raise ValueError(
            f"the network cannot be shrunk, since its outputs are compared: {reason}"
        ) from reason
    shrunk = shrink_network(network)
    return Source(shrunk.network, whole=network, shrunk=shrunk)


def _held(file: Path) -> str:
    """The kind of values that a compact file holds."""
    header, _ = read_header(read_file(file))
    return KINDS_OF_VALUES[header["values"].dtype] if "values" in header else "fp32"


def _name(path: Path) -> str:
    """The name of a compact file without its ending and its kind of values, or that of its folder."""
    stem = path.resolve().name if path.is_dir() else path.stem
    return re.sub(rf"-({'|'.join(VALUES)})$", "", stem) or "network"


def _check_size(network: Network) -> None:
    size = 4 * sum(weight.size for weight in network.weights().values())
    if size > MOST_BYTES:
        raise CompactFileError(
            f"the network takes {size} bytes with all its weights, and one of up to {MOST_BYTES} is converted"
        )


def _claims(network: Network, path: Path) -> Claims:
    """What a network says of itself: its first entries that are text, numbers, true or false."""
    said: dict[str, Scalar] = {}
    for key, value in network.about.items():
        if isinstance(value, str | int | float) and len(said) < MOST_CLAIMS:
            said[key[:LONGEST_CLAIM]] = value[:LONGEST_CLAIM] if isinstance(value, str) else value
    return {"file": str(path), "said": said}


def _about(network: Network) -> Mapping[str, Any]:
    """What a card says of inputs and outputs, as a ticket's `about` has it."""
    ready, outputs = network.preprocessing, network.shapes[network.output]
    data: dict[str, Any] = {"class_names": list(network.classes)}
    if ready is not None:
        data |= {"scale": ready.scale, "mean": list(ready.mean), "std": list(ready.deviation)}
    return {"input_shape": list(network.input_shape), "classes": " x ".join(map(str, outputs)), "data": data}
