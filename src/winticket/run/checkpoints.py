"""What a running task reports, when it saves its state, and how it is stopped."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from winticket.run.errors import StoreError
from winticket.run.messages import Message
from winticket.run.store import Store

_THROTTLE = 0.2  # seconds between two progress messages
SAVING = 0.05  # largest share of the time that goes into saving states
_PATIENCE = 1.5  # seconds that a task has to reach its next checkpoint when the run stops


class Stop(BaseException):
    """Raised by report() in a task that has to stop; no `except Exception` in a task catches it."""


class Checkpoint:
    """The value of a stage's parameter `checkpoint`: saves and loads the state from which the task can resume."""

    def __init__(self, store: Store, key: str, seconds: float, stopping: Callable[[], bool]) -> None:
        self._store, self._key, self._seconds, self._stopping = store, key, seconds, stopping
        self._last, self._took = time.monotonic(), 0.0
        self.saved_for_stop = False

    def load(self) -> Any:
        """The state that was saved last, or None; a damaged checkpoint counts as none."""
        try:
            return self._store.load_partial(self._key)
        except StoreError:
            return None

    def due(self) -> bool:
        """True if it is time to save: the interval has passed, or the run is about to stop."""
        if self._stopping():
            return not self.saved_for_stop
        # A state of gigabytes takes seconds to write, which shall remain a small part of the time. An interval of 0
        # asks for every state, whatever that takes.
        pause = max(self._seconds, self._took / SAVING) if self._seconds else 0.0
        return time.monotonic() - self._last >= pause

    def save(self, value: object) -> None:
        """Save a state, whole or not at all; it replaces the last one."""
        stopping, begun = self._stopping(), time.monotonic()
        self._store.save_partial(self._key, value)
        self._last = time.monotonic()
        self._took = self._last - begun
        self.saved_for_stop = stopping


class Report:
    """The value of a stage's parameter `report`: `report(step, steps)` reports its progress at little cost."""

    def __init__(
        self,
        key: str,
        say: Callable[[Message], None],
        stopping: Callable[[], bool],
        checkpoint: Checkpoint | None,
    ) -> None:
        self._key, self._say, self._stopping, self._checkpoint = key, say, stopping, checkpoint
        self._last = float("-inf")
        self._stopped_at: float | None = None

    def __call__(self, step: int, steps: int) -> None:
        now = time.monotonic()
        if self._stopping():
            self._stopped_at = now if self._stopped_at is None else self._stopped_at
            waits = self._checkpoint is not None and not self._checkpoint.saved_for_stop
            if not waits or now - self._stopped_at > _PATIENCE:
                raise Stop
        if now - self._last >= _THROTTLE or step >= steps:
            self._last = now
            self._say(Message("progress", self._key, step=step, steps=steps))
