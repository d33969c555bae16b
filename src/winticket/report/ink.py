"""Colours, markers and fonts of the figures, for white paper and for a dark page.

The colours are those of Okabe & Ito (2008), which people with colour-vision deficiencies can distinguish. A colour
always means an arm; the densities of one arm are shades of its colour. Every arm and every density also has its own
marker, so the figures remain readable in grey.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from winticket.controls import arm_of, arms
from winticket.report.drawing import mpl


@dataclass(frozen=True)
class Look:
    """Colour, marker and dash pattern of one line."""

    color: str
    marker: str
    dashes: str


@dataclass(frozen=True)
class Ink:
    """The colours of the background, text, quiet text, grid lines and the dense network's line."""

    paper: str
    text: str
    quiet: str
    rule: str
    dense: str


LIGHT = Ink(paper="#ffffff", text="#1d2129", quiet="#5c6470", rule="#e3e6ea", dense="#1d2129")
DARK = Ink(paper="#191c22", text="#eceef1", quiet="#a3abb7", rule="#333841", dense="#eceef1")

_LOOKS = {
    "ticket": Look("#0072B2", "o", "-"),
    "search": Look("#4B3F72", "h", "-"),
    **{name: Look(*arm_of(control).look) for name, control in arms().items()},
}
_MORE_LOOKS = (Look("#009E73", "D", ":"), Look("#D55E00", "v", "--"), Look("#56B4E9", "P", "-."))
MOST_TEXT, MOST_PAPER = 0.55, 0.45
"""The shares of the text's and the paper's colour in the first and the last shade."""
DENSITY_MARKERS = ("o", "s", "^", "D", "v", "P")
# #0072B2 is too dark to read on a dark page, so the sky blue of the same palette replaces it there.
_ON_DARK = {"#0072B2": "#56B4E9", "#56B4E9": "#0072B2"}


@contextmanager
def style(ink: Ink) -> Iterator[None]:
    """Use the report's matplotlib settings within a `with` block."""
    settings: dict[Any, Any] = {
        "text.parse_math": False,  # names may contain dollar signs
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 9.5,
        "axes.labelsize": 10,
        "axes.labelcolor": ink.text,
        "axes.edgecolor": ink.quiet,
        "axes.facecolor": ink.paper,
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": ink.rule,
        "grid.linewidth": 0.7,
        "figure.facecolor": ink.paper,
        "legend.frameon": False,
        "legend.labelcolor": ink.text,
        "lines.linewidth": 1.8,
        "lines.markersize": 5.5,
        "text.color": ink.text,
        "xtick.color": ink.quiet,
        "ytick.color": ink.quiet,
        "xtick.labelcolor": ink.text,
        "ytick.labelcolor": ink.text,
        # A fixed salt gives the SVG's elements the same names every time, so equal tables give equal bytes.
        "svg.hashsalt": "winticket",
    }
    with mpl.rc_context(settings):
        yield


def look_of(arm: str, *, ink: Ink) -> Look:
    """Return the colour, marker and dashes of an arm. The name of an unknown arm selects one of the remaining looks."""
    look = _LOOKS.get(arm) or _MORE_LOOKS[sum(arm.encode()) % len(_MORE_LOOKS)]
    return replace(look, color=on(ink, look.color))


def shades(color: str, count: int, *, ink: Ink) -> list[str]:
    """Return `count` shades of a colour, from one near the colour of the text to one near the paper.

    >>> shades("#0072B2", 3, ink=LIGHT)
    ['#104567', '#0072b2', '#73b1d5']
    """
    ends = (_mixed(color, ink.text, MOST_TEXT), _mixed(color, ink.paper, MOST_PAPER))
    if count == 1:
        return [color.lower()]
    places = [2 * index / (count - 1) - 1 for index in range(count)]
    return [_mixed(color, ends[place > 0], abs(place)) for place in places]


def _mixed(color: str, other: str, share: float) -> str:
    """A colour, as #rrggbb, with this share of another one."""
    pairs = ((int(color[at : at + 2], 16), int(other[at : at + 2], 16)) for at in (1, 3, 5))
    return "#" + "".join(f"{round((1 - share) * old + share * new):02x}" for old, new in pairs)


def on(ink: Ink, color: str) -> str:
    """Return the colour that replaces `color` on this background."""
    return _ON_DARK.get(color, color) if ink is DARK else color
