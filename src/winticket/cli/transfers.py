"""`winticket transfer`: tickets that one search found, trained on other data, by another recipe or in another width."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from winticket.catalogue import check
from winticket.cli.answers import request
from winticket.cli.searches import carry_out, preview
from winticket.cli.words import WORDS, AsJson, Out, Quiet, Retry, Workers, given, number, with_words
from winticket.places import result_file

CHOSEN = ("model", "controls", "replicates", "margin_pp", "alpha", "gate", "split", "validation", "test")
_WORDS = tuple(word for word in WORDS if word.name in CHOSEN or word.panel == "Training")


@partial(with_words, words=_WORDS)
def transfer(
    result: Annotated[
        Path,
        typer.Argument(
            metavar="RESULT", help="The result.json of the find that found the tickets, or its folder."
        ),
    ],
    *,
    to: Annotated[
        str | None,
        typer.Option(
            "--to", metavar="DATA", help="Data to train on, as find takes them; unless said, the same."
        ),
    ] = None,
    density: Annotated[
        list[float] | None,
        typer.Option(
            "--density",
            help="Carry over the tickets nearest to this density, not all; may be repeated.",
            parser=number("--density", float, several=True),
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option("--store", help="Where results are kept; unless said, the store that RESULT names."),
    ] = None,
    out: Out = None,
    workers: Workers = None,
    as_json: AsJson = False,
    retry_failed: Retry = False,
    quiet: Quiet = False,
    trust: Annotated[
        list[str] | None,
        typer.Option(
            "--trust",
            metavar="NAME",
            help="A module, dataset of the Hub or store URL that RESULT may name, since it is imported, fetched or "
            "opened then; may be repeated. What this command line names itself is trusted.",
        ),
    ] = None,
    plan_only: Annotated[bool, typer.Option("--plan", help="Say what it would cost; run nothing.")] = False,
    **words: Any,
) -> None:
    """Do tickets win elsewhere? Train those that a find found on other data, by another recipe or in another width.

    Every replicate takes its own ticket, mask and start, and trains it beside the dense network from the same start and
    its controls; a ticket.safetensors alone is one replicate's, which cannot be judged. The recipe is that of RESULT
    but for what is said here. Examples must have the same shape; for another number of classes the output layer is
    drawn anew, is not pruned, and counts in no density. Into a --model of the same kind and another width, masks alone
    are carried: their units are repeated, or the first ones taken, and training begins at that model's own
    initialisation.

    [bold]winticket transfer runs/digits/result.json --to path/to/letters[/bold]

    [bold]winticket transfer runs/digits/result.json --optimizer sgd --lr 0.01 --momentum 0.9 --density 0.1[/bold]

    [bold]winticket transfer runs/digits/result.json --model lenet-600-200[/bold]
    """
    began = time.monotonic()
    with request():
        if result_file(result).suffix == ".json" and to is not None:
            check(to, {})
        from winticket.experiment import load_source, transferred

        source, kept = load_source(result, trust=[*(trust or ()), *_named(words)])
        experiment = transferred(source, to, density=density or (), **given(words))
        place = _there(kept, result, trust or ()) if store is None else store
    if plan_only:
        preview(experiment, store=place, workers=workers, as_json=as_json, retry_failed=retry_failed)
        return
    carry_out(
        experiment,
        store=place,
        out=out,
        workers=workers,
        as_json=as_json,
        retry_failed=retry_failed,
        quiet=quiet,
        began=began,
    )


def _named(words: Mapping[str, Any]) -> list[str]:
    """The modules that the command line names."""
    return [
        str(value).partition(":")[0] for value in words.values() if isinstance(value, str) and ":" in value
    ]


def _there(store: str, result: Path, trust: Sequence[str]) -> str:
    """The store that a result names. FileNotFoundError where it is not there, since all would be computed again."""
    from winticket.run import Store

    if "://" in store and store not in trust:
        raise ValueError(
            f"{result} names the store {store!r}, which would be connected to; if you know it, give it with --store, "
            f"or say --trust {store}"
        )

    if not Store(store).exists():
        raise FileNotFoundError(
            f"the store {store!r} that {result} names is not here; say where it is, or is to be, with --store"
        )
    return store
