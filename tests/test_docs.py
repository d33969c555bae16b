"""Pages that speak of files, names, tests and of other pages: what they name is there."""

from __future__ import annotations

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


def anchors_of(page: Path) -> set[str]:
    """The fragments of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_to_headings_lead_to_one(page: Path) -> None:
    for link, fragment in re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", page.read_text()):
        if "://" not in link:
            assert fragment in anchors_of(page.parent / link if link else page), f"{link}#{fragment}"


# What runs leave behind, and what a user has: named in the pages, and no files of ours.
THEIRS = re.compile(
    r"(runs|figures|analyses|looks|plans|results|failures|partial|reports|tickets|winticket-compare)/|(spec|own)\.py"
)
FILE = re.compile(r"`([\w./-]+(?:\.(?:py|md|toml)|/))`")
NAME_OF_FILE = re.compile(r"`(\w+)` of `([\w./-]+\.py)`")
HOMES = (ROOT, ROOT / "src" / "winticket", ROOT / "docs", ROOT / "experiments")
CURRENT = [page for page in PAGES if page.name != "LOG.md"]  # the log speaks of what was


def places_of(named: str) -> list[Path]:
    return [home / named for home in HOMES if (home / named).exists()]


@pytest.mark.parametrize("page", CURRENT, ids=lambda p: p.name)
def test_files_that_pages_name_are_there(page: Path) -> None:
    named = {name for name in FILE.findall(page.read_text()) if not THEIRS.match(name)}
    assert [name for name in sorted(named) if not places_of(name)] == []


def test_names_that_contributing_looks_for_are_where_it_says() -> None:
    found = NAME_OF_FILE.findall((ROOT / "CONTRIBUTING.md").read_text())
    assert found
    for name, file in found:
        (place,) = places_of(file)
        assert re.search(rf"^(?:class |def )?{name}\b", place.read_text(), re.MULTILINE), (
            f"{name} is not in {file}"
        )
