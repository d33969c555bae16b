"""Ctrl-C during a run: the first asks the tasks to stop, the second ends them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def first_interrupt(pressed: threading.Event, patient: Callable[[], bool]) -> Iterator[None]:
    """Within: the first Ctrl-C asks the tasks to stop; the second raises, as does one that no task would notice."""
    before = signal.getsignal(signal.SIGINT)
    ours = threading.current_thread() is threading.main_thread() and before not in (signal.SIG_IGN, None)

    def press(_number: int, _frame: FrameType | None) -> None:
        if pressed.is_set() or not patient():
            raise KeyboardInterrupt
        pressed.set()

    if ours:
        signal.signal(signal.SIGINT, press)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGINT, before)
