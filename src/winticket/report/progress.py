"""Shows the progress of trainings and the time left. It writes to stderr, so that stdout holds only results."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from winticket.report.durations import duration
from winticket.report.forecast import Clocked, Pace
from winticket.report.reading import arm_name, density_percent
from winticket.run.cluster import Work
from winticket.text import console as a_console

SHORT = 0.01  # seconds; what takes longer to reckon is reckoned less often:
SHARE_OF_TIME = 50  # it rests for so many times the time that it took
QUIET_SECONDS = 15.0  # between two lines when stderr is not a terminal


class Training(Protocol):
    """The attributes of a task that the display needs."""

    @property
    def key(self) -> str: ...
    @property
    def label(self) -> Mapping[str, Any]: ...
    @property
    def weight(self) -> float: ...


class Happening(Protocol):
    """What an executor reports about a task; see `winticket.run.Event`."""

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
    """Draws the progress of all trainings. Use it in a `with` block and call it with each event.

    `densities` lists the density of each level; it is empty if several plans run together. `weights` replaces the
    weights of trainings whose time has a better estimate. `needs` maps a key to the keys that must finish first.

    Each training counts by its weight. Reused and skipped trainings do not count. The time left assumes `workers`
    workers and the measured speed of trainings at the same or nearby levels. Before any speed is measured, it is
    `seconds`, the plan's estimate, less the time since the start. If stderr is not a terminal, a line is printed every
    15 seconds and at the end.
    """

    def __init__(
        self,
        trainings: Sequence[Training],
        densities: list[float],
        *,
        seconds: float | None,
        weights: Mapping[str, float] | None = None,
        needs: Mapping[str, Sequence[str]] | None = None,
        workers: int = 1,
        console: Console | None = None,
    ) -> None:
        self.console = console or a_console(stderr=True)
        self.weights = {training.key: training.weight for training in trainings} | dict(weights or {})
        self.known = {training.key for training in trainings}
        self.levels = {training.key: int(training.label.get("level", 0)) for training in trainings}
        self.densities, self.estimate = densities, seconds
        self.needs, self.workers = dict(needs or {}), max(workers, 1)
        self.done: dict[str, float] = {}
        self.clocked: dict[str, Clocked] = {}
        self.starting: set[str] = set()
        """Trainings that started before the first report: their times include the start of the worker process."""
        self.heard = False
        self.pace = Pace()
        self.counts = {
            training.key: 0 if "states" in training.label else int(training.label.get("count", 1))
            for training in trainings
        }
        """Number of trainings in each task: several in a stack, none if it repeats a training for its states."""
        self.finished = self.reused = self.failed = self.skipped = 0
        self.began = self.spoke = time.monotonic()
        self.bars = Progress(
            TextColumn("  {task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[at]}", markup=False),
            console=self.console,
        )
        self.elsewhere: dict[str, str] = {}
        """Key of each training that another command on the same store runs now, with the name of that command."""
        self.met: set[str] = set()
        self.rows: dict[str, TaskID] = {}
        self._reckoned = (0.0, 0.0, 0.0)
        """When the time left was reckoned, what it was, and how many seconds that took."""
        self.live = Live(
            console=self.console, get_renderable=self._drawing, refresh_per_second=5, transient=True
        )

    def __enter__(self) -> Watch:
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
        if key not in self.known:  # a task that only reads states of a training does no work
            return
        self.elsewhere.pop(key, None)
        if event.kind == "elsewhere":
            self._left_to(event.text or "another command", key)
        elif event.kind == "started":
            self._close_row(key)
            self._start(key)
            self.rows[key] = self.bars.add_task(self._name(event.task.label), total=1.0, at="")
        elif event.kind == "progress" and event.steps:
            self._advance(event.task, event.step or 0, event.steps)
        elif event.kind == "left":
            self._close_row(key)
            self.elsewhere[key] = "another machine"
            self._print(
                f"{self._name(event.task.label)}: cannot be computed here, so left to others: {event.text}"
            )
        elif event.kind == "unfit":
            if event.text not in self.met:  # the same for all such trainings
                self.met.add(event.text or "")
                self._print(f"Trainings are left to other machines. Of the largest: {event.text}")
        elif event.kind == "retried":
            self._close_row(key)
            self.done.pop(key, None)
            self.clocked.pop(key, None)
            self._print(
                f"{self._name(event.task.label)}: its process died ({event.text}), so it starts again"
            )
        else:
            self._settle(event)
        if not self.console.is_terminal and time.monotonic() - self.spoke >= QUIET_SECONDS:
            self.spoke = time.monotonic()
            self._print(self._line())

    def _left_to(self, who: str, key: str) -> None:
        if who not in self.met:
            self.met.add(who)
            if len(self.met) == 1:
                self._print(
                    f"another command ({who}) uses this store too: only one of them runs each training"
                )
        self.elsewhere[key] = who

    def _start(self, key: str) -> None:
        self.clocked[key] = Clocked(time.monotonic())
        if not self.heard:
            self.starting.add(key)

    def _advance(self, task: Training, step: int, steps: int) -> None:
        self.heard = True
        if task.key in self.clocked:
            self.clocked[task.key].report(time.monotonic(), step / steps)
        self.done[task.key] = self._weight(task) * step / steps
        if task.key in self.rows:
            self.bars.update(self.rows[task.key], completed=step / steps, at=f"{step} / {steps} steps")

    def _settle(self, event: Happening) -> None:
        """Record that a training finished, failed, or did not have to run."""
        key = event.task.key
        self._close_row(key)
        clocked = self.clocked.pop(key, None)
        if event.kind == "finished" and clocked:
            self.pace.note(self.levels.get(key, 0), self._weight(event.task), self._took(key, clocked))
        if event.kind == "finished" or (event.kind == "failed" and not event.earlier):
            self.done[key] = self._weight(event.task)
        elif event.kind in ("reused", "skipped", "failed"):  # this run spends no time on it
            self.done.pop(key, None)
            self.weights.pop(key, None)
        count = self.counts.get(key, 1)
        self.finished += count * (event.kind == "finished")
        self.reused += count * (event.kind == "reused")
        self.skipped += count * (event.kind == "skipped")
        if event.kind == "failed":
            self.failed += count
            last = (event.text or "").strip().splitlines()[-1:]
            self._print(f"failed: {self._name(event.task.label)}: {''.join(last)}")

    def _took(self, key: str, clocked: Clocked) -> float:
        """Seconds that a finished training took, without the start of its worker process."""
        whole = clocked.whole(starting=True) if key in self.starting else None
        return time.monotonic() - clocked.began if whole is None else whole

    def _weight(self, task: Training) -> float:
        return self.weights.get(task.key, task.weight)

    def _close_row(self, key: str) -> None:
        if key in self.rows:
            self.bars.remove_task(self.rows.pop(key))

    def _print(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def seconds_left(self) -> float | None:
        """Estimated seconds to the end; None if there is no estimate yet."""
        now = time.monotonic()
        pace = Pace([*self.pace.seen])
        running: dict[str, float] = {}
        for key, clocked in self.clocked.items():
            whole = clocked.whole(starting=key in self.starting)
            if whole is not None and key in self.weights:
                share = clocked.last[1]
                pace.note(self.levels[key], share * self.weights[key], share * whole)
                running[key] = clocked.left(now, whole)
        if not pace.seen:
            return None if self.estimate is None else max(self.estimate - (now - self.began), 0.0)
        left: dict[str, float] = {}
        for key, weight in self.weights.items():
            if key in running:
                left[key] = running[key]
            elif key in self.clocked or self.done.get(key, 0.0) < weight:
                whole = weight * (pace.at(self.levels[key]) or 0.0)
                left[key] = self.clocked[key].left(now, whole) if key in self.clocked else whole
        return self._makespan(left, now)

    def _makespan(self, left: Mapping[str, float], now: float) -> float:
        """Seconds until all of `left` is done. Of a large plan that takes a while, so it is reckoned now and then."""
        when, seconds, took = self._reckoned
        if took < SHORT or now - when >= SHARE_OF_TIME * took:
            began = time.perf_counter()
            when, seconds = now, Work(left, self.needs).makespan(self.workers)
            self._reckoned = (when, seconds, time.perf_counter() - began)
        return max(seconds - (now - when), 0.0)

    def _share(self) -> float:
        total = sum(self.weights.values())
        return sum(self.done.values()) / total if total else 1.0

    def _line(self) -> str:
        whole = sum(self.counts[key] for key in self.weights)
        share = self._share()
        # Rounded down, but for the last digits of sums that add the same numbers in another order.
        percent = 100 if math.isclose(share, 1.0) else math.floor(100 * share + 1e-9)
        parts = [f"{percent} %", f"{self.finished} of {whole} trainings"]
        if not whole and not self.finished:
            parts = ["nothing to train"]
        for count, word in (
            (self.reused, "reused" if whole or self.finished else "trainings in the store already"),
            (self.failed, "failed"),
            (self.skipped, "skipped because they need a failed one"),
            (sum(self.counts.get(key, 1) for key in self.elsewhere), "running in another command"),
        ):
            if count:
                parts.append(f"{count} {word}")
        left = self.seconds_left()
        if percent < 100:
            parts.append("time left not known yet" if left is None else f"about {duration(left)} left")
        return ", ".join(parts)

    def _drawing(self) -> Group:
        width = 40
        filled = math.floor(width * self._share() + 1e-9)
        bar = Text("━" * filled, style="green") + Text("━" * (width - filled), style="bright_black")
        return Group(Text.assemble(bar, " ", self._line()), self.bars)

    def _name(self, label: Mapping[str, Any]) -> str:
        level = int(label.get("level", 0))
        first, count = int(label.get("first", 0)), int(label.get("count", 1))
        who = f"replicates {first + 1}–{first + count}" if count > 1 else f"replicate {first + 1}"
        arm = arm_name(str(label.get("arm", "training")))
        if "states" in label:
            return f"{arm} again, up to step {max(label['states'])}, {who}"
        if arm == "source":  # its levels belong to another experiment
            return f"finding tickets, level {level}, {who}"
        if not self.densities:  # several plans run together, and their levels differ
            return f"{arm}, level {level}, {who}"
        return f"{arm} at {density_percent(self.densities[level])} (level {level} of {len(self.densities) - 1}), {who}"
