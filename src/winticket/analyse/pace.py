"""Pace: do tickets train faster? Steps to an accuracy, against the dense network of the same replicate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from winticket.analyse.facts import (
    Cells,
    Lines,
    NothingToAnalyseError,
    analysis,
    first_replicate,
    part,
    present,
)
from winticket.analyse.networks import parts
from winticket.analyse.summary import kept_percent
from winticket.judge import JUDGED_FRACTION, Level, Pace, has_learned, pace_against_dense
from winticket.judge.checks import MIN_REPLICATES
from winticket.run import Task
from winticket.stages import Setup
from winticket.table import Table, Value
from winticket.ticket import Curve, Failed, Trajectory

REVISION = 1

ALPHA = 0.05
REACHED = {
    "level": "number of the level",
    "density": "share of the eligible weights kept",
    "arm": "whose training",
    "replicate": "number of the replicate, from 1",
    "steps": "step at which it first reaches the goal; missing if it never does or failed",
    "dense_steps": "the same of the dense network",
    "has_goal": "whether the dense network finished, so that there is a goal",
    "accuracy": "final test accuracy",
    "dense_accuracy": "the same of the dense network",
    "commonest": "share of the commonest class among the test examples",
}


def steps_to_share(curve: Curve, dense: Curve, *, goal: float) -> int | None:
    """The first step of a curve's grid whose accuracy is `goal` of the dense network's final one; None if never.

    Both are read from validation data (`Curve.pace_accuracy`); nothing is interpolated.

    >>> import torch
    >>> loss, rising = torch.zeros(3).double(), torch.tensor([0.1, 0.8, 0.9]).double()
    >>> dense = Curve(torch.tensor([0, 10, 20]), *[loss] * 3, rising, loss, loss)
    >>> steps_to_share(dense, dense, goal=0.95), steps_to_share(dense, dense, goal=0.85)
    (20, 10)
    """
    return curve.steps_to(goal * dense.last()["pace_accuracy"])


def reached_of_stacks(
    setup: Setup,
    stacks: Sequence[Sequence[Trajectory | Failed]],
    dense: Sequence[Trajectory | Failed],
    *,
    arms: tuple[str, ...],
    level: int,
    density: float,
    goal: float,
) -> Table:
    """The steps to a goal of each training of several stacks at a level, `arms` being theirs, and of the dense network.

    Every replicate of a stack has a row, also if it failed.
    """
    whole = dict(present(dense))
    rows: list[tuple[Any, ...]] = []
    for arm, stack in zip(arms, stacks, strict=True):
        for one in stack:
            seeds = one.seeds if isinstance(one, Failed) else one.ticket.seeds
            theirs = whole.get(seeds.replicate)
            steps = dense_steps = accuracy = full = None
            if isinstance(one, Trajectory):
                accuracy = one.curve.last()["test_accuracy"]
                steps = None if theirs is None else steps_to_share(one.curve, theirs.curve, goal=goal)
            if theirs is not None:
                full = theirs.curve.last()["test_accuracy"]
                dense_steps = steps_to_share(theirs.curve, theirs.curve, goal=goal)
            y = parts(setup, seeds.replicate).test.y.flatten()
            commonest = float(y.bincount().max()) / len(y)
            found = (steps, dense_steps, theirs is not None, accuracy, full, commonest)
            rows.append((level, density, arm, seeds.replicate + 1, *found))
    return Table(tuple(REACHED), tuple(rows))


PACE = {
    "level": "number of the level",
    "density": "share of the eligible weights kept",
    "arm": "whose training",
    "replicates": "number of replicates",
    "steps": "median step at which the goal is first reached; missing if half of the trainings or more never do",
    "dense_steps": "the same of the dense network",
    "never": "trainings that failed or never reach the goal",
    "ratio": "steps in relation to the dense network's of the same replicate (Hodges-Lehmann estimate)",
    "low": "lower end of its 95 % interval",
    "high": "upper end; missing if trainings that never reach the goal leave it open",
    "p_sooner": "exact signed-rank test against 'not sooner than the dense network'",
    "p_later": "the same against 'not later'",
    "outcome": "sooner or later if shown at 5 %, else alike; missing below five replicates, or if the dense network "
    "did not learn",
}


def judged_pace(reached: Sequence[Table], *, goal: float) -> Table:
    """Each arm's pace at each level, judged over all replicates as in a run's verdict; see `winticket.judge.Pace`."""
    rows = Table.joined(reached)
    learned = _learned(rows)
    made: list[tuple[Any, ...]] = []
    for level, density, arm in dict.fromkeys((row[0], row[1], row[2]) for row in rows.values):
        cell = rows.where(level=level, arm=arm).sort("replicate")
        goals = [bool(there) for there in cell.column("has_goal")]
        steps, theirs = (_whole(cell.column(name)) for name in ("steps", "dense_steps"))
        options: dict[str, Any] = {"fraction": goal, "alpha": ALPHA, "has_target": goals}
        pace = pace_against_dense(steps, theirs, **options)
        dense = pace_against_dense(theirs, theirs, itself=True, **options)
        made.append((level, density, arm, len(cell), *_row(pace, dense, learned)))
    return Table(tuple(PACE), tuple(made))


def _row(pace: Pace, dense: Pace, learned: bool) -> tuple[Value, ...]:
    low, high = pace.ratio_ci or (None, None)
    outcome = pace.outcome if learned else None
    return (
        pace.median, dense.median, pace.never, pace.ratio, low, high, pace.p_sooner, pace.p_later, outcome,
    )  # fmt: skip


def _whole(values: Sequence[Value]) -> list[int | None]:
    return [None if value is None else int(value) for value in values]


def _learned(rows: Table) -> bool:
    """Whether the dense network learned: if not, its accuracy is no goal."""
    tickets = rows.where(arm="ticket")
    levels, dense = [], {}
    for level in dict.fromkeys(tickets.column("level")):
        cell = tickets.where(level=level).sort("replicate")
        accuracy = {"ticket": _accuracies(cell, "accuracy"), "dense": _accuracies(cell, "dense_accuracy")}
        levels.append(Level(float(cell.numbers("density")[0]), accuracy))
    for row in rows.rows():
        dense[row["replicate"]] = None if row["dense_accuracy"] is None else float(row["dense_accuracy"])
    commonest = float(rows.numbers("commonest").mean())
    return has_learned(list(dense.values()), levels, commonest=commonest).learned


def _accuracies(cell: Table, name: str) -> tuple[float | None, ...]:
    return tuple(None if value is None else float(value) for value in cell.column(name))


def pace_says(table: Table) -> list[str]:
    """Where tickets and re-initialised tickets are sooner or later than the dense network, and by how much."""
    if not table.values:
        return ["No training has finished."]
    if all(outcome is None for outcome in table.column("outcome")):
        few = all(int(str(count)) < MIN_REPLICATES for count in table.column("replicates"))
        why = (
            f"there are fewer than {MIN_REPLICATES} replicates" if few else "the dense network did not learn"
        )
        return [f"Nothing is called sooner or later, because {why}."]
    lines = []
    for arm, words in (("ticket", "Tickets"), ("reinit", "Re-initialised tickets")):
        rows = table.where(arm=arm).sort("density", descending=True).rows()
        if rows:
            lines.append(f"{words} reach that accuracy {_when(rows)}")
    lines.append(
        "Steps are counted, not seconds. Each density is tested by itself (exact signed-rank test, 5 % in each "
        "direction), so one of twenty may be called sooner by chance."
    )
    return lines


def _when(rows: Sequence[dict[str, Value]]) -> str:
    """Densities by outcome, and the ratio at the extreme one, in words."""
    said = []
    for outcome, name in (
        ("sooner", "sooner than"),
        ("alike", "in about as many steps as"),
        ("later", "later than"),
    ):
        there = [row for row in rows if row["outcome"] == outcome]
        if not there:
            continue
        at = ", ".join(f"{100 * float(row['density'] or 0):.3g}" for row in there)
        text = f"{name} the dense network at {at} % of the weights"
        known = [row for row in there if row["ratio"] is not None]
        if known and outcome != "alike":
            extreme = (min if outcome == "sooner" else max)(known, key=lambda row: float(row["ratio"] or 0))
            text += f" ({_ratio(extreme)} at {kept_percent(float(extreme['density'] or 0))})"
        said.append(text)
    return "; ".join(said) + "."


def _ratio(row: dict[str, Value]) -> str:
    high = "more" if row["high"] is None else f"{float(row['high']):.2f}"
    interval = "" if row["low"] is None else f", {float(row['low']):.2f} to {high}"
    return f"{float(row['ratio'] or 0):.2f} times its steps{interval}"


@analysis(
    "pace",
    answers="classes",
    title="Do tickets train faster?",
    source="goal: a share of the dense network's final validation accuracy; Hodges & Lehmann 1963; Wilcoxon 1945",
    says=pace_says,
    lines=(
        Lines(
            x="density", y="ratio", series="arm", x_label="weights kept",
            y_label="steps to the goal / the dense network's", y_log=True, level=1.0, level_label="as dense",
        ),
    ),
    columns=PACE,
)  # fmt: skip
def pace(cells: Cells, *, goal: float = JUDGED_FRACTION, replicates: int = 30, levels: int = 8) -> Task:
    """Compares how many steps tickets, controls and the dense network need to an accuracy.

    The accuracy is `goal` times the final one of the replicate's dense network. Both are read from validation data, on
    the grid of the learning curves. A training that never gets there counts as later than any other.
    """
    if goal > 1:
        raise ValueError(f"goal is {goal}; it is a share of the dense network's accuracy, so at most 1")
    dense = {first_replicate(stack): stack for stack in cells.stacks(0, "dense", replicates=replicates)}
    arms = [arm for arm in cells.arms() if arm != "dense"]
    made = []
    for level in cells.chosen_levels("ticket", levels):
        for first, whole in dense.items():
            there = {
                arm: stack
                for arm in arms
                for stack in cells.stacks(level, arm)
                if first_replicate(stack) == first
            }
            if there:
                made.append(
                    part(
                        reached_of_stacks, cells.setup, list(there.values()), whole, name="pace", arms=tuple(there),
                        level=level, density=cells.densities[level], goal=goal,
                    )
                )  # fmt: skip
    if not made:
        raise NothingToAnalyseError("no ticket and dense network of the same replicate have finished")
    return part(judged_pace, made, name="pace", goal=goal)
