"""A store that counts the operations on its files, in all processes that it is sent to."""

from __future__ import annotations

import os
from pathlib import Path

from winticket.run import Store
from winticket.run.files import Entry, Files


class CountingFiles:
    """Files that note every operation as one byte in a file of that name, which all processes share."""

    def __init__(self, files: Files, counts: str) -> None:
        self._files, self._counts = files, counts
        self.where, self.private, self.remote = files.where, files.private, files.remote

    def _count(self, operation: str) -> None:
        note = os.open(Path(self._counts, operation), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(note, b".")
        os.close(note)

    def exists(self, name: str) -> bool:
        self._count("exists")
        return self._files.exists(name)

    def read(self, name: str, *, first: int | None = None) -> bytes:
        self._count("read")
        return self._files.read(name, first=first)

    def write(self, name: str, data: bytes) -> None:
        self._count("write")
        self._files.write(name, data)

    def create(self, name: str, data: bytes) -> bool:
        self._count("create")
        return self._files.create(name, data)

    def check_create(self) -> None:
        self._files.check_create()

    def remove(self, name: str) -> None:
        self._count("remove")
        self._files.remove(name)

    def entries(self, folder: str = "") -> list[Entry]:
        self._count("list")
        return self._files.entries(folder)

    def top(self) -> list[str]:
        self._count("list")
        return self._files.top()

    def free(self) -> int | None:
        return self._files.free()


class CountingStore(Store):
    """A store that counts, in this process and in those that it is sent to."""

    def __init__(self, path: str, counts: str) -> None:
        super().__init__(path)
        self._counts = counts
        self._files = CountingFiles(self._files, counts)

    def __reduce__(self) -> tuple[type[Store], tuple[str, str]]:  # type: ignore[override]
        return type(self), (self._files.where, self._counts)
