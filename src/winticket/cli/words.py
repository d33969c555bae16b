"""The options that say what to search for: one row per field of an experiment or its recipe."""
# ruff: noqa: E501 - a table reads best a row to a line

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from winticket.catalogue import names, typed_again

STORE = "runs"


@dataclass(frozen=True)
class Word:
    """One option of `find` and `plan`: a field of the experiment or its recipe; None stands for what is usual."""

    name: str
    kind: Any
    panel: str
    text: str
    flag: str = ""


WORDS = (
    Word("model", str, "Question", "lenet-300-100 or any lenet-W1-W2-..., conv-2, conv-4, conv-6, mlp1d, vgg-11, vgg-16, vgg-19, resnet-20, resnet-32, resnet-56, chargpt for text (chargpt-LAYERS-WIDTH-CONTEXT, as chargpt-2-64-256), or package.module:build"),
    Word("init", str, "Question", "how weights are drawn: glorot-normal, kaiming-uniform, orthogonal, signed-constant, ..."),
    Word("method", str, "Question", f"imp (iterative: train, prune, rewind, again), one-shot (train once, prune to every density), at-init (prune before training), {', '.join(names('method')[3:-1])} or {names('method')[-1]} (winticket methods says what each is)"),
    Word("criterion", str, "Question", "what is kept: magnitude (default), snip (default of at-init), l1_units (default of early-bird), synflow, ... (winticket methods lists all), or package.module:function"),
    Word("allocate", str, "Question", "layerwise (each layer on its own), global_top (layers compete), erk, constant_fan_in, n_of_m, units, ..., or package.module:function; default: that of the criterion's paper (magnitude layerwise, in VGG and ResNet global_top; snip, grasp, synflow, taylor, fisher and lamp global_top; wanda constant_fan_in; criteria of whole units units), erk in set and rigl"),
    Word("rewind", str, "Question", "where a ticket starts from: to_init, to_step, to_step_with_optimizer, learning_rate, fine_tune, or package.module:function"),
    Word("rewind_step", int, "Question", "the step of training that to_step and the like go back to"),
    Word("every", int, "Question", "steps between changes of the mask in gradual, set and rigl; 100, or a twentieth of a short training"),
    Word("search_lr", float, "Question", "learning rate of the scores in edge-popup (unless said, --lr) and supermask (a hundred times --lr)"),
    Word("levels", int, "Question", "rounds of pruning"),
    Word("rate", float, "Question", "share of the remaining weights pruned per level, as 0.2"),
    Word("pruning", str, "Question", "with --final-density, how density falls to it: geometric, linear or cubic"),
    Word("final_density", float, "Question", "density to end at, in place of --rate"),
    Word("density", list[float], "Question", "densities of all levels, in place of --levels and --rate; may be repeated"),
    Word("output_rate", float, "Question", "the same for the output layer; unless said, half of --rate in layerwise LeNet and Conv networks, else --rate"),
    Word("conv_rate", float, "Question", "the same for convolutions"),
    Word("include", list[str], "Question", "prune these parameters as well, which are no Linear or Conv weights: a name or pattern such as 'lstm.weight_*'; may be repeated"),
    Word("exclude", list[str], "Question", "leave these weights unpruned: a name or pattern such as 'fc3.*'; may be repeated"),
    Word("controls", list[str], "Proof", "arms beside the ticket: reinit and random, unless said, or none; winticket methods lists more; may be repeated", "--control"),
    Word("replicates", int, "Proof", "initialisation seeds, each with its own mask search; 5 or more for a verdict"),
    Word("margin_pp", float, "Proof", "loss of accuracy, in percentage points, up to which a ticket matches", "--margin"),
    Word("alpha", float, "Proof", "family-wise error rate of the verdict"),
    Word("gate", bool, "Proof", "also train the dense network twice as long, to see if the budget is enough", "--gate/--no-gate"),
    Word("seed", int, "Proof", "the root of all randomness"),
    Word("stack", int, "Proof", "replicates trained together"),
    Word("split", str, "Proof", "shared, own (each replicate draws its own) or auto: own where small data have no test split"),
    Word("validation", int, "Proof", "validation examples: from the data's own validation split, else taken from the training split"),
    Word("test", int, "Proof", "test examples: so many of the data's own test split, else taken from the training split"),
    Word("steps", int, "Training", "optimiser steps of each training"),
    Word("batch", int, "Training", "examples per step"),
    Word("optimizer", str, "Training", "sgd, adam or adamw"),
    Word("lr", float, "Training", "learning rate"),
    Word("momentum", float, "Training", "of sgd"),
    Word("nesterov", bool, "Training", "Nesterov's momentum for sgd", "--nesterov/--no-nesterov"),
    Word("weight_decay", float, "Training", "weight decay"),
    Word("schedule", str, "Training", "constant, step or cosine"),
    Word("milestones", list[float], "Training", "where the step schedule drops, as fractions of the run; may be repeated", "--milestone"),
    Word("gamma", float, "Training", "factor of each drop"),
    Word("warmup", int, "Training", "steps over which the learning rate rises"),
    Word("evaluate_every", int, "Training", "steps between points of the learning curves (default: in proportion to --steps)"),
    Word("early_points", bool, "Training", "more points early in training, from which steps to an accuracy are read", "--early-points/--no-early-points"),
    Word("clip_norm", float, "Training", "largest norm of the gradient of a step, over all weights that are not pruned; default: not clipped"),
    Word("flip", bool, "Training", "mirror images at random", "--flip/--no-flip"),
    Word("crop", int, "Training", "crop images at random after padding by so many pixels"),
    Word("engine", str, "Training", "auto (sparse kernels where they are faster here), dense or sparse"),
    Word("precision", str, "Training", "of a step's arithmetic: float32, bf16, or (on NVIDIA GPUs) tf32"),
    Word("stacking", str, "Training", "auto, stacked or 'one by one'"),
)  # fmt: skip


def number(flag: str, kind: type[int] | type[float], *, several: bool = False) -> Callable[[str], float]:
    """What reads a number that was typed, and says how to type several of them, a percentage or a decimal comma."""

    def read(text: str) -> float:
        try:
            return kind(text)
        except ValueError:
            raise typer.BadParameter(f"{text!r} is not a valid number{_meant(text, flag, several)}") from None

    read.__name__ = kind.__name__  # what --help shows as the kind
    return read


def _meant(text: str, flag: str, several: bool) -> str:
    """What was meant by text that is no number, as it should be typed."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) == 2 and parts[0] == "0" and parts[1].isdecimal():
        return f"; type {flag} 0.{parts[1]}"
    if text.endswith("%") and _is_number(text[:-1]):
        return f"; type {flag} {float(text[:-1]) / 100:g}"
    if len(parts) > 1 and all(map(_is_number, parts)):
        return f"; type {typed_again(flag, parts)}" if several else f"; {flag} takes one number"
    return ""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="digits, mnist1d (both built in), mnist, fashion_mnist, cifar10, cifar100, any image dataset of the "
        "Hub (user/name), a local folder or parquet file, or text in a .txt file",
    ),
]
StorePath = Annotated[
    str, typer.Option("--store", help="Where results are kept and found again: a folder or URL.")
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out", help="Folder for report, figures and ticket; in the store's reports/, unless said."
    ),
]
Workers = Annotated[
    int | None, typer.Option("--workers", help="Processes; unless said, one per core, or one for a GPU.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else.")]
Retry = Annotated[bool, typer.Option("--retry-failed", help="Try trainings again that are stored as failed.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]


def with_words(command: Callable[..., None], *, words: Sequence[Word] = WORDS) -> Callable[..., None]:
    """Give a command that takes **words an option for each of `words`."""
    own = [
        p
        for p in inspect.signature(command, eval_str=True).parameters.values()
        if p.kind is not p.VAR_KEYWORD
    ]
    options = []
    for word in words:
        flag = word.flag or "--" + word.name.replace("_", "-")
        several = get_args(word.kind)
        inner = several[0] if several else word.kind
        read = number(flag, inner, several=bool(several)) if inner in (int, float) else None
        option = typer.Option(
            flag, help=word.text, rich_help_panel=word.panel, show_default=False, parser=read
        )
        kind: Any = word.kind | None
        annotation = Annotated[kind, option]
        options.append(
            inspect.Parameter(word.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        )

    def call(*args: Any, **given: Any) -> None:
        command(*args, **given)

    call.__name__, call.__doc__ = command.__name__, command.__doc__
    keyword = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
    call.__dict__["__signature__"] = inspect.Signature([*keyword, *options])
    call.__annotations__ = {p.name: p.annotation for p in [*keyword, *options]}
    return call


def given(words: dict[str, Any]) -> dict[str, Any]:
    """The options that were typed; an empty list and None stand for what is usual."""
    typed = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in words.items()
        if value is not None and value != []
    }
    if typed.get("controls") == ("none",):
        typed["controls"] = ()
    return typed
