"""What the site has besides docs/: the README as its home, pages of rooms and of the API, and the gallery.

mkdocs calls the functions whose names begin with `on_`; mkdocs.yml names this file.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "winticket"
HERE = Path(__file__).parent
OUTSIDE = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changes.md"}
"""Pages of the repository that are outside docs/, and what the site calls them."""
ALSO_PUBLIC = {"align", "data", "run"}
"""Rooms that pages of docs/ import from, beside those that `winticket` itself lists."""
FIGURES = "figures.md"
"""What the gallery shows below its first paragraph."""
ASSETS = {"iframe-worker.js", "site.css"}
ROW = re.compile(r"^\| `([\w.]+)(/?)` \| (.+) \| (.+) \|$", re.MULTILINE)
LINK = re.compile(r"\]\((?![a-z]+:|#)([^)\s#]+)")


@dataclass(frozen=True)
class Room:
    """A row of the table in docs/architecture.md."""

    name: str
    folder: bool
    purpose: str
    imports: str

    @property
    def label(self) -> str:
        return f"{self.name}/" if self.folder else f"{self.name}.py"

    def files(self) -> list[Path]:
        if not self.folder:
            return [SOURCE / f"{self.name}.py"]
        return sorted((SOURCE / self.name).rglob("*.py"))


@cache
def rooms() -> tuple[Room, ...]:
    rows = ROW.findall((ROOT / "docs" / "architecture.md").read_text())
    return tuple(Room(name.removesuffix(".py"), bool(slash), *rest) for name, slash, *rest in rows)


def on_config(config: Any) -> Any:
    """Put the pages of the API and of the rooms into the navigation."""
    (reference,) = (part["Reference"] for part in config.nav if "Reference" in part)
    for title, first, names in (
        ("API", "api/index.md", api_names()),
        ("Rooms", "architecture.md", room_names()),
    ):
        reference[reference.index(first)] = {title: [first, *({label: name} for label, name in names)]}
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add every page and file that docs/ does not have."""
    pages = dict(outside()) | dict(rooms_pages()) | dict(api_pages())
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    for name in ASSETS:
        files.append(File.generated(config, f"site/{name}", abs_src_path=str(HERE / name)))
    for path in sorted(gallery_of(config).glob("*.svg")):
        files.append(File.generated(config, f"gallery/{path.name}", abs_src_path=str(path)))
    return files


def gallery_of(config: Any) -> Path:
    """The folder of the gallery's figures; raises PluginError if nobody has drawn them."""
    folder: Path = ROOT / config.extra["gallery"]
    if not (folder / FIGURES).exists():
        raise PluginError(
            f"{folder} has no figures: draw them with python -m tools.site.gallery, or make docs"
        )
    return folder


def on_page_markdown(markdown: str, page: Page, config: Any, **_: Any) -> str:
    """Let links out of docs/ lead to the site's own pages, and the table of rooms to theirs."""
    for there, here in OUTSIDE.items():
        markdown = markdown.replace(f"](../{there}", f"]({here}")
    if page.file.src_uri == "gallery.md":
        markdown += f"\n{(gallery_of(config) / FIGURES).read_text()}"
    if page.file.src_uri == "architecture.md":
        markdown = ROW.sub(
            lambda m: f"| [`{m[1]}{m[2]}`](rooms/{m[1].removesuffix('.py')}.md) | {m[3]} | {m[4]} |", markdown
        )
    return markdown


# The README, how to contribute, what has changed


def outside() -> Iterator[tuple[str, str]]:
    for source, name in OUTSIDE.items():
        text = LINK.sub(lambda m: f"]({_moved(m[1])}", (ROOT / source).read_text())
        if source == "README.md":
            before, heading, after = text.partition("## What you type\n")
            text = f"---\nhide: [navigation]\n---\n{before}{(HERE / 'home.md').read_text()}\n{heading}{after}"
        yield name, text


def _moved(link: str) -> str:
    return OUTSIDE.get(link, link.removeprefix("docs/"))


# Rooms


def room_names() -> list[tuple[str, str]]:
    return [(room.label, f"rooms/{room.name}.md") for room in rooms()]


def rooms_pages() -> Iterator[tuple[str, str]]:
    public = {name for name, _ in api_homes()}
    for room in rooms():
        text = [f"# `{room.label}`\n", f"**What it is:** {_in_rooms(room.purpose)}.\n"]
        text.append(f"**It may import:** {_linked(room.imports)}. [All rooms](../architecture.md)\n")
        if room.name in public:
            text.append(f"**Public names:** [winticket.{room.name}](../api/{room.name}.md).\n")
        text += ["## Files\n", "| file | what it does |", "|---|---|"]
        for path in room.files():
            text.append(f"| `{path.relative_to(SOURCE)}` | {_first_sentence(path)} |")
        yield f"rooms/{room.name}.md", "\n".join(text) + "\n"


def _in_rooms(text: str) -> str:
    """Text of docs/, as it stands one folder deeper."""
    return LINK.sub(lambda m: f"](../{m[1]}", text)


def _linked(imports: str) -> str:
    known = {room.name for room in rooms()}
    return re.sub(r"\b([a-z]+)\b", lambda m: f"[{m[1]}]({m[1]}.md)" if m[1] in known else m[1], imports)


def _first_sentence(path: Path) -> str:
    text = " ".join((ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n\n")[0].split())
    return text.replace("|", "\\|").replace("<", "&lt;")


# The API


@cache
def api_homes() -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The rooms that users import from, and their public names, in the order of the table of rooms."""
    init = ast.parse((SOURCE / "__init__.py").read_text())
    public = ast.literal_eval(_assigned(init, "_ROOMS")) | ALSO_PUBLIC
    public |= {home.partition(".")[0] for home in ast.literal_eval(_assigned(init, "_HOMES")).values()}
    homes = []
    for room in (room for room in rooms() if room.name in public):
        path = SOURCE / room.name / "__init__.py" if room.folder else SOURCE / f"{room.name}.py"
        tree = ast.parse(path.read_text())
        names = _assigned(tree, "__all__")
        members = _defined(tree) if names is None else ast.literal_eval(names)
        homes.append((room.name, tuple(members)))
    return tuple(homes)


def _assigned(tree: ast.Module, name: str) -> Any:
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id == name for t in node.targets
        ):
            return node.value
    return None


def _defined(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node.name


def api_names() -> list[tuple[str, str]]:
    return [("winticket", "api/winticket.md"), *((f"winticket.{n}", f"api/{n}.md") for n, _ in api_homes())]


def api_pages() -> Iterator[tuple[str, str]]:
    init = ast.parse((SOURCE / "__init__.py").read_text())
    homes: Mapping[str, str] = ast.literal_eval(_assigned(init, "_HOMES"))
    sentence, _, examples = (ast.get_docstring(init) or "").partition("\n\n")
    text = ["# winticket\n", f"{sentence}\n", "```python", examples, "```\n"]
    text += [f"::: winticket.{home}.{name}\n" for name, home in sorted(homes.items())]
    yield "api/winticket.md", "\n".join(text)
    index = ["# API\n", "These pages are made from docstrings; the tests run their examples.\n"]
    index += [
        "| module | what it has |",
        "|---|---|",
        "| [winticket](winticket.md) | the names that users type first |",
    ]
    for room, names in api_homes():
        path = next(p for p in (SOURCE / room / "__init__.py", SOURCE / f"{room}.py") if p.exists())
        index.append(f"| [winticket.{room}]({room}.md) | {_first_sentence(path)} |")
        members = "".join(f"\n        - {name}" for name in names)
        options = f"    options:\n      heading_level: 1\n      members:{members}"
        yield f"api/{room}.md", f"::: winticket.{room}\n{options}\n"
    yield "api/index.md", "\n".join(index) + "\n"
