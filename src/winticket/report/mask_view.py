"""The mask made visible: how many weights of each input the tickets keep, over the image, level by level."""

from __future__ import annotations

import json
import math
from html import escape
from pathlib import Path

from winticket.report.elements import section
from winticket.report.reading import density_percent
from winticket.results import InputPlane, MaskLevel, Masks

SCRIPT = Path(__file__).with_name("mask.js")


def mask_section(masks: Masks | None) -> str:
    """The section with the picture, its slider and its script; empty unless a layer reads images directly.

    Without a script, the picture is that of the sparsest level, and there is no slider.
    """
    plane = None if masks is None else masks["plane"]
    if masks is None or plane is None:
        return ""
    shown = [level for level in masks["levels"] if level["inputs"] is not None]
    if not shown:
        return ""
    shown = sorted(shown, key=lambda level: -level["density"])
    last = shown[-1]
    kept = _pixels(last, plane)
    words = said(last, plane, masks)
    pixel = "value" if _rows(plane) == 1 else "pixel"
    introduction = (
        f"The layer {plane['layer'].removesuffix('.weight')} reads the examples directly: each {pixel} has "
        f"{plane['units']:,} weights{_channels(plane)}. The darker a {pixel}, the more of these weights the "
        "tickets keep, averaged over replicates."
    )
    named = escape(f"Weights kept per {pixel} at {density_percent(last['density'])}")
    picture = (
        f'<svg id="mask-picture" class="mask" viewBox="0 0 {_columns(plane)} {_rows(plane)}" role="img" '
        f'aria-label="{named}">{_squares(kept, plane)}</svg>'
    )
    slider = (
        '<p class="slider" hidden><label for="mask-level">Weights kept: denser to sparser</label> '
        f'<input id="mask-level" type="range" min="0" max="{len(shown) - 1}" step="1" value="{len(shown) - 1}" '
        'aria-describedby="mask-words"></p>'
    )
    legend = f'<p class="ramp note"><span>0</span><i></i><span id="mask-most">{_figure(max(kept))}</span></p>'
    data = json.dumps(_data(shown, plane, masks), separators=(",", ":")).replace("<", "\\u003c")
    return section(
        "Which inputs the tickets read",
        f'<p class="note">{escape(introduction)}</p>',
        f'<div class="mask-view"><div>{picture}{legend}</div><div>{slider}'
        f'<p><output id="mask-words" for="mask-level">{escape(words)}</output></p>'
        f'<p class="note" id="mask-pixel"></p></div></div>',
        f'<script type="application/json" id="mask-data">{data}</script>',
        f"<script>\n{SCRIPT.read_text(encoding='utf-8')}</script>",
    )


def said(level: MaskLevel, plane: InputPlane, masks: Masks) -> str:
    """One level in words: what is kept in all, in the layer, and of the fullest and emptiest input."""
    kept = _pixels(level, plane)
    most = plane["units"] * _depth(plane)
    network, name = masks["network"], plane["layer"]
    size = next(layer["size"] for layer in network["layers"] if layer["name"] == name)
    layer = level["layers"][name]
    pixel = "value" if _rows(plane) == 1 else "pixel"
    empty = sum(count == 0 for count in kept)
    of = f"Mean of {level['replicates']} tickets." if level["replicates"] > 1 else "One ticket."
    none = f" {empty} keep none in any of the tickets." if empty else ""
    return (
        f"{density_percent(level['density'])} of the weights that may be pruned are kept "
        f"({round(level['density'] * network['eligible']):,}), and {density_percent(layer / size)} in this layer. "
        f"Of its {most:,} weights, a {pixel} keeps {_figure(min(kept))} to {_figure(max(kept))}; if all inputs were "
        f"equally useful, each would keep {_figure(layer / len(kept))}.{none} {of}"
    )


def _data(levels: list[MaskLevel], plane: InputPlane, masks: Masks) -> dict[str, object]:
    """What the script shows: per level its words and the weights kept of each input."""
    return {
        "columns": _columns(plane),
        "weights": plane["units"] * _depth(plane),
        "levels": [
            {"words": said(level, plane, masks), "kept": [round(count, 2) for count in _pixels(level, plane)]}
            for level in levels
        ],
    }


def _pixels(level: MaskLevel, plane: InputPlane) -> list[float]:
    """Weights kept of each position, channels added up, row by row."""
    values = level["inputs"] or []
    area = _rows(plane) * _columns(plane)
    return [math.fsum(values[at::area]) for at in range(area)]


def _squares(kept: list[float], plane: InputPlane) -> str:
    most, columns = max(*kept, 1e-9), _columns(plane)
    return "".join(
        f'<rect x="{at % columns}" y="{at // columns}" width="1" height="1" fill-opacity="{count / most:.3f}"/>'
        for at, count in enumerate(kept)
    )


def _depth(plane: InputPlane) -> int:
    return plane["shape"][0]


def _rows(plane: InputPlane) -> int:
    return plane["shape"][1] if len(plane["shape"]) == 3 else 1


def _columns(plane: InputPlane) -> int:
    return plane["shape"][-1]


def _channels(plane: InputPlane) -> str:
    depth = _depth(plane)
    return "" if depth == 1 else f" in each of {depth} channels, which are added up here"


def _figure(count: float) -> str:
    return f"{count:,.0f}" if count >= 100 else f"{count:.1f}".removesuffix(".0")
