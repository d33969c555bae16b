"""`winticket lm find`: tickets of a pretrained language model, by the search that `winticket find` runs."""
# ruff: noqa: E501 - a table reads best a row to a line

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from winticket.catalogue import check
from winticket.cli.answers import request
from winticket.cli.detaching import refuse_both
from winticket.cli.options import (
    OPTIONS,
    AsJson,
    Computing,
    Detach,
    Out,
    PlanOnly,
    Quiet,
    Track,
    chosen,
    with_options,
)
from winticket.cli.searches import Answering, preview, search

if TYPE_CHECKING:
    from winticket.experiment import Experiment

DECIDED = {
    *("model", "init", "start", "tokenizer", "window", "alphabet"),  # the folder and --length decide these
    *("label", "ignore", "missing", "task", "group", "time", "size", "class_weights", "unit", "flip", "crop"),
    *("conv_rate", "output_rate", "metric", "loss", "split"),
}
"""Options of `winticket find` that have no meaning here, or only one."""
DEFAULTS = {
    "redraw": "shuffled",
    "allocate": "by method and criterion, as in `winticket find`; with magnitude, global_top",
    "levels": "one level, at density 0.5; 7 with --rate",
    "rate": "0.1 with --levels",
    "include": "",
    "exclude": "",
    "replicates": "5",
    "margin_pp": "2%",
    "stack": "1",
    "validation": "64 windows, or all if the text has fewer",
    "test": "64 windows, or all if the text has fewer",
    "steps": "500",
    "batch": "4",
    "optimizer": "adamw",
    "lr": "0.00005; if you change --optimizer, you must give --lr",
    "momentum": "0",
    "weight_decay": "0",
    "schedule": "cosine",
    "warmup": "a tenth of --steps",
    "evaluate_every": "a fifth of --steps",
    "early_points": "--no-early-points",
    "clip_norm": "1",
}
"""Defaults that differ from those of other data."""
_TEXTS = {
    "density": "Share of the weights of the blocks' linear layers that a ticket keeps, such as 0.5; repeat it for every level. Replaces --levels and --rate.",
    "include": "Parameters to prune besides the blocks' linear layers: a name or pattern. May be repeated.",
    "exclude": "Do not prune these layers: a name or pattern such as '*.mlp.*'. May be repeated.",
    "redraw": "What the re-initialised control starts from: shuffled (the pretrained weights in a random order within each layer) or fresh (as the model's configuration draws them).",
    "replicates": "Number of independent repetitions, each with its own order of the text and its own mask; fewer than 5 never decide.",
    "validation": "Number of windows of validation text, from the tenth of the text before the last.",
    "test": "Number of windows of held-out text, from the last tenth of the text.",
    "batch": "Windows of text per step.",
}  # fmt: skip
OFFERED = tuple(
    replace(o, default=DEFAULTS.get(o.name, o.default), text=_TEXTS.get(o.name, o.text))
    for o in OPTIONS
    if o.name not in DECIDED
)


def find(
    path: Annotated[
        str,
        typer.Argument(
            metavar="PATH",
            help="Folder of a causal language model as Transformers saves it (config.json, *.safetensors, tokenizer), "
            "a GGUF file, or a folder with one.",
        ),
    ],
    *,
    computing: Computing,
    data: Annotated[
        Path,
        typer.Option(
            "--data",
            metavar="TEXT",
            help="Text to fine-tune on: a UTF-8 file, a .jsonl file with a document in each line (under the key text), "
            "or a folder with a document in each .txt file. Its last fifth (whole documents, if there are several) is "
            "kept for validation and testing.",
        ),
    ],
    length: Annotated[
        int | None,
        typer.Option("--length", help="Tokens per window. Default: 128, or fewer if the model reads fewer."),
    ] = None,
    out: Out = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    track: Track = None,
    plan_only: PlanOnly = False,
    detach: Detach = False,
    **options: Any,
) -> None:
    """Find a winning ticket in the pretrained language model at PATH, and test it against its controls.

    Every replicate fine-tunes the whole (dense) model on the text and then prunes the smallest weights of the linear
    layers in the transformer blocks. It puts the remaining weights back to their pretrained values and fine-tunes them
    under the mask. Beside the ticket, two controls are fine-tuned: the same mask with the pretrained weights in a
    random order within each layer, and a random mask with the pretrained weights in place. Replicates differ in the
    order of the text. Tickets win only if their perplexity on held-out text is shown to be within --margin of the dense
    model's, and below that of both controls. Embeddings, norms and the output layer are fine-tuned but not pruned.
    (Chen et al. 2020, The Lottery Ticket Hypothesis for Pre-trained BERT Networks)

    The search, its report, its store and most of its options are those of `winticket find`. If it is interrupted or
    killed, type the command again to resume.

    [bold]winticket lm find models/smol --data book.txt --density 0.5 --steps 500 --replicates 5[/bold]

    [bold]winticket lm find models/smol --data book.txt --rate 0.1 --levels 7 --plan[/bold]
    """
    began = time.monotonic()
    experiment = _experiment(path, data, length, options)
    if plan_only:
        refuse_both(detach=detach)
        preview(experiment, computing, as_json=as_json)
        return
    search(experiment, computing, Answering(out, as_json, quiet, tuple(track or ()), detach), began=began)


def _experiment(path: str, data: Path, length: int | None, options: dict[str, Any]) -> Experiment:
    """The experiment that was typed."""
    with request():
        typed = chosen(options)
        check(str(data), typed)
        from winticket.lm.finding import choices

        usual = choices(path, data, length=length)
        for name in ("include", "exclude"):
            if name in usual and name in typed:
                typed[name] = (*usual[name], *typed[name])
        from winticket import models
        from winticket.experiment import Experiment

        experiment = Experiment.of(data, **{**usual, **typed})
        if "exclude" not in typed and experiment.allocate == "structures":
            spared = models.unpruned_by("structures", experiment.setup().module(), experiment.include)
            return replace(experiment, exclude=tuple(dict.fromkeys((*experiment.exclude, *spared))))
        return experiment


find = with_options(find, options=OFFERED)
