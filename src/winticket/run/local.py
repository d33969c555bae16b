"""Runs a plan on this machine: in worker processes or in the calling one; the values are the same."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from winticket.run.claims import Claims
from winticket.run.crew import Crew, Inline, Pool
from winticket.run.errors import Interrupted, RunError, StoreError
from winticket.run.schedule import Event, Outcomes, Schedule
from winticket.run.store import Store
from winticket.run.task import Task, pack
from winticket.run.work import Message

_TICK = 0.2  # seconds between looks at a request to stop
_LOOK = 0.5  # seconds between looks at what other commands are computing
_KEPT = "what was finished is kept, and running again goes on from there"
_ADVICE = {
    "store": _KEPT,
    "machine": f"nothing is kept of this one, since it is no doing of the training; {_KEPT}",
    "memory": f"if memory ran out, use fewer workers or smaller stacks; {_KEPT}",
    "import": f"put what it needs into an importable module; {_KEPT}",
    None: _KEPT,
}


class _Run:
    """One run under way: hears what the workers say, and decides what it means."""

    def __init__(self, schedule: Schedule, crew: Crew, store: Store, claims: Claims, *, retry: bool) -> None:
        self.schedule, self.crew = schedule, crew
        self.store, self.claims, self.retry = store, claims, retry
        self.deaths: dict[str, int] = {}
        self._looked = 0.0

    def drive(self, asked: Callable[[], bool]) -> None:
        plan = self.schedule
        while plan.ready or plan.running or plan.elsewhere:
            if asked():
                raise KeyboardInterrupt
            self._look_elsewhere()
            for worker in self.crew.free(len(plan.ready)):
                chosen = self._claimed(worker)
                if chosen is None:
                    break
                plan.tell(Event("started", chosen, worker=worker))
                self.crew.give(worker, pack(chosen, parts=plan.parts.get(chosen.key, ())))
            if plan.running:
                self.crew.listen(self.hear, _TICK)
            elif plan.elsewhere:
                time.sleep(_TICK)

    def _claimed(self, worker: int) -> Task | None:
        """The next task that nobody else is computing, claimed; None if there is none."""
        plan = self.schedule
        while plan.ready:
            chosen = plan.take(worker)
            other = self.claims.take(chosen.key)
            if other is not None:
                plan.leave(chosen.key, other.who())
            elif self._came_from_elsewhere(chosen.key):
                self.claims.give_back(chosen.key)
            else:
                return chosen
        return None

    def _came_from_elsewhere(self, key: str) -> bool:
        """Whether another command has finished a task since this run was planned; then it is written down."""
        if self.store.has(key):
            self.schedule.finish(key, None, reused=True)
            return True
        failure = None if self.retry else self.store.failure(key)
        if failure is not None:
            self.schedule.fail(key, failure.traceback, None, earlier=True)
        return failure is not None

    def _look_elsewhere(self) -> None:
        """What others were computing is finished, or left by them, or under way still."""
        now = time.monotonic()
        if now - self._looked < _LOOK:
            return
        self._looked = now
        for key in sorted(self.schedule.elsewhere):
            if not self._came_from_elsewhere(key) and self.claims.open(key):
                self.schedule.put_back(key)

    def hear(self, worker: int, message: Message) -> None:
        plan, key = self.schedule, message.key
        if not self.book(worker, message):
            if message.said == "aborted":
                kind = StoreError if message.cause == "store" else RunError
                raise kind(f"{plan.todo[key]!r} cannot be finished: {message.text}; {_ADVICE[message.cause]}")
            if message.said == "died":
                self._died(worker, message)

    def book(self, worker: int, message: Message) -> bool:
        """Writes down what changes nothing but the count; whether it was that."""
        plan, key = self.schedule, message.key
        if message.said not in ("progress", "aborted"):
            self.claims.give_back(key)
        if message.said == "progress":
            plan.tell(
                Event("progress", plan.todo[key], worker=worker, step=message.step, steps=message.steps)
            )
        elif message.said == "finished":
            plan.finish(key, message.seconds, reused=message.reused, handed_over=message.handed_over)
        elif message.said == "failed":
            plan.fail(key, message.text or "", message.seconds)
        elif message.said == "stopped":
            plan.put_back(key)
        return message.said in ("progress", "finished", "failed", "stopped")

    def _died(self, worker: int, message: Message) -> None:
        plan, key = self.schedule, message.key
        self.deaths[key] = self.deaths.get(key, 0) + (message.cause != "unready")
        if self.deaths[key] > 1:
            raise RunError(
                f"the worker died twice ({message.text}) over {plan.todo[key]!r}; {_ADVICE['memory']}"
            )
        plan.put_back(key)
        plan.tell(Event("retried", plan.todo[key], worker=worker, text=message.text))


def run(
    targets: Sequence[Task],
    store: Store | str | Path,
    *,
    workers: int,
    retry_failed: bool = False,
    on_event: Callable[[Event], None] | None = None,
    stop: Callable[[], bool] | None = None,
    checkpoint_seconds: float = 10.0,
    preload: Sequence[str] = (),
    grace: float = 4.0,
    need_bytes: int = 0,
) -> Outcomes:
    """Computes what the targets need and the store lacks.

    workers   processes with one torch thread each; 0 computes in this process
    retry_failed        computes stored failures again
    on_event  hears each Event, in this thread
    stop      looked at a few times per second; true stops the run as Ctrl-C does
    checkpoint_seconds  how often a task's `checkpoint.due()` says yes
    preload   modules imported once and inherited by the workers (the first run of a process decides)
    grace     seconds that tasks get to reach a checkpoint when the run stops
    need_bytes          expected growth of the store, compared with the free space before anything is computed

    Other runs on the same store, in this process or another, share the work: each task is computed by one of them
    (see claims.py), and the rest wait for its result.

    Errors: StoreError for a store that cannot be read or written, before any compute where that can be known;
    RunError when a worker dies twice over a task or memory runs out; Interrupted after Ctrl-C or `stop`. What
    was finished is kept in each case. A task that raises is an outcome and not an error.
    """
    if workers < 0:
        raise ValueError(
            f"workers is {workers}; give 0 to compute in this process, or the number of processes"
        )
    place = store if isinstance(store, Store) else Store(store)
    if workers and place.private:
        raise ValueError(
            f"{place!r} is in this process's memory, which workers cannot write to; use workers=0"
        )
    began = time.monotonic()
    schedule = Schedule(targets, place, on_event or _unheard, retry=retry_failed)
    if schedule.todo:
        place.check_writable(need_bytes)
        pressed = threading.Event()

        def asked() -> bool:
            return pressed.is_set() or (stop is not None and stop())

        crew: Crew
        if workers:
            count = min(workers, len(schedule.todo))
            crew = Pool(place, workers=count, checkpoint_seconds=checkpoint_seconds, preload=preload)
        else:
            crew = Inline(place, checkpoint_seconds, asked)
        claims = Claims(place)
        under_way = _Run(schedule, crew, place, claims, retry=retry_failed)
        try:
            with _first_interrupt(pressed, crew):
                _compute(under_way, asked=asked, grace=grace)
        finally:
            claims.close()
    return Outcomes(
        place,
        tuple(schedule.computed),
        tuple(schedule.reused),
        schedule.failed,
        schedule.skipped,
        time.monotonic() - began,
    )


def _unheard(event: Event) -> None:
    del event


def _compute(under_way: _Run, *, asked: Callable[[], bool], grace: float) -> None:
    schedule, crew, store = under_way.schedule, under_way.crew, under_way.store
    interrupted = False

    def note(worker: int, message: Message) -> None:
        under_way.book(worker, message)

    try:
        under_way.drive(asked)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        try:
            crew.close(note, grace)
        except KeyboardInterrupt:  # a second Ctrl-C: without waiting
            interrupted = True
            crew.close(note, 0.0)
    if interrupted:
        raise Interrupted(
            f"stopped after {len(schedule.computed)} tasks, with {schedule.left()} to do; what is finished "
            f"or checkpointed is kept in {store.path}, and the same call goes on from there"
        )


@contextmanager
def _first_interrupt(pressed: threading.Event, crew: Crew) -> Iterator[None]:
    """Within: the first Ctrl-C asks the tasks to stop; the second, or one that none can notice, raises."""
    before = signal.getsignal(signal.SIGINT)
    ours = threading.current_thread() is threading.main_thread() and before not in (signal.SIG_IGN, None)

    def press(_number: int, _frame: FrameType | None) -> None:
        if pressed.is_set() or not crew.patient():
            raise KeyboardInterrupt
        pressed.set()

    if ours:
        signal.signal(signal.SIGINT, press)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGINT, before)
