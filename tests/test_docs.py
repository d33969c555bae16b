"""Pages that speak of tests and of other pages: what they name is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
RULES = (ROOT / "docs" / "rules.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def named_in(file: Path) -> set[str]:
    tree = ast.parse(file.read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(("file", "name"), sorted(set(NAMED.findall(RULES))))
def test_every_test_of_a_rule_is_there(file: str, name: str) -> None:
    assert name.startswith("test_")
    assert name in named_in(ROOT / file)


def test_every_rule_has_tests() -> None:
    rows = [row.split("|")[1:-1] for row in RULES.splitlines() if row.startswith("| ")][1:]
    assert len(rows) == 13
    assert all(len(row) == 3 and NAMED.search(row[2]) for row in rows)
    # Nothing is named in another way, which would not be looked up.
    assert RULES.count("::") == len(NAMED.findall(RULES))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    for link in links:
        if "://" not in link:
            assert (page.parent / link).exists(), link
