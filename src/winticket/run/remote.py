"""The files of a store at an fsspec URL, and `files_at`, which finds the files of any path or URL.

A store needs two things of a file system: that a file appears whole or not at all, and that of several that create one
name exactly one succeeds.

=========  ==============================  ===================================================
protocol   a file appears whole            create
=========  ==============================  ===================================================
s3, gs     one PUT is atomic               a conditional PUT: the server refuses a second one
memory     one assignment                  under a lock of this process
others     written aside, then moved       whatever the file system offers; `check_create` tries
=========  ==============================  ===================================================

Listings are never cached. Folders are made only where they exist: object stores have names alone.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from winticket.run.errors import StoreError
from winticket.run.faults import Asking
from winticket.run.files import Entry, Files, LocalFiles, temporary_name
from winticket.text import hide

T = TypeVar("T")


@dataclass(frozen=True)
class _Kind:
    """What is known of the file systems of one protocol."""

    folders: bool = True  # it has folders, which have to be made, and no atomic write of a whole file
    options: Mapping[str, Any] = field(default_factory=dict)
    finds_prefix: bool = (
        False  # `find(root, prefix=...)` lists in one request per page, also if there is nothing
    )
    marks: bool = False  # a file can carry the mark of who wrote it
    extra: str = ""  # how it is installed


# Requests are repeated by faults.py, with one limit, and not also by s3fs and botocore. With several connections per
# file, reading one would ask for its size first.
_S3 = _Kind(
    folders=False,
    options={
        "use_listings_cache": False,
        "max_concurrency": 1,
        "config_kwargs": {"retries": {"total_max_attempts": 1, "mode": "standard"}},
    },
    finds_prefix=True,
    marks=True,
    extra="pip install 'winticket[s3]'",
)
_GS = _Kind(folders=False, options={"use_listings_cache": False}, extra="pip install 'gcsfs>=2024.12'")
_KINDS = {"s3": _S3, "s3a": _S3, "gs": _GS, "gcs": _GS, "memory": _Kind(folders=False)}
_OTHER = _Kind()
_MARK = "winticket-writer"
_ALONE = threading.Lock()  # fsspec's memory looks whether a file is there, and then writes


def files_at(path: str) -> Files:
    """The files of a local path or an fsspec URL; nothing is created."""
    if "://" not in path or path.startswith("file://"):
        try:
            return LocalFiles(Path(path.removeprefix("file://")).expanduser().absolute())
        except RuntimeError as error:  # the home folder of nobody
            raise StoreError(f"store {path!r} cannot be opened: {error}") from error
    return RemoteFiles(path)


class RemoteFiles:
    """The files below an fsspec URL. An error that passes is waited out (see faults.py); others raise StoreError.

    The configuration comes from the environment and from fsspec's own files, in each process anew.
    """

    def __init__(self, url: str) -> None:
        self.where = url
        protocol = url.partition("://")[0]
        self._kind = _KINDS.get(protocol, _OTHER)
        _check_address(url, protocol)
        self._url, self._protocol, self._process = url, protocol, 0
        self._fs, self._root = self._opened()
        self._asking = Asking(url, getattr(self._fs, "storage_options", {}))
        self.private = protocol == "memory"  # other processes cannot see the files
        self.remote = not self.private

    def _opened(self) -> tuple[Any, str]:
        import fsspec

        self._process = os.getpid()
        try:
            if self._kind.options:
                fs = _object_store(self._protocol, self._process, _environment())
                root = fs._strip_protocol(self._url)
            else:
                fs, root = fsspec.core.url_to_fs(self._url)
        except ImportError as error:
            reason = self._kind.extra or str(error)
            raise StoreError(hide(f"store {self._url} needs a package: {reason}", self._url)) from None
        except Exception as error:  # noqa: BLE001 - whatever its library raises for settings that it cannot read
            told = Asking(self._url, {}).hidden(f"store {self._url} cannot be opened: {error}")
            raise StoreError(told) from None
        return fs, str(root).rstrip("/")

    @property
    def _files(self) -> Any:
        """The file system. A process that was forked has no thread for the requests, and begins anew."""
        if self._process != os.getpid():
            self._fs, self._root = self._opened()
        return self._fs

    def _ask(self, what: str, call: Callable[[Any], T]) -> T:
        fs = self._files
        return self._asking(f"be {what}", lambda: call(fs))

    def _put(self, call: Callable[[Any], None]) -> None:
        try:
            self._ask("written", call)
        except FileNotFoundError:  # gcsfs does not tell an absent bucket from an absent file
            raise StoreError(
                f"store {self._asking.hidden(self.where)} cannot be written: there is no such place; make the bucket "
                "or the folder first, or check the store's address"
            ) from None

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def exists(self, name: str) -> bool:
        if self.private:
            return bool(self._files.exists(self._path(name)))
        try:
            # One request that also tells an absent file from an absent bucket; libraries list the folder, too.
            self.read(name, first=1)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def read(self, name: str, *, first: int | None = None) -> bytes:
        try:
            return bytes(self._ask("read", lambda fs: fs.cat_file(self._path(name), end=first)))
        except EOFError:  # a server refuses a range of an empty file
            return b""

    def write(self, name: str, data: bytes) -> None:
        path = self._path(name)
        if not self._kind.folders:
            self._put(lambda fs: fs.pipe_file(path, data))
            return
        aside = self._path(temporary_name(name))

        def move(fs: Any) -> None:
            for one in (aside, path):
                fs.makedirs(one.rpartition("/")[0], exist_ok=True)
            fs.pipe_file(aside, data)
            fs.mv(aside, path)

        self._put(move)

    def create(self, name: str, data: bytes) -> bool:
        """Write the file only if there is none, and return whether this call did; see `Files`.

        A request whose answer was lost is repeated (by aiohttp, too, without a word), and the repetition finds the
        file of the first. So a file in an object store of S3's kind carries a mark of the call that made it. Elsewhere
        it is this call's if it has the same bytes; so what is created should name its maker.
        """
        path, mark = self._path(name), secrets.token_hex(8)
        beside = {"Metadata": {_MARK: mark}} if self._kind.marks else {}

        def attempt(fs: Any) -> None:
            if self._kind.folders:
                fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            with _ALONE if self.private else contextlib.nullcontext():
                fs.pipe_file(path, data, mode="create", **beside)

        try:
            self._put(attempt)
        except FileExistsError:
            return not self.private and self._made(name, data, mark)
        return True

    def _made(self, name: str, data: bytes, mark: str) -> bool:
        """True if the file that is there is one that this call wrote, in an attempt that it took for failed."""
        try:
            if self._kind.marks:
                return bool(self._ask("read", lambda fs: fs.metadata(self._path(name))).get(_MARK) == mark)
            return self.read(name) == data
        except FileNotFoundError:
            return False

    def check_create(self) -> None:
        """Try that a file can be written, and that it cannot be created twice. Raises StoreError, and leaves nothing.

        Some servers that speak S3's protocol accept the condition and ignore it.
        """
        probe, trouble = temporary_name("probe"), ""
        try:
            if not self.create(probe, bytes(65536)):
                trouble = "a file under a new name was taken for an old one"
            elif self.create(probe, b"again"):
                trouble = "a file could be created twice"
            self.remove(probe)
        except StoreError as error:
            with contextlib.suppress(StoreError):
                self.remove(probe)
            if self._kind is not _OTHER:
                raise
            trouble = str(error)
        if trouble:
            raise StoreError(
                f"store {self._asking.hidden(self.where)} cannot keep two writers apart ({trouble}), so nothing is "
                "computed for it; a local folder works, and so do s3:// (Amazon S3, and servers that honour "
                "If-None-Match, with s3fs 2024.12 and aiobotocore 2.16 or later) and gs:// (gcsfs 2024.12 or later)"
            )

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._ask("written", lambda fs: fs.rm_file(self._path(name)))

    def entries(self, folder: str = "") -> list[Entry]:
        def find(fs: Any) -> dict[str, Any]:
            fs.invalidate_cache()
            if self._kind.finds_prefix:
                found = fs.find(self._root, prefix=f"{folder}/" if folder else "", detail=True)
            else:
                found = fs.find(self._path(folder), detail=True)
            return dict(found)

        try:
            listed = self._ask("listed", find)
        except FileNotFoundError:
            return []
        return sorted(self._entries(listed), key=lambda entry: entry.name)

    def _entries(self, listed: Mapping[str, Any]) -> Iterator[Entry]:
        start = len(self._root) + 1
        for path, facts in listed.items():
            if str(path).endswith("/") or facts.get("type") == "directory":
                continue  # consoles of object stores keep empty objects in place of folders
            when = facts.get("mtime", facts.get("LastModified"))
            seconds = when.timestamp() if hasattr(when, "timestamp") else when
            modified = float(seconds) if isinstance(seconds, (int, float)) else None
            yield Entry(str(path)[start:], int(facts["size"]), modified)

    def top(self) -> list[str]:
        def look(fs: Any) -> list[str]:
            fs.invalidate_cache()
            return [str(path) for path in fs.ls(self._root, detail=False)]

        try:
            listed = self._ask("listed", look)
        except FileNotFoundError:
            return []
        names = {path.rstrip("/").rpartition("/")[2] for path in listed if path.rstrip("/") != self._root}
        return sorted(names)

    def free(self) -> int | None:
        return None


def _check_address(url: str, protocol: str) -> None:
    """StoreError for an address that its library would misread, or that cannot be kept out of sight."""
    shown = hide(url, url)
    if "::" in url:
        raise StoreError(
            f"store {shown} chains file systems, of which one may answer from a cache; pass the last one alone"
        )
    if protocol not in _KINDS or protocol == "memory":
        return
    bucket = url.partition("://")[2].partition("/")[0]
    if not bucket:
        raise StoreError(f"store {shown} names no bucket: {protocol}://BUCKET/FOLDER")
    if "@" in bucket or ":" in bucket or "?" in url:
        raise StoreError(
            f"store {shown} has credentials or options in its address, which {protocol}:// does not read: "
            "an address is BUCKET/FOLDER, and credentials come from the environment (AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, AWS_PROFILE, AWS_ENDPOINT_URL; GOOGLE_APPLICATION_CREDENTIALS) or its files"
        )


def _environment() -> tuple[tuple[str, str], ...]:
    """The variables that configure clients of object stores."""
    begin = (
        "AWS_",
        "GOOGLE_",
        "GCE_",
        "STORAGE_",
        "http",
        "HTTP",
        "no_proxy",
        "NO_PROXY",
        "all_proxy",
        "ALL_PROXY",
    )
    return tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith(begin)))


@lru_cache(maxsize=4)
def _object_store(protocol: str, process: int, environment: tuple[tuple[str, str], ...]) -> Any:  # noqa: ARG001
    """The client of an object store, one per process and configuration; to make one takes a tenth of a second."""
    import fsspec

    kind, known = _KINDS[protocol], fsspec.config.conf.get(protocol, {})
    options = dict(kind.options)
    if "config_kwargs" in options:
        options["config_kwargs"] = {**known.get("config_kwargs", {}), **options["config_kwargs"]}
    fs = fsspec.filesystem(protocol, skip_instance_cache=True, **options)
    if kind is _S3:
        fs.retries = 1  # s3fs's own repetitions
    return fs
