"""Any executor of the shape of `concurrent.futures` as a crew: process pools, Ray, Dask, batch systems.

Each task is one call of `winticket.run.submitted.compute`. It stores the result itself and returns a message, so no
value passes through the executor.
"""

from __future__ import annotations

import contextlib
import inspect
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError
from dataclasses import dataclass
from multiprocessing import resource_tracker
from queue import Empty, SimpleQueue
from typing import Any, Literal, Protocol

from winticket.importing import known
from winticket.run.crew import Hear, Workers
from winticket.run.desk import Conditions
from winticket.run.errors import RunError, StoreError
from winticket.run.messages import Message
from winticket.run.pool import one_thread_each
from winticket.run.stops import StopFile
from winticket.run.store import Store
from winticket.run.submitted import Settings, compute, forget, this_process
from winticket.run.task import Node
from winticket.version import __version__

_MAKES = 3
"""How many executors in a row may break without finishing a task."""


class Future(Protocol):
    """What a crew needs of a future; those of `concurrent.futures` have it."""

    def cancelled(self) -> bool: ...
    def cancel(self) -> bool: ...
    def result(self, timeout: float | None = None) -> Any: ...
    def exception(self, timeout: float | None = None) -> BaseException | None: ...
    def add_done_callback(self, fn: Callable[[Any], object], /) -> None: ...


class Executor(Protocol):
    """What a crew needs of an executor.

    It may also have `shutdown`, which is called with those of `wait` and `cancel_futures` that it takes, and
    `broken(error)`, which says whether no further task can be submitted after a future raised this error. A
    `BrokenExecutor` always means that.
    """

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> Any:
        """Begin a call in another process or thread. Returns its `Future`."""


@dataclass(frozen=True)
class ExecutorCrew:
    """Compute in whatever the executor that `make` returns has: processes of this machine, or of others.

    make     returns a new executor with `submit` and, unless it needs no end, `shutdown`; a function or class of a
             module, or a `functools.partial` of one, so that it can be pickled
    workers  number of tasks that the executor is given at once

    The processes must be able to import winticket, in the same version, and must see the store. They cannot report
    the progress of a task, so a run's events say only when tasks start and end. A request to stop reaches them through
    a file in the store, which a task looks for once a second when it reports; tasks that have not ended when the
    executor's grace is over are cancelled, as far as it can.

    If a process is lost, each task that its executor then gives up is computed once more. A pool of
    `concurrent.futures` gives up all tasks under way, and is made anew; these are then computed one at a time, which
    shows whether one of them ended the process.

    Raises ValueError if workers is less than 1.

    >>> from concurrent.futures import ThreadPoolExecutor
    >>> from winticket.run import run, task
    >>> from tempfile import TemporaryDirectory
    >>> crew = ExecutorCrew(ThreadPoolExecutor, workers=2)
    >>> total = task("operator:add", 2, 3)
    >>> with TemporaryDirectory() as folder:
    ...     run([total], folder, crew=crew).value(total)
    5
    """

    make: Callable[[], Executor]
    workers: int

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"workers is {self.workers}; it is the number of tasks at once, 1 or more")

    def machine(self) -> None:
        """Its machines are not known here; Ray, Dask and batch systems choose them."""

    def check(self, store: Store) -> None:
        """ValueError for a store in this process's memory, which no other process can write to."""
        if store.private:
            raise ValueError(
                f"store {store.path} is in this process's memory, and the processes of an executor cannot write to "
                "it; keep results in a folder or an object store, or use workers=0"
            )

    def open(
        self,
        conditions: Conditions,
        *,
        tasks: int,
        stopping: Callable[[], bool],  # noqa: ARG002 - `ask_to_stop` reaches the processes
    ) -> Workers:
        return ExecutorWorkers(self.make, conditions, limit=min(self.workers, tasks))


@dataclass(frozen=True)
class _Call:
    """A task that the executor has."""

    key: str
    future: Future
    executor: Executor


class ExecutorWorkers:
    """An executor during one run. A worker's number stands for one of the `limit` tasks that it has at once."""

    def __init__(self, make: Callable[[], Executor], conditions: Conditions, *, limit: int) -> None:
        self._make, self._limit = make, limit
        self._file = StopFile(conditions.store)
        folders = tuple(folder for folder in sys.path if folder)
        settings = Settings(pickle.dumps(conditions), known(), folders, self._file.run, this_process())
        self._settings = pickle.dumps(settings)
        self._calls: dict[int, _Call] = {}
        self._ended: SimpleQueue[tuple[int, Future]] = SimpleQueue()
        self._broken = 0  # executors in a row that broke before they finished a task
        self._alone = 0  # tasks that are still to be computed alone
        self._unsure: set[str] = set()  # tasks that were lost with others
        self._executor: Executor | None = None
        self._why: BaseException | None = None
        self._file.write()
        try:
            self._executor = self._made()
        except BaseException:
            self._file.remove()
            raise

    def _made(self) -> Executor:
        try:
            with _no_interrupt():
                return self._make()
        except Exception as error:
            raise RunError(f"no executor can be had ({_said(error)})") from error

    def free(self, count: int) -> list[int]:
        most = min(count, 0 if self._calls else 1) if self._alone else count
        return [n for n in range(self._limit) if n not in self._calls][:most]

    def give(self, worker: int, nodes: tuple[Node, ...]) -> None:
        try:
            data = pickle.dumps(nodes)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise TypeError(f"{nodes[-1].fn} cannot be sent to a worker: {error}") from error
        key = nodes[-1].key
        while True:
            executor = self._executor = self._executor or self._made_anew()
            try:
                with _no_interrupt():
                    future: Future = executor.submit(compute, key, __version__, self._settings, data)
                break
            except Exception as error:  # noqa: BLE001 - every executor has its own for "I am broken"
                self._discard(executor, error)
        self._calls[worker] = _Call(key, future, executor)

        def ended(done: Future) -> None:
            self._ended.put((worker, done))

        future.add_done_callback(ended)

    def _made_anew(self) -> Executor:
        if self._broken >= _MAKES:
            raise RunError(
                f"the executor broke {self._broken} times without finishing a task (at last: {_said(self._why)}); see "
                "what its processes printed, check that they can import winticket and have enough memory, or run with "
                "fewer workers"
            )
        return self._made()

    def _discard(self, executor: Executor, why: BaseException, key: str | None = None) -> None:
        """Give an executor up, since it takes no more tasks; `key` is a task that it has just lost.

        If it had several, one of them may have broken it, but nobody knows which. So none of these losses counts as a
        task's own, and as many tasks as it had are then computed alone.
        """
        if executor is not self._executor:
            return
        self._executor, self._why = None, why
        fellows = [call for call in self._calls.values() if call.executor is executor]
        lost = {call.key for call in fellows} | ({key} if key is not None else set())
        if len(lost) > 1:
            self._unsure |= lost
            self._alone = len(lost)
        if len(lost) != 1:
            self._broken += 1
        for call in fellows:  # its future might never end
            call.future.cancel()
        _end(executor, wait=False)

    def listen(self, hear: Hear, timeout: float) -> None:
        self._file.renew()
        with contextlib.suppress(Empty):
            worker, future = self._ended.get(timeout=timeout)
            while True:
                self._pass_on(worker, future, hear)
                worker, future = self._ended.get_nowait()

    def _pass_on(self, worker: int, future: Future, hear: Hear) -> None:
        call = self._calls.pop(worker)
        error = CancelledError("cancelled") if future.cancelled() else future.exception()
        if error is None:
            self._broken, self._alone = 0, max(0, self._alone - 1)
            self._unsure.discard(call.key)
            hear(worker, future.result())
            return
        broken = getattr(call.executor, "broken", None)
        if isinstance(error, BrokenExecutor) or (broken is not None and broken(error)):
            self._discard(call.executor, error, call.key)
        if isinstance(error, ImportError):  # the process has no winticket, or an older one
            hear(worker, Message("aborted", call.key, text=_said(error), cause="import"))
        else:
            cause: Literal["unready"] | None = "unready" if call.key in self._unsure else None
            self._unsure.discard(call.key)
            hear(worker, Message("died", call.key, text=_said(error), cause=cause))

    def patient(self) -> bool:
        return True

    def ask_to_stop(self) -> None:
        with contextlib.suppress(StoreError):  # then tasks are cancelled when `close` has waited
            self._file.ask()

    def close(self, hear: Hear, grace: float) -> None:
        if self._calls:
            self.ask_to_stop()
        until = time.monotonic() + grace
        while self._calls and (left := until - time.monotonic()) > 0:
            self.listen(hear, left)
        executor, self._executor = self._executor, None
        for call in self._calls.values():
            call.future.cancel()
        if executor is not None:
            _end(executor, wait=not self._calls)
        self._calls.clear()
        forget(self._settings)
        with contextlib.suppress(StoreError):  # `store gc` removes it
            self._file.remove()


def _end(executor: Executor, *, wait: bool) -> None:
    """Shut an executor down; unless `wait`, without waiting for the tasks that it has."""
    shutdown = getattr(executor, "shutdown", None)
    if shutdown is None:
        return
    taken = inspect.signature(shutdown).parameters
    options = {"wait": wait, "cancel_futures": True}
    if not wait:
        processes = _processes(executor)
        for process in processes:
            process.kill()
        options["wait"] = bool(processes)  # they are ended, and only have to be reaped
    shutdown(**{name: value for name, value in options.items() if name in taken})


def _processes(executor: Executor) -> list[Any]:
    """The processes of a pool of `concurrent.futures`, which before Python 3.14 cannot end those that compute."""
    processes = getattr(executor, "_processes", None)
    return list(processes.values()) if isinstance(processes, dict) else []


def _said(error: BaseException | None) -> str:
    """An error of an executor in one line; those of Ray have many."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


@contextlib.contextmanager
def _no_interrupt() -> Iterator[None]:
    """Within: processes that an executor starts do not receive Ctrl-C, and their libraries have one thread.

    A signal mask is inherited. The Ctrl-C of a terminal reaches all processes of the group, and an idle one would end.
    """
    held: set[signal.Signals | int] = set()
    ours = hasattr(signal, "pthread_sigmask") and threading.current_thread() is threading.main_thread()
    if ours:
        resource_tracker.ensure_running()  # starting it unblocks the signal, so it comes first
        held = set(signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}))
    try:
        with one_thread_each():
            yield
    finally:
        if ours:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
