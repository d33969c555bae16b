"""The site of the documentation builds, all its links lead somewhere, and nothing in it is fetched from elsewhere."""

from __future__ import annotations

import doctest
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from tools.site import gallery

import winticket
from winticket.experiment import Execution
from winticket.report.analysed import Shown, write_analyses

ROOT = Path(__file__).parents[1]
LOADING = {"script": "src", "img": "src", "iframe": "src", "link": "href", "source": "src", "object": "data"}
"""Elements that a browser follows by itself, and the attribute that says to where."""

pytestmark = pytest.mark.skipif(
    find_spec("mkdocs") is None or find_spec("mkdocstrings") is None,
    reason="what builds the site is not installed: pip install 'winticket[docs]'",
)


class Page(HTMLParser):
    """Anchors, links and loads of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if (where := LOADING.get(tag)) in values and values.get("rel") not in ("canonical", "prev", "next"):
            self.loads.append(values[str(where)])


def built(folder: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A build by the mkdocs.yml of a folder; without --quiet, under which nothing is strict."""
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", *options],
        cwd=folder, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", **environment},
    )  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, with the gallery of a run of a second."""
    folder = tmp_path_factory.mktemp("site")
    small: dict[str, Any] = {
        "model": "lenet-20",
        "steps": 20,
        "density": [0.5, 0.2],
        "replicates": 2,
        "gate": False,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        winticket.find("digits", out="run", store="store", workers=0, **small)
        run = winticket.open("run")
        made = run.analyse("layers", "paths", execution=Execution.local("store", workers=0))
        assert not gallery.is_the_usual(Path("run"))
        shown = [Shown(one.analysis, one.table, one.sentences, one.reason) for one in made]
        write_analyses(shown, Path("run") / "analyses")
        assert not gallery.is_the_usual(Path("run"))  # it has options
        patch.setattr("tools.site.gallery.Experiment.of", lambda _: run.plan.experiment)
        assert gallery.is_the_usual(Path("run"))
        (folder / "gallery").mkdir()
        text = gallery.page(run, folder / "gallery", folder="run", command="winticket find digits --out run")
        (folder / "gallery" / "figures.md").write_text(text)
    done = built(ROOT, "--site-dir", str(folder / "site"), WINTICKET_GALLERY=str(folder / "gallery"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr
    return folder / "site"


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in sorted(site.rglob("*.html"))}


def test_every_page_of_docs_is_there(site: Path) -> None:
    for page in (ROOT / "docs").glob("*.md"):
        assert (site / f"{page.stem}.html").exists(), page.name


def test_every_link_leads_to_a_page_and_to_a_heading_on_it(pages: dict[Path, Page]) -> None:
    """Checked in the pages as built, beside the builder's own check: also what the theme and the hooks write."""
    broken = [f"{path.name}: {link}" for path, page in pages.items() for link in broken_on(path, page, pages)]
    assert broken == []
    assert sum(len(page.links) for page in pages.values()) > 5000


def broken_on(path: Path, page: Page, pages: dict[Path, Page]) -> Iterator[str]:
    for link in page.links:
        parts = urlsplit(link)
        if (
            parts.scheme or path.name == "404.html"
        ):  # whose links begin at the site's root, which a disk lacks
            continue
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        anchors = pages[target].anchors if target in pages else set()
        if not target.is_file() or (parts.fragment and unquote(parts.fragment) not in anchors):
            yield link


def test_broken_links_fail_the_build(tmp_path: Path) -> None:
    """By the rules of mkdocs.yml, on a site of one page."""
    (tmp_path / "docs").mkdir()
    alone = {"INHERIT": str(ROOT / "mkdocs.yml"), "docs_dir": "docs", "site_dir": "site", "nav": ["index.md"]}
    (tmp_path / "mkdocs.yml").write_text(json.dumps({**alone, "plugins": [], "hooks": [], "extra_css": []}))
    for text, warnings in (("# A page", 0), ("# A page\n\n[x](nowhere.md) [y](#nowhere) [z](/index.md)", 3)):
        (tmp_path / "docs" / "index.md").write_text(text)
        done = built(tmp_path)
        assert done.stderr.count("WARNING") == warnings, done.stderr
        assert (done.returncode != 0) == (warnings > 0)


def test_nothing_is_fetched_from_elsewhere(site: Path, pages: dict[Path, Page]) -> None:
    """Neither by pages nor by style sheets: who reads the site is nobody else's business."""
    assert [load for page in pages.values() for load in page.loads if urlsplit(load).netloc] == []
    assert sum(len(page.loads) for page in pages.values()) > 500
    for sheet in site.rglob("*.css"):
        assert re.findall(r"url\(\s*[\"']?(?:https?:)?//|@import", sheet.read_text()) == [], sheet.name


def test_the_search_reads_from_a_disk(site: Path) -> None:
    """The index is a script too, since pages from a disk may not fetch; the worker's stand-in is the site's own."""
    index = (site / "search" / "search_index.js").read_text()
    found = json.loads(index.removeprefix("var __index = "))["docs"]
    assert any(entry["location"].startswith("verdict.html") for entry in found)
    assert any("winning ticket" in entry["text"] for entry in found)
    assert "site/iframe-worker.js" in Page(site / "index.html").loads


def test_the_api_has_every_public_name(pages: dict[Path, Page], site: Path) -> None:
    assert {name for name in winticket.__all__ if name[0].islower()} - anchors_of_api(pages, site) == set()
    for name in (
        "winticket.ship.to_c",
        "winticket.judge.judge",
        "winticket.analyse.jaccard",
        "winticket.ship.capture",
    ):
        assert name in {anchor for page in pages.values() for anchor in page.anchors}, name


def anchors_of_api(pages: dict[Path, Page], site: Path) -> set[str]:
    """The last parts of the names on the page of `winticket`, and the names of the rooms that have a page."""
    here = {anchor.rpartition(".")[2] for anchor in pages[site / "api" / "winticket.html"].anchors}
    return here | {path.stem for path in pages if path.parent.name == "api"}


def test_docstrings_become_markdown() -> None:
    from tools.site import docstrings

    assert doctest.testmod(docstrings) == (0, 1)
    assert docstrings.as_markdown("[N, C] of `x[0]`, **all** of a*b.") == (
        r"\[N, C\] of `x[0]`, **all** of a\*b."
    )
    assert docstrings.as_markdown("Adds.\n>>> 1 + 1\n2") == "Adds.\n\n```pycon\n>>> 1 + 1\n2\n```"
    code = "Either:\n\n    x = y[0]\n    z = x * x"
    assert docstrings.as_markdown(code) == code


def test_every_room_has_its_page(site: Path) -> None:
    """A room is what the package has as a folder, or what the table of rooms names."""
    folders = {p.name for p in (ROOT / "src" / "winticket").iterdir() if (p / "__init__.py").exists()}
    there = {path.stem for path in (site / "rooms").glob("*.html")}
    assert folders <= there
    text = (site / "rooms" / "judge.html").read_text()
    assert "judge/statistics.py" in text
    assert "../api/judge.html" in text


def test_the_gallery_shows_every_figure_with_a_sentence_and_a_command(site: Path) -> None:
    text = (site / "gallery.html").read_text()
    figures = {path.name for path in (site / "gallery").glob("*.svg")}
    assert {"accuracy_against_density.svg", "layers.svg", "paths.svg", "paths-2.svg"} <= figures
    shown = re.findall(r'<img[^>]* src="gallery/([\w-]+\.svg)"', text)
    assert sorted(shown) == sorted(figures)
    after = text.split("<img")[1:]
    for part, name in zip(after, shown, strict=True):
        assert re.search(r"</a></p>\s*<p>\S", part), name
        assert re.search(r"<code>winticket (find|analyse) ", part.replace("<span></span>", "")), name


def test_lists_tables_and_headings_are_those_that_were_written(site: Path) -> None:
    """The builder reads Markdown by stricter rules than GitHub: a list without an empty line before it is none."""
    for source in (ROOT / "docs").glob("*.md"):
        text = re.sub(r"^```.*?^```", "", source.read_text(), flags=re.DOTALL | re.MULTILINE)
        html = (site / f"{source.stem}.html").read_text().partition("<article")[2].partition("</article>")[0]
        for written, built in (
            (r"^\s*(?:[-*]|\d+\.) ", r"<li[ >]"),
            (r"^\|(?![-| :]+$)", "<tr>"),
            ("^#+ ", r"<h\d"),
        ):
            there = len(re.findall(written, text, re.MULTILINE))
            if source.stem != "gallery":  # which goes on with what was drawn
                assert len(re.findall(built, html)) == there, f"{source.name}: {built}"


def test_home_says_what_the_readme_says(site: Path) -> None:
    text = (site / "index.html").read_text()
    assert "Find, prove and ship winning lottery tickets." in text
    assert "images/digits.png" in text
    assert text.index('id="start-here"') < text.index('id="what-you-type"')
