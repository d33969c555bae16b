"""Writes docs/result.md: every key of the documents that runs write, from the types in `winticket.results`.

Run it as `python -m tools.result_page`, or `make docs`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from winticket.results import SCHEMA

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "result.md"
ROOM = ROOT / "src" / "winticket" / "results"
ROOTS = {
    "Document": "result.json",
    "LearningCurve": "curves.json",
    "Masks": "masks.json",
    "Comparison": "compare.json",
    "Shipment": "winticket ship --json",
    "Unfinished": "winticket show --json of an unfinished run",
}
"""The types that a file holds, in the order of the page; the parts of each follow it."""
JSON = {
    "str": "string",
    "bool": "boolean",
    "int": "integer",
    "float": "number",
    "None": "null",
    "Any": "any value",
    "Scalar": "string, number, boolean or null",
}
INTRODUCTION = (
    "# The result document",
    "This page is generated from the types in `src/winticket/results/` by `make docs`.",
    "A search or a transfer writes `result.json`, `curves.json` and `masks.json` to its output folder. "
    "`--json` prints `result.json`, and in Python `Result.document` and `Result.curves` hold the two. "
    "A comparison writes `compare.json`. `winticket ship --json` prints what it wrote and measured.",
    f"The key `schema` is the version of what this page describes, now {SCHEMA}. "
    "It is raised when a key goes or changes its type or meaning. "
    "A new key alone does not raise it, so programs should ignore keys that they do not know. "
    "Documents from before there was a `schema` are read as schema 1. "
    "`transfer`, `store gc --keep` and a run into a folder that holds such a document refuse any other version; "
    "the message says which version of winticket wrote it.",
    "Accuracies and densities are fractions from 0 to 1. Replicates count from 0. "
    "A value that was not measured, or is not finite, is null. "
    "[The guide](guide.md) explains arms, levels and replicates, and [verdict.md](verdict.md) the verdict.",
)


@dataclass(frozen=True)
class Key:
    name: str
    annotation: ast.expr
    meaning: str


@dataclass(frozen=True)
class Part:
    """A type of the document: its name, what it is, its own keys and the types that it extends."""

    name: str
    about: str
    bases: tuple[str, ...]
    keys: tuple[Key, ...]


def documented(body: list[ast.stmt]) -> Iterator[tuple[ast.stmt, str]]:
    """Statements with the text that stands below them."""
    for statement, below in zip(body, [*body[1:], None], strict=True):
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            yield statement, " ".join(str(below.value.value).split())


def read() -> tuple[dict[str, Part], dict[str, tuple[ast.expr, str]]]:
    """The types of the room by name, and its aliases with their meaning."""
    parts: dict[str, Part] = {}
    aliases: dict[str, tuple[ast.expr, str]] = {}
    # A type is read after those that it extends.
    last = {"document.py": 1, "progress.py": 2}
    for file in sorted(ROOM.glob("*.py"), key=lambda file: last.get(file.name, 0)):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        meanings = {id(statement): text for statement, text in documented(tree.body)}
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and {b.id for b in names(node.bases)} & {"TypedDict", *parts}:
                parts[node.name] = part(node)
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                aliases[node.targets[0].id] = (node.value, meanings.get(id(node), ""))
    return parts, aliases


def names(nodes: Iterable[ast.AST]) -> Iterator[ast.Name]:
    return (node for node in nodes if isinstance(node, ast.Name))


def part(node: ast.ClassDef) -> Part:
    keys = [
        Key(s.target.id, s.annotation, text)
        for s, text in documented(node.body)
        if isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name)
    ]
    undocumented = sum(isinstance(s, ast.AnnAssign) for s in node.body) - len(keys)
    assert not undocumented, f"{undocumented} keys of {node.name} have no text below them"
    bases = tuple(base.id for base in names(node.bases) if base.id != "TypedDict")
    return Part(node.name, " ".join((ast.get_docstring(node) or "").split()), bases, tuple(keys))


class Words:
    """Annotations in words, with links to other types of the page."""

    def __init__(self, parts: dict[str, Part], aliases: dict[str, tuple[ast.expr, str]]) -> None:
        self.parts, self.aliases = parts, aliases

    def type(self, node: ast.expr) -> str:
        if isinstance(node, ast.BinOp):
            comma = "," if isinstance(node.left, ast.Subscript) else ""  # array of number, or null
            return f"{self.type(node.left)}{comma} or {self.type(node.right)}"
        if isinstance(node, ast.Constant):
            return JSON["None"] if node.value is None else f"`{node.value!s}`"
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
            return self._generic(node.value.id, node.slice)
        assert isinstance(node, ast.Name), ast.dump(node)
        if node.id in self.parts:
            return f"[{node.id}](#{node.id.lower()})"
        return JSON[node.id] if node.id in JSON else self.type(self.aliases[node.id][0])

    def _generic(self, name: str, inner: ast.expr) -> str:
        items = inner.elts if isinstance(inner, ast.Tuple) else [inner]
        words = [self.type(item) for item in items]
        return {
            "list": f"array of {self._grouped(items[0], words[0])}",
            "dict": f"object of {self._grouped(items[-1], words[-1])}",
            "NotRequired": words[0],
            "Literal": " or ".join(words),
        }[name]

    @staticmethod
    def _grouped(node: ast.expr, words: str) -> str:
        return f"({words})" if isinstance(node, ast.BinOp) else words

    def unit(self, node: ast.expr) -> str:
        """What the numbers in an annotation are counted in."""
        names = [n.id for n in ast.walk(node) if isinstance(n, ast.Name) and n.id in self.aliases]
        units = [
            self.aliases[name][1].partition(":")[0]
            for name in names
            if self.aliases[name][1] and name not in JSON
        ]
        return ", ".join(dict.fromkeys(units))

    def mentioned(self, part: Part) -> list[str]:
        """The types that a type's keys hold, and those that it extends, in order."""
        held = [node.id for key in part.keys for node in names(ast.walk(key.annotation))]
        return [name for name in dict.fromkeys([*part.bases, *held]) if name in self.parts]


def page() -> str:
    """The whole page."""
    parts, aliases = read()
    words = Words(parts, aliases)
    lines = [f"{paragraph}\n" for paragraph in INTRODUCTION]
    shown: dict[str, None] = {}
    for root, file in ROOTS.items():
        lines.append(f"## {file}\n")
        waiting = [root]
        while waiting:
            name = waiting.pop(0)
            if name in shown:
                continue
            shown[name] = None
            lines += section(parts[name], words)
            waiting = words.mentioned(parts[name]) + waiting
    return "\n".join(lines)


def section(part: Part, words: Words) -> Iterator[str]:
    yield f"### {part.name}\n"
    extends = " and ".join(f"[{base}](#{base.lower()})" for base in part.bases)
    yield part.about + (f" It has the keys of {extends} too." if extends else "") + "\n"
    yield "| key | type | unit | meaning |"
    yield "|---|---|---|---|"
    for key in part.keys:
        yield f"| `{key.name}` | {words.type(key.annotation)} | {words.unit(key.annotation)} | {key.meaning} |"
    yield ""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
