"""A folder in the Hugging Face Hub's layout as a format of `winticket ship`: compact file, config.json, README.md."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from winticket.atomic import replace_file
from winticket.objective import Scale
from winticket.results import Origin, Shipment
from winticket.ship.compact import load, save
from winticket.ship.compact_layout import NAME, VERSION
from winticket.ship.format import Format, Source, Written
from winticket.ship.hub_files import CARD, CONFIG, LIBRARY, MODEL, REPOSITORY
from winticket.ship.interpret import run
from winticket.ship.network import Network
from winticket.ship.using import compact_lines
from winticket.ship.words import last_part
from winticket.version import __version__


def _write(source: Source, path: Path, values: str) -> Written:
    config = path.with_name(CONFIG)
    sizes = save(source.network, path, values=values)
    text = json.dumps(_config(source.network, values), indent=2, ensure_ascii=False, allow_nan=False)
    replace_file(config, f"{text}\n".encode("utf-8", "replace"))
    return Written(sizes, beside=(config,))


def _config(network: Network, values: str) -> dict[str, Any]:
    kept, size = network.kept()
    ready = network.preprocessing
    return {
        "library_name": LIBRARY,
        "library_version": __version__,
        "format": f"{NAME} {VERSION}",
        "values": values,
        "input_shape": list(network.input_shape),
        "output_shape": list(network.shapes[network.output]),
        "preprocessing": ready
        and {"scale": ready.scale, "mean": list(ready.mean), "deviation": list(ready.deviation)},
        "id2label": {str(number): name for number, name in enumerate(network.classes)},
        "weights": size,
        "kept": kept,
        "about": dict(network.about),
    }


def _header(shipment: Shipment, about: Mapping[str, Any]) -> str:
    """The YAML that the Hub reads at the top of a card (texts are JSON's strings, which are YAML's)."""
    return "\n".join(["---", *_entries(shipment, about), "---", "", ""])


def _quoted(text: str) -> str:
    return json.dumps(text.encode("utf-8", "replace").decode())


def _entries(shipment: Shipment, about: Mapping[str, Any]) -> Iterator[str]:
    origin = shipment["origin"]
    task = "image-classification" if len(about.get("input_shape") or ()) == 3 else None
    yield f"library_name: {LIBRARY}"
    if task:
        yield f"pipeline_tag: {task}"
    yield "tags:"
    yield from (f"- {tag}" for tag in (LIBRARY, "lottery-ticket-hypothesis", "pruning", "sparsity"))
    if origin is not None:  # what a compact file says of itself was not evaluated, so it is no result
        yield from _results(shipment, origin, about, task or "other")


def _results(shipment: Shipment, origin: Origin, about: Mapping[str, Any], task: str) -> Iterator[str]:
    read_back, data = shipment["read_back"], _quoted(origin["data"].split("/")[-1] or "data")
    accuracy = origin["test_accuracy"] if read_back is None else read_back["test_accuracy"]
    if REPOSITORY.fullmatch(origin["data"]) and about.get("data", {}).get("name") == origin["data"]:
        yield "datasets:"
        yield f"- {_quoted(origin['data'])}"
    yield "model-index:"
    yield f"- name: {_quoted(last_part(origin['model']))}"
    yield "  results:"
    yield f"  - task: {{type: {task}}}"
    yield f"    dataset: {{name: {data}, type: {data}, split: test}}"
    yield "    metrics:"
    name = Scale.of_json(origin.get("metric")).name
    kind, said = (name, f"test {name}") if name == "accuracy" else (_quoted(name), _quoted(f"test {name}"))
    yield f"    - {{type: {kind}, value: {accuracy!r}, name: {said}}}"


def _use(source: Source, name: str) -> tuple[str, ...]:
    return compact_lines(source.network, str(Path(name).parent), "or user/name, its name on the Hub")


HUB = Format(
    f"a folder for the Hugging Face Hub, with a compact file, {CONFIG} and this card",
    lambda name, values: f"{name}-{values}/{MODEL}",
    _write,
    lambda _, path, x: run(load(path.parent), x),
    _use,
    card=CARD,
    header=_header,
)
"""The format."""
