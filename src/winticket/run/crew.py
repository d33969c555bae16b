"""Who computes: this process itself, or a pool of worker processes. Both take nodes and say messages."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from types import FrameType, ModuleType
from typing import Any, Protocol

from winticket.importing import Known, know, known
from winticket.run.errors import RunError
from winticket.run.store import Store
from winticket.run.task import Node
from winticket.run.work import Desk, Message, attempt

Hear = Callable[[int, Message], None]  # worker's number, message
_START_TRIES = 3
_SAFE = "PYTHONSAFEPATH"  # Python then does not put the working directory first where it looks for modules
_LEAVE_SECONDS = 5.0


class Crew(Protocol):
    """What a run asks of those who compute."""

    def free(self, wanted: int) -> list[int]:
        """The numbers of idle workers, after starting some if fewer than `wanted` are idle."""

    def give(self, worker: int, nodes: tuple[Node, ...]) -> None: ...

    def listen(self, hear: Hear, timeout: float) -> None:
        """Hands on what was said, waiting up to `timeout` seconds for something."""

    def patient(self) -> bool:
        """Whether the task in hand would notice a request to stop by itself."""

    def ask_to_stop(self) -> None: ...

    def close(self, hear: Hear, grace: float) -> None:
        """Lets the tasks in hand stop within `grace` seconds, then ends every worker."""


class Inline:
    """The calling process as the only worker, number 0."""

    def __init__(self, store: Store, checkpoint_seconds: float, stopping: Callable[[], bool]) -> None:
        import torch

        self._asked = False
        self._hand: tuple[Node, ...] | None = None
        self._reports = False
        self._hear: Hear | None = None
        self._stdout = sys.stdout
        self._threads = torch.get_num_threads()
        self._desk = Desk(store, self._say, lambda: self._asked or stopping(), checkpoint_seconds)
        # As in any worker: sums must not depend on how many threads share them.
        torch.set_num_threads(1)

    def _say(self, message: Message) -> None:
        if self._hear is not None:
            with contextlib.redirect_stdout(self._stdout):  # the listener prints where it always does
                self._hear(0, message)

    def free(self, wanted: int) -> list[int]:
        return [0] if self._hand is None and wanted else []

    def give(self, worker: int, nodes: tuple[Node, ...]) -> None:  # noqa: ARG002
        self._hand, self._reports = nodes, "report" in self._desk.supplies(nodes[-1])

    def listen(self, hear: Hear, timeout: float) -> None:  # noqa: ARG002
        if self._hand is None:
            return
        self._hear, self._stdout, nodes = hear, sys.stdout, self._hand
        with contextlib.redirect_stdout(sys.stderr):  # as in any worker
            message = attempt(nodes, self._desk)
        self._hand = None
        hear(0, message)

    def patient(self) -> bool:
        return self._hand is None or self._reports

    def ask_to_stop(self) -> None:
        self._asked = True

    def close(self, hear: Hear, grace: float) -> None:  # noqa: ARG002
        import torch

        torch.set_num_threads(self._threads)


class _Worker:
    """The parent's side of one process."""

    def __init__(self, process: BaseProcess, line: Connection) -> None:
        self.process, self.line = process, line
        self.hand: str | None = None  # key of the task in hand
        self.ready = False  # has said hello

    def end(self) -> int | None:
        """Makes sure that the process is gone; gives its exit status (negative: killed by that signal).

        It may leave in order first, or semaphores of libraries that it used would be told of as leaked.
        """
        with contextlib.suppress(OSError):  # gone already
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


class Pool:
    """Worker processes, started as work comes, each with one torch thread."""

    def __init__(
        self, store: Store, *, workers: int, checkpoint_seconds: float, preload: Sequence[str]
    ) -> None:
        methods = multiprocessing.get_all_start_methods()
        self._context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        if "forkserver" in methods:
            self._context.set_forkserver_preload(["torch", "winticket.run.work", *preload])
        self._store, self._limit, self._seconds = store, workers, checkpoint_seconds
        self._workers: dict[int, _Worker] = {}
        self._started = 0
        self._stillborn = 0
        self._main_needed = False

    def free(self, wanted: int) -> list[int]:
        idle = [n for n, worker in self._workers.items() if worker.hand is None]
        while len(idle) < wanted and len(self._workers) < self._limit:
            idle.append(self._start())
        return idle

    def _start(self) -> int:
        for again in range(_START_TRIES):
            try:
                return self._start_one()
            except (EOFError, ConnectionError, FileNotFoundError) as error:
                # The server that forks workers was killed: another one is started the next time.
                failed = error
                time.sleep(0.1 * again)
        raise RunError(
            f"no worker process can be started ({type(failed).__name__}: {failed}): something kills the server that "
            "forks them; run with fewer processes if memory runs out, or with workers=0"
        ) from failed

    def _start_one(self) -> int:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=serve,
            args=(theirs, self._store, self._seconds, known()),
            name=f"winticket-{self._started}",
        )
        with _plain_start(hide_main=not self._main_needed):
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
            # Workers so far were started without the program's own file, which this task needs.
            self._main_needed = True
            self._workers.pop(worker).end()
            replacement = self._start()
            self._workers[worker] = self._workers.pop(replacement)
        there = self._workers[worker]
        there.hand = nodes[-1].key
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # died idle: listen() will find out
            there.line.send((nodes[-1].key, data))

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
        gone = worker.process.exitcode is not None  # asked first: what it said before it died is still read
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
                    'call is in a script of your own, put it under `if __name__ == "__main__":`; or run with '
                    "workers=0"
                )
        if worker.hand is not None:
            # Before it said hello it cannot have been the task's doing.
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
    """The surroundings in which a process is started.

    Without the program's main file, which a worker would run again from the top: slow, and endless in a
    script without a guard. With one thread for whatever numpy calls, as torch has. With Ctrl-C, SIGTERM and SIGHUP held
    back, which reach a whole group and are for the parent to heed: a signal mask is inherited.
    """
    held: set[signal.Signals | int] = set()
    if hasattr(signal, "pthread_sigmask"):
        held = set(signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP}))
        resource_tracker.ensure_running()  # starting it lets the other two through again, so it comes first
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    kept = {name: os.environ.get(name) for name in (*names, _SAFE)}
    main = sys.modules["__main__"]
    os.environ.update(dict.fromkeys((*names, _SAFE), "1"))
    if hide_main:
        sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
        sys.modules["__main__"] = main
        for name, value in kept.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def serve(
    line: Connection,
    store: Store,
    checkpoint_seconds: float,
    modules: Known,
) -> None:
    """A worker's life: take nodes, compute, tell; end when the parent says so, closes the line or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    _leave_to_the_parent("SIGTERM", "SIGHUP")
    know(modules)
    import torch

    os.dup2(2, 1)  # what a task prints must not mix with what the program prints
    torch.set_num_threads(1)
    asked = threading.Event()
    work: SimpleQueue[tuple[str, bytes] | None] = SimpleQueue()
    threading.Thread(target=_attend, args=(line, work, asked), daemon=True).start()

    def say(message: Message | str) -> None:
        with contextlib.suppress(OSError):  # the parent has closed the line: _attend ends the process
            line.send(message)

    desk = Desk(store, say, asked.is_set, checkpoint_seconds)
    say("hello")
    while not asked.is_set() and (given := work.get()) is not None:
        key, data = given
        try:
            nodes = pickle.loads(data)
        except Exception as error:  # noqa: BLE001 - whatever an import in here may raise
            say(Message("aborted", key, text=f"{type(error).__name__}: {error}", cause="import"))
        else:
            say(attempt(nodes, desk))


def _leave_to_the_parent(*names: str) -> None:
    """These signals do nothing to this process, and what they always do to those that a task starts."""
    numbers = {getattr(signal, name) for name in names if hasattr(signal, name)}

    def nothing(_number: int, _frame: FrameType | None) -> None:
        """Not SIG_IGN, which programs that a task starts would inherit."""

    def usual() -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
        let()

    def hold() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, numbers)

    def let() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)

    for number in numbers:
        signal.signal(number, nothing)
    if hasattr(signal, "pthread_sigmask"):
        os.register_at_fork(before=hold, after_in_parent=let, after_in_child=usual)
        let()


def _attend(line: Connection, work: SimpleQueue[tuple[str, bytes] | None], asked: threading.Event) -> None:
    """Reads what the parent sends until it says stop, and ends the process at once when the parent is gone."""
    parent = multiprocessing.parent_process()
    watched: list[Any] = [line] if parent is None else [line, parent.sentinel]
    while watched:
        ready = connection.wait(watched)
        if parent is not None and parent.sentinel in ready:
            os._exit(1)
        try:
            said = line.recv()
        except (EOFError, OSError):
            os._exit(1)
        if said == "stop":
            asked.set()
            work.put(None)
            watched.remove(line)
        else:
            work.put(said)
