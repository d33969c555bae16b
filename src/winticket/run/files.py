"""Where a store's bytes lie: a local directory or an fsspec URL. Names are relative, with forward slashes."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from .errors import StoreError

TEMPORARY = "tmp"
_STALE_SECONDS = 24 * 3600.0


@dataclass(frozen=True)
class Entry:
    name: str
    bytes: int
    modified: float | None  # seconds since the epoch; None where the file system does not tell


class Files(Protocol):
    """What a store asks of a place. `write` leaves either the whole file under its name or nothing."""

    where: str
    private: bool  # whether other processes cannot see it

    def exists(self, name: str) -> bool: ...
    def read(self, name: str, *, first: int | None = None) -> bytes: ...
    def write(self, name: str, data: bytes) -> None: ...
    def remove(self, name: str) -> None: ...
    def entries(self, folder: str = "") -> list[Entry]: ...
    def empty(self) -> bool: ...
    def free(self) -> int | None: ...


def place(path: str) -> Files:
    """The place that a path or URL names; nothing is created."""
    if "://" not in path or path.startswith("file://"):
        return LocalFiles(Path(path.removeprefix("file://")).expanduser().absolute())
    return RemoteFiles(path)


def temporary_name(name: str) -> str:
    """A name nobody else writes to, that tells which process of which machine is writing."""
    host = "".join(c for c in socket.gethostname() if c.isalnum())
    return f"{TEMPORARY}/{name.rpartition('/')[2]}.{host}-{os.getpid()}-{secrets.token_hex(4)}"


def abandoned(entry: Entry) -> bool:
    """Whether nobody can still be writing this temporary: its process is gone, or it is a day old."""
    if entry.modified is not None and time.time() - entry.modified > _STALE_SECONDS:
        return True
    host, _, rest = entry.name.rpartition(".")[2].partition("-")
    number = rest.partition("-")[0]
    if host != "".join(c for c in socket.gethostname() if c.isalnum()) or not number.isdigit():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


class LocalFiles:
    """A directory. Files are written aside, flushed to the disk, and renamed whole."""

    private = False

    def __init__(self, root: Path) -> None:
        self.root = root
        self.where = str(root)

    def exists(self, name: str) -> bool:
        return (self.root / name).exists()

    def read(self, name: str, *, first: int | None = None) -> bytes:
        with (self.root / name).open("rb") as file:
            return file.read() if first is None else file.read(first)

    def write(self, name: str, data: bytes) -> None:
        aside = self.root / temporary_name(name)
        made: list[Path] = []
        try:
            _make_parents(aside, made)
            with aside.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            _make_parents(self.root / name, made)
            aside.replace(self.root / name)
        except BaseException:
            # What cannot be written leaves nothing behind, not even the folders it was to lie in.
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)
            for folder in reversed(made):
                with contextlib.suppress(OSError):
                    folder.rmdir()
            raise

    def remove(self, name: str) -> None:
        (self.root / name).unlink(missing_ok=True)

    def entries(self, folder: str = "") -> list[Entry]:
        return sorted(self._scan(self.root / folder), key=lambda entry: entry.name)

    def _scan(self, folder: Path) -> Iterator[Entry]:
        for current, _, names in os.walk(folder):
            for name in names:
                path = Path(current, name)
                with contextlib.suppress(FileNotFoundError):  # gone since: another run is at work
                    told = path.stat()
                    yield Entry(path.relative_to(self.root).as_posix(), told.st_size, told.st_mtime)

    def empty(self) -> bool:
        if not self.root.exists():
            return True
        if not self.root.is_dir():
            raise StoreError(f"{self.where} is a file; a store is a directory")
        return next(self.root.iterdir(), None) is None

    def free(self) -> int | None:
        existing = next(p for p in (self.root, *self.root.parents) if p.exists())
        return shutil.disk_usage(existing).free


def _make_parents(path: Path, made: list[Path]) -> None:
    """Makes the folders that lead to a file, and adds those that were new, outermost first."""
    missing: list[Path] = []
    folder = path.parent
    while not folder.exists():
        missing.insert(0, folder)
        folder = folder.parent
    for new in missing:
        new.mkdir(exist_ok=True)
        made.append(new)


class RemoteFiles:
    """Any fsspec URL. Files are written aside and moved; how whole a move is depends on the file system."""

    def __init__(self, url: str) -> None:
        import fsspec

        self.where = url
        try:
            fs, root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise StoreError(f"store {url}: {error}") from error
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

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._path(name))

    def entries(self, folder: str = "") -> list[Entry]:
        self._fs.invalidate_cache()
        try:
            found = self._fs.find(self._path(folder), detail=True)
        except FileNotFoundError:
            return []
        told = []
        for path, facts in found.items():
            when = facts.get("mtime", facts.get("LastModified"))
            seconds = when.timestamp() if hasattr(when, "timestamp") else when
            name = str(path).removeprefix(self._root).lstrip("/")
            told.append(Entry(name, int(facts["size"]), seconds if isinstance(seconds, float) else None))
        return sorted(told, key=lambda entry: entry.name)

    def empty(self) -> bool:
        return not self._fs.exists(self._root) or not self._fs.ls(self._root, detail=False)

    def free(self) -> int | None:
        return None
