"""Figures as part of a page: colours follow the page, and lettering stays as it is."""

from __future__ import annotations

import re
from html import unescape
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure

from winticket.report.ink import LIGHT, style
from winticket.report.inline import drawn, figure

NAME = 'fix-#a1b2c3 url(#one) href="#two" id="three" font: 10px serif'


def figure_with(text: str) -> Figure:
    with style(LIGHT):
        made = Figure()
        axes = made.add_subplot()
        axes.plot([1, 2], color="#123abc")
        axes.set_title(text)
    return made


def test_names_that_look_like_drawing_stay_as_they_are() -> None:
    svg = drawn(figure_with(NAME), name="one", words=NAME)
    root = ElementTree.fromstring(svg)
    assert NAME in ["".join(element.itertext()) for element in root.iter("text")]
    assert root.get("aria-label") == NAME


def test_colours_identifiers_and_fonts_are_the_pages() -> None:
    svg = drawn(figure_with("plain"), name="one", words="plain")
    assert "stroke: var(--c123abc)" in svg
    assert not re.search("#[0-9a-f]{6}", svg)
    used = re.findall(r"(?:url\(#|href=\"#)([^\")]+)", svg)
    assert used
    assert set(used) == set(re.findall(r' id="([^"]*)"', svg))
    assert all(name.startswith("one-") for name in used)
    assert svg.count("font-family: var(--letters)") + svg.count("px var(--letters)") == svg.count("<text")
    assert "DejaVu" not in svg


def test_a_figure_that_fails_says_so() -> None:
    def failing(_: object) -> Figure:
        raise ValueError("no <room>")

    html = figure(failing, name="one", words="", caption="below")
    assert unescape(html) == "<p>Could not draw the figure one: ValueError: no <room></p>"
    with pytest.raises(ValueError, match="no <room>"):
        failing(None)
