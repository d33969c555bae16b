"""Docstrings as Markdown: examples become blocks of code, and lists of arguments become lists.

Docstrings here are plain text for Python's `help`. mkdocs.yml names this file as an extension of griffe.
"""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

ITEM = re.compile(r"^([\w*][\w*, ./|]*?) {2,}(\S.*)$")
"""`name    what it is`, as docstrings list arguments and fields."""


class AsMarkdown(Extension):
    """Rewrites every docstring once, when its object is read."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text: str) -> str:
    """A docstring as Markdown.

    >>> print(as_markdown("Adds.\\n\\na    the first\\nb    the second"))
    Adds.
    <BLANKLINE>
    - `a`: the first
    - `b`: the second
    """
    return "\n\n".join(_paragraph(part) for part in re.split(r"\n\s*\n", text))


def _paragraph(text: str) -> str:
    lines = text.splitlines()
    if lines and lines[0].startswith(">>>"):
        return "\n".join(["```pycon", *lines, "```"])
    for at, line in enumerate(lines):
        if line.startswith(">>>"):
            return "\n\n".join(_paragraph("\n".join(part)) for part in (lines[:at], lines[at:]))
    if lines and all(line.startswith("    ") for line in lines):
        return text  # code
    if lines and ITEM.match(lines[0]):
        return "\n".join(_item(line) for line in lines)
    return _escaped(text)


def _item(line: str) -> str:
    found = ITEM.match(line)
    return f"- `{found[1]}`: {_escaped(found[2])}" if found else f"  {_escaped(line.strip())}"


def _escaped(text: str) -> str:
    """Text whose brackets and signs mean themselves; code between backticks and bold words stay."""
    parts = re.split(r"(``?[^`]+``?|\*\*[^*\n]+\*\*)", text)
    return "".join(
        part if at % 2 else re.sub(r"([\[\]*_])", r"\\\1", part.replace("<", "&lt;"))
        for at, part in enumerate(parts)
    )
