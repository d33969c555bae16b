"""Progress while trainings run: how far, what is in hand, how long still. On stderr, so that stdout stays clean."""

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from winticket.report.reading import arm_name, density_percent, duration

QUIET_SECONDS = 15.0  # between lines where there is no terminal to redraw


class Training(Protocol):
    """What is shown of a task."""

    @property
    def key(self) -> str: ...
    @property
    def label(self) -> Mapping[str, Any]: ...
    @property
    def weight(self) -> float: ...


class Happening(Protocol):
    """What an executor tells of a task; see `winticket.run.Event`."""

    @property
    def kind(self) -> str: ...
    @property
    def task(self) -> Training: ...
    @property
    def step(self) -> int | None: ...
    @property
    def steps(self) -> int | None: ...
    @property
    def text(self) -> str | None: ...
    @property
    def earlier(self) -> bool: ...


class Watch:
    """Draws progress of trainings whose weights add up to the whole; call it with each event, inside `with`.

    `densities` are those of the levels, in words for people; none where several plans run.

    What is reused or skipped is taken out of the whole. The time left is the weight left over the speed so far, and
    before there is a speed, `seconds`, the plan's estimate. Without a terminal it prints a line every 15 seconds, and
    one at the end.
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        densities: list[float],
        *,
        seconds: float | None,
        console: Console | None = None,
    ) -> None:
        self.console = console or Console(stderr=True)
        self.weights, self.densities, self.estimate = dict(weights), densities, seconds
        self.done: dict[str, float] = {}
        self.finished = self.reused = self.failed = self.skipped = 0
        self.began = self.spoke = time.monotonic()
        self.bars = Progress(
            TextColumn("  {task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[at]}", markup=False),
            console=self.console,
        )
        self.rows: dict[str, TaskID] = {}
        self.live = Live(
            console=self.console, get_renderable=self._drawing, refresh_per_second=5, transient=True
        )

    def __enter__(self) -> "Watch":
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self.live.stop()
        elif error is None:
            self._print(self._line())

    def __call__(self, event: Happening) -> None:
        key = event.task.key
        if event.kind == "started":
            self._close_row(key)
            self.rows[key] = self.bars.add_task(self._name(event.task.label), total=1.0, at="")
        elif event.kind == "progress" and event.steps:
            self._advance(event.task, event.step or 0, event.steps)
        elif event.kind == "retried":
            self._close_row(key)
            self.done.pop(key, None)
            self._print(f"{self._name(event.task.label)}: its process died ({event.text}), started again")
        else:
            self._settle(event)
        if not self.console.is_terminal and time.monotonic() - self.spoke >= QUIET_SECONDS:
            self.spoke = time.monotonic()
            self._print(self._line())

    def _advance(self, task: Training, step: int, steps: int) -> None:
        self.done[task.key] = self._weight(task) * step / steps
        if task.key in self.rows:
            self.bars.update(self.rows[task.key], completed=step / steps, at=f"{step} / {steps} steps")

    def _settle(self, event: Happening) -> None:
        """An end of a training, good or bad."""
        key = event.task.key
        self._close_row(key)
        if event.kind == "finished" or (event.kind == "failed" and not event.earlier):
            self.done[key] = self._weight(event.task)
        elif event.kind in ("reused", "skipped", "failed"):  # it takes no time of this run's
            self.done.pop(key, None)
            self.weights.pop(key, None)
        self.finished += event.kind == "finished"
        self.reused += event.kind == "reused"
        self.skipped += event.kind == "skipped"
        if event.kind == "failed":
            self.failed += 1
            last = (event.text or "").strip().splitlines()[-1:]
            self._print(f"failed: {self._name(event.task.label)}: {''.join(last)}")

    def _weight(self, task: Training) -> float:
        return self.weights.get(task.key, task.weight)

    def _close_row(self, key: str) -> None:
        if key in self.rows:
            self.bars.remove_task(self.rows.pop(key))

    def _print(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def seconds_left(self) -> float | None:
        """Estimated seconds to the end; None while nothing is known."""
        elapsed, share = time.monotonic() - self.began, self._share()
        if share > 0.02:
            return elapsed * (1 - share) / share
        return None if self.estimate is None else max(self.estimate - elapsed, 0.0)

    def _share(self) -> float:
        total = sum(self.weights.values())
        return sum(self.done.values()) / total if total else 1.0

    def _line(self) -> str:
        parts = [f"{100 * self._share():.0f} %", f"{self.finished} of {len(self.weights)} stack trainings"]
        for count, word in (
            (self.reused, "reused"),
            (self.failed, "failed"),
            (self.skipped, "skipped, needing one that failed"),
        ):
            if count:
                parts.append(f"{count} {word}")
        left = self.seconds_left()
        if self._share() < 1:
            parts.append("time left unknown yet" if left is None else f"about {duration(left)} left")
        return ", ".join(parts)

    def _drawing(self) -> Group:
        width = 40
        filled = round(width * self._share())
        bar = Text("━" * filled, style="green") + Text("━" * (width - filled), style="bright_black")
        return Group(Text.assemble(bar, " ", self._line()), self.bars)

    def _name(self, label: Mapping[str, Any]) -> str:
        level = int(label.get("level", 0))
        first, count = int(label.get("first", 0)), int(label.get("count", 1))
        who = f"replicates {first + 1}–{first + count}" if count > 1 else f"replicate {first + 1}"
        arm = arm_name(str(label.get("arm", "training")))
        if arm == "source":  # its levels are another experiment's
            return f"finding tickets, level {level}, {who}"
        if not self.densities:  # several plans' at once, whose levels differ
            return f"{arm}, level {level}, {who}"
        return f"{arm} at {density_percent(self.densities[level])} (level {level} of {len(self.densities) - 1}), {who}"
