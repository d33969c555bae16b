"""How far the plans of a store are, for people who watch its workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from rich.console import ConsoleRenderable, Group
from rich.table import Table
from rich.text import Text

from winticket.report.reading import arm_name
from winticket.text import visible


class ATask(Protocol):
    @property
    def label(self) -> Mapping[str, Any]: ...
    @property
    def weight(self) -> float: ...


class APlan(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def tasks(self) -> Sequence[ATask]: ...
    @property
    def question(self) -> Mapping[str, Any]: ...


class HowFar(Protocol):
    """What the screen needs of `winticket.run.plans.Standing`."""

    @property
    def done(self) -> Sequence[ATask]: ...
    @property
    def failed(self) -> Sequence[ATask]: ...
    @property
    def computing(self) -> Sequence[tuple[ATask, Any]]: ...
    @property
    def skipped(self) -> Sequence[ATask]: ...
    @property
    def ready(self) -> Sequence[ATask]: ...
    @property
    def blocked(self) -> Sequence[ATask]: ...


WIDTH = 40


def progress_of_store(seen: Sequence[tuple[APlan, HowFar]]) -> Group:
    """Every plan with a bar and counts, and below them what each worker computes."""
    parts: list[ConsoleRenderable] = []
    for plan, how_far in seen:
        parts.append(Text(f"{_what(plan)} (plan {visible(plan.name)})", style="bold"))
        parts += [_bar(plan, how_far), Text(progress_line([(plan, how_far)])), Text()]
    return Group(*parts, *([_workers(seen)] if any(how_far.computing for _, how_far in seen) else []))


def progress_line(seen: Sequence[tuple[APlan, HowFar]]) -> str:
    """The same in one line: `42 of 72 tasks done, 2 being computed by 2 processes, 3 ready, 25 waiting`."""
    tasks = sum(len(plan.tasks) for plan, _ in seen)
    count = {
        name: sum(len(getattr(how_far, name)) for _, how_far in seen)
        for name in ("done", "computing", "ready", "blocked", "failed", "skipped")
    }
    parts = [f"{count['done']} of {tasks} tasks done"]
    if count["computing"]:
        processes = len({claim.who() for _, how_far in seen for _, claim in how_far.computing})
        parts.append(
            f"{count['computing']} being computed by {processes} process{'es'[: 2 * (processes > 1)]}"
        )
    parts += [f"{count['ready']} ready"] * bool(count["ready"]) + [f"{count['blocked']} waiting"] * bool(
        count["blocked"]
    )
    parts += [f"{count['failed']} failed"] * bool(count["failed"])
    parts += [f"{count['skipped']} skipped, since they need a failed one"] * bool(count["skipped"])
    return ", ".join(parts)


def _what(plan: APlan) -> str:
    experiment = plan.question.get("experiment")
    experiment = experiment if isinstance(experiment, dict) else {}
    return visible(f"{experiment.get('model', '?')} on {experiment.get('data', '?')}")


def _bar(plan: APlan, how_far: HowFar) -> Text:
    whole = sum(task.weight for task in plan.tasks)
    share = sum(task.weight for task in how_far.done) / whole if whole else 1.0
    filled = int(WIDTH * share + 1e-9)
    return Text("━" * filled, style="green") + Text("━" * (WIDTH - filled), style="bright_black")


def _workers(seen: Sequence[tuple[APlan, HowFar]]) -> Table:
    """What every process computes; with many processes, how many compute what on each machine."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    under_way = [(claim, task) for _, how_far in seen for task, claim in how_far.computing]
    if len(under_way) <= MOST_ROWS:
        for name in ("worker", "computes"):
            table.add_column(name)
        for claim, task in under_way:
            table.add_row(visible(claim.who()), _named(task.label))
        return table
    table.add_column("machine")
    table.add_column("tasks being computed", justify="right")
    for machine, count in Counter(visible(claim.host) for claim, _ in under_way).most_common(MOST_ROWS):
        table.add_row(machine, str(count))
    return table


MOST_ROWS = 20


def _named(label: Mapping[str, Any]) -> str:
    """A task in words: `ticket, level 3, replicates 1-5`."""
    first, count = label.get("first"), label.get("count", 1)
    parts = [arm_name(str(label["arm"])) if "arm" in label else "a task"]
    if "level" in label:
        parts.append(f"level {label['level']}")
    if isinstance(first, int) and isinstance(count, int):
        parts.append(f"replicate {first + 1}" if count == 1 else f"replicates {first + 1}–{first + count}")
    return visible(", ".join(parts))
