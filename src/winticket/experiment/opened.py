"""A run that is read again: its arms, levels and replicates, and of each training its mask, weights and curve."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from winticket.analyse import Cells
from winticket.experiment.analysing import Analysed, analyse
from winticket.experiment.finished import Finished, level_of, replicate_of, trained
from winticket.experiment.plan import BESIDE, Plan, searched_again
from winticket.experiment.runs import Replicate, Runs, Trained, collect, trajectory
from winticket.experiment.trained_network import TrainedNetwork
from winticket.results import Document, Verdict
from winticket.run import Store, Task
from winticket.table import Table, Value
from winticket.ticket import Curve, Mask, State, Ticket, Trajectory
from winticket.ticket.mask import Weights

RUN_COLUMNS = (
    "replicate", "level", "density", "arm", "kept", "steps", "test_accuracy", "validation_accuracy",
    "early_stop_step", "test_accuracy_at_early_stop", "seconds", "failed",
)  # fmt: skip


@dataclass(frozen=True)
class Training:
    """One training of a run: arm, level and replicate, and what it started from and ended with.

    arm, level, density, replicate  where it is in the run; replicates count from 0
    trajectory  the stored training: ticket, last state, curve
    """

    arm: str
    level: int
    density: float
    replicate: int
    trajectory: Trajectory = field(repr=False)

    def __repr__(self) -> str:
        accuracy = self.curve.last()["test_accuracy"]
        return (
            f"Training({self.arm!r}, level {self.level}, density {self.density:.4g}, replicate {self.replicate}, "
            f"test accuracy {accuracy:.4f})"
        )

    @property
    def ticket(self) -> Ticket:
        """What was trained: mask and start."""
        return self.trajectory.ticket

    @property
    def mask(self) -> Mask:
        """Which eligible weights are kept."""
        return self.ticket.mask

    @property
    def start(self) -> State:
        """The state that the training started from."""
        return self.ticket.start

    @property
    def end(self) -> State:
        """The state after its last step."""
        return self.trajectory.saved[max(self.trajectory.saved)]

    @property
    def weights(self) -> Weights:
        """The trained weights by name; pruned ones are 0."""
        return self.end.weights

    @property
    def curve(self) -> Curve:
        """Losses and accuracies by step."""
        return self.trajectory.curve


@dataclass(frozen=True, repr=False)
class Run:
    """A run of `winticket find` or `winticket transfer`, read from its folder and its store.

    document  its result document; None while it is unfinished
    plan      its trainings; store: has their results; folder: has its report
    trust     what it may import, fetch or open (see `winticket.open`)
    """

    document: Document | None
    plan: Plan
    store: Store
    folder: Path
    trust: tuple[str, ...] = ()

    def __repr__(self) -> str:
        setup, levels = self.plan.setup, len(self.densities) - 1
        if self.verdict is None:
            tasks = len(self.plan.tasks)
            state = f"unfinished, {tasks - len(self.plan.missing(self.store))} of {tasks} stacks"
        else:
            at = self.verdict["density"]
            state = self.verdict["outcome"] + ("" if at is None else f" at density {at:.4g}")
        return (
            f"Run({setup.model} on {setup.data}: {state}; arms {', '.join(self.arms)}; {levels} "
            f"level{'s'[: levels != 1]}; {self.replicates} replicate{'s'[: self.replicates != 1]})"
        )

    @property
    def verdict(self) -> Verdict | None:
        """The verdict of the result document: outcome, density, reason and the numbers behind them."""
        return None if self.document is None else self.document["verdict"]

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms as planned: dense, ticket and controls."""
        return tuple(dict.fromkeys(arm for _, arm, _ in self.plan.tasks if arm not in BESIDE))

    @property
    def densities(self) -> tuple[float, ...]:
        """The density of every level, level 0 (the dense network) first."""
        return tuple(self.plan.densities())

    @property
    def replicates(self) -> int:
        """Number of replicates, as planned."""
        return self.plan.experiment.replicates

    @cached_property
    def runs(self) -> Runs:
        """Curves and counts of all trainings, each stack decoded once."""
        return collect(self.plan, self.store)

    def missing(self) -> tuple[str, ...]:
        """What of the plan the store does not have, in words, arm by arm; empty if the run is complete."""
        lost: dict[str, dict[int, int]] = {}
        for level, arm, first in self.plan.missing(self.store):
            if arm not in BESIDE:
                there = lost.setdefault(arm, {})
                there[level] = there.get(level, 0) + self.plan.count(first)
        return tuple(
            f"{arm} at {self._span(levels)}: {count} of {self.replicates} replicates"
            for arm, counts in lost.items()
            for levels, count in _neighbours(counts)
        )

    def _span(self, levels: Sequence[int]) -> str:
        """The densities of neighbouring levels: `80.2 %`, or `80.2 to 41.5 %`."""
        ends = dict.fromkeys((levels[0], levels[-1]))
        return " to ".join(f"{100 * self.densities[level]:.3g}" for level in ends) + " %"

    def training(
        self,
        arm: str = "ticket",
        *,
        level: int | None = None,
        density: float | None = None,
        replicate: int | None = None,
    ) -> Training:
        """One training of the run.

        arm        of the run, such as "ticket", "dense", "reinit"
        level      number of its level; or `density`, the level with the nearest one on a logarithmic scale (default:
                   the saved ticket's level)
        replicate  from 0 (default: the one with the best validation accuracy)

        Raises ValueError for what the run does not have, and names what it has; StoreError if the store lacks it.
        """
        number = level_of(self, arm, level, density)
        chosen = replicate_of(self, number, arm, replicate)
        path = trajectory(self.plan, self.store, level=number, arm=arm, replicate=chosen)
        return Training(arm, number, self.densities[number], chosen, path)

    def trainings(self, arm: str = "ticket") -> Iterator[Training]:
        """Every finished training of an arm, level by level, replicate by replicate; each stack is decoded once."""
        for (level, name, first), task in self.plan.tasks.items():
            if name != arm or not self.store.has(task.key):
                continue
            for replicate, path in enumerate(self.store.get(task.key), first):
                if isinstance(path, Trajectory):
                    yield Training(arm, level, self.densities[level], replicate, path)

    def trained(self, arm: str = "ticket", **which: Any) -> TrainedNetwork:
        """One trained network, to be shipped or used; arguments as for `training`.

        Raises ValueError, also for an unfinished run, whose networks have no verdict to carry.
        """
        if self.document is None:
            raise ValueError(
                "the run is unfinished, so its networks have no verdict; run the same command to finish it, or read "
                "their weights by run.training(...)"
            )
        return trained(Finished(self.document, self.plan, self.store, self.trust), arm=arm, **which)

    def table(self) -> Table:
        """One row per replicate, level and arm: accuracies as fractions, steps, counts; `failed` holds the reason.

        Replicates count from 1, as in tables and figures; `winticket.open(...).table().to_pandas()` makes a data frame.
        """
        rows: list[dict[str, Any]] = []
        for (level, arm), entries in self.runs.by_cell.items():
            if arm in BESIDE:
                continue
            for number, entry in enumerate(entries, 1):
                place = {"replicate": number, "level": level, "density": self.densities[level], "arm": arm}
                rows.append(place | {"kept": self.plan.counts[level], **_measured(entry)})
        return Table.from_rows(rows, columns=RUN_COLUMNS)

    def curves(self) -> Table:
        """One row per replicate, level, arm and point of the grid: losses, and accuracies as fractions."""
        rows: list[dict[str, Value]] = []
        for (level, arm), entries in self.runs.by_cell.items():
            at: dict[str, Value] = {"level": level, "density": self.densities[level], "arm": arm}
            for number, entry in enumerate(entries, 1):
                if isinstance(entry, Trained) and arm not in BESIDE:
                    rows += [{"replicate": number, **at, **point} for point in entry.curve.rows()]
        return Table.from_rows(rows, columns=("replicate", "level", "density", "arm", "step"))

    def layers(self, arm: str = "ticket") -> Table:
        """One row per replicate, level and layer of an arm: weights kept, weights in total, density."""
        rows = [
            (one.replicate + 1, one.level, name, kept, total, kept / total)
            for one in self.trainings(arm)
            for name, (kept, total) in one.mask.layers().items()
            if total
        ]
        return Table(("replicate", "level", "layer", "kept", "total", "density"), tuple(rows))

    def analyse(self, *names: str, **how: Any) -> list[Analysed]:
        """Analyse the run: `run.analyse("overlap")` gives a table and sentences; without names, every analysis.

        how: options, execution and watch, as for `winticket.experiment.analysing.analyse`, which says what is raised.
        """
        return analyse(self, names, **how)

    def cells(self) -> Cells:
        """The run's finished trainings as analyses take them."""
        there: dict[tuple[int, str], list[Task]] = {}
        for (level, arm, _), task in self.plan.tasks.items():
            if arm not in BESIDE and self.store.has(task.key):
                there.setdefault((level, arm), []).append(task)
        plan = self.plan
        return Cells(
            plan.setup,
            self.densities,
            {cell: tuple(tasks) for cell, tasks in there.items()},
            self.replicates,
            plan.question.eligible,
            plan.experiment.rewind_step,
            lambda noise, first: searched_again(
                plan.question, noise, range(first, first + plan.count(first))
            ),
            classes=plan.setup.target == "classes",
        )


def _neighbours(counts: Mapping[int, int]) -> list[tuple[list[int], int]]:
    """Levels that follow one another and have the same count, together with it.

    >>> _neighbours({1: 5, 2: 5, 4: 5, 3: 2})
    [([1, 2], 5), ([3], 2), ([4], 5)]
    """
    found: list[tuple[list[int], int]] = []
    for level, count in sorted(counts.items()):
        if found and found[-1] == ([*range(level - len(found[-1][0]), level)], count):
            found[-1][0].append(level)
        else:
            found.append(([level], count))
    return found


def _measured(entry: Replicate) -> dict[str, Any]:
    if not isinstance(entry, Trained):
        return {"failed": entry.reason}
    last = entry.curve.last()
    return {
        "steps": int(entry.curve.step[-1]),
        "test_accuracy": last["test_accuracy"],
        "validation_accuracy": last["validation_accuracy"],
        "early_stop_step": entry.curve.early_stop_step(),
        "test_accuracy_at_early_stop": entry.curve.accuracy_at_early_stop(),
        "seconds": entry.seconds,
    }
