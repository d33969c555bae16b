"""The table of the verdict's evidence says which density it is about; costs say what they include."""

from __future__ import annotations

from html import unescape
from typing import Any

import pytest

from winticket.report.costs import costs_section
from winticket.report.evidence import evidence

Document = Any  # a test may take away what every run writes


def first_words(document: Document) -> str:
    html = unescape(evidence(document))
    return html[html.index("These are the tests at") : html.index(". Differences")]


def test_the_density_of_the_tests_is_named_by_what_chose_it(digits: Document) -> None:
    assert first_words(digits) == "These are the tests at 9.0 % of the weights, the smallest winning density"
    digits["verdict"] |= {"outcome": "inconclusive", "density": None, "claimed": []}
    assert first_words(digits) == "These are the tests at 3.1 % of the weights, the sparsest of those tried"
    digits["saved_ticket"] = {"density": digits["levels"][2]["density"]}
    assert first_words(digits) == "These are the tests at 64.3 % of the weights, the saved ticket's density"


@pytest.mark.parametrize(
    ("method", "source", "by_levels"),
    [("imp", None, True), ("at-init", None, False), ("one-shot", None, False), ("rigl", None, False),
     ("imp", {"data": "digits"}, False)],
)  # fmt: skip
def test_costs_include_denser_levels_only_if_tickets_are_found_level_by_level(
    digits: Document, method: str, source: Document, by_levels: bool
) -> None:
    digits["experiment"]["method"] = method
    if source is not None:
        digits["experiment"] |= {"source": source, "carried": [1]}
    cost = {"steps": 800.0, "flops": None, "seconds": None}
    digits["costs"] = [{"arm": "dense", "density": 1.0, **cost}, {"arm": "ticket", "density": 0.09, **cost}]
    html = costs_section(digits)
    assert "with every training that was needed to find the network&#x27;s mask" in html
    assert ("the tickets of all denser levels" in html) == by_levels
