"""The glossary: docs/glossary.md is current, and the page explains its words and links to them."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

from winticket.report import page
from winticket.report.glossary import ALIASES, WORDS, anchor, glossary_page, linked, words_in
from winticket.results import Document

ROOT = Path(__file__).parents[2]
LINK = re.compile(r'<a class="word" href="#([^"]+)">([^<]+)</a>')


def test_the_document_is_current() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    assert text == glossary_page(), "docs/glossary.md is not made from the glossary's words: make docs"


def test_make_docs_writes_that_document() -> None:
    (line,) = [line for line in (ROOT / "Makefile").read_text().splitlines() if "glossary.py" in line]
    assert line.split() == ["$(BIN)/python", "tools/glossary.py", ">", "docs/glossary.md"]


def test_every_meaning_is_sentences_that_a_table_can_hold() -> None:
    for word, meaning in WORDS.items():
        assert meaning.endswith("."), word
        assert len(re.findall(r"\.(?: |$)", meaning)) <= 3, word
        assert "|" not in word + meaning, word
    assert set(ALIASES.values()) <= set(WORDS)


def test_anchors_differ_and_are_plain() -> None:
    anchors = [anchor(word) for word in WORDS]
    assert len(set(anchors)) == len(anchors)
    assert all(re.fullmatch(r"word-[\w-]*\w", a) for a in anchors)
    assert anchor("sooner, later, alike") == "word-sooner-later-alike"


def test_the_first_heading_of_a_word_links_in_every_section() -> None:
    head = '<th scope="col">density</th><th scope="row">ticket</th><th scope="col">density</th><td>mask</td>'
    assert linked(head) == (
        '<th scope="col"><a class="word" href="#word-density">density</a></th>'
        '<th scope="row"><a class="word" href="#word-ticket">ticket</a></th><th scope="col">density</th><td>mask</td>'
    )
    two = f"<section>{head}</section>" * 2
    assert linked(two).count('href="#word-density"') == 2, (
        "whoever reads the second table has not read the first"
    )
    assert linked("<th>an unknown word</th>") == "<th>an unknown word</th>"


def test_the_page_ends_with_the_words_and_every_link_leads_to_one(digits: Document) -> None:
    html = page(digits, []).replace("\u00a0", " ")
    (words,) = re.findall(
        r"<section><details><summary>Words used on this page</summary>.*?</section>", html, flags=re.DOTALL
    )
    assert html.endswith(f"{words}\n</main>\n</body>\n</html>\n")
    listed = [unescape(word) for word in re.findall(r"<dt[^>]*>([^<]*)</dt>", words)]
    assert listed == [word for word in WORDS if word in listed]
    unused = {"source", "search", "plan", "dead unit", "effective density"}
    assert not unused & set(listed), "the page does not use them"
    assert {"density", "replicate", "look", "error rate", "inconclusive"} <= set(listed)
    links = [target for target, _ in LINK.findall(html)]
    assert len(set(links)) > 15
    for section in re.split("<section", html):
        headings = re.findall(r'<t[hd]\b[^>]*><a class="word" href="#([^"]+)"', section)
        assert len(headings) == len(set(headings))
    assert {"word-density", "word-replicate", "word-random-mask", "word-matches-dense"} <= set(links)
    assert set(links) <= set(re.findall(r'id="([^"]+)"', words))


def test_a_page_lists_the_words_that_it_uses_and_those_of_their_meanings() -> None:
    assert words_in("<p>a plan</p>") == {"plan", "run"}, "the meaning of plan says that something runs"
    assert words_in("<p>planned, explained</p>") == set()
    assert {"stack", "replicate", "mask"} <= words_in("<p>two Stacks</p>"), "a stack is of replicates"
    assert words_in('<p title="plan">nothing</p>') == set(), "an attribute is not read"
    assert "control" in words_in('<dt><a href="#word-control">controls</a></dt>')
    assert "search" not in words_in("<p>a mask search</p>")
    assert "search" in words_in("<th>as its search left it</th>")
    assert "source" in words_in("<dt>tickets from</dt>")


def test_first_paragraphs_link_each_word_once_and_the_longest_form() -> None:
    html = (
        '<p class="words">A winning ticket is a ticket.</p><p>Another ticket.</p>'
        '<p class="words">The ticket won by <b>2 pp</b>, a density of 1 %.</p>'
    )
    made = linked(html)
    assert '<a class="word" href="#word-winning-ticket">winning ticket</a> is a <a class="word"' in made
    assert made.count('href="#word-ticket"') == 1
    assert "<p>Another ticket.</p>" in made, "other paragraphs stay as they are"
    assert '<b>2 <a class="word" href="#word-percentage-point">pp</a></b>' in made
    assert "#word-won" not in made, "an everyday word is not linked"
    assert linked('<p class="words">untickets</p>') == '<p class="words">untickets</p>'
