"""Runs a plan on this machine: in worker processes or in the calling one; the values are the same."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from .crew import Crew, Inline, Pool
from .errors import Interrupted, RunError, StoreError
from .schedule import Event, Outcomes, Schedule
from .store import Store
from .task import Task, pack
from .work import Message

_TICK = 0.2  # seconds between looks at a request to stop
_KEPT = "what was finished is kept, and running again goes on from there"
_ADVICE = {
    "store": _KEPT,
    "memory": f"if memory ran out, use fewer workers or smaller stacks; {_KEPT}",
    "import": f"put what it needs into an importable module; {_KEPT}",
    None: _KEPT,
}


class _Run:
    """One run under way: hears what the workers say, and decides what it means."""

    def __init__(self, schedule: Schedule, crew: Crew) -> None:
        self.schedule, self.crew = schedule, crew
        self.deaths: dict[str, int] = {}

    def drive(self, asked: Callable[[], bool]) -> None:
        plan = self.schedule
        while plan.ready or plan.running:
            if asked():
                raise KeyboardInterrupt
            for worker in self.crew.free(len(plan.ready)):
                if not plan.ready:
                    break
                chosen = plan.take(worker)
                plan.tell(Event("started", chosen, worker=worker))
                self.crew.give(worker, pack(chosen))
            self.crew.listen(self.hear, _TICK)

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
        if message.said == "progress":
            plan.tell(
                Event("progress", plan.todo[key], worker=worker, step=message.step, steps=message.steps)
            )
        elif message.said == "finished":
            plan.finish(key, message.seconds, reused=message.reused)
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
        with _first_interrupt(pressed, crew):
            _compute(schedule, crew, place, asked=asked, grace=grace)
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


def _compute(
    schedule: Schedule, crew: Crew, store: Store, *, asked: Callable[[], bool], grace: float
) -> None:
    under_way = _Run(schedule, crew)
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
