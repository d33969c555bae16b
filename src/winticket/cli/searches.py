"""find, plan, run: the commands that search for tickets."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from winticket.catalogue import check
from winticket.cli.answers import print_json, printed, request, say, show, to_stderr
from winticket.cli.words import STORE, AsJson, Data, Out, Quiet, Retry, StorePath, Workers, given, with_words
from winticket.places import require_file
from winticket.text import console
from winticket.version import __version__

if TYPE_CHECKING:
    from winticket.experiment import Cost, Experiment, Plan


@with_words
def find(
    data: Data,
    *,
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
    suit the data, in a size for two cores; [bold]winticket plan[/bold] with the same words says how long it takes.

    Interrupted or killed, the same command goes on where it stopped; asked for more levels or replicates, it runs
    only what is new.

    [bold]winticket find digits[/bold]

    [bold]winticket find path/to/mnist --model lenet-300-100 --levels 12 --rate 0.2 --replicates 5 --json[/bold]
    """
    began = time.monotonic()
    with request():
        check(data, given(words))
        from winticket.experiment import Experiment

        experiment = Experiment.of(data, **given(words))
    carry_out(
        experiment,
        store=store,
        out=out,
        workers=workers,
        as_json=as_json,
        retry_failed=retry_failed,
        quiet=quiet,
        began=began,
    )


@with_words
def plan(
    data: Data,
    *,
    store: StorePath = STORE,
    workers: Workers = None,
    as_json: AsJson = False,
    retry_failed: Retry = False,
    **words: Any,
) -> None:
    """Say what find with the same words would run and cost: trainings, steps, time, disk.

    Runs and writes nothing. What the store has already is not counted.
    """
    with request():
        check(data, given(words))
        from winticket.experiment import Experiment

        experiment = Experiment.of(data, **given(words))
    preview(experiment, store=store, workers=workers, as_json=as_json, retry_failed=retry_failed)


def run(
    spec: Annotated[
        Path, typer.Argument(help="A Python file that defines `experiment` (and variants of it by name).")
    ],
    *,
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
    began = time.monotonic()
    with request():
        require_file(spec)
        from winticket.experiment import load_spec

        experiment = load_spec(spec, variant=variant)
    if plan_only:
        preview(experiment, store=store, workers=workers, as_json=as_json, retry_failed=retry_failed)
        return
    carry_out(
        experiment,
        store=store,
        out=out,
        workers=workers,
        as_json=as_json,
        retry_failed=retry_failed,
        quiet=quiet,
        began=began,
        note=f"What is an option above is a field of the experiment in {spec}: --replicates 7 is replicates=7.",
    )


def carry_out(
    experiment: Experiment,
    *,
    store: str,
    out: Path | None,
    workers: int | None,
    as_json: bool,
    retry_failed: bool,
    quiet: bool,
    began: float,
    note: str = "",
) -> None:
    """Run the experiment, with its progress, and print what came of it; `note` stands below the final screen."""
    with request():
        from winticket import experiment as ex

        _check_workers(workers)
        planned = ex.plan(experiment)
        ready = ex.prepare(planned, store=store, out=out, workers=workers)
    if quiet:
        with to_stderr():
            result = ex.carry_out(ready, retry_failed=retry_failed, began=began)
    else:
        from winticket.report import Watch

        screen = console(stderr=True)
        with to_stderr():
            price = ex.cost(planned, ready.store, workers=ready.workers, retry_failed=retry_failed)
        say(_price(price, planned))
        if few := _too_few(planned):
            say(few)
        tasks = [*planned.tasks.values(), *price.repeated]
        needs = planned.order(price.repeated)
        with (
            to_stderr(),
            Watch(
                tasks,
                planned.densities(),
                seconds=price.seconds,
                weights=price.work,
                needs=needs,
                workers=ready.workers,
                console=screen,
            ) as watch,
        ):
            result = ex.carry_out(ready, retry_failed=retry_failed, watch=watch, began=began)
    if as_json:
        with printed(result.document["results"]):
            print_json(result.document)
    else:
        from winticket.report import final_screen

        with printed(result.document["results"]):
            console().print(final_screen(result.document))
            if note:
                show(f"\n{note}")
    if result.outcomes.failed or result.document["failures"] or result.document.get("unwritten"):
        raise typer.Exit(1)


def preview(
    experiment: Experiment, *, store: str, workers: int | None, as_json: bool, retry_failed: bool
) -> None:
    with request():
        from winticket import experiment as ex
        from winticket.report.reading import density_percent, tickets_from
        from winticket.run import Store

        _check_workers(workers)
        planned = ex.plan(experiment)
        price = ex.cost(planned, Store(store), workers=workers or ex.processes(), retry_failed=retry_failed)
        densities, counts = planned.densities(), planned.counts
        described, parameters = experiment.describe(), ex.parameters(planned)
    if as_json:
        levels = [{"density": d, "kept": c} for d, c in zip(densities, counts, strict=True)]
        print_json(
            {
                "winticket": __version__,
                "experiment": described,
                "cost": {name: value for name, value in vars(price).items() if name != "work"},
                "levels": levels,
                "parameters": parameters,
            }
        )
        return
    table = Table(title=f"{described['model']} on {described['data']}", show_header=False, box=None)
    if described.get("source"):
        table.add_row("tickets from", tickets_from(described["source"]))
    for name, value in described.items():
        if value not in (None, []) and name not in ("data", "model", "controls", "source"):
            told = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            table.add_row(name.replace("_", " "), told)
    out = console()
    out.print(table)
    out.print(_parameters(parameters))
    kept = ", ".join(map(density_percent, densities))
    out.print(f"weights kept by level: {kept}")
    out.print(_price(price, planned))
    if few := _too_few(planned):
        out.print(few)


def _parameters(rows: list[dict[str, Any]]) -> Table:
    """Every parameter that is pruned, with its size; the others together, by the reason why not."""
    pruned = [row for row in rows if row["spared"] is None]
    table = Table(
        title=f"pruned: {sum(row['size'] for row in pruned):,} weights", show_header=False, box=None
    )
    for row in pruned:
        table.add_row(row["name"], "x".join(map(str, row["shape"])), f"{row['size']:,}")
    for reason in dict.fromkeys(row["spared"] for row in rows if row["spared"] is not None):
        alike = [row for row in rows if row["spared"] == reason]
        names = ", ".join(row["name"] for row in alike[:3]) + (", ..." if len(alike) > 3 else "")
        table.add_row(f"not: {names}", reason, f"{sum(row['size'] for row in alike):,}", style="dim")
    return table


def _check_workers(workers: int | None) -> None:
    if workers is not None and workers < 1:
        raise ValueError(f"workers is {workers}; give the number of processes, 1 or more")


def _price(price: Cost, planned: Plan) -> str:
    from winticket.report.reading import duration

    rest = ""
    if price.reused:
        more = "more are" if price.trainings else "trainings are"
        rest = f"; {price.reused} {more} reused from the store"
    if price.failed:
        rest += f"; {price.failed} failed before, or need one that did: --retry-failed tries them again"
    if not price.trainings:
        return f"Nothing to train{rest}"
    processes = "1 process" if price.workers == 1 else f"{price.workers} processes"
    took = "" if price.seconds is None else f", about {duration(price.seconds)} on {processes}"
    asked = planned.experiment
    levels, replicates = _counted(len(planned.counts) - 1, "level"), _counted(asked.replicates, "replicate")
    together = f", in batches of up to {size}" if (size := min(asked.stack, asked.replicates)) > 1 else ""
    return (
        f"{_counted(price.trainings, 'training')} ({levels}, {replicates}){together}, {price.steps:,} steps{took}, "
        f"{disk(price.bytes)} of disk{rest}"
    )


def _counted(count: int, noun: str) -> str:
    return f"1 {noun}" if count == 1 else f"{count} {noun}s"


def _too_few(planned: Plan) -> str | None:
    """What to know before the trainings: a verdict of so few replicates is inconclusive whatever they reach."""
    from winticket.report.reading import FEWEST_REPLICATES

    count = planned.experiment.replicates
    if count >= FEWEST_REPLICATES:
        return None
    return (
        f"The verdict will be inconclusive: {_counted(count, 'replicate')} cannot decide, whatever the numbers. "
        f"Use --replicates {FEWEST_REPLICATES} or more for one that can."
    )


def disk(count: int) -> str:
    """Bytes in words: 36 KiB, 8.3 MiB, 1.2 GiB."""
    if count < 2**20:
        return f"{count / 2**10:.0f} KiB"
    return f"{count / 2**20:.1f} MiB" if count < 2**30 else f"{count / 2**30:.1f} GiB"
