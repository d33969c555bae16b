"""Markdown: sections, tables, and text from elsewhere that it shall show and not obey."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from winticket.text import visible

_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~])")


def joined(*sections: Iterable[str]) -> str:
    """The sections of a card that have lines, with an empty line between them."""
    return "\n\n".join(text for section in sections if (text := "\n".join(section))) + "\n"


def safe(value: object) -> str:
    r"""Text from elsewhere, so that Markdown shows it and does not obey it.

    >>> print(safe("a|b<c>\n"))
    a\|b\<c\>
    """
    return _SPECIAL.sub(r"\\\1", " ".join(visible(str(value)).split()))


def table(rows: Sequence[tuple[str, ...]], head: tuple[str, ...]) -> Iterator[str]:
    """A table of Markdown."""
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    yield from (f"| {' | '.join(row)} |" for row in rows)
