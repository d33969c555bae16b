"""The page's elements: sections, lists of facts and tables. Table cells must arrive as escaped HTML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from zlib import crc32

from winticket.report.reading import density_percent, plain
from winticket.table import Table

LONG = 50
"""A value of more characters than this takes the width of two in a list of facts."""


def section(title: str, *body: str) -> str:
    """Return a section with a heading. `body` is HTML, and `title` is escaped here."""
    return f"<section>\n<h2>{escape(title)}</h2>\n" + "\n".join(body) + "\n</section>"


def definitions(facts: Iterable[tuple[str, str | None]], *, wide: bool = False) -> str:
    """Return a list of names and values, escaped. Pairs without a value are skipped. `wide` puts one pair on a line."""
    rows = []
    for name, value in facts:
        if not value:
            continue
        pair = f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>"
        long = " class=long" if len(value) > LONG else ""
        rows.append(pair if wide else f"<div{long}>{pair}</div>")
    return f"<dl{' class=wide' if wide else ''}>" + "\n".join(rows) + "</dl>"


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    caption: str,
    sure: Sequence[bool] = (),
    text: int = 0,
    worded: bool = False,
    name: str = "",
) -> str:
    """Return a table. Cells are HTML already, and head and caption are escaped here.

    Rows whose entry in `sure` is True are shaded. The last `text` columns contain words and are aligned to the left,
    and so is the first one of a `worded` table. `name` tells it from others on the page that have the same caption.
    """
    first_text = len(head) - text
    classes = ["" if column < first_text else ' class="text long"' for column in range(len(head))]
    if worded:
        classes[0] = ' class="text long"'
    titles = "".join(
        f'<th scope="col" role="columnheader"{style}>{escape(name)}</th>'
        for name, style in zip(head, classes, strict=True)
    )
    labels = [f' data-label="{escape(name)}"' for name in head]
    label = f"t{crc32((name + caption).encode()):08x}"
    body = []
    for index, cells in enumerate(rows):
        shade = ' class="sure"' if index < len(sure) and sure[index] else ""
        first, *others = zip(cells, classes, labels, strict=True)
        inner = f'<th scope="row" role="rowheader"{first[1]}{first[2]}>{first[0]}</th>'
        inner += "".join(f'<td role="cell"{style}{named}>{cell}</td>' for cell, style, named in others)
        body.append(f'<tr role="row"{shade}>{inner}</tr>')
    # The roles say what the elements are: on a phone they are displayed as cards, and some browsers then forget it.
    return f'<p class="note" id="{label}">{escape(caption)}</p>' + scrolled(
        f'<table role="table" aria-describedby="{label}"><thead role="rowgroup"><tr role="row">{titles}</tr></thead>'
        f'<tbody role="rowgroup">{"".join(body)}</tbody></table>'
    )


def scrolled(content: str) -> str:
    """Return a box that scrolls sideways if its content, HTML, is too wide for the window, with a hint that it does.

    The style sheet shows the hint exactly if the content is wider than the box.
    """
    hint = '<p class="hint" aria-hidden="true">scroll →</p>'
    return f'<div class="scroll"><div class="broad">{hint}{content}</div></div>'


def plain_table(numbers: Table, *, caption: str) -> str:
    """Return a table of the report as HTML. It must have a density column, and its last column contains words."""
    density = numbers.columns.index("density")
    rows = [
        [
            escape(
                density_percent(float(cell))
                if column == density and isinstance(cell, float | int)
                else plain(cell)
            )
            for column, cell in enumerate(row)
        ]
        for row in numbers.values
    ]
    return table(numbers.columns, rows, caption=caption, text=1)
