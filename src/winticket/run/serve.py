"""The life of one worker process: take tasks, compute them, say how it went."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
from multiprocessing import connection
from multiprocessing.connection import Connection
from queue import SimpleQueue
from types import FrameType
from typing import Any

from winticket.importing import Known, know
from winticket.run.desk import Conditions, Desk
from winticket.run.messages import Message
from winticket.run.work import attempt


def serve_in(environment: dict[str, str], conditions: bytes, line: Connection) -> None:
    """`serve` in an environment of variables; the pickled conditions, which may need them, are read in it."""
    os.environ.clear()
    os.environ.update(environment)
    serve(line, *pickle.loads(conditions))


def serve(
    line: Connection,
    conditions: Conditions,
    modules: Known,
) -> None:
    """Take tasks, compute them and report, until the parent says stop, closes the line or ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    _leave_to_the_parent("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
    know(modules)
    import torch

    os.dup2(2, 1)  # what a task prints must not mix with what the program prints
    torch.set_num_threads(1)
    stop = threading.Event()
    work: SimpleQueue[tuple[str, bytes] | None] = SimpleQueue()
    threading.Thread(target=_attend, args=(line, work, stop), daemon=True).start()

    def say(message: Message | str) -> None:
        with contextlib.suppress(OSError):  # the parent has closed the line: _attend ends the process
            line.send(message)

    desk = Desk(conditions, say, stop.is_set)
    say("hello")
    while not stop.is_set() and (item := work.get()) is not None:
        key, data = item
        try:
            nodes = pickle.loads(data)
        except Exception as error:  # noqa: BLE001 - an import in here may raise anything
            say(Message("aborted", key, text=f"{type(error).__name__}: {error}", cause="import"))
        else:
            say(attempt(nodes, desk))


def _leave_to_the_parent(*names: str) -> None:
    """These signals have no effect on this process, and their usual effect on processes that a task starts."""
    numbers = {getattr(signal, name) for name in names if hasattr(signal, name)}

    def nothing(_number: int, _frame: FrameType | None) -> None:
        """A handler and not SIG_IGN, which programs that a task starts would inherit."""

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


def _attend(line: Connection, work: SimpleQueue[tuple[str, bytes] | None], stop: threading.Event) -> None:
    """Read what the parent sends until it says stop, and end the process at once when the parent has ended."""
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
            stop.set()
            work.put(None)
            watched.remove(line)
        else:
            work.put(said)
