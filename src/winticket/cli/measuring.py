"""`winticket measure`: how small and how fast a ticket is on this machine, beside dense runtimes."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from winticket.cli.answers import print_json, request, say, show
from winticket.cli.options import AsJson, Quiet
from winticket.cli.shipping import (
    Arm,
    Density,
    Level,
    Replicate,
    StoreOfRun,
    Trust,
    chosen_network,
    counted_from_0,
    refuse_run,
)
from winticket.text import console

if TYPE_CHECKING:
    from winticket.experiment import TrainedNetwork
    from winticket.ship import Network
    from winticket.ship.measurement import Measurement

Ticket = Annotated[
    Path,
    typer.Argument(
        metavar="TICKET",
        help="Compact file, as `winticket ship` writes it; or the folder or result.json of a run.",
    ),
]
Batch = Annotated[
    list[int] | None,
    typer.Option("--batch", help="Examples that a call computes; may be repeated. Default: 1, 16 and 64."),
]
Rounds = Annotated[int, typer.Option("--rounds", help="Turns that every runtime takes.")]
Threads = Annotated[int, typer.Option("--threads", help="Threads of every runtime.")]
Runtimes = Annotated[
    list[str] | None,
    typer.Option(
        "--runtime",
        help="Runtime to compare with; may be repeated: torch, 'torch compiled', 'torch shrunk', onnxruntime, "
        "'onnxruntime shrunk', litert, 'litert sparse', openvino, 'openvino bf16'. Default: all that are installed.",
    ),
]
Joules = Annotated[
    bool,
    typer.Option(
        "--energy/--no-energy",
        help="Measure joules per example, where the processor's energy counters can be read (with the package "
        "codecarbon); this takes some seconds for every runtime and batch size. Without counters, joules are "
        "only estimated, and marked as an estimate.",
    ),
]
Levels = Annotated[
    bool,
    typer.Option(
        "--levels",
        help="Measure the arm at every level of the run, and draw size and time against density.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out", help="With --levels: folder for the figure and its table. Default: measured/ in the run."
    ),
]
QUIET_SECONDS = 10.0
"""Between two lines of progress."""


def measure(
    ticket: Ticket,
    *,
    batch: Batch = None,
    rounds: Rounds = 21,
    threads: Threads = 1,
    runtime: Runtimes = None,
    energy: Joules = True,
    levels: Levels = False,
    arm: Arm = "ticket",
    level: Level = None,
    density: Density = None,
    replicate: Replicate = None,
    out: Out = None,
    store: StoreOfRun = None,
    trust: Trust = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Measure TICKET: size, operations, memory and energy, and how fast each runtime on this machine computes it.

    The sparse engine is compared with PyTorch in three forms (plain, compiled, and without the units that the mask has
    cut off), and with ONNX Runtime, LiteRT and OpenVINO if they are installed. After a warm-up, all take turns, so that
    a busy machine slows them alike. Ratios have intervals. The command names the fastest runtime, and says so if sparse
    is no faster than dense here.

    Energy is measured by the processor's counters. Most virtual machines have none; then the command states operations
    and bytes of weights, with an estimate in joules from published figures, marked as an estimate.

    Inputs are test examples of the run's data; for a compact file alone they are noise.

    [bold]winticket measure runs/digits[/bold]

    [bold]winticket measure runs/digits --levels --batch 1[/bold]
    """
    with request():
        from winticket.ship.measure import BATCHES, check
        from winticket.ship.measure_text import how

        options: dict[str, Any] = {
            "batches": batch or BATCHES,
            "rounds": rounds,
            "threads": threads,
            "runtimes": runtime,
            "energy": energy,
        }
        check(batch or BATCHES, rounds, threads, runtime)
        if out is not None and not levels:
            raise ValueError("--out is for --levels; without it nothing is written")
        which = (level, density, replicate)
        if levels:
            made = _levels(ticket, arm, which, out, options, store=store, trust=trust or [], quiet=quiet)
        else:
            network, inputs = _read(ticket, arm, which, store, trust or [])
            made = [_measured(network, inputs, options, quiet=quiet)]
    if as_json:
        print_json(made if levels else made[0])
        return
    for one in made:
        _print(one, options["batches"])
    show(how(made[0]))


def _read(
    path: Path,
    arm: str,
    which: tuple[int | None, float | None, int | None],
    store: str | None,
    trust: list[str],
) -> tuple[Network, Any]:
    """The network and its test examples, or None if they are not known."""
    from winticket.ship import CompactFileError, load

    try:
        chosen = arm != "ticket" or any(one is not None for one in which)
        if path.is_file() and path.suffix == ".safetensors" and not chosen:
            network = load(path)
            refuse_run(path, store, trust)
            return network, None
    except CompactFileError as error:
        compact = error
        try:
            return _with_examples(chosen_network(path, arm, which, store, trust))
        except ValueError as other:
            raise ValueError(
                f"{path} is neither a compact file ({compact}) nor a ticket to ship ({other})"
            ) from other
    return _with_examples(chosen_network(path, arm, which, store, trust))


def _with_examples(network: TrainedNetwork) -> tuple[Network, Any]:
    """The network and its test examples; a line on stderr if they cannot be read."""
    try:
        examples = network.test_examples().x.numpy()
    except (ValueError, OSError, LookupError, ImportError) as error:
        say(
            f"The test data cannot be read ({error}); inputs are noise, without the zeros that real ones may have"
        )
        examples = None
    return network.network(), examples


def _measured(
    network: Network, inputs: Any, options: dict[str, Any], *, quiet: bool, what: str = ""
) -> Measurement:
    from winticket.ship.measure import measure as measured
    from winticket.ship.measure import seconds
    from winticket.ship.measure_energy import Meter
    from winticket.ship.measure_runtimes import chosen

    progress = (lambda *_: None) if quiet else _Progress(what)
    if not quiet:
        names = [one.name for one in chosen(options["runtimes"]) if one.missing() is None]
        counted = options["energy"] and Meter().counter is not None
        least = seconds(options["batches"], options["rounds"], len(names), energy=counted)
        longer = ", and half a minute or more for torch.compile" if "torch compiled" in names else ""
        say(f"Measuring {what}{', '.join(names)}: at least {least:.0f} s{longer}")
    return measured(network, inputs, progress=progress, **options)


class _Progress:
    """Says now and then, on stderr, what is being done and how long it will still take."""

    def __init__(self, what: str) -> None:
        self.what, self.began, self.last = what, time.monotonic(), -math.inf

    def __call__(self, what: str, share: float) -> None:
        now = time.monotonic()
        if now - self.last < QUIET_SECONDS:
            return
        self.last = now
        passed = now - self.began
        left = f", about {passed / share * (1 - share):.0f} s left" if share > 0.05 else ""
        say(f"Measuring {self.what}{what}{left}")


def _levels(
    run: Path,
    arm: str,
    which: tuple[int | None, float | None, int | None],
    out: Path | None,
    options: dict[str, Any],
    *,
    store: str | None,
    trust: list[str],
    quiet: bool,
) -> list[Measurement]:
    """Every level of the run, measured; writes the figure and its table."""
    from winticket.experiment import open_run, trained

    if which[:2] != (None, None):
        raise ValueError("--levels measures every level; leave out --level and --density")
    opened = open_run(run, store=store, trust=trust)
    first = counted_from_0(which[2], opened.plan.experiment.replicates)
    numbers = sorted({number for number, name, _ in opened.plan.tasks if name == arm})
    if not numbers:
        raise ValueError(
            f"the run has no arm {arm!r}; it has {', '.join(sorted({a for _, a, _ in opened.plan.tasks}))}"
        )
    made, origins = [], []
    for at, number in enumerate(numbers, 1):
        network = trained(opened, arm=arm, level=number, replicate=first)
        described, inputs = _with_examples(network)
        made.append(
            _measured(described, inputs, options, quiet=quiet, what=f"level {at} of {len(numbers)}, ")
        )
        origins.append(network.origin)
    folder = out or (run if run.is_dir() else run.parent) / "measured"
    for path in _draw(made, origins, folder):
        say(f"Wrote {path}")
    return made


def _draw(made: list[Measurement], origins: list[Any], folder: Path) -> list[Path]:
    """A figure for each batch size, and the table of them all."""
    from winticket.report.measured import COLUMNS, measured_figure
    from winticket.report.saving import image
    from winticket.table import Table as Numbers

    rows = []
    for one, origin in zip(made, origins, strict=True):
        mean, ends = origin["mean_test_accuracy"], origin["accuracy_ci"] or (None, None)
        for row in one["timings"]:
            time_of = row["microseconds"]
            sizes = one["bytes"]["compact"], one["bytes"]["dense"]
            times = time_of["median"], time_of["low"], time_of["high"]
            rows.append((origin["density"], mean, *ends, *sizes, row["batch"], row["runtime"], *times))
    table = Numbers(COLUMNS, tuple(rows))
    folder.mkdir(parents=True, exist_ok=True)
    written = [table.to_csv(folder / "measured.csv")]
    # The figure's axis is accuracy in percent; the table has the values of any metric.
    for batch in dict.fromkeys(row[6] for row in rows if "metric" not in origins[0]):
        title = f"{origins[0]['model']} for {origins[0]['data']}, arm {origins[0]['arm']}: size, time and accuracy"
        figure = measured_figure(table, title=title, batch=batch)
        for kind in ("png", "svg"):
            written.append(folder / f"measured-batch-{batch}.{kind}")
            written[-1].write_bytes(image(figure, kind))
    return written


def _print(made: Measurement, batches: list[int]) -> None:
    from winticket.ship import measure_text as text

    sizes = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for row in text.size_rows(made):
        sizes.add_row(*row)
    console().print(sizes)
    for batch in batches:
        console().print(_table(f"batch {batch}", text.head(made), text.time_rows(made, batch)))
    if rows := list(text.energy_rows(made)):
        console().print(_table("energy of an example", text.ENERGY_HEAD, rows))
    if rows := list(text.estimate_rows(made)):
        console().print(_table("energy of an example", text.ESTIMATE_HEAD, rows))
    for sentence in (*text.sentences(made), *text.energy_sentences(made)):
        show(sentence)


def _table(title: str, head: Iterable[str], rows: Iterable[tuple[str, ...]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), title=title, title_justify="left")
    for at, name in enumerate(head):
        table.add_column(name, justify="right" if at else "left", no_wrap=True)
    for cells in rows:
        table.add_row(*cells)
    return table
