"""The papers that the command and its page cite: title and where to read each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape

PAPERS: Mapping[str, tuple[str, str]] = {
    "Frankle & Carbin 2019": (
        "The Lottery Ticket Hypothesis: Finding Sparse, Trainable Neural Networks",
        "1803.03635",
    ),
    "Frankle et al. 2020": ("Linear Mode Connectivity and the Lottery Ticket Hypothesis", "1912.05671"),
    "Liu et al. 2019": ("Rethinking the Value of Network Pruning", "1810.05270"),
    "Ma et al. 2021": (
        "Sanity Checks for Lottery Tickets: Does Your Winning Ticket Really Win the Jackpot?",
        "2107.00166",
    ),
    "Tanaka et al. 2020": (
        "Pruning neural networks without any data by iteratively conserving synaptic flow",
        "2006.05467",
    ),
    "Zhou et al. 2019": ("Deconstructing Lottery Tickets: Zeros, Signs, and the Supermask", "1905.01067"),
}
"""Authors and year -> title and number on arXiv."""
_NUMBERED = re.compile(r"\((?=\d{4}\))")


def cited(text: str) -> list[str]:
    """The papers that a text cites, in the order of the table.

    >>> cited("As Zhou et al. (2019) found; Frankle & Carbin 2019, fig. 4.")
    ['Frankle & Carbin 2019', 'Zhou et al. 2019']
    """
    plain = _NUMBERED.sub("", text)
    return [name for name in PAPERS if name in plain]


def reference(name: str) -> str:
    """One line: authors, year, title, number.

    >>> reference("Liu et al. 2019")
    'Liu et al. 2019: Rethinking the Value of Network Pruning, arXiv:1810.05270'
    """
    title, number = PAPERS[name]
    return f"{name}: {title}, arXiv:{number}"


def papers_section(html: str) -> str:
    """The page's list of the papers that it cites; empty if it cites none."""
    names = cited(re.sub(r"&amp;", "&", re.sub(r"<[^>]*>", " ", html)))
    if not names:
        return ""
    entries = "".join(
        f"<li>{escape(name)}: {escape(PAPERS[name][0])}, "
        f'<a href="https://arxiv.org/abs/{PAPERS[name][1]}">arXiv:{PAPERS[name][1]}</a></li>'
        for name in names
    )
    return f"<section>\n<h2>Papers that this page cites</h2>\n<ul>{entries}</ul>\n</section>"
