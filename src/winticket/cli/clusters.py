"""What `plan --machines` shows: how long a plan takes on a cluster, and how many machines help."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.table import Table

from winticket.cli.options import number
from winticket.limits import CLUSTER, check

if TYPE_CHECKING:
    from winticket.experiment import Cost, Plan
    from winticket.experiment.cluster import ClusterDocument

Machines = Annotated[
    int | None,
    typer.Option(
        "--machines",
        metavar="N",
        help="Forecast the time on N machines as fast as this one that share a store, the number of machines beyond "
        "which more do not help, and the requests to the store.",
        rich_help_panel="Cluster",
        parser=number("--machines", int),
    ),
]
Cores = Annotated[
    int | None,
    typer.Option(
        "--cores-per-machine",
        metavar="C",
        help="Worker processes on each machine: one per core, or one per GPU. Default: --workers, or what this "
        "machine would use.",
        rich_help_panel="Cluster",
        parser=number("--cores-per-machine", int),
    ),
]


def check_cluster(machines: int | None, cores: int | None) -> None:
    """ValueError for a number of machines or cores that no cluster has."""
    check(CLUSTER, {"machines": machines, "cores_per_machine": cores})
    if machines is None and cores is not None:
        raise ValueError(
            f"cores_per_machine is {cores}, but there is no number of machines; give it as well, as --machines 8"
        )


def on_cluster(
    planned: Plan, price: Cost, store: str, machines: int, cores: int | None
) -> ClusterDocument | None:
    """The forecast of a plan on a cluster; None if nothing is to be trained, or no times are known."""
    from winticket.experiment import cluster

    elsewhere = "://" in store and not store.startswith(("file://", "memory://"))
    forecast = cluster.on_cluster(
        planned, price, machines=machines, cores=cores or max(price.workers, 1), elsewhere=elsewhere
    )
    return None if forecast is None else forecast.as_json()


def drawn(forecast: ClusterDocument) -> RenderableType:
    """The forecast as people read it."""
    from winticket.report.durations import duration
    from winticket.run import gibibytes

    machines, cores, path = forecast["machines"], forecast["cores_per_machine"], forecast["critical_path"]
    requests = forecast["requests"]
    parts = ", ".join(f"{count:,} {name}" for name, count in requests.items() if name != "total")
    enough = forecast["enough_machines"]
    lines = Table(
        show_header=False, box=None, title=f"on {_named(machines, 'machine')} of {_named(cores, 'core')}"
    )
    lines.add_row(
        "time",
        f"about {duration(forecast['seconds'])}; cores compute {100 * forecast['efficiency']:.0f} % of it",
    )
    lines.add_row("work", f"{duration(forecast['work_seconds'])} on one core")
    lines.add_row(
        "critical path",
        f"{duration(path['seconds'])}: {_named(path['tasks'], 'training')} of one stack, one after the other "
        f"({path['words']})",
    )
    lines.add_row("enough", f"{_named(enough, 'machine')}; more are less than 5 % faster")
    if forecast["memory"]:
        lines.add_row("memory", f"at most {gibibytes(forecast['memory'])} on each machine, as estimated")
    lines.add_row("store", f"{requests['total']:,} requests ({parts})")
    table = Table(box=None, header_style="")
    for heading in ("machines", "time", "efficiency"):
        table.add_column(heading, justify="right")
    for row in forecast["table"]:
        table.add_row(f"{row['machines']:,}", duration(row["seconds"]), f"{100 * row['efficiency']:.0f} %")
    return Group(lines, table)


def _named(count: int, noun: str) -> str:
    return f"1 {noun}" if count == 1 else f"{count:,} {noun}s"
