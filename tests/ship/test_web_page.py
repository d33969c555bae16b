"""Pages in Chromium: drawn digits are recognised, and both networks give the answers of their torch modules."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import winticket
from browser import browser, needs_browser
from winticket.ship import Network, Preprocessing, capture, to_web
from winticket.ship.web import network_of

pytestmark = needs_browser
READY = Preprocessing(16.0, (0.3,), (0.4,))
Strokes = list[list[tuple[float, float]]]


def _loop(x: float, y: float, wide: float, high: float) -> list[tuple[float, float]]:
    return [(x + wide * math.sin(t / 5), y - high * math.cos(t / 5)) for t in range(33)]


DIGITS: dict[str, Strokes] = {
    "0": [_loop(0.5, 0.5, 0.22, 0.33)],
    "1": [[(0.5, 0.15), (0.5, 0.85)]],
    "2": [[(0.3, 0.3), (0.4, 0.17), (0.6, 0.17), (0.68, 0.32), (0.55, 0.55), (0.3, 0.84), (0.72, 0.84)]],
    "3": [[(0.3, 0.22), (0.5, 0.15), (0.68, 0.25), (0.62, 0.42), (0.48, 0.48), (0.66, 0.55), (0.7, 0.72),
           (0.52, 0.86), (0.3, 0.78)]],
    "4": [[(0.35, 0.15), (0.28, 0.55), (0.75, 0.55)], [(0.6, 0.2), (0.58, 0.88)]],
    "5": [[(0.7, 0.17), (0.38, 0.17), (0.34, 0.46), (0.55, 0.42), (0.7, 0.58), (0.62, 0.8), (0.45, 0.86),
           (0.3, 0.8)]],
    "6": [[(0.62, 0.15), (0.42, 0.35), (0.34, 0.62), (0.45, 0.84), (0.62, 0.8), (0.66, 0.64), (0.52, 0.54),
           (0.36, 0.62)]],
    "7": [[(0.25, 0.2), (0.75, 0.2), (0.45, 0.85)]],
    "8": [_loop(0.5, 0.32, 0.14, 0.16), _loop(0.5, 0.66, 0.17, 0.18)],
    "9": [[(0.65, 0.3), (0.5, 0.18), (0.36, 0.3), (0.42, 0.46), (0.6, 0.45), (0.65, 0.3), (0.62, 0.6),
           (0.55, 0.86)]],
}  # fmt: skip
"""Written by hand, as points of a square."""


@dataclass(frozen=True)
class Made:
    """A page of digits, the networks in it, and the torch modules that these are of."""

    path: Path
    models: dict[str, nn.Module]
    x: Tensor
    y: Tensor
    raw: np.ndarray[Any, np.dtype[np.float32]]


def _trained(density: float, x: Tensor, y: Tensor) -> tuple[nn.Module, Network]:
    torch.manual_seed(1)
    layers = nn.Linear(64, 100), nn.BatchNorm1d(100), nn.ReLU(), nn.Linear(100, 10)
    model = nn.Sequential(nn.Flatten(), *layers)
    ticket = winticket.prune(model, density) if density < 1 else None
    with winticket.masked(model, ticket) if ticket else nullcontext():
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        for _ in range(150):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    arm = "ticket" if ticket else "dense"
    network = capture(model, ticket, example=torch.zeros(1, 1, 8, 8), preprocessing=READY)
    return model.eval(), replace(network, about={"data": "digits", "arm": arm})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    digits = load_digits()
    raw = digits.images[:, None].astype(np.float32)
    x, y = torch.from_numpy(READY.apply(raw)), torch.from_numpy(digits.target.astype(np.int64))
    dense, dense_network = _trained(1.0, x[:1200], y[:1200])
    sparse, network = _trained(0.15, x[:1200], y[:1200])
    page = to_web(network, dense=dense_network, examples=(x[1200:].numpy(), y[1200:].numpy()))
    path = tmp_path_factory.mktemp("page") / "digits.html"
    path.write_text(page, "utf-8")
    return Made(path, {"dense": dense, "ticket": sparse}, x[1200:], y[1200:], raw[1200:])


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as started:
        yield started


class Opened:
    """A page as someone sees it, on a screen of some width."""

    def __init__(self, chromium: Any, path: Path, *, width: int = 1280, scheme: str = "light") -> None:
        self.tab = chromium.new_page(viewport={"width": width, "height": 850}, color_scheme=scheme)
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.tab.on("pageerror", lambda error: self.errors.append(str(error)))
        self.tab.on("console", lambda message: self.errors.append(message.text))
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.tab.goto(path.as_uri())
        self.tab.wait_for_selector("body[data-ready]", timeout=60_000)

    def draw(self, strokes: Strokes) -> None:
        self.tab.click("#clear")
        box, mouse = self.tab.locator(".draw").bounding_box(), self.tab.mouse
        for stroke in strokes:
            for number, (x, y) in enumerate(stroke):
                mouse.move(
                    box["x"] + x * box["width"], box["y"] + y * box["height"], steps=1 + 2 * (number > 0)
                )
                if not number:
                    mouse.down()
            mouse.up()
        self.tab.evaluate(
            "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
        )

    def answers(self) -> list[str]:
        """The classes that the panels show, dense first."""
        return [text.split()[0] for text in self.tab.locator(".answer").all_inner_texts()]

    def outputs(self, which: str, raw: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
        values = [float(value) for value in np.asarray(raw).reshape(-1)]
        return np.array(self.tab.evaluate("([id, raw]) => winticket.outputs(id, raw)", [which, values]))


def test_both_networks_give_the_outputs_of_torch(chromium: Any, made: Made) -> None:
    page = Opened(chromium, made.path)
    for name, model in made.models.items():
        with torch.no_grad():
            right = model(made.x[:40]).numpy()
        assert np.abs(right).max() > 1
        got = np.stack([page.outputs(name, raw) for raw in made.raw[:40]])
        np.testing.assert_allclose(got, right, rtol=1e-4, atol=1e-4)
    assert page.errors == []
    assert page.requests == [made.path.as_uri()]  # nothing else is loaded


def test_drawn_digits_are_recognised(chromium: Any, made: Made) -> None:
    """By both networks; drawn small in a corner as well, since digits are stretched as the data were."""
    page = Opened(chromium, made.path)
    right = {"dense": 0, "ticket": 0}
    for digit, strokes in DIGITS.items():
        page.draw(strokes)
        for name, answer in zip(right, page.answers(), strict=True):
            right[name] += answer == digit
    assert right["dense"] >= 9
    assert right["ticket"] >= 9
    page.draw([[(0.05 + x / 4, 0.6 + y / 4) for x, y in stroke] for stroke in DIGITS["0"]])
    assert page.answers() == ["0", "0"]
    assert page.errors == []


def test_pixels_of_digits_are_made_as_the_data_were(chromium: Any, made: Made) -> None:
    """NIST's digits fill all eight rows, and 30 % of their 32 x 32 dots are ink (31, 31, ..., 31 % by class)."""
    page = Opened(chromium, made.path)
    for strokes in DIGITS.values():
        pixels = np.array(
            page.tab.evaluate("(s) => Array.from(winticket.pixels(s, [8, 8], 'whole'))", strokes)
        ).reshape(8, 8)
        assert set(np.unique(16 * pixels)) <= set(range(17))
        assert (pixels.max(1) > 0).all()
        assert 0.2 <= pixels.mean() <= 0.4


def test_pixels_of_mnist_are_centred_by_mass_in_a_box_of_20(chromium: Any, made: Made) -> None:
    page = Opened(chromium, made.path)
    for strokes in DIGITS.values():
        small = [[(x / 3, y / 3) for x, y in stroke] for stroke in strokes]
        for drawn in (strokes, small):
            pixels = np.array(
                page.tab.evaluate("(s) => Array.from(winticket.pixels(s, [28, 28], 'centred'))", drawn)
            ).reshape(28, 28)
            rows, columns = (np.flatnonzero(pixels.sum(axis)) for axis in (1, 0))
            longest = max(np.ptp(rows), np.ptp(columns)) + 1
            assert 19 <= longest <= 22  # 20, and what antialiasing adds on both sides
            middle = (np.arange(28) + 0.5) @ pixels.sum(1), (np.arange(28) + 0.5) @ pixels.sum(0)
            np.testing.assert_allclose(np.array(middle) / pixels.sum(), 14, atol=0.2)


def test_examples_are_chosen_by_keyboard_and_cleared(chromium: Any, made: Made) -> None:
    page = Opened(chromium, made.path)
    thumb = page.tab.locator(".examples button").nth(3)
    assert thumb.get_attribute("aria-label") == "Test example 4, class 3"
    thumb.focus()
    page.tab.keyboard.press("Enter")
    assert thumb.get_attribute("aria-pressed") == "true"
    example = made.raw[int(np.flatnonzero(made.y.numpy() == 3)[0])]
    with torch.no_grad():
        expected = [
            str(int(m(torch.from_numpy(READY.apply(example[None]))).argmax())) for m in made.models.values()
        ]
    assert page.answers() == expected
    page.tab.wait_for_selector("#spoken:has-text('right: 3')", state="attached")
    page.tab.focus("#clear")
    page.tab.keyboard.press("Space")
    assert page.answers() == ["–", "–"]
    assert page.tab.locator(".examples button[aria-pressed=true]").count() == 0


def test_a_finger_draws_too(chromium: Any, made: Made) -> None:
    context = chromium.new_context(has_touch=True, viewport={"width": 390, "height": 844})
    tab = context.new_page()
    tab.goto(made.path.as_uri())
    tab.wait_for_selector("body[data-ready]", timeout=60_000)
    box = tab.locator(".draw").bounding_box()
    client = context.new_cdp_session(tab)
    for kind, y in (
        ("touchStart", 0.2),
        ("touchMove", 0.4),
        ("touchMove", 0.6),
        ("touchMove", 0.8),
        ("touchEnd", 0),
    ):
        points = (
            []
            if kind == "touchEnd"
            else [{"x": box["x"] + box["width"] / 2, "y": box["y"] + y * box["height"]}]
        )
        client.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    tab.wait_for_timeout(100)
    assert [text.split()[0] for text in tab.locator(".answer").all_inner_texts()] == ["1", "1"]
    assert tab.evaluate("scrollY") == 0  # drawing does not scroll
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_the_screen_and_can_be_read(chromium: Any, made: Made, width: int, scheme: str) -> None:
    """No sideways scrolling; the contrast of text is at least 4.5 to 1 (WCAG 2, AA)."""
    page = Opened(chromium, made.path, width=width, scheme=scheme)
    page.draw(DIGITS["5"])
    assert page.tab.evaluate("document.documentElement.scrollWidth") == width
    for selector, behind in (("h1", "body"), (".note", "section"), ("dt", "section"), ("button", "button")):
        ink, paper = (
            page.tab.evaluate(
                "([s, what]) => getComputedStyle(document.querySelector(s))[what]",
                [one, what],
            )
            for one, what in ((selector, "color"), (behind, "backgroundColor"))
        )
        assert contrast(*([int(n) for n in re.findall(r"\d+", text)[:3]] for text in (ink, paper))) >= 4.5, (
            selector,
            ink,
            paper,
        )


def contrast(one: list[int], other: list[int]) -> float:
    def light(colour: list[int]) -> float:
        linear = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


def test_sizes_weights_and_times_are_shown(chromium: Any, made: Made) -> None:
    page = Opened(chromium, made.path)
    dense, ticket = page.tab.locator(".panel").all_inner_texts()
    assert "7,400" in dense
    kept, size = network_of(made.path.read_text("utf-8")).kept()
    assert f"{kept:,} of {size:,}" in ticket
    for panel in page.tab.locator(".panel dl").all_inner_texts():
        assert any(line.endswith((" µs", " ms")) for line in panel.splitlines()), panel
    assert re.search(r"medians of \d+ rounds, in turns\. The ticket is", page.tab.inner_text("#timing"))
    page.tab.click("#again")
    page.tab.wait_for_selector("#again:not([disabled])", timeout=60_000)


def test_signals_are_chosen_and_changed_by_sliders(chromium: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 18, 3)).eval()
    network = capture(model, None, example=torch.zeros(1, 1, 20), classes=["<b>", "walk", "run"])
    x, y = torch.randn(9, 1, 20), torch.arange(9) % 3
    path = tmp_path / "signals.html"
    path.write_text(to_web(network, examples=(x.numpy(), y.numpy())), "utf-8")
    page = Opened(chromium, path)
    page.tab.locator(".examples button").nth(4).click()
    with torch.no_grad():
        right = model(x[4][None])[0].numpy()
    np.testing.assert_allclose(page.outputs("ticket", x[4].numpy()), right, rtol=1e-4, atol=1e-4)
    assert page.answers() == [network.classes[int(right.argmax())]]
    page.tab.click("summary")
    slider = page.tab.locator("input[type=range]").nth(2)
    before = page.tab.locator(".percent").all_inner_texts()
    slider.focus()
    for _ in range(30):
        page.tab.keyboard.press("PageUp")
    assert page.tab.locator(".percent").all_inner_texts() != before
    assert page.errors == []


def test_colour_images_are_chosen(chromium: Any, tmp_path: Path) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 20)
    ).eval()
    network = capture(
        model,
        None,
        example=torch.zeros(1, 3, 6, 5),
        preprocessing=Preprocessing(255.0, (0.5,) * 3, (0.2,) * 3),
    )
    raw = np.random.default_rng(0).integers(0, 256, (4, 3, 6, 5))
    assert network.preprocessing is not None
    x = network.preprocessing.apply(raw)
    path = tmp_path / "colours.html"
    path.write_text(to_web(network, examples=(x, np.arange(4))), "utf-8")
    page = Opened(chromium, path)
    assert page.tab.locator(".draw").count() == 0
    page.tab.locator(".examples button").nth(2).click()
    with torch.no_grad():
        right = model(torch.from_numpy(x[2:3]))[0]
    assert page.answers() == [str(int(right.argmax()))]
    assert page.tab.locator(".bars li").count() == 12  # the likeliest of 20
    seen = page.tab.evaluate(
        "Array.from(document.querySelector('.seen').getContext('2d').getImageData(0, 0, 5, 6).data)"
    )
    np.testing.assert_array_equal(np.array(seen).reshape(6, 5, 4)[..., :3], raw[2].transpose(1, 2, 0))
    assert page.errors == []
