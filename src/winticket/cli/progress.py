"""Progress of commands that usually take seconds, on stderr."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from winticket.cli.answers import say

PATIENCE, QUIET_SECONDS, BRIEF = 2.0, 5.0, 0.5
"""Seconds before the first line of progress, and between two of them; what takes less than the last is not told."""
Tell = Callable[[str, float | None], None]
"""Takes what is being done, and the seconds that it will still take, or None if that is not known."""


@contextmanager
def patient(*, quiet: bool = False) -> Iterator[Tell]:
    """Yield what tells, after two seconds and then every five, what is being done, and how many seconds that will take.

    What takes no one knows how long, such as loading a model, is told if it still goes on when its turn has come, and
    half a second after it began at the earliest.

    >>> with patient() as tell:
    ...     tell("Nothing", 0.0)  # too early to be told
    """
    progress = _Progress(quiet=quiet)
    try:
        yield progress.tell
    finally:
        progress.forget()


class _Progress:
    def __init__(self, *, quiet: bool) -> None:
        from winticket.report.durations import duration

        self.quiet, self.duration = quiet, duration
        self.due = time.monotonic() + PATIENCE
        self.waiting: threading.Timer | None = None
        self.turn = threading.Lock()

    def tell(self, what: str, left: float | None) -> None:
        self.forget()
        if self.quiet:
            return
        with self.turn:
            patience = self.due - time.monotonic()
            if left is None:
                self.waiting = threading.Timer(max(patience, BRIEF), self.late, (what,))
                self.waiting.daemon = True  # it keeps no command from ending
                self.waiting.start()
            elif patience <= 0:
                self.show(f"{what}, about {self.duration(left)} left")

    def late(self, what: str) -> None:
        """Tell what was told too early, in the thread of the timer, unless something else has begun."""
        with self.turn:
            if self.waiting is threading.current_thread():
                self.show(what)

    def show(self, text: str) -> None:
        self.due = time.monotonic() + QUIET_SECONDS
        say(text)

    def forget(self) -> None:
        """Let nothing be told any more that was told too early."""
        with self.turn:
            if self.waiting is not None:
                self.waiting.cancel()
                self.waiting = None
