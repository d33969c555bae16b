"""The files on the final screen, and the lines of Python that use the saved ticket."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from winticket.report.durations import run_time
from winticket.report.reading import claimed, has_won, lines_to_use
from winticket.report.screen_table import Say
from winticket.results import Document

USE = "To use the ticket"


def files_of(document: Document, say: Say) -> Table:
    """The files of the run, what was not written, and how long it took."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name in ("ticket", "report", "results", "store"):
        path = document.get(name)
        if path is not None:
            note = " (not a winning ticket)" if name == "ticket" and not has_won(document) else ""
            note = " (finished trainings)" if name == "store" else note
            grid.add_row(name, Text(say(f"{path}{note}"), overflow="fold"))
    drawn = document.get("figures") or ()
    if drawn:
        folders = dict.fromkeys(str(path).rpartition("/")[0] or "." for path in drawn)
        grid.add_row("figures", Text(say(f"{_drawn(drawn)} in {', '.join(folders)}"), overflow="fold"))
    for name, why in (document.get("unwritten") or {}).items():
        again = "run the same command again to write it"
        grid.add_row("not written", Text(say(f"{name}: {why}; {again}"), style="yellow", overflow="fold"))
    if document.get("seconds") is not None:
        grid.add_row("time", run_time(document))
    return grid


def _drawn(paths: Sequence[str]) -> str:
    """Count the figures, each of which is several files: `4 figures (png, svg, csv)`."""
    names = {str(path).rpartition(".")[0] for path in paths}
    kinds = ", ".join(dict.fromkeys(str(path).rpartition(".")[2] for path in paths))
    return f"{'1 figure' if len(names) == 1 else f'{len(names)} figures'} ({kinds})"


def lines_of_use(document: Document, say: Say) -> list[RenderableType]:
    """The Python lines that train the saved ticket, without comments, and the command that ships it trained."""
    code = [line.partition("  #")[0] for line in lines_to_use(document) if line]
    if not code:
        return []
    head = USE if claimed(document) else f"{USE}, though it is not a winning ticket"
    return [
        Text(),
        *(Text(say(line), overflow="fold") for line in (f"{head}:", *(f"  {line}" for line in code))),
        Text(
            say(f"To save the trained ticket as a small file: winticket ship {_folder(document)}"),
            overflow="fold",
        ),
    ]


def _folder(document: Document) -> str:
    """The run's folder as one types it in a shell."""
    return shlex.quote(str(document["results"]).rpartition("/")[0] or ".")
