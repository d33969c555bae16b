"""compare: methods side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from winticket.catalogue import check, check_methods
from winticket.cli.answers import print_json, printed, request, to_stderr
from winticket.cli.words import (
    STORE,
    WORDS,
    AsJson,
    Data,
    Quiet,
    StorePath,
    Workers,
    given,
    number,
    with_words,
)
from winticket.text import console

if TYPE_CHECKING:
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
)


@partial(with_words, words=tuple(word for word in WORDS if word.name not in SET_HERE))
def compare(
    data: Data,
    *,
    density: Annotated[
        float,
        typer.Option("--density", help="The density that all end at.", parser=number("--density", float)),
    ] = 0.1,
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            help="A method, or METHOD:CRITERION as in at-init:snip, or METHOD@STEP to rewind to a step, as in imp@100; "
            "may be repeated. Unless said: imp, one-shot, "
            "at-init:snip, at-init:random (a static random mask), gradual, set, rigl.",
        ),
    ] = None,
    store: StorePath = STORE,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder for the table and the figure (default: winticket-compare/DATA-MODEL-DENSITY).",
        ),
    ] = None,
    workers: Workers = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    **words: Any,
) -> None:
    """Compare methods on DATA at one density, twice: with as many steps in every training, and at equal cost in all.

    A ticket costs all the trainings that its mask was found by: iterative pruning to a tenth takes a dozen. So each
    method is trained again for as many steps as make all of them, the dense network too, cost what the dearest does.
    Cost is counted in optimiser steps; operations and seconds, which sparse networks need fewer of, stand beside it.

    [bold]winticket compare digits --density 0.05 --method imp --method rigl --method at-init:snip[/bold]

    [bold]winticket compare digits --method imp --method imp@20 --method imp@100[/bold]
    """
    with request():
        check(data, given(words))
        check_methods(tuple(method or ()))
        from winticket.experiment import processes
        from winticket.experiment.compare import carry_out
        from winticket.experiment.entries import USUAL_METHODS, identity, lay_out, output_folder
        from winticket.experiment.reports import require_own_comparison
        from winticket.run import Store

        if workers is not None and workers < 1:
            raise ValueError(f"workers is {workers}; give the number of processes, 1 or more")
        entries = lay_out(data, tuple(method or USUAL_METHODS), density=density, **given(words))
        folder = output_folder(entries) if out is None else out
        require_own_comparison(folder, identity(entries))
        Store(store).check_writable()
        folder.mkdir(parents=True, exist_ok=True)
        watching = None if quiet else partial(_watching, workers=workers or processes())
    with to_stderr():
        document = carry_out(entries, store=store, out=folder, workers=workers, watching=watching)
    with printed(str(folder)):
        if as_json:
            print_json(document)
        else:
            from winticket.report import comparison_screen

            console().print(comparison_screen(document))
    if any(row["failed"] for row in document["rows"]):
        raise typer.Exit(1)


@contextmanager
def _watching(tasks: Sequence[Task], *, workers: int) -> Iterator[Callable[[Event], None]]:
    from winticket.experiment.plan import trainings_needed
    from winticket.report import Watch

    needs = {t.key: [need.key for need in trainings_needed(t)] for t in tasks}
    screen = console(stderr=True)
    with Watch(tasks, [], seconds=None, needs=needs, workers=workers, console=screen) as watch:
        yield watch
