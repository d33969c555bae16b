"""The final screen fits 80 columns, and says everything without colour and without Unicode."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from winticket.report import final_screen

Document = dict[str, Any]


def shown(document: Document, *, width: int = 80, encoding: str = "utf-8") -> str:
    """The screen as plain text."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    Console(file=stream, width=width, color_system=None).print(final_screen(document))
    stream.flush()
    return raw.getvalue().decode(encoding)


@pytest.mark.parametrize("width", [80, 200])
def test_fits_80_columns_and_cuts_no_number(build: Callable[..., Document], width: int) -> None:
    document = build(failed=tuple((3, arm, 2) for arm in ("ticket", "reinit", "random")))
    for level in document["levels"]:
        for arm in level["arms"].values():
            arm["early_stop_step"] *= 50
    text = shown(document, width=width)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "…" not in text


def test_a_row_has_the_documents_numbers(digits: Document) -> None:
    level = digits["levels"][11]
    (row,) = (line.split() for line in shown(digits).splitlines() if line.split()[:2] == ["9.0", "*"])
    ticket = level["arms"]["ticket"]
    half = 50 * (ticket["accuracy_ci"][1] - ticket["accuracy_ci"][0])
    assert row[2:4] == [f"{100 * ticket['accuracy']:.2f}", f"±{half:.2f}"]
    assert row[8:] == ["yes", "yes", "yes", f"{ticket['early_stop_step']:.0f}", "slower"]


def test_says_verdict_places_and_next_steps(digits: Document) -> None:
    text = shown(digits)
    assert "Won: a ticket with 9.0 % of the weights." in text
    for name in ("ticket", "report", "results", "store"):
        assert digits[name] in text
    assert "What to try next" in text
    assert "Dense network: " in text


def test_a_failed_replicate_is_marked(build: Callable[..., Document]) -> None:
    text = shown(build(failed=((3, "random", 2),)))
    assert "! a replicate failed" in text
    assert sum("! " in line for line in text.splitlines() if line.startswith("   51.6")) == 1
    assert "Failed trainings: 1." in text


def test_odd_numbers_keep_the_width(build: Callable[..., Document]) -> None:
    document = build(levels=3)
    for level in document["levels"][1:]:
        level["arms"]["ticket"] |= {"accuracy": 1.0, "accuracy_ci": [1.0, 1.0]}
        level["arms"]["reinit"] |= {"accuracy": 0.45, "accuracy_ci": [0.325, 0.575]}
        level["arms"]["random"] |= {"accuracy": None, "accuracy_ci": None, "failed": 10}
    row = next(line for line in shown(document).splitlines() if line.startswith("   80.2"))
    assert row.split()[1:6] == ["100.0", "±0.00", "45.00", "±12.5", "–!"]


@pytest.mark.parametrize("arms", [("ticket",), ("ticket", "random"), ()])
def test_missing_arms_and_one_replicate(build: Callable[..., Document], arms: tuple[str, ...]) -> None:
    document = build(levels=1, replicates=1, arms=arms)
    document["verdict"] |= {"outcome": "inconclusive", "claimed": [], "density": None, "replicates_needed": 8}
    document["ticket"] = None
    text = shown(document)
    assert "Inconclusive: about 8 replicates would decide." in text
    assert "±0" not in text
    assert ("reinit" in text) is False


def test_ascii_terminals(digits: Document) -> None:
    text = shown(digits, encoding="ascii")
    assert "~ half a 95 % interval" in text
    assert "?" not in text


def test_sparse_documents(digits: Document) -> None:
    minimal = {
        "levels": digits["levels"],
        "verdict": {"outcome": "not won", "density": None, "reason": "Not won: because."},
    }
    text = shown(minimal)
    assert "Not won: no density holds a verified winning ticket." in text
    assert "\nBecause." in text
