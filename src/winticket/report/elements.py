"""The page's elements: sections, lists of facts and tables. Table cells must arrive as escaped HTML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from zlib import crc32

from winticket.report.reading import density_percent, plain
from winticket.table import Table


def section(title: str, *body: str) -> str:
    """Return a section with a heading. `body` is HTML, and `title` is escaped here."""
    return f"<section>\n<h2>{escape(title)}</h2>\n" + "\n".join(body) + "\n</section>"


def definitions(facts: Iterable[tuple[str, str | None]], *, wide: bool = False) -> str:
    """Return a list of names and values, escaped. Pairs without a value are skipped. `wide` puts one pair on a line."""
    rows = [
        f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}</dd></div>" for name, value in facts if value
    ]
    if wide:
        rows = [row.removeprefix("<div>").removesuffix("</div>") for row in rows]
    return f"<dl{' class=wide' if wide else ''}>" + "\n".join(rows) + "</dl>"


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    caption: str,
    sure: Sequence[bool] = (),
    text: int = 0,
) -> str:
    """Return a table. Cells are HTML already, and head and caption are escaped here.

    Rows whose entry in `sure` is True are shaded. The last `text` columns contain words and are aligned to the left.
    """
    first_text = len(head) - text
    classes = ["" if column < first_text else ' class="text long"' for column in range(len(head))]
    titles = "".join(
        f'<th scope="col"{style}>{escape(name)}</th>' for name, style in zip(head, classes, strict=True)
    )
    label = f"t{crc32(caption.encode()):08x}"
    body = []
    for index, cells in enumerate(rows):
        shade = ' class="sure"' if index < len(sure) and sure[index] else ""
        first, *others = zip(cells, classes, strict=True)
        inner = f'<th scope="row"{first[1]}>{first[0]}</th>'
        body.append(f"<tr{shade}>{inner}{''.join(f'<td{style}>{cell}</td>' for cell, style in others)}</tr>")
    return (
        f'<p class="note" id="{label}">{escape(caption)}</p>'
        f'<div class="scroll"><table aria-describedby="{label}">'
        f"<thead><tr>{titles}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


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
