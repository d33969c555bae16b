"""A pool of worker processes on this machine."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import connection, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any

from winticket.importing import known
from winticket.run.crew import Hear, Workers
from winticket.run.desk import Conditions
from winticket.run.errors import RunError
from winticket.run.fitting import Machine, this_machine
from winticket.run.messages import Message
from winticket.run.serve import serve_in
from winticket.run.store import Store
from winticket.run.task import Node

_START_TRIES = 3
_SAFE = "PYTHONSAFEPATH"  # Python then does not put the working directory first on the path of modules
_LEAVE_SECONDS = 5.0


@dataclass(frozen=True)
class Pool:
    """Compute in `workers` processes, started as tasks become ready, each with one torch thread.

    `preload` names modules that are imported once and inherited by the processes (a process's first pool decides).
    """

    workers: int
    preload: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"workers is {self.workers}; a pool has 1 process or more")

    def machine(self) -> Machine:
        return this_machine(self.workers)

    def check(self, store: Store) -> None:
        """ValueError for a store in this process's memory, which no other process can write to."""
        if store.private:
            raise ValueError(
                f"store {store.path} is in this process's memory, and worker processes cannot write to it; "
                "use workers=0"
            )

    def open(
        self,
        conditions: Conditions,
        *,
        tasks: int,
        stopping: Callable[[], bool],  # noqa: ARG002 - `ask_to_stop` reaches the processes
    ) -> Workers:
        return PoolWorkers(conditions, limit=min(self.workers, tasks), preload=self.preload)


class _Worker:
    """The parent's side of one process."""

    def __init__(self, process: BaseProcess, line: Connection) -> None:
        self.process, self.line = process, line
        self.hand: str | None = None  # key of the task in its hands
        self.ready = False  # has said hello

    def end(self) -> int | None:
        """End the process. Returns its exit status (negative: killed by that signal).

        The process may exit by itself first, or semaphores of libraries that it used would be reported as leaked.
        """
        with contextlib.suppress(OSError):  # it has ended already
            self.line.send("stop")
        self.line.close()
        self.process.join(_LEAVE_SECONDS)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join(1.0)
        status = self.process.exitcode
        if status is not None:
            self.process.close()
        return status


class PoolWorkers:
    """The processes of a pool during one run, `limit` at most."""

    def __init__(self, conditions: Conditions, *, limit: int, preload: tuple[str, ...]) -> None:
        methods = multiprocessing.get_all_start_methods()
        self._context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        if "forkserver" in methods:
            self._context.set_forkserver_preload(["torch", "winticket.run.serve", *preload])
        self._conditions, self._limit = conditions, limit
        self._workers: dict[int, _Worker] = {}
        self._started = 0
        self._stillborn = 0
        self._main_needed = False

    def free(self, count: int) -> list[int]:
        idle = [n for n, worker in self._workers.items() if worker.hand is None]
        while len(idle) < count and len(self._workers) < self._limit:
            idle.append(self._start())
        return idle[:count]

    def _start(self) -> int:
        for again in range(_START_TRIES):
            try:
                return self._start_one()
            except (EOFError, ConnectionError, FileNotFoundError) as error:
                # The server that forks workers was killed; the next attempt starts another one.
                failed = error
                time.sleep(0.1 * again)
        raise RunError(
            f"no worker process can be started ({type(failed).__name__}: {failed}): something kills the server that "
            "forks them; run with fewer processes if memory runs out, or with workers=0"
        ) from failed

    def _start_one(self) -> int:
        ours, theirs = self._context.Pipe()
        with _plain_start(hide_main=not self._main_needed):
            # The server that forks workers may be older than what this process has set in its environment.
            process = self._context.Process(
                target=serve_in,
                args=(dict(os.environ), pickle.dumps((self._conditions, known())), theirs),
                name=f"winticket-{self._started}",
            )
            process.start()
        theirs.close()
        number = self._started
        self._workers[number] = _Worker(process, ours)
        self._started += 1
        return number

    def give(self, worker: int, nodes: tuple[Node, ...]) -> None:
        try:
            data = pickle.dumps(nodes)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise TypeError(f"{nodes[-1].fn} cannot be sent to a worker: {error}") from error
        if not self._main_needed and b"__main__" in data:
            # The workers so far were started without the program's main file, which this task needs.
            self._main_needed = True
            self._workers.pop(worker).end()
            replacement = self._start()
            self._workers[worker] = self._workers.pop(replacement)
        process = self._workers[worker]
        process.hand = nodes[-1].key
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # died idle: listen() will find out
            process.line.send((nodes[-1].key, data))

    def listen(self, hear: Hear, timeout: float) -> None:
        watched: dict[object, int] = {}
        for number, worker in self._workers.items():
            watched[worker.line] = number
            watched[worker.process.sentinel] = number
        ready = connection.wait(list(watched), timeout)  # type: ignore[arg-type]
        for number in sorted({watched[it] for it in ready}):
            self._drain(number, hear)

    def _drain(self, number: int, hear: Hear) -> None:
        worker = self._workers[number]
        gone = (
            worker.process.exitcode is not None
        )  # read first, so that what it said before it died is still heard
        try:
            while worker.line.poll():
                said = worker.line.recv()
                worker.ready = True
                if isinstance(said, Message):
                    if said.said != "progress":
                        worker.hand = None
                    hear(number, said)
        except (EOFError, OSError):
            gone = True
        if gone:
            self._bury(number, hear)

    def _bury(self, number: int, hear: Hear) -> None:
        worker = self._workers.pop(number)
        status = worker.end()
        how = (
            f"killed by signal {signal.Signals(-status).name}"
            if status and status < 0
            else f"exit status {status}"
        )
        if not worker.ready:
            self._stillborn += 1
            if self._stillborn >= _START_TRIES:
                raise RunError(
                    f"worker processes end before they can work ({how}); see what they printed above; if the "
                    'call is in a script, put it under `if __name__ == "__main__":`; or run with workers=0'
                )
        if worker.hand is not None:
            # A worker that died before it said hello did not die of the task.
            hear(number, Message("died", worker.hand, text=how, cause=None if worker.ready else "unready"))

    def patient(self) -> bool:
        return True

    def ask_to_stop(self) -> None:
        for worker in self._workers.values():
            try:
                worker.line.send("stop")
            except OSError:  # dead already
                continue

    def close(self, hear: Hear, grace: float) -> None:
        self.ask_to_stop()
        until = time.monotonic() + grace
        while any(w.hand is not None for w in self._workers.values()) and time.monotonic() < until:
            try:
                self.listen(hear, max(0.0, until - time.monotonic()))
            except RunError:
                break
        for worker in self._workers.values():
            if worker.hand is not None:
                worker.process.kill()
        for worker in self._workers.values():
            worker.end()
        self._workers.clear()


@contextlib.contextmanager
def _plain_start(*, hide_main: bool) -> Iterator[None]:
    """Within: a process can be started that inherits what follows.

    It starts without the program's main file, which a worker would run again from the top: slow, and endless in a
    script without a guard. The libraries that numpy calls have one thread, as torch has. Ctrl-C, SIGTERM,
    SIGHUP, SIGUSR1 and SIGUSR2, which reach a whole process group, are blocked and left to the parent: a signal mask is
    inherited.
    """
    held: set[signal.Signals | int] = set()
    if hasattr(signal, "pthread_sigmask"):
        held = set(signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}))
        resource_tracker.ensure_running()  # starting it unblocks the other two signals, so it comes first
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    main = sys.modules["__main__"]
    if hide_main:
        sys.modules["__main__"] = ModuleType("__main__")
    try:
        with one_thread_each(), _environment({_SAFE: "1"}):
            yield
    finally:
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
        sys.modules["__main__"] = main


def one_thread_each() -> contextlib.AbstractContextManager[None]:
    """Within: processes can be started in which the libraries that numpy calls have one thread, as torch has."""
    return _environment(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Within: these variables of the environment have these values."""
    kept = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in kept.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
