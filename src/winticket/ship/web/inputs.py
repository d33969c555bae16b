"""What a page offers as inputs: a drawing, examples of the test data, or sliders."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from winticket.ship.network import Floats, Network, Preprocessing
from winticket.ship.words import last_part

MOST_EXAMPLES = 20
MOST_BYTES = 200_000
"""Most bytes of examples, unless a single one has more."""
MOST_SLIDERS = 64
LARGEST_DRAWING = 64
"""Most rows or columns of images that are drawn: their dots are computed at every move of the pen."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Examples of the test data.

    raw      raw values [N, *input_shape], float32
    classes  the number of each one's class
    low, high  ends of the raw values in all data that they were chosen from
    """

    raw: Floats
    classes: npt.NDArray[np.int64]
    low: float
    high: float


def examples_of(network: Network, x: npt.ArrayLike, y: npt.ArrayLike) -> Examples:
    """Up to MOST_EXAMPLES of the inputs x [N, *input_shape] and their classes y [N]: the first of each class, then the
    second of each, and so on, as far as MOST_BYTES go.

    `x` are preprocessed; the page gets raw values. ValueError for other shapes, or a class that the network has not.
    """
    inputs, classes = np.asarray(x, np.float32), np.asarray(y)
    count, outputs = len(inputs), network.shapes[network.output][0]
    if inputs.shape[1:] != network.input_shape or classes.shape != (count,) or not count:
        raise ValueError(
            f"examples are inputs [N, {', '.join(map(str, network.input_shape))}] and classes [N] with N of 1 or more, "
            f"not {list(inputs.shape)} and {list(classes.shape)}"
        )
    if classes.dtype.kind not in "iu" or classes.min() < 0 or classes.max() >= outputs:
        raise ValueError(f"classes of examples are whole numbers from 0 to {outputs - 1}")
    turn = np.zeros(count, np.int64)  # which of its class an example is
    for one in np.unique(classes):
        mine = np.flatnonzero(classes == one)
        turn[mine] = np.arange(len(mine))
    order = np.lexsort((classes, turn))
    raw = _raw(inputs[order[:MOST_EXAMPLES]], network.preprocessing)
    most = max(1, MOST_BYTES // (raw[0].size * _bytes(raw)))
    chosen = order[: min(most, MOST_EXAMPLES)]
    ends = _raw(np.stack([inputs.min(0), inputs.max(0)]), network.preprocessing)
    return Examples(raw[:most], classes[chosen].astype(np.int64), float(ends.min()), float(ends.max()))


def _raw(x: Floats, ready: Preprocessing | None) -> Floats:
    """The inverse of the preprocessing; whole numbers if these were whole."""
    if ready is None:
        return x
    raw = ready.undo(x)
    whole = np.rint(raw)
    exact = np.abs(raw - whole).max() <= 1e-5 * max(1.0, np.abs(raw).max())
    return (whole + 0.0 if exact else raw).astype(np.float32)


def _bytes(raw: Floats) -> int:
    """Bytes of a value on the page."""
    small = bool((raw == np.rint(raw)).all()) and raw.min() >= 0 and raw.max() <= 255
    return 1 if small else 4


def _packed(raw: Floats) -> dict[str, str]:
    kind, dtype = ("u8", "u1") if _bytes(raw) == 1 else ("f32", "<f4")
    return {"type": kind, "data": base64.b64encode(raw.astype(dtype).tobytes()).decode()}


def input_facts(network: Network, examples: Examples | None, names: list[str]) -> dict[str, Any]:
    """What the page's script is told of inputs. ValueError if nothing could be put in."""
    draw = _drawing(network, examples)
    size = int(np.prod(network.input_shape))
    sliders = len(network.input_shape) < 3 and size <= MOST_SLIDERS
    if draw is None and examples is None and not sliders:
        raise ValueError(
            f"inputs of shape {list(network.input_shape)} can be neither drawn nor set by sliders, so the page needs "
            "examples of the test data"
        )
    low, high = _range(network, examples)
    return {
        "shape": list(network.input_shape),
        "low": low,
        "high": high,
        "draw": draw,
        "hint": _hint(draw),
        "seen": _seen(network, draw),
        "sliders": sliders,
        "examples": examples
        and {**_packed(examples.raw), "labels": [names[one] for one in examples.classes]},
    }


def _range(network: Network, examples: Examples | None) -> tuple[float, float]:
    """The ends of raw values: 0 and the scale, if pixels have one; else those of the data, or three deviations."""
    ready = network.preprocessing
    if ready is not None and ready.scale != 1:
        return 0.0, ready.scale
    if examples is not None:
        return (
            (examples.low, examples.high)
            if examples.low < examples.high
            else (examples.low, examples.low + 1)
        )
    if ready is None:
        return (0.0, 1.0) if len(network.input_shape) == 3 else (-3.0, 3.0)
    ends = [m + s * d for m, d in zip(ready.mean, ready.deviation, strict=True) for s in (-3, 3)]
    return min(ends) * ready.scale, max(ends) * ready.scale


def _drawing(network: Network, examples: Examples | None) -> dict[str, Any] | None:
    """How a drawing becomes raw values; None if inputs are no images of one channel, or large ones."""
    shape = network.input_shape
    if len(shape) != 3 or shape[0] != 1 or max(shape) > LARGEST_DRAWING:
        return None
    low, high = _range(network, examples)
    data = last_part(str(network.about.get("data", ""))).lower()
    fit = "plain"
    if data == "digits" and shape == (1, 8, 8):
        fit = "whole"
    elif data.endswith("mnist") and "fashion" not in data and shape == (1, 28, 28):
        fit = "centred"
    # Paper is what most pixels at the border are.
    border = None if examples is None else [examples.raw[..., [0, -1], :], examples.raw[..., [0, -1]]]
    dark = (
        border is None or np.median(np.concatenate([part.reshape(-1) for part in border])) <= (low + high) / 2
    )
    return {"fit": fit, "paper": low if dark else high, "ink": high if dark else low}


def _hint(draw: dict[str, Any] | None) -> str:
    if draw is None:
        return ""
    return "Draw a picture." if draw["fit"] == "plain" else "Draw a digit from 0 to 9, as large as you like."


def _seen(network: Network, draw: dict[str, Any] | None) -> str:
    """What the small picture shows."""
    rows, columns = network.input_shape[-2:] if len(network.input_shape) > 1 else (1, 1)
    if len(network.input_shape) != 3:
        return "What the networks get."
    how = {
        "whole": "stretched to the whole height, as the data were",
        "centred": "centred by mass, as the data were",
    }.get("" if draw is None else draw["fit"], "")
    return f"What the networks get: {rows} × {columns} pixels" + (f", {how}." if how else ".")
