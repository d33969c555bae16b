"""The options of the command: one row per field of an experiment or its recipe, and those that several commands share."""
# ruff: noqa: E501 - a table reads best a row to a line

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from winticket.catalogue import names, typed_again

if TYPE_CHECKING:
    from winticket.experiment import Execution

STORE = "runs"


@dataclass(frozen=True)
class Option:
    """One option of `find` and `plan`: a field of the experiment or its recipe; None stands for its default."""

    name: str
    kind: Any
    panel: str
    text: str
    default: str = ""
    flag: str = ""
    read: Callable[[str], Any] | None = None

    def help(self) -> str:
        """The text with the default, in words, since many defaults depend on data, model or method."""
        return f"{self.text} Default: {self.default}." if self.default else self.text


class Percent(float):
    """A number that was typed with a percent sign."""


def margin(text: str) -> float:
    """A margin as it is typed: 0.5, or 2% of the dense network's value."""
    plain = text.strip()
    try:
        return Percent(plain[:-1]) if plain.endswith("%") else float(plain)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is not a margin; type a number in the unit of the metric's differences (percentage points of an "
            "accuracy), as 0.5, or a percentage of the dense network's value, as 2%"
        ) from None


OPTIONS = (
    Option("model", str, "Network and pruning", "Network to prune: lenet-300-100 or any lenet-W1-W2-..., conv-2, conv-4, conv-6, conv1d-32-64 or any conv1d-W1-W2-... for signals, mlp1d, vgg-11, vgg-16, vgg-19, resnet-20, resnet-32, resnet-56, chargpt for text (chargpt-LAYERS-WIDTH-CONTEXT, such as chargpt-2-64-256), fcn-32-32 or any fcn-W1-W2-... for a class at each pixel, package.module:build for one of yours, or the folder of a causal language model of Transformers.", default="lenet-300-100; mlp1d for mnist1d, conv-2 for colour images, conv1d-32-64 for signals, chargpt for text, fcn-32-32 for a class at each pixel"),
    Option("init", str, "Network and pruning", "How weights are initialised: glorot-normal, glorot-uniform, kaiming-normal, kaiming-uniform, normal, uniform, orthogonal, signed-constant or default (PyTorch's).", default="glorot-normal; kaiming-normal in VGG and ResNet, PyTorch's in mlp1d and chargpt, a model's own in package.module:build"),
    Option("start", str, "Network and pruning", "Pretrained weights that every replicate starts from: a .safetensors file, or a folder in the Hub's layout. If the output layer is missing or has another shape, as for other classes, it is drawn at random.", default="the model's own initialisation"),
    Option("redraw", str, "Network and pruning", "With --start, what the re-initialised control starts from: fresh (newly drawn weights: does the ticket need the pretrained ones?) or shuffled (the pretrained weights in a random order within each layer: does the ticket need each weight in its place?).", default="fresh"),
    Option("method", str, "Network and pruning", f"How tickets are found: imp (iterative magnitude pruning: train, prune, rewind, repeat), one-shot (train once, prune to every density), at-init (prune before training), {', '.join(names('method')[3:-1])} or {names('method')[-1]}. `winticket methods` describes each.", default="imp"),
    Option("criterion", str, "Network and pruning", "Which weights are kept: magnitude, snip, l1_units, synflow, ... (`winticket methods` lists all), or package.module:function.", default="the method's (snip for at-init, force and iter-snip, l1_units for early-bird, else magnitude; edge-popup and supermask learn their own scores)"),
    Option("allocate", str, "Network and pruning", "How the kept weights are spread over layers: layerwise (the same share in every layer), global_top (layers compete for them), erk, constant_fan_in, n_of_m, units (whole neurons or filters), structures (whole attention heads and hidden neurons of a transformer), ..., or package.module:function. `winticket methods` explains each.", default="by method (erk for rigl and set, units for early-bird, layerwise for edge-popup and supermask); else by criterion (units for criteria that score whole units, such as l1_units; structures for head_importance; constant_fan_in for wanda; global_top for snip, grasp, synflow, taylor, fisher and lamp); else by model (global_top for VGG and ResNet, layerwise for others)"),
    Option("rewind", str, "Network and pruning", "What a ticket starts from: to_init (its initial weights), to_step (its weights after --rewind-step steps), to_step_with_optimizer (with the optimiser's state, too), learning_rate (its trained weights, with the learning-rate schedule set back to --rewind-step), fine_tune (its trained weights, at the schedule's last rate), or package.module:function.", default="to_init"),
    Option("rewind_step", int, "Network and pruning", "Training step to which to_step and to_step_with_optimizer rewind (required with them), or to which learning_rate and fine_tune set the schedule back (default with them: 0)."),
    Option("every", int, "Network and pruning", "Steps between changes of the mask in gradual, set and rigl.", default="100, or --steps / 20 if that is less"),
    Option("search_lr", float, "Network and pruning", "Learning rate of the scores that edge-popup and supermask train.", default="--lr in edge-popup, a hundred times --lr in supermask"),
    Option("levels", int, "Network and pruning", "Number of rounds of pruning.", default="12; 16 for digits, 6 for mnist1d and text"),
    Option("rate", float, "Network and pruning", "Share of the remaining weights pruned per level.", default="0.2; 0.35 for mnist1d, 0.3 for text"),
    Option("pruning", str, "Network and pruning", "With --final-density, how the density falls over the levels: geometric, linear or cubic.", default="geometric"),
    Option("final_density", float, "Network and pruning", "Density of the last level; replaces --rate."),
    Option("density", list[float], "Network and pruning", "Density of one level as a fraction, such as 0.05; repeat it for every level. Replaces --levels and --rate."),
    Option("output_rate", float, "Network and pruning", "Share of the output layer's remaining weights pruned per level.", default="half of --rate in LeNet and Conv networks that are pruned layerwise, else --rate"),
    Option("conv_rate", float, "Network and pruning", "Share of the convolutions' remaining weights pruned per level.", default="0.1 in conv-2 and conv-4 and 0.15 in conv-6 if they are pruned layerwise, else --rate"),
    Option("include", list[str], "Network and pruning", "Parameters to prune besides Linear and Conv weights: a name or pattern such as 'lstm.weight_*'. May be repeated."),
    Option("exclude", list[str], "Network and pruning", "Do not prune these weights: a name or pattern such as 'fc3.*'. May be repeated."),
    Option("controls", list[str], "Proof", "Control trained beside the ticket, or `none`; `winticket methods` lists all. May be repeated.", default="reinit and random", flag="--control"),
    Option("replicates", int, "Proof", "Number of independent repetitions, each with new initial weights and its own mask search; fewer than 5 never decide.", default="5; 30 for digits, 10 for mnist1d"),
    Option("metric", str, "Proof", "What networks are judged by: accuracy, balanced-accuracy or perplexity for classes; rmse, mae or r2 for numbers; average-precision for labels; iou or accuracy for a class at each pixel; accuracy or perplexity for text; or package.module:metric, a function declared by @winticket.metric.", default="the first that is listed for the kind of target"),
    Option("margin_pp", float, "Proof", "Tickets match the dense networks if their mean loss of accuracy (or of another --metric) is shown to be less than this: in percentage points, or in the metric's unit; with a percent sign, such as 2%, relative to the dense network's value.", default="0.5 percentage points; 2% for rmse, mae and perplexity, 0.01 for r2", flag="--margin", read=margin),
    Option("alpha", float, "Proof", "Largest chance of a false win, over all densities together.", default="0.05"),
    Option("gate", bool, "Proof", "Check that the dense network is trained long enough: train it for twice the steps as well, and warn unless the gain in accuracy is shown to be less than --margin.", default="--gate", flag="--gate/--no-gate"),
    Option("precision_check", bool, "Proof", "With a --precision other than float32, train the dense network in float32 as well, and state how much accuracy the precision changes.", default="--precision-check", flag="--precision-check/--no-precision-check"),
    Option("seed", int, "Proof", "Root seed, from which all others are derived.", default="0"),
    Option("stack", int, "Proof", "Largest number of replicates that are trained together as one stack (see --stacking).", default="5"),
    Option("split", str, "Proof", "How replicates split the data: shared (one split for all), own (each draws its own), or auto (own for small data without a test split, else shared).", default="auto"),
    Option("validation", int, "Proof", "Number of validation examples, from the data's validation split if there is one, else from the training split.", default="the whole validation split, else a tenth of the training split (after test examples are taken from it), at most 5000 (digits: 150)"),
    Option("test", int, "Proof", "Number of test examples, from the data's test split if there is one, else from the training split.", default="the whole test split, else a fifth of the training split, at most 10000 (digits: 450)"),
    Option("label", list[str], "Data", "Column of a table with the label or target; repeat it for several labels. For an npz file, the name of the array with the labels; for an npy file, the file with them.", default="the column label, labels, fine_label, target, class or y; y.npy beside an npy file"),
    Option("ignore", list[str], "Data", "Column of a table that is not used. May be repeated."),
    Option("missing", str, "Data", "What to do about missing values of features: refuse them; fill them with the mean or median of the training split; indicator (fill them with the mean, and add a feature that marks them); or category (refuse missing numbers). Except with refuse, missing categories become a category of their own.", default="refuse"),
    Option("task", str, "Data", "What the labels are: classification, regression, multi-label or segmentation.", default="decided by the label: text, booleans and whole numbers with at most 20 different values are classes"),
    Option("group", str, "Data", "Split examples by this column: no group has rows in two splits.", default="split by rows", flag="--split-by-group"),
    Option("time", str, "Data", "Split examples by this column: the last ones are for testing, those before them for validation.", default="split by rows", flag="--split-by-time"),
    Option("alphabet", str, "Data", "With text and --start: the text file on which the weights were pretrained. Characters get the numbers that they have in that text."),
    Option("tokenizer", str, "Data", "With text: the folder of a language model of Transformers, whose tokenizer cuts the text into tokens.", default="the text is read character by character"),
    Option("window", int, "Data", "With text: number of characters or tokens in an example.", default="64 characters, or the length that --model names; 128 tokens, or fewer if the model reads fewer"),
    Option("size", str, "Data", "Resize images to this many pixels: 32 for squares, 32x48 for height and width. Bilinear, with antialiasing.", default="images stay as they are, and must all have one size"),
    Option("rows", int, "Data", "Use only this many training rows, drawn at random (always the same ones).", default="all"),
    Option("loss", str, "Training", "What training minimises: cross-entropy (for classes), squared-error, absolute-error or huber (for numbers), binary-cross-entropy (for labels), or package.module:loss, a function of outputs and targets.", default="the first that is listed for the kind of target"),
    Option("class_weights", str, "Training", "balanced: weight each class by the inverse of its frequency.", default="equal weights"),
    Option("unit", str, "Training", "Unit of the numbers to predict, such as mm, to print beside them."),
    Option("steps", int, "Training", "Optimiser steps for which each network is trained.", default="2400; 800 for digits, 1500 for mnist1d, 1000 for text"),
    Option("batch", int, "Training", "Examples per step.", default="60; 100 for mnist1d, 32 for text, 128 in VGG and ResNet"),
    Option("optimizer", str, "Training", "Optimiser: sgd, adam or adamw.", default="adam; sgd in VGG and ResNet, adamw for text"),
    Option("lr", float, "Training", "Learning rate.", default="0.0012 in LeNet, 0.0002 in conv-2, 0.0003 in conv-4 and conv-6, 0.02 in mlp1d, 0.1 in VGG and ResNet, 0.003 for text; if you change --optimizer, you must give --lr"),
    Option("momentum", float, "Training", "Momentum of sgd.", default="0; 0.9 in VGG and ResNet"),
    Option("nesterov", bool, "Training", "Use Nesterov's momentum in sgd.", default="--no-nesterov", flag="--nesterov/--no-nesterov"),
    Option("weight_decay", float, "Training", "Weight decay.", default="0; 0.0001 in VGG and ResNet, 0.01 for text"),
    Option("schedule", str, "Training", "How the learning rate changes: constant, step or cosine.", default="cosine; constant for mnist1d"),
    Option("milestones", list[float], "Training", "A point at which the step schedule lowers the learning rate, as a fraction of the training. May be repeated.", default="0.5 and 0.75", flag="--milestone"),
    Option("gamma", float, "Training", "Factor by which the step schedule lowers the learning rate.", default="0.1"),
    Option("warmup", int, "Training", "Steps over which the learning rate rises linearly from 0.", default="0"),
    Option("evaluate_every", int, "Training", "Steps between points of the learning curves.", default="a tenth of --steps; a twentieth for digits, a fifteenth for mnist1d"),
    Option("early_points", bool, "Training", "Evaluate more often early in training, so that the number of steps to reach an accuracy is measured more exactly.", default="--early-points", flag="--early-points/--no-early-points"),
    Option("clip_norm", float, "Training", "Largest norm of a step's gradient, over all weights that are not pruned; a gradient with a larger norm is scaled down to it.", default="no limit"),
    Option("flip", bool, "Training", "Mirror training images at random.", default="--no-flip", flag="--flip/--no-flip"),
    Option("crop", int, "Training", "Crop training images at random after padding them by this many pixels.", default="0"),
    Option("precision", str, "Training", "Arithmetic of forward and backward passes: float32, bf16, or tf32 on NVIDIA GPUs.", default="float32"),
    Option("stacking", str, "Training", "How the replicates of a stack are trained: stacked (in one forward and backward pass for all), 'one by one', or auto (stacked, unless the network cannot be stacked, or has convolutions and trains on the CPU).", default="auto"),
)  # fmt: skip


@dataclass(frozen=True)
class Computing:
    """The options that say where results are kept and how they are computed, as they were typed."""

    store: str
    workers: int | None = None
    ray: str | None = None
    dask: str | None = None
    engine: str = "auto"
    retry_failed: bool = False
    needs: list[str] | None = None

    def execution(self) -> Execution:
        """The same as one value. Raises ValueError or StoreError for what is wrong with it."""
        from winticket.experiment import Execution

        if self.workers is not None and self.workers < 1:
            raise ValueError(f"workers is {self.workers}; give the number of processes, 1 or more")
        options: dict[str, Any] = {"engine": self.engine, "retry_failed": self.retry_failed}
        options["needs"] = self.needs or ()
        return Execution.local(self.store, workers=self.workers, ray=self.ray, dask=self.dask, **options)


def number(flag: str, kind: type[int] | type[float], *, several: bool = False) -> Callable[[str], float]:
    """A parser of numbers whose error says how to type several numbers, a percentage or a decimal comma."""

    def read(text: str) -> float:
        try:
            return kind(text)
        except ValueError:
            raise typer.BadParameter(f"{text!r} is not a valid number{_meant(text, flag, several)}") from None

    read.__name__ = kind.__name__  # what --help shows as the kind
    return read


def _meant(text: str, flag: str, several: bool) -> str:
    """The end of the error for text that is no number: how to type what it probably means."""
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


_Computing = partial(typer.Option, rich_help_panel="Computing")
_STORE_HELP = (
    "Folder or URL (s3://BUCKET/FOLDER, gs://BUCKET/FOLDER) in which results are kept and looked up."
)
StorePath = Annotated[str, typer.Option("--store", help=_STORE_HELP)]
STORE_OF_RESULT = Annotated[
    str | None,
    _Computing(
        "--store", help="Folder or URL in which results are kept. Default: the store that RESULT names."
    ),
]
Workers = Annotated[
    int | None,
    _Computing(
        "--workers",
        help="Number of worker processes. Default: one per core on the CPU, one on a GPU. With --ray or --dask: number "
        "of trainings at once. Default: as many as the cluster has room for.",
    ),
]
Ray = Annotated[
    str | None,
    _Computing(
        "--ray",
        metavar="local|ADDRESS",
        help="Compute on a Ray cluster, such as head:6379, or on one that is started here for the run (local). All its "
        "machines must see --store.",
    ),
]
Dask = Annotated[
    str | None,
    _Computing(
        "--dask",
        metavar="local|ADDRESS",
        help="Compute on a Dask cluster, such as tcp://head:8786, or on one that is started here for the run (local). "
        "All its machines must see --store.",
    ),
]
Engine = Annotated[
    str,
    _Computing(
        "--engine",
        help="How pruned layers are computed: dense, sparse, or auto (on sparse kernels if those are faster, which "
        "is measured once on a machine and remembered). Dense and sparse results agree to float tolerance.",
    ),
]
Retry = Annotated[
    bool, _Computing("--retry-failed", help="Retrain networks whose training the store records as failed.")
]
Needs = Annotated[
    list[str] | None,
    _Computing(
        "--needs",
        metavar="gpu|memory=AMOUNT",
        help="What a machine must have to compute a training: gpu, or memory for each process, such as memory=8GB. "
        "`winticket work` on a machine with less leaves the trainings to other machines; every other command stops at "
        "once on such a machine. May be repeated. Default: memory as estimated (see `winticket plan`), no GPU.",
    ),
]
Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="digits, mnist1d (both built in), mnist, fashion_mnist, cifar10, cifar100, any image dataset on the "
        "Hugging Face Hub (user/name), a table (.csv, .tsv, .parquet, .arrow), arrays (.npz, .npy), a local folder of tables or of images sorted by class, or text in a .txt file.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out", help="Folder for report, figures and ticket. Default: a folder in reports/ under --store."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]
Track = Annotated[
    list[str] | None,
    typer.Option(
        "--track",
        metavar="tensorboard[:FOLDER]|mlflow[:URI]",
        help="Send curves to a tracker as trainings finish, and the verdict and files at the end; the tracker's "
        "package must be installed. May be repeated.",
    ),
]
Detach = Annotated[
    bool,
    typer.Option(
        "--detach",
        help="Do not train here: write the plan into the store, for any number of `winticket work STORE` processes to "
        "compute. When they are done, the same command without --detach writes the report.",
    ),
]
PlanOnly = Annotated[
    bool, typer.Option("--plan", help="Show what would run and what it would cost, and run nothing.")
]

COMPUTING: dict[str, tuple[Any, Any]] = {
    "store": (Annotated[str, _Computing("--store", help=_STORE_HELP)], STORE),
    "workers": (Workers, None),
    "ray": (Ray, None),
    "dask": (Dask, None),
    "engine": (Engine, "auto"),
    "retry_failed": (Retry, False),
    "needs": (Needs, None),
}
"""The fields of `Computing`: annotation and default of each option."""


def with_options(
    command: Callable[..., None],
    *,
    options: Sequence[Option] = OPTIONS,
    store: tuple[Any, Any] = COMPUTING["store"],
) -> Callable[..., None]:
    """Give a command an option for each of `options`, which it takes as **choices, and those of its `computing`."""
    signature = inspect.signature(command, eval_str=True).parameters.values()
    typed = [p for p in signature if p.name != "computing" and p.kind is not p.VAR_KEYWORD]
    several = options if any(p.kind is p.VAR_KEYWORD for p in signature) else ()
    added = [_parameter(option.name, *_row(option)) for option in several]
    added += [_parameter(name, *row) for name, row in {**COMPUTING, "store": store}.items()]

    def call(*args: Any, **values: Any) -> None:
        how = Computing(**{name: values.pop(name) for name in COMPUTING})
        command(*args, computing=how, **values)

    call.__name__, call.__doc__ = command.__name__, command.__doc__
    parameters = [*(p.replace(kind=p.KEYWORD_ONLY) for p in typed), *added]
    call.__dict__["__signature__"] = inspect.Signature(parameters)
    call.__annotations__ = {p.name: p.annotation for p in parameters}
    return call


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _row(option: Option) -> tuple[Any, None]:
    """Annotation and default of an option of the experiment."""
    flag = option.flag or "--" + option.name.replace("_", "-")
    several = get_args(option.kind)
    inner = several[0] if several else option.kind
    read = option.read or (number(flag, inner, several=bool(several)) if inner in (int, float) else None)
    typed = typer.Option(
        flag, help=option.help(), rich_help_panel=option.panel, show_default=False, parser=read
    )
    return Annotated[option.kind | None, typed], None


def chosen(options: dict[str, Any]) -> dict[str, Any]:
    """The options that were typed; None and an empty list stand for the default."""
    typed = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in options.items()
        if value is not None and value != []
    }
    if typed.get("controls") == ("none",):
        typed["controls"] = ()
    if isinstance(percent := typed.get("margin_pp"), Percent):
        typed |= {"margin_pp": float(percent), "relative_margin": True}
    return typed
