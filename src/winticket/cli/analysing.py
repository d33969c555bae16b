"""`winticket analyse`: why a ticket wins; tables, figures and sentences from the stored trainings of a run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from winticket.cli.answers import print_json, request, say, show, to_stderr
from winticket.cli.options import AsJson, Dask, Quiet, Ray, Workers
from winticket.cli.shipping import StoreOfRun, Trust
from winticket.places import ANALYSED
from winticket.text import console

if TYPE_CHECKING:
    from winticket.experiment import Run
    from winticket.experiment.analysing import Analysed, AnalysisPlan
    from winticket.run import Event

RunPath = Annotated[
    Path | None,
    typer.Argument(
        metavar="RUN",
        help="Folder or result.json of a search or transfer, finished or not. Needed unless --list is given.",
        show_default=False,
    ),
]
Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[NAME]...", help="Analyses, as --list shows them. Default: all.", show_default=False
    ),
]
Listed = Annotated[bool, typer.Option("--list", help="List the analyses with their options, and exit.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME.OPTION=VALUE",
        help="Option of an analysis, such as overlap.levels=4 or, for several values, learning.shares=0.1,0.5; may be "
        "repeated. --list shows options and defaults.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", help=f"Folder for tables and figures. Default: {ANALYSED}/ in the run's folder."),
]
QUIET_SECONDS = 10.0
"""Between two lines of progress."""
KNOWN = 0.1
"""From this share on, the time left is estimated: the first tasks are trainings and slower than the rest."""


def analyse(
    run: RunPath = None,
    names: Names = None,
    *,
    listed: Listed = False,
    settings: Settings = None,
    out: Out = None,
    workers: Workers = None,
    ray: Ray = None,
    dask: Dask = None,
    store: StoreOfRun = None,
    trust: Trust = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Analyse RUN: why do its tickets win, and what do they look like?

    Every analysis makes a table, a figure and a few sentences from the stored trainings. Some need further trainings,
    such as the same search with another order of examples; the command says so, and they are stored like any other. A
    finished analysis is kept, and not computed again.

    An unfinished run is analysed as far as it goes, and the command says what is missing. The page of a finished run is
    written again, with all its analyses.

    [bold]winticket analyse runs/digits[/bold]

    [bold]winticket analyse runs/digits overlap --set overlap.levels=4[/bold]
    """
    if listed:
        _list(as_json=as_json)
        return
    with request():
        if run is None:
            raise ValueError("give the folder of a run, such as runs/digits; --list shows the analyses")
        from winticket.experiment import Execution
        from winticket.experiment import open as open_run
        from winticket.experiment.analysing import compute, plan_analyses

        opened = open_run(run, store=store, trust=trust or [])
        options = _options(settings or [])
        planned = plan_analyses(opened, names or [], options=options)
        how: dict[str, Any] = {"workers": workers, "ray": ray, "dask": dask, "retry_failed": True}
        execution = Execution.local(opened.store.path, **how)
    _announce(planned, quiet=quiet)
    with to_stderr():
        made = compute(planned, execution=execution, watch=None if quiet else _Progress(planned))
    _answer(opened, made, out or opened.folder / ANALYSED, options=options, as_json=as_json)
    _renew_page(opened, store=store, trust=trust or [], quiet=quiet or as_json)
    if any(one.reason is not None and one.analysis.name not in planned.impossible for one in made):
        raise typer.Exit(1)


def _renew_page(run: Run, *, store: str | None, trust: list[str], quiet: bool) -> None:
    """Write the page of a finished run again, now with its analyses. An analysis is not lost if that fails."""
    if run.document is None:
        return
    from winticket.experiment.rewriting import rewrite

    try:
        with to_stderr():
            page = rewrite(run.folder, store=store, trust=trust).document["report"]
    except (OSError, ValueError) as error:
        say(f"The page could not be renewed: {error}")
        return
    if page is not None and not quiet:
        show(f"Page: {page}")


def _answer(
    run: Run,
    made: list[Analysed],
    folder: Path,
    *,
    options: Mapping[str, Mapping[str, str]],
    as_json: bool,
) -> None:
    """Write tables and figures to the folder, and print the answers."""
    from winticket.report.analysed import Shown, write_analyses
    from winticket.report.analysed import as_json as to_json

    shown = [
        Shown(one.analysis, one.table, one.sentences, one.reason, options.get(one.analysis.name, {}))
        for one in made
    ]
    setup = run.plan.setup
    with request():
        files = write_analyses(
            shown, folder, subtitle=f"{setup.data} · {setup.model} · mean, 95 % t interval"
        )
    if as_json:
        described = [to_json(one) for one in shown]
        print_json({"run": str(run.folder), "missing": list(run.missing()), "analyses": described})
        return
    for one in made:
        _print(one)
    if files:
        show(f"Tables and figures: {folder}")


def _options(settings: list[str]) -> dict[str, dict[str, str]]:
    """Options by analysis, from NAME.OPTION=VALUE. ValueError for another form."""
    given: dict[str, dict[str, str]] = {}
    for text in settings:
        name, dot, rest = text.partition(".")
        option, equals, value = rest.partition("=")
        if not (dot and equals and name and option):
            raise ValueError(f"--set {text!r} is not of the form NAME.OPTION=VALUE, such as overlap.levels=4")
        given.setdefault(name, {})[option] = value
    return given


def _announce(planned: AnalysisPlan, *, quiet: bool) -> None:
    """Say what is missing of the run, and what has to be computed."""
    if quiet:
        return
    for what in planned.run.missing():
        say(f"Not finished: {what}")
    tasks = planned.missing()
    trainings = sum(int(str(task.label.get("count", 0))) for task in tasks)
    parts = sum(1 for task in tasks if "count" not in task.label)
    if not tasks:
        return
    also = f" and {trainings} further trainings" if trainings else ""
    say(f"{', '.join(planned.tasks)}: {parts} parts{also} to compute")


class _Progress:
    """Says now and then, on stderr, how far the analyses are and how long they will still take."""

    def __init__(self, planned: AnalysisPlan) -> None:
        self.all, self.done = len(planned.missing()), 0
        self.began = self.last = time.monotonic()

    def __call__(self, event: Event) -> None:
        if event.kind not in ("finished", "failed", "skipped"):
            return
        self.done += 1
        now = time.monotonic()
        if now - self.last < QUIET_SECONDS or not self.all:
            return
        self.last = now
        share = min(self.done / self.all, 1.0)
        left = f", about {(now - self.began) / share * (1 - share):.0f} s left" if share >= KNOWN else ""
        say(f"{100 * share:.0f} %, {self.done} of {self.all} tasks{left}")


def _print(one: Analysed) -> None:
    console().print(Text.assemble("\n", (one.analysis.name, "bold"), f"  {one.analysis.title}"))
    if one.reason is not None:
        show(f"Not analysed: {one.reason}")
    for sentence in one.sentences:
        show(sentence)


def _list(*, as_json: bool) -> None:
    from winticket.analyse import ANALYSES

    if as_json:
        print_json(
            [
                {
                    "name": one.name,
                    "title": one.title,
                    "summary": one.summary(),
                    "options": one.options(),
                    "source": one.source,
                }
                for one in ANALYSES.values()
            ]
        )
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for head in ("name", "what it does", "options"):
        table.add_column(head, overflow="fold")
    for one in ANALYSES.values():
        options = ", ".join(f"{name}={value}" for name, value in one.options().items())
        table.add_row(one.name, one.summary(), options)
    console().print(table)
