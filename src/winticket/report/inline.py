"""Figures as part of a page: drawings whose colours follow the page's scheme, and whose lettering is text."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from html import escape
from io import BytesIO

from matplotlib.figure import Figure

from winticket.report.drawing import mpl
from winticket.report.ink import dark_of
from winticket.report.layout import ON_PAGE, ON_PHONE, Layout

Draw = Callable[[Layout], Figure]

_PATH = re.compile(r' d="[^"]*"')
_TENTHS, _HUNDREDTHS = re.compile(r"(\d\.\d)\d+"), re.compile(r"(\d\.\d\d)\d+")
"""A tenth of a point is enough for paths, and a hundredth for all else; much of a drawing is decimals."""
_COLOUR = re.compile(r"#[0-9a-f]{6}\b")
_TAG = re.compile(r"<[a-z][^<>]*>")
_PAINT = re.compile(r' (?:style|fill|stroke)="[^"]*"')
_IDENTIFIER = re.compile(r' id="([^"]*)"')
_USED = re.compile(r'(?:url\(#|href="#)([^")]+)')
_FONT = re.compile(r"(font-family:|font:[^;\"]*?[\d.]+px) [^;\"]*")  # the second by matplotlib before 3.11
_HEAD = re.compile(r"<svg\b[^>]*?viewBox=\"([^\"]*)\"[^>]*>", re.DOTALL)
_TRANSITIONAL = (
    re.compile(r"^.*?(?=<svg)", re.DOTALL),
    re.compile(r"<metadata>.*?</metadata>\s*", re.DOTALL),
)


def picture(draw: Draw, *, name: str, words: str) -> str:
    """Return a figure as HTML: a drawing for a wide page and one for a phone, of which the style sheet shows one.

    `name` makes identifiers unique on the page, and `words` is what a screen reader says.
    """
    wide, narrow = (
        drawn(draw(layout), name=f"{name}-{suffix}", words=words)
        for layout, suffix in ((ON_PAGE, "w"), (ON_PHONE, "n"))
    )
    return f'<div class="wide-only">{wide}</div><div class="narrow-only">{narrow}</div>'


def figure(draw: Draw, *, name: str, words: str, above: str = "", caption: str = "") -> str:
    """Return a figure with its caption, which is text, and what stands `above`, which is HTML; arguments as `picture`.

    If it cannot be drawn, a paragraph says so, with the error, in its place.
    """
    try:
        drawing = picture(draw, name=name, words=words)
    except Exception as error:  # noqa: BLE001 - matplotlib may raise anything; the page must survive it
        why = escape(f"{type(error).__name__}: {error}")
        return f"<p>Could not draw the figure {escape(name)}: {why}</p>"
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f"<figure>{above}{drawing}{below}</figure>"


def drawn(figure: Figure, *, name: str, words: str) -> str:
    """Return a figure, drawn in light colours, as an SVG element that is part of a page."""
    buffer = BytesIO()
    with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue().decode("utf-8")
    for before in _TRANSITIONAL:
        svg = before.sub("", svg)
    used = {one for tag in _TAG.findall(svg) for one in _USED.findall(tag.replace("xlink:href", "href"))}
    # Only within tags: the lettering is the names of layers, runs and methods, which may look like any of this.
    svg = _TAG.sub(lambda tag: _fitted(tag[0], name=name, used=used), svg)
    svg = re.sub(r"\n\s*", "\n", svg).strip()
    return _HEAD.sub(
        lambda head: f'<svg class="drawn" viewBox="{head[1]}" role="img" aria-label="{escape(words)}">',
        svg,
        1,
    )


def _fitted(tag: str, *, name: str, used: Collection[str]) -> str:
    """A tag with the page's identifiers, font and colours."""
    tag = tag.replace("xlink:href", "href")
    tag = _IDENTIFIER.sub(lambda one: f' id="{name}-{one[1]}"' if one[1] in used else "", tag)
    tag = _USED.sub(lambda one: one[0].replace(one[1], f"{name}-{one[1]}"), tag)
    tag = _FONT.sub(r"\1 var(--letters)", tag)
    tag = _PATH.sub(lambda path: _TENTHS.sub(r"\1", path[0]), _HUNDREDTHS.sub(r"\1", tag))
    return _PAINT.sub(lambda paint: _COLOUR.sub(lambda colour: f"var({variable(colour[0])})", paint[0]), tag)


def variable(colour: str) -> str:
    """Return the name of the style sheet's variable for a colour."""
    return f"--c{colour[1:]}"


def scheme(html: str) -> str:
    """Return style rules for the colours that the drawings of a page use, for light and dark schemes, and for print."""
    used = sorted(set(re.findall(r"var\(--c([0-9a-f]{6})\)", html)))
    light = "".join(f"--c{colour}:#{colour};" for colour in used)
    dark = "".join(f"--c{colour}:{dark_of(f'#{colour}')};" for colour in used)
    return (
        f":root{{{light}}}\n@media (prefers-color-scheme: dark){{:root{{{dark}}}}}\n"
        f"@media print{{:root{{{light}}}}}\n"
    )
