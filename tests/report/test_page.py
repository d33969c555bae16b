"""The page is one well-formed file with the verdict, the facts, the figures and every number, all escaped."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from winticket.judge.looks import share
from winticket.report import page, write_page
from winticket.report.captions import captions

Document = Any  # tests may remove keys that every run writes
VOID = {"meta", "img", "source", "br", "hr", "link"}


class Reader(HTMLParser):
    """Collects text, tags and attributes, and fails on a tag that is not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data


def read(html: str) -> Reader:
    """Parse, check that every tag is closed, and make spaces plain."""
    reader = Reader()
    reader.feed(html)
    assert reader.open == []
    reader.text = reader.text.replace("\u00a0", " ")
    return reader


def test_the_page_says_what_matters(
    digits: Document, draw_curves: Callable[..., list[Document]], tmp_path: Path
) -> None:
    path = write_page(digits, draw_curves(digits, every=100), tmp_path / "report.html")
    reader = read(path.read_text(encoding="utf-8"))
    for words in (
        "Won: a ticket with 9.0 % of the weights",
        "beats both controls",
        "lenet-300-100",
        "adam 0.0012, 800 steps, batch 60",
        "16: 80.2 % to 3.1 % of the weights that may be pruned",
        "9.8 % of all, in the smallest winning ticket",
        "20 % of the remaining weights per level, output layer 10 %",
        "Kind of result: winning ticket (both the mask and the weights it starts from matter).",
        "Doubling the dense network's budget",
        "No training failed, and no layer lost all its weights.",
        "This run asks whether a ticket that is trained by itself comes to within 0.5 percentage points (pp)",
        "of the accuracy of the dense (whole) network, and whether it ends above both controls",
        "2.13.0+cpu",
        'Ticket.load("runs/reports/3f9a17c2/ticket.safetensors")',
        "smallest margin at which any ticket wins is 0.14 pp",
    ):
        assert words in reader.text
    for level in digits["levels"]:
        for arm in level["arms"].values():
            assert f"{100 * arm['accuracy']:.2f} ± " in reader.text


def test_figures_are_inside_for_wide_and_narrow_pages_and_follow_the_scheme(
    digits: Document, draw_curves: Callable[..., list[Document]]
) -> None:
    html = page(digits, draw_curves(digits, every=100))
    drawings = re.findall(r"<svg class=\"drawn\".*?</svg>", html, re.DOTALL)
    assert len(drawings) == 2 * 4
    ids: list[str] = []
    for drawing in drawings:
        tree = ElementTree.fromstring(drawing.replace("&nbsp;", " "))
        assert len(tree.get("aria-label") or "") > 60
        assert tree.get("role") == "img"
        assert not re.search(r"#[0-9a-f]{6}", drawing), "every colour follows the scheme"
        assert list(tree.iter("text")), "lettering is text"
        own = {element.get("id") for element in tree.iter() if element.get("id")}
        used = set(re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", drawing))
        assert used == own, "what is not referred to has no identifier"
        ids += [str(one) for one in own]
    assert len(ids) == len(set(ids)), "identifiers are unique on the page"
    colours = set(re.findall(r"var\((--c[0-9a-f]{6})\)", html))
    for colour in colours:
        assert html.count(f"{colour}:#") == 3, "each colour has a value in light, dark and print"
    outside = re.findall(r'(?:src|href|srcset)="(?!#)([^"]*)"', html)
    assert all(link.startswith("https://arxiv.org/abs/") for link in outside), (
        "nothing is loaded from outside"
    )
    assert "<script" not in html


def test_the_page_has_its_order(digits: Document, draw_curves: Callable[..., list[Document]]) -> None:
    """Question, verdict with its evidence, arms by density, figures; glossary last."""
    html = page(digits, draw_curves(digits, every=100))
    order = [
        html.index(words)
        for words in (
            "<h1>Won", "<h2>The question</h2>", "<h2>The verdict</h2>", "a ticket wins if it",
            "<h2>Results at every density</h2>", "<svg class=\"drawn\"", "<h2>Cautions</h2>",
            "<h2>How the verdict was reached</h2>", "<h2>Run it again</h2>", "<h3>Environment</h3>",
            "<h2>What failed</h2>", "Words used on this page",
        )
    ]  # fmt: skip
    assert order == sorted(order)


def test_text_from_the_document_is_escaped(digits: Document) -> None:
    nasty = '<script>alert("x")</script>&'
    digits["experiment"] |= {"data": nasty, "model": nasty}
    digits["verdict"] |= {"reason": nasty, "warnings": [nasty], "kind": nasty}
    digits["failures"] = [{"arm": nasty, "density": 0.5, "replicate": 1, "reason": nasty}]
    digits["levels"][2]["emptied"] = {"random": [nasty]}
    digits["environment"] = {nasty: nasty}
    digits |= {"ticket": nasty, "store": nasty}
    html = page(digits, [])
    assert "<script" not in html
    assert all(tag != "script" for tag, _ in read(html).tags)
    assert "&lt;script&gt;" in html


def test_failures_and_emptied_layers_are_listed(build: Callable[..., Document]) -> None:
    document = build(levels=4, failed=((2, "ticket", 3),))
    document["levels"][4]["emptied"] = {"ticket": ["output"]}
    html = page(document, [])
    text = read(html).text
    assert "the training loss became nan at step 120" in text
    assert ">4</td>" in html, "replicates are counted from one, as in progress and on the screen"
    assert "(1 failed)" in text
    assert "output" in text
    assert "No training failed" not in text


@pytest.mark.parametrize("arms", [("ticket",), ("ticket", "random"), ()])
def test_missing_arms_one_replicate_and_absent_keys(
    build: Callable[..., Document], arms: tuple[str, ...]
) -> None:
    document = build(levels=1, replicates=1, arms=arms)
    bare: Any = {
        "levels": document["levels"],
        "verdict": {"outcome": "inconclusive", "density": None, "reason": "Inconclusive: one replicate."},
    }
    text = read(page(bare, [])).text
    assert "Inconclusive" in text
    assert "nan" not in text
    assert "None" not in text


def test_notes_on_details_are_folded(digits: Document) -> None:
    sparser = f"At {100 * digits['levels'][14]['density']:.3g} % of the weights a second test disagrees."
    digits["verdict"] |= {"warnings": ["The whole experiment was odd."], "notes": [sparser]}
    html = page(digits, [])
    html = html.replace("\u00a0", " ")
    folded = re.findall(
        r"<details><summary>1 note that does not bear on the verdict</summary>(.*?)</details>", html
    )
    assert len(folded) == 1
    assert sparser in folded[0]
    assert "The whole experiment was odd." not in folded[0]
    cautions, then = (html.index(f"<h2>{title}</h2>") for title in ("Cautions", "What to do next"))
    assert cautions < html.index("The whole experiment was odd.") < html.index(folded[0]) < then


def test_the_saved_ticket_and_its_model(digits: Document) -> None:
    digits["saved_ticket"] = {
        "density": digits["verdict"]["density"],
        "replicate": 3,
        "replicates": 10,
        "test_accuracy": 0.9733,
        "mean_test_accuracy": 0.9849,
    }
    text = read(page(digits, [])).text
    assert "The saved ticket has density 9.0 % and comes from replicate 4 (number 3 in result.json" in text
    assert "After training, its test accuracy is 97.33 % (98.49 % on average over the 10)." in text
    assert 'winticket.models.build(**ticket.about["build"])' in text
    assert "load_state_dict" not in text


def test_everything_that_scrolls_says_so(
    digits: Document, draw_curves: Callable[..., list[Document]]
) -> None:
    """A table that is cut at the right looks whole where scroll bars are hidden."""
    html = page(digits, draw_curves(digits, every=100))
    boxes = html.split('<div class="scroll">')[1:]
    assert len(boxes) == html.count("<table ") >= 4
    assert all(re.match(r'<div class="broad"><p class="hint"[^>]*>scroll →</p><table', box) for box in boxes)


def test_captions_say_what_a_match_needs_and_why_markers_are_missing(digits: Document) -> None:
    digits["levels"][1]["checks"]["pace"] = {"fraction": 0.95, "outcome": "alike"}
    text = captions(digits)
    assert (
        "the bound of its paired difference to the dense network must be above −0.5 percentage points"
        in text["accuracy_against_density"]
    )
    for name in ("pace_against_density", "early_stop_against_density"):
        assert (
            "Each density is tested alone, by an exact signed-rank test at 5 % that is not corrected"
            in text[name]
        )
    assert "half of the replicates or more never reach that accuracy" in text["pace_against_density"]
    assert "in most replicates, the loss was lowest at the last step" in text["early_stop_against_density"]
    del digits["experiment"]["margin_pp"]
    assert "dotted line" not in captions(digits)["accuracy_against_density"]


def test_how_the_looks_share_the_error_rate(digits: Document) -> None:
    text = read(page(digits, [])).text
    assert (
        "All looks share α = 0.05: the first may use nine tenths of it, and the later ones share the rest."
        in text
    )
    assert share(1) == 0.9
    assert sum(share(look) for look in range(2, 2000)) == pytest.approx(0.1, abs=1e-4)
