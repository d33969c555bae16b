"""What a worker says about the task in its hands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Said = Literal["progress", "finished", "failed", "stopped", "aborted", "died"]


@dataclass(frozen=True)
class Message:
    """What a worker says about the task in its hands."""

    said: Said
    key: str
    step: int | None = None
    steps: int | None = None
    seconds: float | None = None
    text: str | None = None  # traceback or reason
    reused: bool = False  # finished: another command had stored it by then
    handed_over: tuple[str, ...] = ()  # finished: the keys of the parts that were stored with it
    cause: Literal["store", "memory", "import", "machine", "unready"] | None = None  # of aborted and died
