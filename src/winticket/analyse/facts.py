"""What an analysis is: a function from a run's stored trainings to a planned table, with facts about it beside it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from winticket.run import Task, task
from winticket.stages import Setup
from winticket.table import Table, Value
from winticket.text import nearest

REVISION = 1


@dataclass(frozen=True)
class Cells:
    """The finished trainings of a run, as the tasks whose values the store has.

    setup       data, network and recipe
    densities   over eligible weights, of levels 0 (the dense network) and up
    trainings   by (level, arm), the stacks that have finished; each is the task of a tuple of Trajectory or Failed
    replicates  planned number of replicates
    eligible    names of the weights that may be pruned
    rewind_step the step that tickets are rewound to, 0 for the start
    search      plans the run's search again, with other SGD noise: (noise, first replicate) -> the tickets of levels 1
                and up, each the task of a stack of tickets

    An unfinished run has fewer stacks than planned, and analyses use what there is.
    """

    setup: Setup
    densities: tuple[float, ...]
    trainings: Mapping[tuple[int, str], tuple[Task, ...]]
    replicates: int
    eligible: tuple[str, ...]
    rewind_step: int
    search: Callable[[int, int], Sequence[Task]]
    classes: bool = True
    """Whether the answers are classes, as several analyses need."""

    def stacks(self, level: int, arm: str, *, replicates: int | None = None) -> tuple[Task, ...]:
        """The finished stacks of an arm at a level; with `replicates`, as few as hold the first that many."""
        there = self.trainings.get((level, arm), ())
        if replicates is None:
            return there
        return tuple(stack for stack in there if first_replicate(stack) < replicates)

    def levels(self, arm: str) -> tuple[int, ...]:
        """The levels at which at least one stack of the arm has finished, in order."""
        return tuple(sorted(level for level, name in self.trainings if name == arm))

    def arms(self) -> tuple[str, ...]:
        """The arms of which at least one stack has finished, in the order of the plan."""
        return tuple(dict.fromkeys(arm for _, arm in self.trainings))

    def chosen_levels(self, arm: str, most: int) -> tuple[int, ...]:
        """At most `most` levels of an arm, evenly spread, the first and the last among them."""
        levels = self.levels(arm)
        if len(levels) <= most:
            return levels
        at = [round(n * (len(levels) - 1) / max(most - 1, 1)) for n in range(most)]
        return tuple(levels[n] for n in dict.fromkeys(at))


def first_replicate(stack: Task) -> int:
    """The number of a stack's first replicate."""
    return int(str(stack.label["first"]))


def setup_of(stack: Task) -> Setup:
    """The setup by which a stack was trained; that of a level may differ from the run's, as under `fine_tune`."""
    setup = stack.inputs[0]
    assert isinstance(setup, Setup)
    return setup


def tickets_of(stack: Task) -> Task:
    """The task of the tickets that a stack trained: each with its mask and start. ValueError if it was not given any.

    A training that changes or learns its mask on the way starts from another mask than it ends with.
    """
    found = next((one for one in stack.inputs[1:] if isinstance(one, Task)), None)
    if found is None:
        raise ValueError(f"{stack!r} trains no tickets")
    return found


@dataclass(frozen=True)
class Lines:
    """How an analysis' table is drawn: a line per series with a band, in a panel per value of `panel`.

    x, y    columns; `low` and `high` are the columns of the band's ends, None for no band
    series  the column that distinguishes lines; `panel` the column that distinguishes panels
    scale   of x: "density" (logarithmic, falling to the right, in percent), "log" or "linear"
    panels  the values of `panel` that are drawn, in this order; default: the first few
    level   draws a thin line at this height, such as chance; `level_label` names it
    ceiling draws it at the height in this column instead
    baseline a column of what y would be by chance: drawn dotted, in the colour of each line; `baseline_label` names it
    percent True if y is a fraction to be shown in percent; `x_percent` likewise
    least   no band is drawn below this: what y cannot be below, whatever Student's t makes of a few values
    """

    x: str
    y: str
    x_label: str
    y_label: str
    series: str | None = None
    panel: str | None = None
    low: str | None = "low"
    high: str | None = "high"
    scale: Literal["density", "log", "linear"] = "density"
    y_log: bool = False
    panels: tuple[Value, ...] = ()
    level: float | None = None
    ceiling: str | None = None
    baseline: str | None = None
    baseline_label: str = ""
    level_label: str = ""
    percent: bool = False
    x_percent: bool = False
    least: float | None = None
    where: Mapping[str, Value] = field(default_factory=dict)
    """Only rows with these values are drawn."""


Says = Callable[[Table], Sequence[str]]


@dataclass(frozen=True)
class Analysis:
    """An analysis and what is known of it.

    name     what users type
    plan     from the cells of a run, and options, to the task of the table; raises NothingToAnalyseError
             if cells are missing
    title    the question, for headings
    source   where the definition is from
    says     the table in a few sentences, numbers with intervals
    lines    how the table is drawn
    columns  what each column of the table is
    extra    the optional package that it needs, None for none
    answers  "classes" if it reads answers as scores of classes (by their cross-entropy, or the class with the highest
             score), "any" if it does not look at answers or takes them as they are
    """

    name: str
    plan: Callable[..., Task]
    title: str
    source: str
    says: Says
    lines: tuple[Lines, ...]
    columns: Mapping[str, str]
    extra: str | None = None
    answers: Literal["any", "classes"] = "any"

    def lacks(self, cells: Cells) -> str | None:
        """Why the answers of a run do not do for this analysis; None if they do."""
        if self.answers == "any" or cells.classes:
            return None
        return f"{self.name} reads answers as scores of classes, and the answers of this run are no classes"

    def options(self) -> dict[str, Any]:
        """The options with their defaults."""
        parameters = list(inspect.signature(self.plan).parameters.values())[1:]
        return {p.name: p.default for p in parameters}

    def summary(self) -> str:
        """The first sentence of its docstring."""
        return (inspect.getdoc(self.plan) or "").partition("\n\n")[0].replace("\n", " ")

    def checked(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options as values of their defaults' types. ValueError for an unknown name or a value of another type.

        Values may be text, as typed: an int, a float, or a tuple of these, separated by commas.
        """
        known = self.options()
        out = {}
        for name, value in options.items():
            if name not in known:
                there = ", ".join(f"{option} ({_shown(default)})" for option, default in known.items())
                raise ValueError(
                    f"analysis {self.name!r} has no option {name!r}{nearest(name, list(known))}; "
                    + (f"it has, with defaults, {there}" if known else "it has no options")
                )
            out[name] = _converted(f"option {name} of analysis {self.name!r}", value, known[name])
        return out


def _shown(default: Any) -> str:
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)


def _converted(what: str, value: Any, default: Any) -> Any:
    if isinstance(default, tuple):
        if not isinstance(value, str | list | tuple):
            raise ValueError(f"{what} is {value!r}; it takes numbers, separated by commas")  # noqa: TRY004 - as for text
        items = value.split(",") if isinstance(value, str) else value
        return tuple(_converted(what, item, default[0]) for item in items)
    kind: type = type(default)
    least = 1 if kind is int else 0
    try:
        made, number = kind(value), 0.0 if kind is str else float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"{what} is {value!r}; it takes {'a whole number' if kind is int else 'a number'}"
        ) from error
    if not isinstance(made, str) and (not math.isfinite(number) or made < least or made != number):
        whole = "whole number" if kind is int else "number"
        raise ValueError(f"{what} is {value!r}; it takes a {whole} of {least} or more")
    return made


class NothingToAnalyseError(ValueError):
    """The run lacks the trainings that an analysis needs; the message says which."""


ANALYSES: dict[str, Analysis] = {}
"""Every analysis by name, in the order in which they are listed."""


def analysis(
    name: str,
    *,
    title: str,
    source: str,
    says: Says,
    lines: Sequence[Lines],
    columns: Mapping[str, str],
    extra: str | None = None,
    answers: Literal["any", "classes"] = "any",
) -> Callable[[Callable[..., Task]], Callable[..., Task]]:
    """State the facts of an analysis above the function that plans it."""

    def mark(plan: Callable[..., Task]) -> Callable[..., Task]:
        ANALYSES[name] = Analysis(
            name, plan, title, source, says, tuple(lines), dict(columns), extra, answers
        )
        return plan

    return mark


def analysis_named(name: str) -> Analysis:
    """The analysis of that name. ValueError, listing all, for an unknown one."""
    if name not in ANALYSES:
        raise ValueError(
            f"no analysis {name!r}{nearest(name, list(ANALYSES))}; the analyses are {', '.join(ANALYSES)}"
        )
    return ANALYSES[name]


def together(parts: Sequence[Task], *, name: str) -> Task:
    """The task of the table that has the rows of all parts."""
    return task(joined, list(parts), label={"arm": f"analysis {name}"})


def joined(tables: Sequence[Table]) -> Table:
    """The rows of all tables, one table after the other."""
    return Table.joined(tables)


def part(fn: Callable[..., object], *inputs: object, name: str, weight: float = 1.0, **options: Any) -> Task:
    """The task of one part of an analysis, such as a level's; `weight` is its cost relative to other parts."""
    return task(fn, *inputs, label={"arm": f"analysis {name}"}, weight=weight, **options)


def present(stack: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    """The replicates of a stack that did not fail, as (number of the replicate, Trajectory)."""
    for one in stack:
        if not getattr(one, "failed_replicate", False):
            yield one.ticket.seeds.replicate, one
