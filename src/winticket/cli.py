"""The command: what people type and see. Exit status 0: done; 1: failed while running; 2: the request was wrong."""
# ruff: noqa: PLR0917, E501 - typer reads options from parameters, and a table reads best a row to a line

import inspect
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn

import click
import typer
from rich.console import Console
from rich.table import Table

from winticket.version import __version__

STORE = "runs"
app = typer.Typer(
    name="winticket",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Find, prove and ship winning lottery tickets: small subnetworks that train as well as the whole.",
    epilog="Start with: winticket find digits",
    context_settings={"help_option_names": ["-h", "--help"]},
)
store_app = typer.Typer(no_args_is_help=True, help="Look after a store of results: list, check, clean up.")
app.add_typer(store_app, name="store")


@dataclass(frozen=True)
class Word:
    """One option of `find` and `plan`: a field of the experiment or its recipe; None stands for what is usual."""

    name: str
    kind: Any
    panel: str
    text: str
    flag: str = ""


WORDS = (
    Word("model", str, "Question", "lenet-300-100 or any lenet-W1-W2-..., conv-2, conv-4, conv-6, mlp1d, or package.module:build"),
    Word("init", str, "Question", "how weights are drawn: glorot-normal, kaiming-uniform, orthogonal, signed-constant, ..."),
    Word("method", str, "Question", "imp (iterative: train, prune, rewind, again) or one-shot (train once, prune to every density)"),
    Word("criterion", str, "Question", "what is kept: magnitude, random, or package.module:function"),
    Word("allocate", str, "Question", "layerwise (each layer on its own) or global_top (layers compete)"),
    Word("levels", int, "Question", "rounds of pruning"),
    Word("rate", float, "Question", "share of the remaining weights pruned per level, as 0.2"),
    Word("output_rate", float, "Question", "the same for the output layer [default: half of --rate where layerwise]"),
    Word("conv_rate", float, "Question", "the same for convolutions"),
    Word("exclude", list[str], "Question", "leave these weights unpruned: a name or pattern such as 'fc3.*'; may be repeated"),
    Word("controls", list[str], "Proof", "arms beside the ticket: reinit, random; may be repeated [default: both]", "--control"),
    Word("replicates", int, "Proof", "initialisation seeds, each with its own mask search; 5 or more for a verdict"),
    Word("margin_pp", float, "Proof", "loss of accuracy, in percentage points, up to which a ticket matches", "--margin"),
    Word("alpha", float, "Proof", "family-wise error rate of the verdict"),
    Word("gate", bool, "Proof", "also train the dense network twice as long, to see if the budget is enough", "--gate/--no-gate"),
    Word("seed", int, "Proof", "the root of all randomness"),
    Word("stack", int, "Proof", "replicates trained together"),
    Word("validation", int, "Proof", "validation examples taken from the training split"),
    Word("test", int, "Proof", "test examples, where the data has no test split of its own"),
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
    Word("evaluate_every", int, "Training", "steps between points of the learning curves"),
    Word("flip", bool, "Training", "mirror images at random", "--flip/--no-flip"),
    Word("crop", int, "Training", "crop images at random after padding by so many pixels"),
    Word("stacking", str, "Training", "auto, stacked or 'one by one'"),
)  # fmt: skip

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="digits, mnist1d (both built in), mnist, fashion_mnist, cifar10, cifar100, any image dataset of the "
        "Hub (user/name), or a local folder or parquet file",
    ),
]
StorePath = Annotated[
    str, typer.Option("--store", help="Where results are kept and found again: a folder or URL.")
]
Out = Annotated[
    Path | None,
    typer.Option("--out", help="Folder for report, figures and ticket [default: in the store's reports/]"),
]
Workers = Annotated[int | None, typer.Option("--workers", help="Processes [default: one per core]", min=1)]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else.")]
Retry = Annotated[bool, typer.Option("--retry-failed", help="Try trainings again that are stored as failed.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]


def with_words(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command that takes **words an option for each of WORDS."""
    own = [p for p in inspect.signature(command).parameters.values() if p.kind is not p.VAR_KEYWORD]
    options = []
    for word in WORDS:
        flag = word.flag or "--" + word.name.replace("_", "-")
        option = typer.Option(flag, help=word.text, rich_help_panel=word.panel, show_default=False)
        kind: Any = word.kind | None
        annotation = Annotated[kind, option]
        options.append(
            inspect.Parameter(word.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        )

    def call(*args: Any, **given: Any) -> None:
        command(*args, **given)

    call.__name__, call.__doc__ = command.__name__, command.__doc__
    keyword = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
    call.__signature__ = inspect.Signature([*keyword, *options])  # type: ignore[attr-defined]
    call.__annotations__ = {p.name: p.annotation for p in [*keyword, *options]}
    return call


@app.command(rich_help_panel="Main")
@with_words
def find(
    data: Data,
    store: StorePath = STORE,
    out: Out = None,
    workers: Workers = None,
    as_json: AsJson = False,
    retry_failed: Retry = False,
    quiet: Quiet = False,
    **words: Any,
) -> None:
    """Find a winning ticket on DATA and prove it against its controls.

    Every replicate trains the dense network, prunes it level by level, rewinds and retrains; at each level the same
    mask re-initialised and a random mask of the same layer counts run beside it. Whatever is not said is chosen to
    suit the data and takes minutes on two cores; [bold]winticket plan[/bold] with the same words says how many.

    Interrupted or killed, the same command goes on where it stopped; asked for more levels or replicates, it runs
    only what is new.

    [bold]winticket find digits[/bold]
    [bold]winticket find path/to/mnist --model lenet-300-100 --levels 12 --rate 0.2 --replicates 5 --json[/bold]
    """
    from winticket.experiment import Experiment

    experiment = Experiment.of(data, **_given(words))
    _carry_out(
        experiment,
        store=store,
        out=out,
        workers=workers,
        as_json=as_json,
        retry_failed=retry_failed,
        quiet=quiet,
    )


@app.command(rich_help_panel="Main")
@with_words
def plan(
    data: Data, store: StorePath = STORE, workers: Workers = None, as_json: AsJson = False, **words: Any
) -> None:
    """Say what [bold]find[/bold] with the same words would run and cost: trainings, steps, time, disk. Runs nothing."""
    from winticket.experiment import Experiment

    _preview(Experiment.of(data, **_given(words)), store=store, workers=workers, as_json=as_json)


@app.command(rich_help_panel="Main")
def run(
    spec: Annotated[
        Path, typer.Argument(help="A Python file that defines `experiment` (and variants of it by name).")
    ],
    variant: Annotated[
        str, typer.Option("--variant", help="Which of the file's experiments.")
    ] = "experiment",
    store: StorePath = STORE,
    out: Out = None,
    workers: Workers = None,
    as_json: AsJson = False,
    retry_failed: Retry = False,
    quiet: Quiet = False,
    plan_only: Annotated[bool, typer.Option("--plan", help="Say what it would cost; run nothing.")] = False,
) -> None:
    """Run an experiment written in Python, such as those in experiments/.

    [bold]winticket run experiments/lenet_mnist.py --variant short[/bold]
    """
    from winticket.experiment import load_spec

    experiment = load_spec(spec, variant=variant)
    if plan_only:
        _preview(experiment, store=store, workers=workers, as_json=as_json)
        return
    _carry_out(
        experiment,
        store=store,
        out=out,
        workers=workers,
        as_json=as_json,
        retry_failed=retry_failed,
        quiet=quiet,
    )


@app.command(rich_help_panel="Main")
def info() -> None:
    """Show versions, device, cores, and where decoded data is kept."""
    from winticket.experiment import environment

    table = Table(show_header=False, box=None)
    for name, value in environment().items():
        table.add_row(name, str(value))
    Console().print(table)


@store_app.command("ls")
def store_ls(store: StorePath = STORE, as_json: AsJson = False) -> None:
    """List what a store holds: results, failures, trainings put aside."""
    from winticket.run import Store

    rows = _existing(Store(store)).ls()
    if as_json:
        _print_json([{**vars(row), "label": dict(row.label)} for row in rows])
        return
    table = Table(box=None)
    for name in ("kind", "key", "arm", "level", "replicates", "seconds", "KiB", "when"):
        table.add_column(name, justify="right" if name in ("level", "seconds", "KiB") else "left")
    for row in rows:
        label = row.label
        span = (
            f"{label['first']}–{int(str(label['first'])) + int(str(label['count'])) - 1}"
            if "first" in label
            else ""
        )
        seconds = "" if row.seconds is None else f"{row.seconds:.1f}"
        table.add_row(
            row.kind,
            row.key[:12],
            str(label.get("arm", "")),
            str(label.get("level", "")),
            span,
            seconds,
            f"{row.bytes / 1024:.0f}",
            row.when or "",
        )
    Console().print(table)
    Console().print(f"{len(rows)} entries, {sum(row.bytes for row in rows) / 2**20:.1f} MiB in {store}")


@store_app.command("verify")
def store_verify(store: StorePath = STORE, as_json: AsJson = False) -> None:
    """Read every byte and compare it with its checksum; exit status 1 where something is damaged."""
    from winticket.run import Store

    problems = _existing(Store(store)).verify()
    if as_json:
        _print_json([vars(p) for p in problems])
    else:
        for p in problems:
            Console().print(f"{p.kind}: {p.name}: {p.reason}")
        Console().print(
            f"{len(problems)} problems in {store}"
            if problems
            else f"{store}: every byte is as it was written"
        )
    if any(p.kind == "damaged" for p in problems):
        raise typer.Exit(1)


@store_app.command("gc")
def store_gc(
    store: StorePath = STORE,
    keep: Annotated[
        list[Path] | None,
        typer.Option(
            "--keep", help="result.json of a finished run: drop every result that none of these used."
        ),
    ] = None,
    failures: Annotated[
        bool, typer.Option("--failures", help="Drop stored failures, so that they are tried again.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go; remove nothing.")] = False,
) -> None:
    """Remove what is left of killed runs: temporary files, checkpoints of finished trainings; more where asked."""
    from winticket.run import Store

    kept = None if not keep else {key for file in keep for key in json.loads(file.read_text())["keys"]}
    gone = _existing(Store(store)).gc(kept, failures=failures, dry_run=dry_run)
    for item in gone:
        Console().print(
            f"{'would remove' if dry_run else 'removed'} {item.name} ({item.bytes / 1024:.0f} KiB): {item.why}"
        )
    Console().print(f"{len(gone)} files, {sum(item.bytes for item in gone) / 2**20:.1f} MiB")


def _given(words: dict[str, Any]) -> dict[str, Any]:
    """The options that were typed; an empty list and None stand for what is usual."""
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in words.items()
        if value is not None and value != []
    }


def _carry_out(
    experiment: Any,
    *,
    store: str,
    out: Path | None,
    workers: int | None,
    as_json: bool,
    retry_failed: bool,
    quiet: bool,
) -> None:
    from winticket import experiment as ex
    from winticket.report import Watch, final_screen
    from winticket.run import Store

    console = Console(stderr=True)
    planned = ex.plan(experiment)
    price = ex.cost(planned, Store(store), workers=_workers(workers), measure=not quiet)
    choices: dict[str, Any] = {"store": store, "out": out, "workers": workers, "retry_failed": retry_failed}
    if quiet:
        result = ex.conduct(experiment, **choices)
    else:
        console.print(_price(price, planned))
        weights = {t.key: t.weight for t in planned.tasks.values()}
        with Watch(weights, planned.densities(), seconds=price.seconds, console=console) as watch:
            result = ex.conduct(experiment, watch=watch, **choices)
    if as_json:
        _print_json(result.document)
    else:
        Console().print(final_screen(result.document))
    if result.outcomes.failed:
        raise typer.Exit(1)


def _preview(experiment: Any, *, store: str, workers: int | None, as_json: bool) -> None:
    from winticket import experiment as ex
    from winticket.run import Store

    planned = ex.plan(experiment)
    price = ex.cost(planned, Store(store), workers=_workers(workers))
    densities, counts = planned.densities(), planned.counts
    if as_json:
        levels = [{"density": d, "kept": c} for d, c in zip(densities, counts, strict=True)]
        _print_json(
            {
                "winticket": __version__,
                "experiment": experiment.describe(),
                "cost": vars(price),
                "levels": levels,
            }
        )
        return
    console = Console()
    described = experiment.describe()
    table = Table(title=f"{described['model']} on {described['data']}", show_header=False, box=None)
    for name, value in described.items():
        if value is not None and name not in ("data", "model", "controls"):
            table.add_row(
                name.replace("_", " "), ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            )
    console.print(table)
    console.print("density by level: " + " ".join(f"{d:.3g}" for d in densities))
    console.print(_price(price, planned))


def _price(price: Any, planned: Any) -> str:
    from winticket.report.reading import duration

    reused = f"; {price.reused} more are in the store already" if price.reused else ""
    if not price.trainings:
        return f"nothing to train{reused}"
    time = "" if price.seconds is None else f", about {duration(price.seconds)} on {price.workers} processes"
    return (
        f"{price.trainings} trainings ({len(planned.counts) - 1} levels, {planned.experiment.replicates} replicates), "
        f"{price.steps:,} steps{time}, {price.bytes / 2**20:.0f} MiB{reused}"
    )


def _workers(workers: int | None) -> int:
    return workers or os.cpu_count() or 1


def _say(text: str) -> None:
    Console(stderr=True).print(text, highlight=False, markup=False, soft_wrap=True)


def _existing(store: Any) -> Any:
    """The store, if there is one to look at."""
    if not store.exists():
        raise FileNotFoundError(
            f"there is no store at {store.path!r}; name one with --store, or make one with find"
        )
    return store


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=1, allow_nan=False, default=str) + "\n")


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True)
    ] = False,
) -> None:
    """Find, prove and ship winning lottery tickets: small subnetworks that train as well as the whole."""
    if show:
        typer.echo(f"winticket {__version__}")
        raise typer.Exit


def main() -> NoReturn:
    """Run the command. A wrong request is one message and exit status 2; a stop by Ctrl-C is 130, resumable."""
    if "" not in sys.path:
        sys.path.insert(0, "")  # so that a user's package.module:build in this folder is found
    from winticket.run.errors import Interrupted, RunError, StoreError

    try:
        app(standalone_mode=False)
    except (click.exceptions.Exit, SystemExit) as leave:
        sys.exit(getattr(leave, "exit_code", getattr(leave, "code", 0)))
    except click.ClickException as wrong:
        wrong.show()
        sys.exit(2)
    except (click.exceptions.Abort, Interrupted, KeyboardInterrupt) as stopped:
        _say(
            f"stopped. {stopped}\nWhat was finished is kept: give the same command again to go on from here."
        )
        sys.exit(130)
    except RunError as failed:
        _say(f"error: {failed}")
        sys.exit(1)
    except (ValueError, TypeError, OSError, StoreError) as wrong:
        _say(f"error: {wrong}")
        sys.exit(2)
    sys.exit(0)
