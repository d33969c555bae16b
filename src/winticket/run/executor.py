"""The executor: has a crew compute what a plan needs and a store lacks. Whoever computes, the values are the same."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from winticket.interrupts import first_interrupt
from winticket.run.claims import Claims
from winticket.run.crew import Crew, Workers
from winticket.run.desk import Conditions
from winticket.run.errors import Interrupted, RunError, StoreError
from winticket.run.fitting import Needs, Unfit, unfit_of
from winticket.run.inline import Inline
from winticket.run.keys import Json
from winticket.run.messages import Message
from winticket.run.schedule import Event, Outcomes, Schedule
from winticket.run.store import Store
from winticket.run.task import Task, pack

INLINE = Inline()
_TICK = 0.2  # seconds between looks at a request to stop
_LOOK = 0.5  # seconds between looks at what other commands are computing,
_FAR_LOOK = 5.0  # if the store is reached over a network, where a look is a request
_LEAST_REST = 0.5  # seconds until the next attempt if others were faster; then twice as many, and so on
_ATTEMPTS, _FEWEST, _SHARE = 2, 4, 8  # how tasks are chosen that others may choose as well
_KEPT = "what was finished is kept, and running again resumes from there"
_ADVICE = {
    "store": _KEPT,
    "machine": f"nothing is kept of this task, since the fault is not in the training; {_KEPT}",
    "memory": f"if memory ran out, use fewer workers or smaller stacks; {_KEPT}",
    "import": f"put what it needs into a module that can be imported; {_KEPT}",
    None: _KEPT,
}


class _Execution:
    """One run under way: gives tasks to workers, and decides what follows from what they say."""

    def __init__(
        self,
        schedule: Schedule,
        workers: Workers,
        store: Store,
        claims: Claims,
        *,
        retry: bool,
        shared: bool = False,
        unfit: Unfit | None = None,
    ) -> None:
        self.schedule, self.workers, self.shared = schedule, workers, shared
        self.unfit = unfit or Unfit(frozenset(), "")
        self.store, self.claims, self.retry = store, claims, retry
        self.deaths: dict[str, int] = {}
        # A failure that is there already is tried again, but not one that another run stores meanwhile.
        earlier = store.keys("failure").intersection(schedule.todo) if retry else ()
        self.earlier = {key: store.failure(key) for key in earlier}
        self._look_every = _FAR_LOOK if store.remote else _LOOK
        self._next_look = self._next_results = 0.0
        self._met = False  # whether another command on the store has been met
        self._rest, self._rest_until = _LEAST_REST, 0.0  # seconds to wait if others were faster
        self._unclaimed = False  # whether, at the last look, nobody computed what is left to others

    def drive(self, stopping: Callable[[], bool], leave: float | None) -> None:
        """Compute until nothing is left, or until for `leave` seconds only other commands have been computing."""
        plan, idle_since = self.schedule, None
        while plan.ready or plan.running or plan.elsewhere:
            if stopping():
                raise KeyboardInterrupt
            self._look_elsewhere()
            self._leave_unfit()
            self._give_out()
            if plan.running:
                idle_since = None
                self.workers.listen(self.hear, _TICK)
            elif plan.ready:  # others were faster
                idle_since = None
                time.sleep(_TICK)
            elif plan.elsewhere:
                idle_since = time.monotonic() if idle_since is None else idle_since
                if self.unfit.keys and self.unfit.keys >= plan.unfinished():
                    return  # whatever others compute, nothing that is left fits here
                if plan.impossible >= plan.elsewhere and self._unclaimed:
                    return
                if leave is not None and time.monotonic() - idle_since >= leave:
                    return
                time.sleep(_TICK)

    def _leave_unfit(self) -> None:
        """Leave the ready tasks that need more than this machine has to others, before anything of them begins."""
        for key in [key for key in self.schedule.ready if key in self.unfit.keys] if self.unfit.keys else ():
            self.schedule.leave_unfit(key, self.unfit.why)

    def _give_out(self) -> None:
        plan = self.schedule
        if not plan.ready or time.monotonic() < self._rest_until:
            return
        for worker in self.workers.free(len(plan.ready)):
            chosen = self._claimed(worker)
            if chosen is None:
                break
            plan.tell(Event("started", chosen, worker=worker))
            self.workers.give(worker, pack(chosen, parts=plan.parts.get(chosen.key, ())))

    def _claimed(self, worker: int) -> Task | None:
        """Claim the next task that no other command computes; None if there is none, or if others were faster.

        As long as no other command is met, tasks are taken in order and nothing is asked for. Then the store is looked
        through before each of them, and of the first tasks one is taken at random: the first few, or an eighth as many
        as others compute. Two attempts are made before the next look (see docs/clusters.md).
        """
        plan, attempts = self.schedule, 0
        if self._met:
            self._look_through()
        while plan.ready and attempts < _ATTEMPTS:
            among = max(_FEWEST, self.claims.others // _SHARE) if self._met else 1
            chosen = plan.take(worker, among)
            other = self.claims.take(chosen.key)
            if other is not None:
                plan.leave(chosen.key, other.who())
                attempts, self._met = attempts + self._met, True
            elif self._came_from_elsewhere(chosen.key):
                self.claims.give_back(chosen.key, finished=True)
            else:
                self._rest = _LEAST_REST
                return chosen
        if plan.ready:
            self._rest_until = time.monotonic() + _about(self._rest)
            self._rest = min(2 * self._rest, _FAR_LOOK)
        return None

    def _look_through(self) -> None:
        """Record what others have finished, and leave to them what they compute.

        Results are looked for now and then only; whoever has claimed a task asks for its result in any case.
        """
        plan, store = self.schedule, self.store
        claimed = {**self.claims.claimed(list(plan.ready))}
        began = time.monotonic()
        wanted = began >= self._next_results
        results = store.keys() if store.remote and wanted else None
        while wanted:
            ready = frozenset(plan.ready) - claimed.keys()
            done = store.among(ready) if results is None else results & ready
            for key in sorted(done):
                plan.ready.remove(key)
                plan.finish(key, None, reused=True)
            wanted = bool(done)
            took = time.monotonic() - began  # a store may have a hundred thousand results of other plans
            self._next_results = began + took + max(_about(self._look_every), 10 * took)
        if store.remote:  # what was claimed while the results were listed
            claimed |= self.claims.claimed(list(plan.ready))
        for key in [key for key in plan.ready if key in claimed]:
            plan.leave(key, claimed[key].who())

    def _came_from_elsewhere(self, key: str) -> bool:
        """True if another command has finished the task since this run was planned; the outcome is then recorded."""
        if self.store.has(key):
            self.schedule.finish(key, None, reused=True)
            return True
        failure = self.store.failure(key)
        if failure is None or failure == self.earlier.get(key):
            return False
        self.schedule.fail(key, failure.traceback, None, earlier=True)
        return True

    def _look_elsewhere(self) -> None:
        """Record the tasks that other commands have finished, and take back those that they have abandoned."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + _about(self._look_every)
        claimed = self.claims.claimed(self.schedule.elsewhere)
        self._unclaimed = not claimed
        for key in sorted(self.schedule.elsewhere - claimed.keys()):
            if not self._came_from_elsewhere(key) and key not in self.schedule.impossible:
                self.schedule.put_back(key)

    def hear(self, worker: int, message: Message) -> None:
        plan, key = self.schedule, message.key
        if not self.book(worker, message):
            if self.shared and message.said == "aborted" and message.cause != "store":
                self._leave(key, message.text or "it cannot be computed here")
            elif message.said == "aborted":
                kind = StoreError if message.cause == "store" else RunError
                raise kind(f"{plan.todo[key]!r} cannot be finished: {message.text}; {_ADVICE[message.cause]}")
            elif message.said == "died":
                self._died(worker, message)

    def book(self, worker: int, message: Message) -> bool:
        """Record a message that only changes counts; False for one that needs a decision."""
        plan, key = self.schedule, message.key
        if message.said not in ("progress", "aborted"):
            self.claims.give_back(key, finished=message.said in ("finished", "failed"))
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
        if self.deaths[key] > 1 and self.shared:
            self._leave(key, f"the process died twice: {message.text}")
            return
        if self.deaths[key] > 1:
            raise RunError(
                f"the worker died twice ({message.text}) over {plan.todo[key]!r}; {_ADVICE['memory']}"
            )
        plan.put_back(key)
        plan.tell(Event("retried", plan.todo[key], worker=worker, text=message.text))

    def _leave(self, key: str, why: str) -> None:
        """Leave a task that cannot be computed here, for want of memory, data or a module, to other machines."""
        self.claims.give_back(key)
        self._unclaimed = False  # until the next look
        self.schedule.leave_for_good(key, why)


def run(
    targets: Sequence[Task],
    store: Store | str | Path,
    *,
    crew: Crew = INLINE,
    retry_failed: bool = False,
    on_event: Callable[[Event], None] | None = None,
    stop: Callable[[], bool] | None = None,
    checkpoint_seconds: float = 10.0,
    context: Mapping[str, Json] | None = None,
    grace: float = 4.0,
    need_bytes: int = 0,
    leave: float | None = None,
    shared: bool = False,
    needs: Needs | None = None,
) -> Outcomes:
    """Compute what the targets need and the store lacks.

    crew      who computes: the calling process by default; `local(2)` for two worker processes (see `run.crew`)
    retry_failed        whether stored failures are computed again
    on_event  is called with each Event, in this thread
    stop      is called a few times per second; the run stops, as after Ctrl-C, when it returns true
    checkpoint_seconds  how often a task's `checkpoint.due()` is true
    context   plain values for functions with a parameter `context`; they are in no key, so they may change no number
    grace     seconds that tasks have to reach a checkpoint when the run stops
    need_bytes          expected growth of the store, compared with the free space before anything is computed
    leave     seconds after which the run ends although other runs still compute tasks, if there is nothing for this
              one to compute; by default it waits, since another run may be lost
    shared    whether other machines compute the same plan: a task that cannot be computed here (for want of memory,
              data or a module) is then left to them, and the run goes on; otherwise it ends with an error
    needs     what every task needs of a machine. If the plan is shared, tasks that need more than this machine has, as
              stated here or as estimated (`Task.memory`), are left to others before they begin

    Other runs on the same store, in this process or another, share the work: each task is computed by one of them
    (see `run.claims`), and the others wait for its result.

    Raises, with what was finished kept: StoreError if the store cannot be read or written, before any compute if that
    can be known; ValueError for a crew that cannot write to the store; RunError if a worker dies twice during a task
    or memory runs out; Interrupted after Ctrl-C or `stop`. A task that raises is an outcome and not an error.

    >>> from winticket.run import task
    >>> total = task("operator:add", 2, 3)
    >>> run([total], "memory://example").value(total)
    5
    """
    opened = store if isinstance(store, Store) else Store(store)
    crew.check(opened)
    began = time.monotonic()
    schedule, unfit = Schedule(targets, opened, on_event or _unheard, retry=retry_failed), None
    if schedule.todo:
        opened.check_writable(need_bytes)
        conditions = Conditions(opened, checkpoint_seconds, dict(context or {}))
        unfit = unfit_of(list(schedule.todo.values()), needs or Needs(), crew.machine()) if shared else None
        _compute(
            schedule,
            crew,
            conditions,
            retry=retry_failed,
            stop=stop,
            grace=grace,
            leave=leave,
            shared=shared,
            unfit=unfit,
        )
    return Outcomes(
        opened,
        tuple(schedule.computed),
        tuple(schedule.reused),
        schedule.failed,
        schedule.skipped,
        time.monotonic() - began,
        schedule.left(),
        schedule.busy,
        tuple(sorted(schedule.impossible & schedule.elsewhere)),
        unfit.why if unfit and unfit.keys & schedule.unfinished() else None,
    )


def _about(seconds: float) -> float:
    """From half to one and a half times as many, so that commands that began together do not stay in step."""
    return seconds * random.uniform(0.5, 1.5)


def _unheard(event: Event) -> None:
    del event


def _compute(
    schedule: Schedule,
    crew: Crew,
    conditions: Conditions,
    *,
    retry: bool,
    stop: Callable[[], bool] | None,
    grace: float,
    leave: float | None,
    shared: bool,
    unfit: Unfit | None,
) -> None:
    """Open the crew, have it compute the schedule, and close it. Raises as `run` does."""
    pressed = threading.Event()

    def stopping() -> bool:
        return pressed.is_set() or (stop is not None and stop())

    store = conditions.store
    workers = crew.open(conditions, tasks=len(schedule.todo), stopping=stopping)
    claims = Claims(store)
    execution = _Execution(schedule, workers, store, claims, retry=retry, shared=shared, unfit=unfit)
    try:
        with first_interrupt(pressed, workers.patient):
            interrupted = _driven(execution, stopping=stopping, grace=grace, leave=leave)
    finally:
        claims.close()
    if interrupted:
        raise Interrupted(
            f"stopped after {len(schedule.computed)} tasks, with {schedule.left()} to do; what is finished or "
            f"checkpointed is kept in {store.path}, and the same call resumes from there"
        )


def _driven(
    execution: _Execution, *, stopping: Callable[[], bool], grace: float, leave: float | None
) -> bool:
    """Drive the execution to its end and close its workers; true if it was interrupted."""
    interrupted = False

    def note(worker: int, message: Message) -> None:
        execution.book(worker, message)

    try:
        execution.drive(stopping, leave)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        try:
            execution.workers.close(note, grace)
        except KeyboardInterrupt:  # a second Ctrl-C: without waiting
            interrupted = True
            execution.workers.close(note, 0.0)
    return interrupted
