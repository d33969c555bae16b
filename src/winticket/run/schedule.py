"""Which tasks of a plan are computed, in which order, and with which outcome."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from winticket.run.errors import Missing, StoreError, TaskFailed
from winticket.run.evaluating import evaluate
from winticket.run.keys import Ref
from winticket.run.ready import Ready
from winticket.run.store import Store
from winticket.run.task import Task, pack, stored_edges, walk, whole_of


@dataclass(frozen=True)
class Event:
    """Something happened to a task, by `kind`.

    started; progress (`step` of `steps`); finished (`seconds`; without a worker: handed over by another task);
    failed (`text` is the traceback; `earlier` if an earlier run stored the failure); skipped (`text` is the key of the
    failed task); reused (the store had the result); retried (`text` says how the worker died); elsewhere (`text` names
    the process that computes the task for another command on the same store); left (`text` says why the task
    cannot be computed here; it is left to other machines); unfit (it needs more than this machine has and is left to
    other machines; `text`, the same for all such tasks of a run, says what they need and what to do).
    """

    kind: Literal[
        "started",
        "progress",
        "finished",
        "failed",
        "skipped",
        "reused",
        "retried",
        "elsewhere",
        "left",
        "unfit",
    ]
    task: Task
    worker: int | None = None
    step: int | None = None
    steps: int | None = None
    seconds: float | None = None
    text: str | None = None
    earlier: bool = False


@dataclass(frozen=True)
class Outcomes:
    """The outcomes of the stored tasks, by key. Every task that was needed is in exactly one of the four.

    `reused` also lists tasks that were not needed but are in the store. `failed` maps a key to the traceback, and
    `skipped` maps it to the key of the failed task that it needs. `left` tasks are in none of them,
    since the run left them to other commands; `impossible` are those of them that could not be computed here. `unfit`
    says why those that are left need more than this machine has, if there are such.
    """

    store: Store
    computed: tuple[str, ...]
    reused: tuple[str, ...]
    failed: Mapping[str, str]
    skipped: Mapping[str, str]
    seconds: float
    left: int = 0
    busy: float = 0.0
    impossible: tuple[str, ...] = ()
    unfit: str | None = None

    def require(self) -> None:
        """StoreError if a result of this run is no longer in the store, for example because it was cleaned up."""
        here = self.store.among([*self.computed, *self.reused])
        gone = [key for key in (*self.computed, *self.reused) if key not in here]
        if gone:
            count = f"{len(gone)} results of this run are" if len(gone) > 1 else "a result of this run is"
            raise StoreError(
                f"{count} gone from store {self.store.path}: something removed them while it was in use; run again "
                "to compute what is missing"
            )

    def ok(self, target: Task) -> bool:
        """True if the task's value is available."""
        return not self._missing(target)

    def value(self, target: Task) -> Any:
        """The task's value; a derived task is evaluated here. Raises TaskFailed with the traceback."""
        if target.stored:
            with contextlib.suppress(Missing):  # asked for at once, since a store may be far
                return self.store.get(target.key)
        if missing := self._missing(target):
            key = self.skipped.get(missing, missing)
            skipped = (
                "was skipped, since a task that it needs failed" if missing in self.skipped else "failed"
            )
            raise TaskFailed(
                f"{target!r} {skipped}:\n{self.failed.get(key, f'task {key} is not part of this run')}"
            )
        if target.stored:
            return self.store.get(target.key)

        def fetch(ref: Ref) -> object:
            return self.store.get(ref.key)

        return evaluate(pack(target), fetch, {})

    def _missing(self, target: Task) -> str | None:
        needed = (target,) if target.stored else stored_edges(walk([target]))[target.key]
        here = self.store.among([t.key for t in needed])
        return next((t.key for t in needed if t.key not in here), None)


class Schedule:
    """Which tasks remain, which of them can start, and the outcomes of the others."""

    def __init__(
        self, targets: Sequence[Task], store: Store, tell: Callable[[Event], None], *, retry: bool
    ) -> None:
        order = walk(targets)
        self.edges = stored_edges(order)
        self.tell = tell
        self.computed: list[str] = []
        self.reused: list[str] = []
        self.failed: dict[str, str] = {}
        self.skipped: dict[str, str] = {}
        self.todo = self._sort(targets, order, store, retry=retry)
        self.after: dict[str, list[Task]] = {key: [] for key in self.todo}
        self.open: dict[str, int] = {}
        for key in self.todo:
            before = [t for t in self.edges[key] if t.key in self.todo]
            self.open[key] = len(before)
            for need in before:
                self.after[need.key].append(self.todo[key])
        self.parts: dict[str, list[Task]] = {}
        for planned in self.todo.values():
            whole = whole_of(planned)
            if whole is not None and whole.key in self.todo:
                self.parts.setdefault(whole.key, []).append(planned)
        self.made_by: dict[str, int] = {}
        self.ready = Ready(self._longest_paths())
        for key, count in self.open.items():
            if count == 0:
                self.ready.add(key)
        self.running: dict[str, int] = {}  # key -> worker
        self.elsewhere: set[str] = set()  # ready, but another command computes them now
        self.impossible: set[str] = set()  # what cannot be computed here
        self.busy = 0.0

    def _sort(
        self, targets: Sequence[Task], order: list[Task], store: Store, *, retry: bool
    ) -> dict[str, Task]:
        """The tasks to compute, inputs first. Reports those that are reused, have failed, or are skipped."""
        keys = [t.key for t in order if t.stored]
        stored = store.among(keys)
        ends = {target.key for target in targets}
        needed: set[str] = set()
        for t in reversed(order):
            if t.key in ends:
                needed.update([t.key] if t.stored else [need.key for need in self.edges[t.key]])
            if t.stored and t.key in needed and t.key not in stored:
                needed.update(need.key for need in self.edges[t.key])
        tried = [] if retry else [key for key in keys if key in needed and key not in stored]
        failures = store.among(tried, "failure")
        todo: dict[str, Task] = {}
        for t in (t for t in order if t.stored):
            if t.key in stored:
                self.reused.append(t.key)
                self.tell(Event("reused", t))
            elif t.key in needed:
                earlier = store.failure(t.key) if t.key in failures else None
                if earlier is not None:
                    self.failed[t.key] = earlier.traceback
                    self.tell(Event("failed", t, text=earlier.traceback, earlier=True))
                elif cause := self._cause(t):
                    self._skip(t, cause)
                else:
                    todo[t.key] = t
        return todo

    def _cause(self, t: Task) -> str | None:
        for need in self.edges[t.key]:
            if need.key in self.failed:
                return need.key
            if need.key in self.skipped:
                return self.skipped[need.key]
        return None

    def _skip(self, t: Task, cause: str) -> None:
        self.skipped[t.key] = cause
        self.tell(Event("skipped", t, text=cause))

    def _longest_paths(self) -> dict[str, float]:
        """For each task, inputs first, the cost of the longest chain of tasks that waits for it, its own included."""
        path: dict[str, float] = {}
        for key, t in reversed(self.todo.items()):
            path[key] = t.weight + max((path[following.key] for following in self.after[key]), default=0.0)
        return {key: path[key] for key in self.todo}

    def take(self, worker: int, among: int = 1) -> Task:
        """The ready task with the longest chain after it; among equals, one whose inputs this worker made.

        With `among`, one of that many at random: the more processes share a plan, the more would take the first.
        """
        first = [self.ready.pop(worker) for _ in range(min(among, len(self.ready)))]
        key = random.choice(first)
        for other in first:
            if other != key:
                self.ready.add(other)
        self.running[key] = worker
        return self.todo[key]

    def _can_start(self, key: str) -> None:
        made = [self.made_by[need.key] for need in self.edges[key] if need.key in self.made_by]
        self.ready.add(key, Counter(made))

    def finish(
        self, key: str, seconds: float | None, *, reused: bool, handed_over: Sequence[str] = ()
    ) -> None:
        """Record that a task has its result, and so have the parts that it handed over."""
        worker = self._no_longer_under_way(key)
        self.busy += seconds or 0.0
        if worker is not None:
            self.made_by[key] = worker
        (self.reused if reused else self.computed).append(key)
        self.tell(Event("reused" if reused else "finished", self.todo[key], worker=worker, seconds=seconds))
        for following in self.after[key]:
            self.open[following.key] -= 1
            if self.open[following.key] == 0 and following.key not in self.skipped:
                self._can_start(following.key)
        for part in handed_over:
            if part in self.ready:
                self.ready.remove(part)
                self.finish(part, 0.0, reused=False)

    def fail(self, key: str, text: str, seconds: float | None, *, earlier: bool = False) -> None:
        worker = self._no_longer_under_way(key)
        self.busy += seconds or 0.0
        self.failed[key] = text
        self.tell(Event("failed", self.todo[key], worker=worker, seconds=seconds, text=text, earlier=earlier))
        trail = list(self.after[key])
        for t in trail:
            if t.key not in self.skipped:
                self._skip(t, key)
                trail.extend(self.after[t.key])

    def put_back(self, key: str) -> None:
        self._no_longer_under_way(key)
        self._can_start(key)

    def leave(self, key: str, who: str) -> None:
        """Leave a task that was taken, or is ready, to another command, which computes it already."""
        if self.running.pop(key, None) is None:
            self.ready.remove(key)
        self.elsewhere.add(key)
        self.tell(Event("elsewhere", self.todo[key], text=who))

    def leave_for_good(self, key: str, why: str) -> None:
        """Leave a task that cannot be computed here."""
        self.running.pop(key)
        self.elsewhere.add(key)
        self.impossible.add(key)
        self.tell(Event("left", self.todo[key], text=why))

    def leave_unfit(self, key: str, why: str) -> None:
        """Leave a ready task that needs more than this machine has."""
        self.ready.remove(key)
        self.elsewhere.add(key)
        self.impossible.add(key)
        self.tell(Event("unfit", self.todo[key], text=why))

    def unfinished(self) -> frozenset[str]:
        """The tasks that are neither done nor lost by a failure."""
        ended = {*self.computed, *self.reused, *self.failed, *self.skipped}
        return frozenset(self.todo.keys() - ended)

    def _no_longer_under_way(self, key: str) -> int | None:
        self.elsewhere.discard(key)
        return self.running.pop(key, None)

    def left(self) -> int:
        return (
            len(self.ready)
            + len(self.running)
            + len(self.elsewhere)
            + sum(count > 0 and key not in self.skipped for key, count in self.open.items())
        )
