"""Write a trained network, read it back, compare it, evaluate it, and put a model card beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from winticket.atomic import replace_file
from winticket.results import Bytes, Origin, ReadBack, Shipment
from winticket.ship.card import card, standing
from winticket.ship.compact_write import Sizes
from winticket.ship.format import NotEvaluated, ShipmentError, Source
from winticket.ship.formats import FORMATS, state_dict_bytes, torch_logits
from winticket.version import __version__

TOLERANCE = 1e-4
"""Largest difference of a logit after a round trip in fp32, relative to the largest logit: float32's rounding."""
Examples = tuple[NDArray[Any], NDArray[Any]]


def write(
    source: Source,
    folder: Path,
    *,
    to: str,
    values: str,
    name: str,
    origin: Origin,
    about: Mapping[str, Any],
    examples: Examples | None = None,
    not_evaluated: str | None = None,
) -> Shipment:
    """Write the file and its card to `folder`, under `name`; returns what was written and measured.

    `examples` (x, y) are the test data; without them, `not_evaluated` says why. `about` is the ticket's. Raises
    ShipmentError if the file computes something else than the network; then neither the file nor what belongs to it is
    left, nor the card of an earlier file of that name.
    """
    form = FORMATS[to]
    path = folder / form.named(name, values)
    card_path = path.with_name(form.card or f"{path.name}.md")
    path.parent.mkdir(parents=True, exist_ok=True)
    source = replace(source, examples=examples, note=standing(origin))
    card_path.unlink(missing_ok=True)  # an earlier file's, which this one may replace and then fail
    written = form.write(source, path, values)
    read_back = None
    with _removed_on_error(path, *written.beside):
        try:
            read_back = None if examples is None else _read_back(source, path, examples, to=to, values=values)
        except NotEvaluated as reason:
            not_evaluated = str(reason)
    kept, weights = source.network.kept()
    shipment: Shipment = {
        "winticket": __version__,
        "file": str(path),
        "beside": [str(file) for file in written.beside],
        "card": str(card_path),
        "format": to,
        "values": values,
        "bytes": path.stat().st_size,
        "dense_bytes": len(state_dict_bytes(source.model)),
        "parts": None if written.sizes is None else _parts(written.sizes),
        "memory": written.memory,
        "weights": weights,
        "kept": kept,
        "origin": origin,
        "read_back": read_back,
        "not_evaluated": None if read_back else not_evaluated or "no test data were given",
        "use": list(form.use(source.network, str(path))),
    }
    use = form.use(source.network, path.name)
    text = card(shipment, about, what=form.what, use=use, language=form.language)
    text = form.header(shipment, about) + text
    replace_file(card_path, text.encode("utf-8", "replace"))
    return shipment


@contextmanager
def _removed_on_error(*files: Path) -> Iterator[None]:
    """Remove files that were not found right, also if the command is stopped meanwhile."""
    try:
        yield
    except BaseException:
        for file in files:
            file.unlink(missing_ok=True)
        raise


def _parts(sizes: Sizes) -> Bytes:
    parts: Any = asdict(sizes)
    del parts["file"]
    return parts  # type: ignore[no-any-return]


def _read_back(source: Source, path: Path, examples: Examples, *, to: str, values: str) -> ReadBack:
    """The test data through the file. ShipmentError if fp32 logits differ by more than rounding."""
    x, y = examples
    expected = torch_logits(source.model, x)
    computed = FORMATS[to].logits(source, path, x)
    difference, largest = float(np.abs(computed - expected).max()), float(np.abs(expected).max())
    if values == "fp32" and not difference <= TOLERANCE * largest:
        raise ShipmentError(
            f"{path} does not compute what the trained network computes: on the test data logits differ by up to "
            f"{difference:.3g}, and are up to {largest:.3g}"
        )
    answers = computed.argmax(-1)
    return {
        "examples": len(y),
        "test_accuracy": _share(answers == y),
        "answers_changed": int((answers != expected.argmax(-1)).sum()),
        "largest_difference": difference,
    }


def _share(right: NDArray[np.bool_]) -> float:
    return int(right.sum()) / right.size
