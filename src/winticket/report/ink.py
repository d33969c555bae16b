"""Colours, markers and fonts of the figures, for white paper and for a dark page.

The colours are those of Okabe & Ito (2008), which people with colour-vision deficiencies can distinguish. A colour
always means an arm. Every arm also has its own marker, so the figures remain readable in grey.
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
SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255", "#332288")
"""Colours of lines that are no arms: analyses' series, layers."""
LETTERING = 0.42
"""The share of the text's colour in lettering of a line's colour, which alone would be too faint to read."""
# These are too dark to read on a dark page. The sky blue of the same palette replaces #0072B2 there, and the other way
# round; the others become lighter.
_ON_DARK = {
    "#0072B2": "#56B4E9",
    "#56B4E9": "#0072B2",
    "#332288": "#8F83E0",
    "#882255": "#D0659B",
    "#4B3F72": "#A79BD6",
    "#117733": "#4FB277",
    "#661100": "#D08770",
}


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
        "axes.titley": 1.0,  # no ticks stand above axes; matplotlib would measure all of them to see that
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


def lettering(color: str, *, ink: Ink) -> str:
    """Return the colour of words that name a line of this colour: nearer to the text's, so that they are legible.

    >>> lettering("#E69F00", ink=LIGHT)
    '#926a11'
    """
    return _mixed(color, ink.text, LETTERING)


def dark_of(color: str) -> str:
    """Return what a colour of figures on white paper is on a dark page.

    >>> dark_of("#0072b2"), dark_of("#926a11")
    ('#56b4e9', '#e9c065')
    """
    return _DARK_OF.get(color.lower(), color.lower())


def _mixed(color: str, other: str, share: float) -> str:
    """A colour, as #rrggbb, with this share of another one."""
    pairs = ((int(color[at : at + 2], 16), int(other[at : at + 2], 16)) for at in (1, 3, 5))
    return "#" + "".join(f"{round((1 - share) * old + share * new):02x}" for old, new in pairs)


def on(ink: Ink, color: str) -> str:
    """Return the colour that replaces `color` on this background."""
    return _ON_DARK.get(color, color) if ink is DARK else color


def _pairs() -> dict[str, str]:
    """The colours of figures on white paper and what replaces each on a dark page, as #rrggbb in small letters."""
    lines = [look.color for look in (*_LOOKS.values(), *_MORE_LOOKS)] + list(SERIES)
    names = ("paper", "text", "quiet", "rule", "dense")
    pairs = {
        **{color: on(DARK, color) for color in lines},
        **{lettering(color, ink=LIGHT): lettering(on(DARK, color), ink=DARK) for color in lines},
        **{getattr(LIGHT, name): getattr(DARK, name) for name in names},
        lettering(LIGHT.dense, ink=LIGHT): lettering(DARK.dense, ink=DARK),
        "#000000": DARK.text,
    }
    return {light.lower(): dark.lower() for light, dark in pairs.items()}


_DARK_OF = _pairs()
