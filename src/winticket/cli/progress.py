"""Progress of commands that usually take seconds, on stderr."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from winticket.cli.answers import say

PATIENCE, QUIET_SECONDS, BRIEF = 2.0, 5.0, 0.5
"""Seconds before the first line of progress, and between two; a step that takes less than the last is not shown."""
Tell = Callable[[str, float | None], None]
"""Takes what is being done, and the seconds that it will still take, or None if that is not known."""


@contextmanager
def patient(*, quiet: bool = False) -> Iterator[Tell]:
    """Yield a function that reports progress: after two seconds, and then every five, it prints what is being done.

    If the seconds left are known, they are printed too. A step of unknown length, such as loading a model, is printed
    only if it is still running when the next line is due, and never in its first half second.

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
        """Print a step that is still running, in the timer's thread, unless another step has begun."""
        with self.turn:
            if self.waiting is threading.current_thread():
                self.show(what)

    def show(self, text: str) -> None:
        self.due = time.monotonic() + QUIET_SECONDS
        say(text)

    def forget(self) -> None:
        """Cancel the line that waits for its turn."""
        with self.turn:
            if self.waiting is not None:
                self.waiting.cancel()
                self.waiting = None
