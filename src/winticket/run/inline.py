"""The calling process as the only worker."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from dataclasses import dataclass

from winticket.run.crew import Hear, Workers
from winticket.run.desk import Conditions, Desk
from winticket.run.fitting import Machine, this_machine
from winticket.run.messages import Message
from winticket.run.store import Store
from winticket.run.task import Node
from winticket.run.work import attempt


@dataclass(frozen=True)
class Inline:
    """Compute in the calling process, one task after the other: for tests, debuggers and stores in memory."""

    @property
    def workers(self) -> int:
        """0: no process but the calling one."""
        return 0

    def machine(self) -> Machine:
        return this_machine(0)

    def check(self, store: Store) -> None:
        """Accepts every store, since this process has opened it."""

    def open(self, conditions: Conditions, *, tasks: int, stopping: Callable[[], bool]) -> Workers:  # noqa: ARG002
        return _InlineWorker(conditions, stopping)


class _InlineWorker:
    """Worker number 0."""

    def __init__(self, conditions: Conditions, stopping: Callable[[], bool]) -> None:
        import torch

        self._stop_requested = False
        self._hand: tuple[Node, ...] | None = None
        self._reports = False
        self._hear: Hear | None = None
        self._stdout = sys.stdout
        self._threads = torch.get_num_threads()
        self._desk = Desk(conditions, self._say, lambda: self._stop_requested or stopping())
        # As in any worker: sums must not depend on how many threads share them.
        torch.set_num_threads(1)

    def _say(self, message: Message) -> None:
        if self._hear is not None:
            with contextlib.redirect_stdout(self._stdout):  # the listener prints where it always does
                self._hear(0, message)

    def free(self, count: int) -> list[int]:
        return [0] if self._hand is None and count else []

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
        self._stop_requested = True

    def close(self, hear: Hear, grace: float) -> None:  # noqa: ARG002
        import torch

        torch.set_num_threads(self._threads)
