"""A third crew, to show what it takes: one thread of this process. It shares nothing with the crews of the package."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, Queue

import torch

from winticket.run import Conditions, Store
from winticket.run.crew import Hear
from winticket.run.desk import Desk
from winticket.run.fitting import Machine, this_machine
from winticket.run.messages import Message
from winticket.run.task import Node
from winticket.run.work import attempt


@dataclass(frozen=True)
class Threaded:
    """Compute in one thread beside the calling one."""

    @property
    def workers(self) -> int:
        return 0

    def machine(self) -> Machine:
        return this_machine(0)

    def check(self, store: Store) -> None:
        """The thread writes to whatever this process writes to."""

    def open(self, conditions: Conditions, *, tasks: int, stopping: Callable[[], bool]) -> Thread:
        return Thread(conditions, stopping)


class Thread:
    """Worker number 0."""

    def __init__(self, conditions: Conditions, stopping: Callable[[], bool]) -> None:
        self.stop = threading.Event()
        self.tasks: Queue[tuple[Node, ...] | None] = Queue()
        self.messages: Queue[Message] = Queue()
        self.busy = False
        self.desk = Desk(conditions, self.messages.put, lambda: self.stop.is_set() or stopping())
        self.thread = threading.Thread(target=self.work)
        self.thread.start()

    def work(self) -> None:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        while (nodes := self.tasks.get()) is not None:
            with contextlib.redirect_stdout(sys.stderr):
                message = attempt(nodes, self.desk)
            self.messages.put(message)
        torch.set_num_threads(threads)

    def free(self, count: int) -> list[int]:
        return [0] if count and not self.busy else []

    def give(self, worker: int, nodes: tuple[Node, ...]) -> None:
        self.busy = True
        self.tasks.put(nodes)

    def listen(self, hear: Hear, timeout: float) -> None:
        with contextlib.suppress(Empty):
            message = self.messages.get(timeout=timeout)
            self.busy = self.busy and message.said == "progress"
            hear(0, message)

    def patient(self) -> bool:
        return True

    def ask_to_stop(self) -> None:
        self.stop.set()

    def close(self, hear: Hear, grace: float) -> None:
        self.ask_to_stop()
        if self.busy:
            self.listen(hear, grace)
        self.tasks.put(None)
        self.thread.join()
