"""The command: what people type and see. Exit status 0: done; 1: failed while running; 2: the request was wrong."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from winticket.cli import (
    analysing,
    comparing,
    language,
    measuring,
    searches,
    serving,
    shipping,
    showing,
    stores,
    transfers,
    working,
)
from winticket.cli.answers import Answers, flowing, say, show_warnings, stop_in_order
from winticket.cli.methods import methods
from winticket.importing import only_for_the_users_modules
from winticket.version import __version__

__all__ = ["app", "main"]

app = typer.Typer(
    name="winticket",
    cls=Answers,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Find, prove and ship winning lottery tickets: small subnetworks that train as well as the whole network.",
    epilog="Start with: winticket find digits",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    searches.find,
    searches.plan,
    searches.run,
    comparing.compare,
    transfers.transfer,
    analysing.analyse,
    showing.show,
    showing.report,
    showing.watch,
    working.work,
    shipping.ship,
    measuring.measure,
    serving.serve,
    methods,
    stores.info,
):
    app.command(rich_help_panel="Commands", help=flowing(command.__doc__))(command)
app.add_typer(language.app, name="lm", rich_help_panel="Commands")
app.add_typer(stores.app, name="store", rich_help_panel="Commands")


def _show_version(requested: bool) -> None:
    if requested:
        typer.echo(f"winticket {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version),
    ] = False,
) -> None:
    """Find, prove and ship winning lottery tickets: small subnetworks that train as well as the whole network."""


def main() -> None:
    """Run the command and exit with its status."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the program that started this one
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115 - for good
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="winticket")  # terminals without Unicode get replacement letters
    show_warnings()
    stop_in_order()
    try:
        only_for_the_users_modules()
    except FileNotFoundError:
        say("Error: the working directory no longer exists; change to another one")
        sys.exit(2)
    app()
