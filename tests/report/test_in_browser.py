"""The page in Chromium, on a desk and on a phone, in light and dark: drawn, operable by keyboard, and accessible."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from browser import browser, needs_browser
from winticket.report import page
from winticket.report.figures import figures

pytestmark = needs_browser
needs_axe = pytest.mark.skipif(
    importlib.util.find_spec("axe_playwright_python") is None,
    reason="accessibility needs axe-playwright-python (of the extra dev)",
)
SCHEMES = ("light", "dark")
WIDTHS = (390, 1280)


def masks_of(document: Any) -> Any:
    """Masks of the digits case, in which inputs in the middle keep more."""
    sizes = {"fc1.weight": (300, 64), "fc2.weight": (100, 300), "fc3.weight": (10, 100)}
    layers = [{"name": n, "shape": list(s), "size": s[0] * s[1]} for n, s in sizes.items()]
    levels = []
    for level in document["levels"][1:]:
        weights = [1 + min(i % 8, 7 - i % 8) + min(i // 8, 7 - i // 8) for i in range(64)]
        share = 19200 * level["density"] / sum(weights)
        levels.append(
            {
                "density": level["density"],
                "replicates": 10,
                "layers": {layer["name"]: layer["size"] * level["density"] for layer in layers},
                "inputs": [share * w for w in weights],
            }
        )
    kept = [round(50200 * level["density"]) for level in document["levels"]]
    network = {"parameters": 50610, "eligible": 50200, "layers": layers, "kept": kept}
    plane = {"layer": "fc1.weight", "shape": [1, 8, 8], "units": 300}
    return {"network": network, "plane": plane, "levels": levels}


@pytest.fixture(scope="module")
def file(
    tmp_path_factory: pytest.TempPathFactory,
    build: Callable[..., Any],
    draw_curves: Callable[..., list[Any]],
) -> Path:
    """A page with everything that a page has."""
    document = copy.deepcopy(build())
    masks = masks_of(document)
    document["network"] = masks["network"]
    document["data"] = {
        "fingerprint": "0", "input_shape": [1, 8, 8], "classes": 10, "split": "own", "train": 1197,
        "validation": 150, "test": 450,
    }  # fmt: skip
    document["costs"] = [
        {"density": level["density"], "arm": arm, "steps": 800.0 * (number + 1), "flops": 1e9, "seconds": 2.0}
        for number, level in enumerate(document["levels"])
        for arm in level["arms"]
    ]
    document["verdict"]["warnings"] = ["At 9.0 % a second test disagrees."]
    target = tmp_path_factory.mktemp("page") / "report.html"
    target.write_text(page(document, draw_curves(document, every=50), masks=masks), encoding="utf-8")
    return target


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as started:
        yield started


@pytest.fixture
def opened(chromium: Any, file: Path) -> Iterator[Callable[..., Any]]:
    """Opens the page, and fails on whatever the console says or what is loaded from elsewhere."""
    tabs, troubles = [], []

    def open_page(width: int = 1280, scheme: str = "light", **how: Any) -> Any:
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce", **how
        )
        tab = context.new_page()
        tab.on("console", lambda message: troubles.append(message.text))
        tab.on("pageerror", lambda error: troubles.append(str(error)))
        tab.on("request", lambda r: None if r.url == file.as_uri() else troubles.append(f"loads {r.url}"))
        tab.goto(file.as_uri())
        tabs.append(context)
        return tab

    yield open_page
    for context in tabs:
        context.close()
    assert troubles == []


@pytest.mark.parametrize("width", WIDTHS)
def test_every_figure_is_drawn_once_and_nothing_is_beside_the_window(
    opened: Callable[..., Any],
    build: Callable[..., Any],
    draw_curves: Callable[..., list[Any]],
    width: int,
) -> None:
    tab = opened(width)
    shown = tab.locator("svg.drawn:visible")
    document = build()
    expected = figures(document, draw_curves(document, every=50), masks_of(document))
    assert shown.count() == len(expected) == 5
    for box in (one.bounding_box() for one in shown.all()):
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert box["height"] > 150
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    lettering = tab.evaluate(
        "[...document.querySelectorAll('svg.drawn')].filter(s => s.checkVisibility())"
        ".flatMap(s => [...s.querySelectorAll('text')].map(t => t.getBoundingClientRect().height)).filter(h => h > 0)"
    )
    assert min(lettering) >= 9, "no lettering is too small to read"


def test_on_a_phone_tables_are_cards_with_the_names_of_their_columns(opened: Callable[..., Any]) -> None:
    tab = opened(390)
    cell = (
        tab.locator("section:has(h2:text-is('Results at every density')) tbody tr").first.locator("td").nth(1)
    )
    assert cell.get_attribute("data-label") == "ticket %"
    box = cell.bounding_box()
    assert box["x"] + box["width"] <= 390
    shown = tab.evaluate("(e) => getComputedStyle(e, '::before').content", cell.element_handle())
    assert shown == '"ticket %"'
    assert cell.get_attribute("role") == "cell"


def test_the_slider_works_by_keyboard_and_says_what_it_shows(opened: Callable[..., Any]) -> None:
    tab = opened()
    slider, words = tab.get_by_label("Weights kept: denser to sparser"), tab.locator("output#mask-words")
    assert slider.is_visible()
    assert words.inner_text().startswith("3.1 % of the weights that may be pruned are kept")
    before = tab.locator("#mask-picture rect").first.get_attribute("fill-opacity")
    slider.focus()
    tab.keyboard.press("Home")
    assert words.inner_text().startswith("80.2 % of the weights that may be pruned are kept")
    assert slider.get_attribute("aria-valuetext") == "80.2 % of the weights that may be pruned are kept"
    tab.keyboard.press("ArrowRight")
    assert words.inner_text().startswith("64.3 %")
    after = tab.locator("#mask-picture rect").first.get_attribute("fill-opacity")
    assert (before, after) == ("0.143", "0.143"), (
        "the corner keeps a seventh of what the middle does, at every level"
    )
    tab.locator("#mask-picture").focus()
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("ArrowRight")
    assert tab.locator("#mask-pixel").inner_text().startswith("Row 2, column 2: ")


def test_without_scripts_the_picture_is_that_of_the_sparsest_level(opened: Callable[..., Any]) -> None:
    tab = opened(java_script_enabled=False)
    assert tab.locator("#mask-picture rect").count() == 64
    assert not tab.locator("#mask-level").is_visible()
    assert tab.locator("output#mask-words").inner_text().startswith("3.1")


def test_links_to_words_open_the_folded_list(opened: Callable[..., Any]) -> None:
    tab = opened()
    link = tab.locator("header a.word").first
    target = link.get_attribute("href")
    assert not tab.locator(target).is_visible()
    link.focus()
    tab.keyboard.press("Enter")
    assert tab.locator(target).is_visible()


def test_in_print_nothing_is_cut_or_dark(opened: Callable[..., Any]) -> None:
    tab = opened(794, "dark")  # A4 at 96 dots per inch
    tab.emulate_media(media="print", color_scheme="dark")
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not tab.locator("#mask-level").is_visible()
    assert tab.locator("svg.drawn:visible").count() == 5


@needs_axe
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_axe_finds_no_serious_fault(opened: Callable[..., Any], width: int, scheme: str) -> None:
    from axe_playwright_python.base import AXE_FILE_PATH  # type: ignore[import-untyped, unused-ignore]

    tab = opened(width, scheme)
    tab.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    tab.add_script_tag(content=Path(AXE_FILE_PATH).read_text(encoding="utf-8"))
    found = tab.evaluate("axe.run(document).then((all) => all.violations)")
    serious = {
        one["id"]: [node["html"][:120] for node in one["nodes"][:3]]
        for one in found
        if one["impact"] in ("serious", "critical")
    }
    assert serious == {}
