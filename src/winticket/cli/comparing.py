"""compare: pruning methods side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from winticket.catalogue import check, check_methods
from winticket.cli.answers import print_json, printed, request, to_stderr
from winticket.cli.options import OPTIONS, AsJson, Computing, Data, Quiet, chosen, number, with_options
from winticket.text import console

if TYPE_CHECKING:
    from winticket.experiment import Execution
    from winticket.experiment.entries import Entry
    from winticket.run import Event, Task

SET_HERE = (
    "method",
    "criterion",
    "rewind",
    "rewind_step",
    "levels",
    "rate",
    "pruning",
    "final_density",
    "density",
    "output_rate",
    "conv_rate",
    "controls",
    "margin_pp",
    "alpha",
    "gate",
    "precision_check",
)


Density = Annotated[
    float,
    typer.Option("--density", help="Density that every method prunes to.", parser=number("--density", float)),
]
Methods = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        help="A method; or METHOD:CRITERION, such as at-init:snip; or METHOD@STEP to rewind to a step, such as "
        "imp@100. May be repeated. Default: imp, one-shot, at-init:snip, at-init:random (a static random mask), "
        "gradual, set and rigl.",
    ),
]
Folder = Annotated[
    Path | None,
    typer.Option(
        "--out", help="Folder for the table and the figure. Default: winticket-compare/DATA-MODEL-DENSITY."
    ),
]


@partial(with_options, options=tuple(option for option in OPTIONS if option.name not in SET_HERE))
def compare(
    data: Data,
    *,
    computing: Computing,
    density: Density = 0.1,
    method: Methods = None,
    out: Folder = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    **options: Any,
) -> None:
    """Compare methods on DATA at one density, under two budgets: equal steps per training, and equal total cost.

    The cost of a ticket includes every training that found its mask: iterative pruning to a density of 0.1 takes a
    dozen. Under the first budget, every training has the same number of steps. Under the second, the trainings of each
    method, and of the dense network, are lengthened until they cost as much as the most expensive method. Cost is
    counted in optimiser steps; operations and seconds, of which sparse networks need fewer, are reported as well.

    [bold]winticket compare digits --density 0.05 --method imp --method rigl --method at-init:snip[/bold]

    [bold]winticket compare digits --method imp --method imp@20 --method imp@100[/bold]
    """
    with request():
        entries, execution, folder = _laid_out(
            data, tuple(method or ()), computing, density=density, out=out, choices=chosen(options)
        )
    from winticket.experiment.compare import run_comparison

    watching = None if quiet else partial(_watching, workers=execution.workers)
    with to_stderr():
        document = run_comparison(entries, execution, out=folder, watching=watching)
    with printed(str(folder)):
        if as_json:
            print_json(document)
        else:
            from winticket.report import comparison_screen

            console().print(comparison_screen(document))
    if any(row["failed"] for row in document["rows"]):
        raise typer.Exit(1)


def _laid_out(
    data: str,
    methods: tuple[str, ...],
    computing: Computing,
    *,
    density: float,
    out: Path | None,
    choices: dict[str, Any],
) -> tuple[list[Entry], Execution, Path]:
    """The comparison, how it is computed, and its folder; all are checked, and the folder is made."""
    check(data, choices)
    check_methods(methods)
    from winticket.experiment.entries import USUAL_METHODS, identity, lay_out, output_folder
    from winticket.experiment.reports import require_same_comparison

    execution = computing.execution()
    entries = lay_out(data, methods or USUAL_METHODS, density=density, **choices)
    execution.check(entries[0].plan.setup.recipe)
    folder = output_folder(entries) if out is None else out
    require_same_comparison(folder, identity(entries))
    execution.store.check_writable()
    folder.mkdir(parents=True, exist_ok=True)
    return entries, execution, folder


@contextmanager
def _watching(tasks: Sequence[Task], *, workers: int) -> Iterator[Callable[[Event], None]]:
    from winticket.experiment.plan import trainings_needed
    from winticket.report import Watch

    needs = {t.key: [need.key for need in trainings_needed(t)] for t in tasks}
    screen = console(stderr=True)
    with Watch(tasks, [], seconds=None, needs=needs, workers=workers, console=screen) as watch:
        yield watch
