"""The files of a store, in a local directory or at an fsspec URL. Names are relative, with forward slashes."""

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
from typing import Any, Protocol

from winticket.alive import alive
from winticket.atomic import create_file, replace_file
from winticket.run.errors import StoreError
from winticket.text import hide

TEMPORARY = "tmp"
_STALE_SECONDS = 24 * 3600.0
_TEMPORARY_NAME = re.compile(r"tmp/[^/]+\.(?P<host>[0-9A-Za-z]*)-(?P<pid>[0-9]+)-[0-9a-f]{4,}")
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

    `create` writes a file only if there is none of that name, and returns whether it did.
    """

    where: str
    private: bool  # True if other processes cannot see the files

    def exists(self, name: str) -> bool: ...
    def read(self, name: str, *, first: int | None = None) -> bytes: ...
    def write(self, name: str, data: bytes) -> None: ...
    def create(self, name: str, data: bytes) -> bool: ...
    def remove(self, name: str) -> None: ...
    def entries(self, folder: str = "") -> list[Entry]: ...
    def top(self) -> list[str]: ...
    def free(self) -> int | None: ...


def files_at(path: str) -> Files:
    """The files of a local path or an fsspec URL; nothing is created."""
    if "://" not in path or path.startswith("file://"):
        try:
            return LocalFiles(Path(path.removeprefix("file://")).expanduser().absolute())
        except RuntimeError as error:  # the home folder of nobody
            raise StoreError(f"store {path!r} cannot be opened: {error}") from error
    return RemoteFiles(path)


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

    def __init__(self, root: Path) -> None:
        self.root = root
        self.where = str(root)

    def _path(self, name: str) -> Path:
        """The file of a name. Raises StoreError if a part of its path is a link."""
        path = self.root
        for part in name.split("/") if name else ():
            path /= part
            if path.is_symlink():
                raise StoreError(
                    f"{path} is a link to {str(path.readlink())!r}; links inside a store are not followed: "
                    "remove the link, or put what it points to in its place"
                )
        return path

    def exists(self, name: str) -> bool:
        return self._path(name).exists()

    def read(self, name: str, *, first: int | None = None) -> bytes:
        path = self._path(name)
        with os.fdopen(os.open(path, os.O_RDONLY | _NO_LINK | _NO_WAIT), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise StoreError(f"{path} is not a regular file, so it is not read; remove it")
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

    def remove(self, name: str) -> None:
        self._path(name.rpartition("/")[0])
        (self.root / name).unlink(missing_ok=True)  # removes a link, not its target

    def entries(self, folder: str = "") -> list[Entry]:
        return sorted(self._scan(self._path(folder)), key=lambda entry: entry.name)

    def _scan(self, folder: Path) -> Iterator[Entry]:
        for current, folders, names in os.walk(folder):
            links = [name for name in folders if Path(current, name).is_symlink()]
            for name in (*names, *links):
                path = Path(current, name)
                with contextlib.suppress(FileNotFoundError):  # removed just now by another run
                    facts = path.lstat()
                    plain = stat.S_ISREG(facts.st_mode)
                    yield Entry(path.relative_to(self.root).as_posix(), facts.st_size, facts.st_mtime, plain)

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


class RemoteFiles:
    """Any fsspec URL. Files are written under a temporary name and moved; not every file system moves atomically."""

    def __init__(self, url: str) -> None:
        import fsspec

        self.where = url
        try:
            fs, root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise StoreError(hide(f"store {url}: {error}", url)) from error
        self._fs: Any = fs
        self._root = str(root).rstrip("/")
        self.private = "memory" in (fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def exists(self, name: str) -> bool:
        return bool(self._fs.exists(self._path(name)))

    def read(self, name: str, *, first: int | None = None) -> bytes:
        return bytes(self._fs.cat_file(self._path(name), end=first))

    def write(self, name: str, data: bytes) -> None:
        aside = self._path(temporary_name(name))
        for path in (aside, self._path(name)):
            self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        self._fs.pipe_file(aside, data)
        self._fs.mv(aside, self._path(name))

    def create(self, name: str, data: bytes) -> bool:
        """Exactly one of several creators wins if the file system has conditional writes (s3, gcs, memory).

        On other file systems, two that create at the same moment may both win.
        """
        path = self._path(name)
        self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        try:
            self._fs.pipe_file(path, data, mode="create")
        except FileExistsError:
            return False
        except (TypeError, NotImplementedError, ValueError):  # a file system without this mode
            if self._fs.exists(path):
                return False
            self._fs.pipe_file(path, data)
        return True

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._path(name))

    def entries(self, folder: str = "") -> list[Entry]:
        self._fs.invalidate_cache()
        try:
            listed = self._fs.find(self._path(folder), detail=True)
        except FileNotFoundError:
            return []
        entries = []
        for path, facts in listed.items():
            when = facts.get("mtime", facts.get("LastModified"))
            seconds = when.timestamp() if hasattr(when, "timestamp") else when
            name = str(path).removeprefix(self._root).lstrip("/")
            entries.append(Entry(name, int(facts["size"]), seconds if isinstance(seconds, float) else None))
        return sorted(entries, key=lambda entry: entry.name)

    def top(self) -> list[str]:
        if not self._fs.exists(self._root):
            return []
        return sorted(
            str(path).rstrip("/").rpartition("/")[2] for path in self._fs.ls(self._root, detail=False)
        )

    def free(self) -> int | None:
        return None
