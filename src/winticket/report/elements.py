"""The page's elements: sections, lists of facts, tables. All text is escaped here or by whoever hands cells over."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from zlib import crc32

from winticket.report.reading import density_percent, plain
from winticket.table import Table


def section(title: str, *body: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n" + "\n".join(body) + "\n</section>"


def definitions(facts: Iterable[tuple[str, str | None]], *, wide: bool = False) -> str:
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
    """Cells are HTML already; the last `text` columns hold words and stand to the left."""
    edge = len(head) - text
    place = ["" if at < edge else ' class="text long"' for at in range(len(head))]
    titles = "".join(
        f'<th scope="col"{where}>{escape(name)}</th>' for name, where in zip(head, place, strict=True)
    )
    label = f"t{crc32(caption.encode()):08x}"
    body = []
    for at, cells in enumerate(rows):
        marked = ' class="sure"' if at < len(sure) and sure[at] else ""
        first, *others = zip(cells, place, strict=True)
        inner = f'<th scope="row"{first[1]}>{first[0]}</th>'
        body.append(f"<tr{marked}>{inner}{''.join(f'<td{where}>{cell}</td>' for cell, where in others)}</tr>")
    return (
        f'<p class="note" id="{label}">{escape(caption)}</p>'
        f'<div class="scroll"><table aria-describedby="{label}">'
        f"<thead><tr>{titles}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def plain_table(numbers: Table, *, caption: str) -> str:
    """A table of the report as HTML, its last column in words."""
    at = numbers.columns.index("density")
    rows = [
        [
            escape(
                density_percent(float(cell))
                if column == at and isinstance(cell, float | int)
                else plain(cell)
            )
            for column, cell in enumerate(row)
        ]
        for row in numbers.values
    ]
    return table(numbers.columns, rows, caption=caption, text=1)
