"""What a store needs of a file system, and a local directory as one; remote.py has the others.

Names are relative, with forward slashes.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import socket
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from winticket.alive import alive
from winticket.atomic import create_file, replace_file
from winticket.run.errors import StoreError

TEMPORARY = "tmp"
_STALE_SECONDS = 24 * 3600.0
_TEMPORARY_NAME = re.compile(r"tmp/[^/]+\.(?P<host>[0-9A-Za-z]*)-(?P<pid>[0-9]+)-[0-9a-f]{4,}")
_SHORT = 1 << 20  # bytes that a regular file gives by one call
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)  # opening a pipe would otherwise wait for whoever writes into it


@dataclass(frozen=True)
class Entry:
    name: str
    bytes: int
    modified: float | None  # seconds since the epoch; None if the file system does not record it
    plain: bool = True  # a regular file, not a link, pipe or device


class Files(Protocol):
    """What a store needs of a file system. `write` leaves either the whole file under its name or nothing.

    `create` writes a file only if there is none of that name, and returns whether it did; exactly one of several that
    try at once succeeds. `check_create` tries that files can be written and created so, leaves nothing, and raises
    StoreError if they cannot. `entries` and `top` see what others wrote just before.
    """

    where: str
    private: bool  # True if other processes cannot see the files
    remote: bool  # True if every call is a request over a network

    def exists(self, name: str) -> bool: ...
    def read(self, name: str, *, first: int | None = None) -> bytes: ...
    def write(self, name: str, data: bytes) -> None: ...
    def create(self, name: str, data: bytes) -> bool: ...
    def check_create(self) -> None: ...
    def remove(self, name: str) -> None: ...
    def entries(self, folder: str = "") -> list[Entry]: ...
    def top(self) -> list[str]: ...
    def free(self) -> int | None: ...


@lru_cache(maxsize=1)
def host() -> str:
    """This machine's name, reduced to letters and digits."""
    return "".join(c for c in socket.gethostname() if c.isascii() and c.isalnum())


def temporary_name(name: str) -> str:
    """A name that no other process writes to; it says which process of which machine writes."""
    return f"{TEMPORARY}/{name.rpartition('/')[2]}.{host()}-{os.getpid()}-{secrets.token_hex(8)}"


def is_temporary(name: str) -> bool:
    """True for names that `temporary_name` makes; other files in that folder do not belong to the store."""
    return _TEMPORARY_NAME.fullmatch(name) is not None


def abandoned(entry: Entry) -> bool:
    """True if no process can still be writing this temporary file.

    If the writer ran on this machine, it has ended, or its number belongs to a process that began later. If it ran on
    another machine, the file is a day old.
    """
    name = _TEMPORARY_NAME.fullmatch(entry.name)
    if name is None:
        return False
    if name["host"] != host():
        return entry.modified is not None and time.time() - entry.modified > _STALE_SECONDS
    return not alive(int(name["pid"]), since=entry.modified)


class LocalFiles:
    """A directory. A file is written under a temporary name, flushed to the disk, and renamed whole.

    The directory itself may be a link that the user named. Links inside it are never followed, so that a store from an
    unknown source cannot redirect a write or a removal to the outside.
    """

    private = False
    remote = False

    def __init__(self, root: Path) -> None:
        self.root = root
        self.where = str(root)

    def _path(self, name: str) -> Path:
        """The file of a name. Raises StoreError if a part of its path is a link."""
        return Path(self._place(name))

    def _place(self, name: str) -> str:
        """`_path` as text, since a store of 100 000 results asks often and a Path takes longer than the disk."""
        path = self.where
        for part in name.split("/") if name else ():
            path = f"{path}{os.sep}{part}"
            if os.path.islink(path):  # noqa: PTH114
                raise StoreError(
                    f"{path} is a link to {os.readlink(path)!r}; links inside a store are not followed: "  # noqa: PTH115
                    "remove the link, or put what it points to in its place"
                )
        return path

    def exists(self, name: str) -> bool:
        return os.path.exists(self._place(name))  # noqa: PTH110

    def read(self, name: str, *, first: int | None = None) -> bytes:
        path = self._place(name)
        descriptor = os.open(path, os.O_RDONLY | _NO_LINK | _NO_WAIT)
        if first is not None and first <= _SHORT:
            try:
                _check_plain(descriptor, path)
                return os.read(descriptor, first)
            finally:
                os.close(descriptor)
        with os.fdopen(descriptor, "rb") as file:
            _check_plain(descriptor, path)
            return file.read() if first is None else file.read(first)

    def write(self, name: str, data: bytes) -> None:
        aside, target = self._path(temporary_name(name)), self._path(name)
        made: list[Path] = []
        try:
            _make_parents(aside, made)
            _make_parents(target, made)
            replace_file(target, data, aside=aside)
        except BaseException:
            # A failed write leaves nothing behind, not even the new folders.
            for folder in reversed(made):
                with contextlib.suppress(OSError):
                    folder.rmdir()
            raise

    def create(self, name: str, data: bytes) -> bool:
        target = self._path(name)
        aside = self._path(temporary_name(name))
        _make_parents(aside, [])
        _make_parents(target, [])
        return create_file(target, data, aside=aside)

    def check_create(self) -> None:
        probe = temporary_name("probe")
        self.write(probe, bytes(65536))
        twice = self.create(probe, b"again")
        self.remove(probe)
        if twice:
            raise StoreError(
                f"store {self.where} cannot keep two writers apart: a file could be created twice"
            )

    def remove(self, name: str) -> None:
        self._path(name.rpartition("/")[0])
        (self.root / name).unlink(missing_ok=True)  # removes a link, not its target

    def entries(self, folder: str = "") -> list[Entry]:
        return sorted(self._scan(self._path(folder)), key=lambda entry: entry.name)

    def _scan(self, folder: Path) -> Iterator[Entry]:
        start, waiting = len(self.where) + 1, [str(folder)]
        while waiting:
            with (
                contextlib.suppress(FileNotFoundError, NotADirectoryError),
                os.scandir(waiting.pop()) as inside,
            ):
                for one in inside:
                    if one.is_dir(follow_symlinks=False):
                        waiting.append(one.path)
                        continue
                    with contextlib.suppress(FileNotFoundError):  # removed just now by another run
                        facts = one.stat(follow_symlinks=False)
                        name = one.path[start:].replace(os.sep, "/")
                        yield Entry(name, facts.st_size, facts.st_mtime, stat.S_ISREG(facts.st_mode))

    def top(self) -> list[str]:
        """The names at the top level, folders included; none if the directory does not exist yet."""
        if not self.root.exists():
            return []
        if not self.root.is_dir():
            raise StoreError(f"{self.where} is a file; a store is a directory")
        return sorted(path.name for path in self.root.iterdir())

    def free(self) -> int | None:
        existing = next(p for p in (self.root, *self.root.parents) if p.exists())
        return shutil.disk_usage(existing).free


def _check_plain(descriptor: int, path: str) -> None:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise StoreError(f"{path} is not a regular file, so it is not read; remove it")


def _make_parents(path: Path, made: list[Path]) -> None:
    """Make the parent folders of a file, and add the new ones to `made`, outermost first."""
    missing: list[Path] = []
    folder = path.parent
    while not folder.exists():
        missing.insert(0, folder)
        folder = folder.parent
    for new in missing:
        new.mkdir(exist_ok=True)
        made.append(new)
