"""`winticket show` and `winticket report`: a run's screen and page again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from winticket.cli.answers import print_json, request, show
from winticket.cli.options import AsJson
from winticket.cli.shipping import StoreOfRun, Trust
from winticket.text import console

RunPath = Annotated[
    Path,
    typer.Argument(metavar="RUN", help="Folder or result.json of a find or transfer.", show_default=False),
]


def show_run(run: RunPath, *, store: StoreOfRun = None, trust: Trust = None, as_json: AsJson = False) -> None:
    """Print the final screen of RUN again; of an unfinished run, what there is and what is missing.

    [bold]winticket show runs/digits[/bold]
    """
    with request():
        from winticket.experiment import open as open_run

        opened = open_run(run, store=store, trust=trust or [])
    if as_json:
        print_json(opened.document or {"finished": False, "missing": list(opened.missing())})
        return
    if opened.document is None:
        show(repr(opened))
        for what in opened.missing():
            show(f"Not finished: {what}")
        return
    from winticket.report import final_screen

    console().print(final_screen(opened.document))


def report(run: RunPath, *, store: StoreOfRun = None, trust: Trust = None) -> None:
    """Write the figures and the page of RUN again, with the analyses that its store has; nothing is computed.

    [bold]winticket report runs/digits[/bold]
    """
    with request():
        from winticket.experiment import open as open_run
        from winticket.experiment.rewriting import rewrite

        page, *figures = rewrite(open_run(run, store=store, trust=trust or []))
    show(f"Page: {page}, and {len(figures)} figures and tables")
