"""`winticket lm adapter`: what tuning changed, as an adapter of PEFT."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from winticket.cli.answers import answer, request, to_stderr, without_state
from winticket.cli.options import AsJson, Quiet
from winticket.cli.progress import patient

Tuned = Annotated[
    str, typer.Argument(metavar="TUNED", help="Folder of the tuned model, as `winticket lm tune` writes it.")
]
Base = Annotated[
    str,
    typer.Option(
        "--base", metavar="PATH", help="The model that was tuned: a folder, a GGUF file or a name on the Hub."
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out", help="New folder for the adapter. Default: TUNED's name and -adapter, in the working folder."
    ),
]


def adapter(
    tuned: Tuned, *, base: Base, out: Out = None, quiet: Quiet = False, as_json: AsJson = False
) -> None:
    """Write what tuning changed in a language model as an adapter that PEFT loads (SHiRA).

    TUNED may differ from --base only in weights of linear layers, as after `winticket lm tune --lota`. An adapter of
    the type SHiRA (Bhardwaj et al. 2024) holds r times (inputs + outputs) values for each adapted layer, with one r for
    all layers. The command finds the smallest r that suffices, fills up with zeros the layers in which fewer weights
    changed, and refuses a model for which no r works. A model that was tuned with --lota-rank R needs r = R and no
    zeros.

    [bold]winticket lm adapter smol-book --base models/smol --out smol-book-adapter[/bold]
    """
    with request():
        from winticket.atomic import require_empty
        from winticket.lm.adapter import prepare_adapter, sentences, write_adapter

        pair = prepare_adapter(base, tuned)
        folder = out or Path(f"{pair.tuned.title()}-adapter")
        require_empty(folder)
        with without_state(), to_stderr(), patient(quiet=quiet) as say:
            result = write_adapter(pair, folder, say)
    answer(result, (*sentences(result), f"Wrote {folder}"), kept=folder, as_json=as_json)
