"""`winticket transfer`: tickets that one search found, trained on other data, by another recipe or in another width."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from winticket.catalogue import check
from winticket.cli.answers import request
from winticket.cli.detaching import refuse_both
from winticket.cli.options import (
    OPTIONS,
    STORE_OF_RESULT,
    AsJson,
    Computing,
    Detach,
    Out,
    PlanOnly,
    Quiet,
    Track,
    chosen,
    number,
    with_options,
)
from winticket.cli.searches import Answering, preview, search
from winticket.places import result_file

if TYPE_CHECKING:
    from winticket.experiment import Experiment

CHOSEN = (
    *("model", "controls", "replicates", "metric", "margin_pp", "alpha", "gate", "precision_check"),
    *("split", "validation", "test"),
)
DEFAULTS = {
    "controls": "reinit and random",
    "evaluate_every": "as in RESULT, in proportion to --steps",
    **dict.fromkeys(("validation", "test"), "as in RESULT, or as in find if --to names other data"),
}
"""Defaults in words; those of all other options are the values of RESULT."""
_OPTIONS = tuple(
    replace(option, default=DEFAULTS.get(option.name, "as in RESULT"))
    for option in OPTIONS
    if option.name in CHOSEN or option.panel in ("Data", "Training")
)


Result = Annotated[
    Path,
    typer.Argument(metavar="RESULT", help="result.json of the search that found the tickets, or its folder."),
]
To = Annotated[
    str | None,
    typer.Option("--to", metavar="DATA", help="Data to train on, as in find. Default: the data of RESULT."),
]
Density = Annotated[
    list[float] | None,
    typer.Option(
        "--density",
        help="Transfer only the tickets nearest to this density. May be repeated. Default: all of them.",
        parser=number("--density", float, several=True),
    ),
]
Trust = Annotated[
    list[str] | None,
    typer.Option(
        "--trust",
        metavar="NAME",
        help="A module, Hub dataset or store URL that RESULT may name; it is then imported, downloaded or opened. "
        "May be repeated. Whatever this command line names itself is trusted.",
    ),
]


@partial(with_options, options=_OPTIONS, store=(STORE_OF_RESULT, None))
def transfer(
    result: Result,
    *,
    computing: Computing,
    to: To = None,
    density: Density = None,
    out: Out = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    track: Track = None,
    trust: Trust = None,
    plan_only: PlanOnly = False,
    detach: Detach = False,
    **options: Any,
) -> None:
    """Test whether the tickets of an earlier search also win on other data, with another recipe, or in another width.

    Every replicate trains its own ticket from the ticket's start, and beside it the dense network from the same start
    and the controls. RESULT cannot be a ticket.safetensors, because one replicate cannot be judged. The recipe is that
    of RESULT, changed by the options here. Examples must have the same shape. If the number of classes differs, the
    output layer gets new random weights; it is not pruned, and densities do not count it.

    With a --model of the same kind but another width, only masks are transferred. A wider layer repeats the units of
    the mask, a narrower one takes the first of them, and training starts from the new model's own initialisation.

    [bold]winticket transfer runs/digits/result.json --to path/to/letters[/bold]

    [bold]winticket transfer runs/digits/result.json --optimizer sgd --lr 0.01 --momentum 0.9 --density 0.1[/bold]

    [bold]winticket transfer runs/digits/result.json --model lenet-600-200[/bold]
    """
    began = time.monotonic()
    with request():
        experiment, store = _transferred(result, to, density or (), trust or (), chosen(options))
        if not computing.store:
            from winticket.experiment import existing_store

            computing = replace(computing, store=existing_store(store, result, trust or ()))
    if plan_only:
        refuse_both(detach=detach)
        preview(experiment, computing, as_json=as_json)
        return
    search(experiment, computing, Answering(out, as_json, quiet, tuple(track or ()), detach), began=began)


def _transferred(
    result: Path, to: str | None, density: Sequence[float], trust: Sequence[str], choices: Mapping[str, Any]
) -> tuple[Experiment, str]:
    """The experiment that transfers a result's tickets, and the store that the result names."""
    if result_file(result).suffix == ".json" and to is not None:
        check(to, {})
    from winticket.experiment import load_source, transferred

    source, store = load_source(result, trust=[*trust, *_named(choices)])
    return transferred(source, to, density=density, **choices), store


def _named(choices: Mapping[str, Any]) -> list[str]:
    """The modules that the command line names."""
    values = [value for value in choices.values() if isinstance(value, str)]
    return [value.partition(":")[0] for value in values if ":" in value]
