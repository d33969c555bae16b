"""Write a trained network, read it back, compare it, evaluate it, and put a model card beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from winticket.atomic import replace_file
from winticket.results import Bytes, Claims, Origin, ReadBack, Removed, Shipment
from winticket.ship.as_transformers import TRANSFORMERS
from winticket.ship.card import card, standing
from winticket.ship.card_of_file import UNCHECKED, card_of_file
from winticket.ship.compact_write import Sizes
from winticket.ship.format import Format, NotEvaluated, ShipmentError, Source
from winticket.ship.formats import format_of, maps_path, state_dict_bytes, tensors_of
from winticket.ship.index_maps import save_maps
from winticket.ship.measure_estimate import products
from winticket.ship.network import Network
from winticket.version import __version__

TOLERANCE = 1e-4
"""Largest difference of a logit after a round trip in fp32, relative to the largest logit: float32's rounding."""
NOISE = 8
"""Examples of noise, if there are no test data."""
MOST_PRODUCTS, MOST_VALUES = 1 << 32, 1 << 27
"""Most multiplications and most elements of a value, of the examples of noise together; larger networks are not
computed where no data ask for it."""
Examples = tuple[NDArray[Any], NDArray[Any]]
Score = Callable[[NDArray[Any], NDArray[Any]], float]


def write(
    source: Source,
    folder: Path,
    *,
    to: str,
    values: str,
    name: str,
    origin: Origin | None,
    about: Mapping[str, Any],
    claims: Claims | None = None,
    examples: Examples | None = None,
    score: Score | None = None,
    not_evaluated: str | None = None,
    exact: bool = True,
) -> Shipment:
    """Write the file and its card to `folder`, under `name`; returns what was written and measured.

    `examples` (x, y) are the test data; without them, `not_evaluated` says why, and the file is compared with the
    network on noise. `score` is the metric of outputs and targets (default: accuracy). `about` is the ticket's;
    `claims` what a compact file says of itself, in place of the origin. `exact`: whether `values` hold the network's to
    rounding in float32. Raises ShipmentError if the file computes something else than the network; then neither the
    file nor what belongs to it is left, nor the card of an earlier file of that name.
    """
    form = format_of(source, to)
    path = folder / form.named(name, values)
    card_path = path.with_name(form.card or f"{path.name}.md")
    _prepare(form, source, path, values)
    source = replace(source, examples=examples, note=UNCHECKED if origin is None else standing(origin))
    card_path.unlink(missing_ok=True)  # an earlier file's, which this one may replace and then fail
    written = form.write(source, path, values)
    beside = [*written.beside, *_maps(source, path)]
    with _removed_on_error(path, *beside):
        read_back, difference, reason = _checked(source, path, examples, to=to, exact=exact, score=score)
    kept, weights = source.kept()
    reasons = [why for why in (not_evaluated, reason) if why] or ["no test data were given"]
    shipment: Shipment = {
        "winticket": __version__,
        "file": str(path),
        "beside": [str(file) for file in beside],
        "card": str(card_path),
        "format": to,
        "values": values,
        "bytes": path.stat().st_size,
        "dense_bytes": _dense_bytes(source, once=form is TRANSFORMERS),
        "parts": None if written.sizes is None else _parts(written.sizes),
        "memory": written.memory,
        "weights": weights,
        "kept": kept,
        "shrunk": _removed(source, path),
        "origin": origin,
        "claims": claims,
        "read_back": read_back,
        "not_evaluated": None if read_back else "; ".join(reasons),
        "noise_difference": difference,
        "use": list(form.use(source, str(path))),
    }
    _write_card(shipment, card_path, about, form, form.use(source, path.name))
    return shipment


def _prepare(form: Format, source: Source, path: Path, values: str) -> None:
    """Make the folder of the file, unless the format cannot be written there."""
    form.check(source, path, values)
    path.parent.mkdir(parents=True, exist_ok=True)


def _write_card(
    shipment: Shipment, path: Path, about: Mapping[str, Any], form: Format, use: Sequence[str]
) -> None:
    make = card_of_file if shipment["origin"] is None else card
    what = form.what + (
        ", after units and inputs that its mask cuts off were removed" if shipment["shrunk"] else ""
    )
    text = make(shipment, about, what=what, use=use, language=form.language)
    replace_file(path, (form.header(shipment, about) + text).encode("utf-8", "replace"))


def _checked(
    source: Source, path: Path, examples: Examples | None, *, to: str, exact: bool, score: Score | None
) -> tuple[ReadBack | None, float | None, str]:
    """(The file on test data, else None; without them the difference on noise; why something is missing)."""
    try:
        if examples is not None:
            return _read_back(source, path, examples, to=to, exact=exact, score=score), None, ""
        return None, _noise_difference(source, path, to=to, exact=exact), ""
    except NotEvaluated as reason:
        return None, None, str(reason)


def _maps(source: Source, path: Path) -> list[Path]:
    """Writes the index maps of a shrunk network beside its file."""
    if source.shrunk is None:
        return []
    save_maps(source.shrunk.maps, maps_path(path))
    return [maps_path(path)]


def _removed(source: Source, path: Path) -> Removed | None:
    if (shrunk := source.shrunk) is None:
        return None
    return {
        "units": sum(layer.units for layer in shrunk.layers),
        "units_before": sum(layer.units_before for layer in shrunk.layers),
        "layers": [
            {
                "name": layer.name,
                "units": layer.units,
                "units_before": layer.units_before,
                "inputs": layer.inputs,
                "inputs_before": layer.inputs_before,
            }
            for layer in shrunk.layers
        ],
        "maps": str(maps_path(path)),
        "notes": list(shrunk.notes),
        "largest_difference": shrunk.difference,
    }


def _dense_bytes(source: Source, *, once: bool) -> int:
    """Bytes of the original's state dict as a safetensors file. once: with tied weights once, as in the other file."""
    if source.model is not None:
        state = source.model.state_dict()
        names = {tensor.data_ptr(): name for name, tensor in state.items()} if once else {}
        kept = set(names.values()) or state.keys()
        return len(state_dict_bytes({name: tensor for name, tensor in state.items() if name in kept}))
    return len(state_dict_bytes(tensors_of(Source(source.whole or source.network))))


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


def _read_back(
    source: Source, path: Path, examples: Examples, *, to: str, exact: bool, score: Score | None
) -> ReadBack:
    """The test data through the file. ShipmentError if exact logits differ by more than rounding."""
    x, y = examples
    expected = source.expected(x)
    computed = format_of(source, to).logits(source, path, x)
    difference, largest = float(np.abs(computed - expected).max()), float(np.abs(expected).max())
    if exact and not difference <= TOLERANCE * largest:
        _refuse(
            path, f"on the test data logits differ by up to {difference:.3g}, and are up to {largest:.3g}"
        )
    answers = computed.argmax(-1)
    classes = score is None or (y.ndim == 1 and y.dtype.kind == "i")
    return {
        "examples": len(y),
        "test_accuracy": _share(answers == y) if score is None else score(computed, y),
        "answers_changed": int((answers != expected.argmax(-1)).reshape(len(y), -1).any(1).sum())
        if classes
        else 0,
        "largest_difference": difference,
    }


def _noise_difference(source: Source, path: Path, *, to: str, exact: bool) -> float:
    """As `_read_back` compares, on noise. NotEvaluated for a network that takes very long."""
    network = source.whole or source.captured
    if network is None:
        raise NotEvaluated("a network for text is not computed on noise")
    check_small(network)
    x = np.random.default_rng(0).standard_normal((NOISE, *network.input_shape)).astype(np.float32)
    with np.errstate(all="ignore"):  # a stranger's network may overflow
        expected = source.expected(x)
        if not np.isfinite(expected).all():
            raise NotEvaluated("the network's outputs on noise are not finite")
        computed = format_of(source, to).logits(source, path, x)
    largest = float(np.abs(expected).max())
    difference = float(np.abs(computed - expected).max()) / max(largest, 1e-30)
    if exact and not difference <= TOLERANCE:
        _refuse(path, f"on noise logits differ by up to {difference:.3g} of the largest")
    return difference


def check_small(network: Network) -> None:
    """NotEvaluated for a network that takes too long, or too much memory, to be computed unasked."""
    count = NOISE * sum(products(network, operation, dense=True) for operation in network.operations)
    largest = NOISE * max(math.prod(shape) for shape in network.shapes.values())
    if count > MOST_PRODUCTS or largest > MOST_VALUES:
        raise NotEvaluated("the network is too large to be computed on noise")


def _refuse(path: Path, how: str) -> None:
    raise ShipmentError(f"{path} does not compute what the trained network computes: {how}")


def _share(right: NDArray[np.bool_]) -> float:
    return int(right.sum()) / right.size
