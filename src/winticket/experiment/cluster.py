"""What a plan takes on a cluster: how long, on how many machines, with how many requests to the store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypedDict, cast

from winticket.experiment.plan import Plan
from winticket.experiment.price import START_SECONDS, Cost
from winticket.limits import CLUSTER, check
from winticket.run import Task, stored_needs
from winticket.run.cluster import Work
from winticket.run.requests import Requests, by_purpose, in_sequence, listings, requests

REQUEST_SECONDS = 0.05
"""Time in which a store elsewhere answers; object stores take 20 to 100 ms."""


class Row(TypedDict):
    """A number of machines, the seconds until all is done, and the share of their time in which cores compute."""

    machines: int
    seconds: float
    efficiency: float


class CriticalPath(TypedDict):
    """The longest chain of trainings that wait for one another.

    seconds   of all of them, which no number of machines undercuts
    tasks     how many there are
    words     which
    """

    seconds: float
    tasks: int
    words: str


class ClusterDocument(TypedDict):
    """The forecast as JSON.

    machines           as asked for
    cores_per_machine  worker processes on each
    seconds            until all is done
    work_seconds       of all tasks, one after the other
    efficiency         work_seconds / (seconds * machines * cores_per_machine)
    critical_path      the longest chain of trainings
    enough_machines    the fewest machines that are within 5 % of the critical path
    table              the same for 1, 2, 4, ... machines
    bytes              disk space of the results
    memory             bytes that each machine is estimated to need, by the largest training in every process at once
    requests           to the store, by purpose, and in total
    """

    machines: int
    cores_per_machine: int
    seconds: float
    work_seconds: float
    efficiency: float
    critical_path: CriticalPath
    enough_machines: int
    table: list[Row]
    bytes: int
    memory: int
    requests: dict[str, int]


@dataclass(frozen=True)
class Cluster:
    """What a plan takes on some machines, each with `cores` worker processes. Times are in seconds.

    work      the tasks that remain, with the time of each
    start     time before a worker's first task, included in every makespan
    bytes     disk space of the results
    memory    bytes that each machine needs, by the largest training in every process at once
    requests  to the store
    words     which trainings are on the critical path
    """

    machines: int
    cores: int
    work: Work
    start: float
    bytes: int
    memory: int
    requests: Requests
    words: str

    def row(self, machines: int) -> Row:
        """Time and efficiency on a number of machines."""
        seconds = self.start + self.work.makespan(machines * self.cores)
        efficiency = self.work.total / (seconds * machines * self.cores)
        return {"machines": machines, "seconds": seconds, "efficiency": efficiency}

    def table(self) -> list[Row]:
        """The rows of 1, 2, 4, ... machines, up to the number asked for."""
        powers = [2**n for n in range(self.machines.bit_length()) if 2**n < self.machines]
        return [self.row(machines) for machines in (*powers, self.machines)]

    def as_json(self) -> ClusterDocument:
        table = self.table()
        return {
            "machines": self.machines,
            "cores_per_machine": self.cores,
            "seconds": table[-1]["seconds"],
            "work_seconds": self.work.total,
            "efficiency": table[-1]["efficiency"],
            "critical_path": {
                "seconds": self.work.critical_seconds,
                "tasks": len(self.work.critical_path),
                "words": self.words,
            },
            "enough_machines": self.work.enough(self.cores, start=self.start),
            "table": table,
            "bytes": self.bytes,
            "memory": self.memory,
            "requests": dict(by_purpose(self.requests)),
        }


def on_cluster(
    planned: Plan, price: Cost, *, machines: int, cores: int, elsewhere: bool = False
) -> Cluster | None:
    """The forecast of a priced plan on `machines` with `cores` worker processes each; None if no times are known.

    Every machine is taken to be as fast as this one, where the times were measured, and every core to have a process
    with one thread. If the store is `elsewhere`, a worker waits `REQUEST_SECONDS` for each of its answers.
    Raises ValueError for a number of machines or cores that no cluster has.

    >>> from winticket.experiment import Execution, Experiment, cost, plan
    >>> planned = plan(Experiment.of("digits", model="lenet-20-10", steps=20, levels=2, replicates=2))
    >>> forecast = on_cluster(planned, cost(planned, Execution.local("memory://runs")), machines=2, cores=4)
    >>> [row["machines"] for row in forecast.table()], len(forecast.work.critical_path)
    ([1, 2], 3)
    """
    check(CLUSTER, {"machines": machines, "cores_per_machine": cores})
    if not price.work:
        return None
    tasks = {task.key: task for task in (*planned.tasks.values(), *price.repeated)}
    inputs = {key: len(stored_needs(tasks[key])) for key in price.work}
    waits = REQUEST_SECONDS if elsewhere else 0.0
    looks = listings(len(price.work), machines)
    work = Work(
        {key: seconds + waits * (in_sequence(inputs[key]) + looks) for key, seconds in price.work.items()},
        planned.order(price.repeated),
        {key: tasks[key].weight for key in price.work},
    )
    makespan = START_SECONDS + work.makespan(machines * cores)
    return Cluster(
        machines,
        cores,
        work,
        START_SECONDS,
        price.bytes,
        cores * price.memory,
        requests(price.work, inputs, processes=machines, cores=cores, makespan=makespan, beside=price.beside),
        in_words([tasks[key] for key in work.critical_path]),
    )


def in_words(chain: Iterable[Task]) -> str:
    """Which trainings a chain consists of, as "dense, ticket at levels 1 to 12, random at level 12".

    >>> from winticket.run import task
    >>> labels = [("dense", 0), ("ticket", 1), ("ticket", 2), ("random", 2)]
    >>> in_words(task("operator:neg", n, label={"arm": arm, "level": n}) for arm, n in labels)
    'dense, ticket at levels 1 to 2, random at level 2'
    """
    parts: list[str] = []
    for arm, group in groupby(chain, key=lambda task: str(_label(task).get("arm", task.fn))):
        levels = [int(level) for task in group if (level := _label(task).get("level"))]
        if not levels:
            parts.append(arm)
        elif len(levels) == 1:
            parts.append(f"{arm} at level {levels[0]}")
        else:
            parts.append(f"{arm} at levels {levels[0]} to {levels[-1]}")
    return ", ".join(parts)


def _label(task: Task) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", task.label)
