"""The values that a worker used last, up to a limit."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from winticket.run import codec


@dataclass(frozen=True)
class Encoded:
    """A result as it was written; it is decoded when a task needs it, which happens to few results."""

    data: bytes


class Memory:
    """The values that a worker used last, so that a chain of tasks on it need not read what it has just written."""

    def __init__(self, limit: int, count: int = 64) -> None:
        self._limit, self._count, self._size = limit, count, 0
        self._values: OrderedDict[str, tuple[object, int]] = OrderedDict()

    def get(self, key: str) -> tuple[object] | None:
        """The value in a tuple of one, or None."""
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        value, size = self._values[key]
        if isinstance(value, Encoded):
            value = codec.decode(value.data, check=False)
            self._values[key] = value, size
        return (value,)

    def add(self, key: str, value: object, size: int) -> None:
        if size > self._limit or key in self._values:
            return
        self._values[key] = (value, size)
        self._size += size
        while self._size > self._limit or len(self._values) > self._count:
            self._size -= self._values.popitem(last=False)[1][1]
