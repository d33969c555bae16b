"""find, plan, run: the commands that search for tickets."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from winticket.catalogue import check
from winticket.cli.answers import print_json, printed, request, say, show, to_stderr
from winticket.cli.clusters import Cores, Machines, check_cluster, drawn, on_cluster
from winticket.cli.detaching import refuse_both, submit
from winticket.cli.options import (
    AsJson,
    Computing,
    Data,
    Detach,
    Out,
    PlanOnly,
    Quiet,
    Track,
    chosen,
    with_options,
)
from winticket.places import require_file
from winticket.text import console, counted
from winticket.version import __version__

if TYPE_CHECKING:
    from winticket.experiment import Cost, Experiment, Plan, Ready, Result
    from winticket.report import Watch


@dataclass(frozen=True)
class Answering:
    """How a command answers: where the report goes, and what is printed."""

    out: Path | None = None
    as_json: bool = False
    quiet: bool = False
    track: tuple[str, ...] = ()
    detach: bool = False


@with_options
def find(
    data: Data,
    *,
    computing: Computing,
    out: Out = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    track: Track = None,
    detach: Detach = False,
    **options: Any,
) -> None:
    """Find a winning ticket on DATA and test it against its controls.

    A winning ticket is a pruned network that, trained from its original initial weights, matches the accuracy of the
    whole (dense) network. Every replicate (independent repetition) trains the dense network and prunes it in rounds,
    called levels: a level prunes a share of the weights, puts the others back to their initial values (rewinds them)
    and trains them again. At each level, two controls train beside the ticket: the same mask with new initial weights,
    and a random mask with the same number of weights per layer. Over all replicates, tickets win only if they match the
    dense networks and also beat both controls.

    Options that you leave out get defaults that suit the data and two CPU cores. To see these and the estimated time,
    type `winticket plan` in place of `winticket find`, without --out, --quiet and --track.

    If the command is interrupted or killed, type it again to resume. With more levels, replicates or controls, it
    trains only what is new.

    [bold]winticket find digits[/bold]

    [bold]winticket find sensors.csv --label state --ignore serial_number --missing median[/bold]

    [bold]winticket find path/to/mnist --model lenet-300-100 --levels 12 --rate 0.2 --replicates 5 --json[/bold]
    """
    began = time.monotonic()
    experiment = _experiment(data, options)
    search(experiment, computing, Answering(out, as_json, quiet, tuple(track or ()), detach), began=began)


@with_options
def plan(
    data: Data,
    *,
    computing: Computing,
    machines: Machines = None,
    cores_per_machine: Cores = None,
    as_json: AsJson = False,
    **options: Any,
) -> None:
    """Show what find would run with the same options, and what it costs: trainings, steps, time, disk.

    Nothing is run or written. The cost leaves out results that the store has already.

    With --machines it also forecasts the time on a cluster. The trainings of one stack wait for each other, so beyond
    some number of machines more of them do not help; the forecast says which, and which trainings are the longest
    chain. Stacks do not wait for each other: a smaller --stack can use more machines.

    [bold]winticket plan digits --replicates 100 --machines 16 --cores-per-machine 8[/bold]
    """
    with request():
        check_cluster(machines, cores_per_machine)
    size = None if machines is None else (machines, cores_per_machine)
    preview(_experiment(data, options), computing, as_json=as_json, cluster=size)


def _experiment(data: str, options: dict[str, Any]) -> Experiment:
    """The experiment that was typed."""
    with request():
        check(data, chosen(options))
        from winticket.experiment import Experiment

        return Experiment.of(data, **chosen(options))


@with_options
def run(
    spec: Annotated[
        Path,
        typer.Argument(
            metavar="SPEC", help="Python file that defines `experiment`, and perhaps variants by other names."
        ),
    ],
    *,
    computing: Computing,
    variant: Annotated[
        str, typer.Option("--variant", help="Name of the experiment in the file.")
    ] = "experiment",
    out: Out = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    track: Track = None,
    plan_only: PlanOnly = False,
    detach: Detach = False,
) -> None:
    """Run an experiment that is written in Python, such as those in experiments/.

    [bold]winticket run experiments/lenet_mnist.py --variant short[/bold]
    """
    began = time.monotonic()
    with request():
        require_file(spec)
        from winticket.experiment import load_spec

        experiment = load_spec(spec, variant=variant)
    if plan_only:
        refuse_both(detach=detach)
        preview(experiment, computing, as_json=as_json)
        return
    note = f"An option named above is a field of the experiment in {spec}: --replicates 7 is replicates=7."
    search(
        experiment,
        computing,
        Answering(out, as_json, quiet, tuple(track or ()), detach),
        began=began,
        note=note,
    )


def search(
    experiment: Experiment, computing: Computing, answering: Answering, *, began: float, note: str = ""
) -> None:
    """Run the experiment, with its progress, and print the result; `note` stands below the final screen."""
    if answering.detach:
        elsewhere = answering.out is not None or bool(answering.track)
        submit(experiment, computing, elsewhere=elsewhere, as_json=answering.as_json)
        return
    with request():
        from winticket.experiment import execute, plan, prepare

        ready = prepare(plan(experiment), computing.execution(), out=answering.out, track=answering.track)
    if ready.warning:
        say(f"Warning: {ready.warning}")
    watching = nullcontext() if answering.quiet else _announced(ready)
    with to_stderr(), watching as watch:
        result = execute(ready, watch=watch, began=began)
    _print(result, as_json=answering.as_json, note=note)
    if result.outcomes.failed or result.document["failures"] or result.document.get("unwritten"):
        raise typer.Exit(1)


def _announced(ready: Ready) -> AbstractContextManager[Watch]:
    """Say what the search will cost; within the context, its progress is shown."""
    from winticket.experiment import cost
    from winticket.report import Watch

    planned = ready.plan
    with to_stderr():
        price = cost(planned, ready.execution)
    say(_price(price, planned))
    for note in (_too_few(planned), _too_narrow(price, planned)):
        if note:
            say(note)
    return Watch(
        [*planned.tasks.values(), *price.repeated],
        planned.densities(),
        seconds=price.seconds,
        weights=price.work,
        needs=planned.order(price.repeated),
        workers=price.workers,
        console=console(stderr=True),
    )


def _print(result: Result, *, as_json: bool, note: str) -> None:
    with printed(result.document["results"]):
        if as_json:
            print_json(result.document)
            return
        from winticket.report import final_screen

        console().print(final_screen(result.document))
        if note:
            show(f"\n{note}")


def preview(
    experiment: Experiment,
    computing: Computing,
    *,
    as_json: bool,
    cluster: tuple[int, int | None] | None = None,
) -> None:
    """Print what the experiment would run and what it costs, also on a `cluster`: machines, and cores of each."""
    with request():
        from winticket.experiment import cost, parameters, plan

        planned = plan(experiment)
        price = cost(planned, computing.execution())
        rows = parameters(planned)
        forecast = None if cluster is None else on_cluster(planned, price, computing.store, *cluster)
    densities = planned.densities()
    if as_json:
        levels = [{"density": d, "kept": c} for d, c in zip(densities, planned.counts, strict=True)]
        print_json(
            {
                "winticket": __version__,
                "experiment": experiment.describe(),
                "cost": price.as_json(),
                "levels": levels,
                "parameters": rows,
                **({} if cluster is None else {"cluster": forecast}),
            }
        )
        return
    from winticket.report.reading import density_percent

    out = console()
    out.print(_described(experiment))
    out.print(_judged(planned))
    out.print(_parameters(rows))
    out.print(f"weights kept by level: {', '.join(map(density_percent, densities))}")
    out.print(_price(price, planned))
    if forecast is not None:
        out.print(drawn(forecast))
    elif cluster is not None and price.trainings:
        out.print("There is no forecast for a cluster, since the model cannot train on noise.")
    for note in (_too_few(planned), _too_narrow(price, planned)):
        if note:
            out.print(note)


def _judged(planned: Plan) -> str:
    """What the networks are trained for and judged by, as read off the data and chosen."""
    from winticket.objective import Objective

    setup, margin = planned.setup, planned.experiment.margin_pp
    objective = setup.objective or Objective("next-token" if setup.tokens else "classification")
    scale, (loss, _) = setup.scale(), objective.named()
    direction = "" if scale.better == "higher" else ", of which less is better"
    within = (
        f"{margin:g} % of the dense network's"
        if planned.experiment.relative_margin
        else f"{margin:g} {scale.points}"
    )
    guess = "" if setup.tokens else " (--task chooses another, if the data allow it)"
    return (
        f"task: {objective.task}{guess}; outputs: {setup.classes}; trained by {loss}; judged by {scale.name}"
        f"{f' in {scale.unit}' if scale.unit else ''}{direction}, to within {within.strip()}"
    )


def _described(experiment: Experiment) -> Table:
    """Every choice of the experiment by its name."""
    from winticket.report.reading import tickets_from

    described: dict[str, Any] = {**experiment.describe()}
    described |= described.pop("reading", {})
    table = Table(title=f"{described['model']} on {described['data']}", show_header=False, box=None)
    if described.get("source"):
        table.add_row("tickets from", tickets_from(described["source"]))
    for name, value in described.items():
        if value not in (None, []) and name not in ("data", "model", "controls", "source"):
            shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            table.add_row(name.replace("_", " "), shown)
    return table


def _parameters(rows: list[dict[str, Any]]) -> Table:
    """Every pruned parameter with its size; the others together, by the reason why they are not pruned."""
    pruned = [row for row in rows if row["spared"] is None]
    table = Table(
        title=f"pruned: {sum(row['size'] for row in pruned):,} weights", show_header=False, box=None
    )
    for row in pruned:
        table.add_row(row["name"], "x".join(map(str, row["shape"])), f"{row['size']:,}")
    for reason in dict.fromkeys(row["spared"] for row in rows if row["spared"] is not None):
        alike = [row for row in rows if row["spared"] == reason]
        names = ", ".join(row["name"] for row in alike[:3]) + (", ..." if len(alike) > 3 else "")
        table.add_row(f"not pruned: {names}", reason, f"{sum(row['size'] for row in alike):,}", style="dim")
    return table


def _price(price: Cost, planned: Plan) -> str:
    from winticket.report.durations import duration
    from winticket.run import gibibytes

    rest = ""
    if price.reused:
        more = "more are" if price.trainings else "trainings are"
        rest = f"; {price.reused} {more} reused from the store"
    if price.failed:
        rest += f"; {price.failed} failed before, or need one that did: --retry-failed runs them again"
    experiment = planned.experiment
    levels = counted(len(planned.counts) - 1, "level")
    replicates = counted(experiment.replicates, "replicate")
    twice = ", the dense network also for twice the steps" if experiment.gate else ""
    if not price.trainings:
        return f"Nothing to train ({levels}, {replicates}{twice}){rest}"
    processes = "1 process" if price.workers == 1 else f"{price.workers} processes"
    time = "" if price.seconds is None else f", about {duration(price.seconds)} on {processes}"
    size = min(experiment.stack, experiment.replicates)
    together = f", in stacks of up to {size}" if size > 1 else ""
    memory = f", up to {gibibytes(price.memory)} of memory in each process" if price.memory else ""
    return (
        f"{counted(price.trainings, 'training')} ({levels}, {replicates}{twice}){together}, {price.steps:,} steps"
        f"{time}, {disk(price.bytes)} of disk{memory}{rest}"
    )


def _too_few(planned: Plan) -> str | None:
    """A warning, before any training, that so few replicates make the verdict inconclusive; None for enough of them."""
    from winticket.report.reading import FEWEST_REPLICATES

    count = planned.experiment.replicates
    if count >= FEWEST_REPLICATES:
        return None
    return (
        f"The verdict will be inconclusive: {counted(count, 'replicate')} cannot decide, whatever the numbers. "
        f"Use --replicates {FEWEST_REPLICATES} or more for one that can."
    )


BUSY = 0.75
"""Below this share of time at work, it is said that processes will be idle."""


def _too_narrow(price: Cost, planned: Plan) -> str | None:
    """A note that processes will be idle because few stacks can train at once; None if they are busy."""
    from winticket.run.cluster import Work

    experiment, total = planned.experiment, sum(price.work.values())
    size = min(experiment.stack, experiment.replicates)
    if price.workers < 2 or size < 2 or not total or (price.seconds or 0.0) < 60:
        return None
    span = Work(price.work, planned.order(price.repeated)).makespan(price.workers)
    busy = total / (span * price.workers)
    if busy >= BUSY:
        return None
    return (
        f"The {price.workers} processes will train about {100 * busy:.0f} % of the time, because a stack's next level "
        f"waits for its last. --stack {-(-size // 2)} makes more stacks, which train at the same time (as another "
        "experiment: stacks are part of what is computed)."
    )


def disk(count: int) -> str:
    """A number of bytes as people read it: 36 KiB, 8.3 MiB, 1.2 GiB."""
    if count < 2**20:
        return f"{count / 2**10:.0f} KiB"
    return f"{count / 2**20:.1f} MiB" if count < 2**30 else f"{count / 2**30:.1f} GiB"
