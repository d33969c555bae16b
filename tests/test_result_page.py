"""docs/result.md is what the types of the result document say, and they are what is written."""

from __future__ import annotations

from pathlib import Path

from tools import result_page

from winticket import results

ROOT = Path(__file__).parents[1]


def test_the_page_is_current() -> None:
    page = (ROOT / "docs" / "result.md").read_text(encoding="utf-8")
    assert result_page.page() == page, "docs/result.md is not what the types say: make docs"


def test_make_docs_writes_that_page() -> None:
    recipe = (ROOT / "Makefile").read_text().split("\ndocs: ")[1].split("\n\n")[0]
    assert "$(BIN)/python -m tools.result_page" in recipe
    assert ROOT / "docs" / "result.md" == result_page.PAGE


def test_every_type_and_every_key_is_on_the_page() -> None:
    page, (parts, _) = result_page.page(), result_page.read()
    types = [kind for kind in vars(results).values() if hasattr(kind, "__total__")]
    assert len(types) > 20
    for kind in types:
        section = page.split(f"\n### {kind.__name__}\n")[1].split("\n### ")[0]
        inherited = {
            key for base in parts[kind.__name__].bases for key in vars(results)[base].__annotations__
        }
        for key in kind.__annotations__.keys() - inherited:
            assert f"\n| `{key}` | " in section, f"{kind.__name__}.{key}"


def test_units_and_types_are_in_words() -> None:
    page = result_page.page()
    for row in (
        "| `ci` | array of (number or null), or null | optimiser steps | Its 95 % interval by order statistics: low, "
        "high; the high end is null if no replicate bounds it. |",
        "| `outcome` | `won` or `not won` or `inconclusive` |  | The decision. |",
        "| `arms` | object of [Arm](#arm) |  | What each arm did; level 0 has `dense` alone. |",
        "| `margin_pp` | number | percentage points | The margin. |",
    ):
        assert f"\n{row}\n" in page, row
