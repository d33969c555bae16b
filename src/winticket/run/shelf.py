"""Results by key: what a task gave is kept once, whole or not at all, and can be checked byte by byte.

winticket-store.json          the store's format
results/ab/KEY.safetensors    a value (see codec.py) with notes on how it was made
failures/ab/KEY.json          the traceback of a task that raised
partial/ab/KEY.safetensors    a checkpoint of a task under way
looks/QUESTION/NAME.json      a verdict that was reached on results here; each look spends some of the error
claims/KEY.json               who is computing a task just now (see claims.py)
tmp/                          files being written

Nothing else in the directory is listed, changed or removed, and links in it are not followed.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar, cast

import msgspec

from winticket.outside import Unreadable, converted, read_json
from winticket.run import codec
from winticket.run.errors import Damaged, Missing, StoreError
from winticket.run.files import TEMPORARY, Entry, Files, place, temporary_name
from winticket.run.keys import Json
from winticket.run.layout import (
    CLAIMS,
    FOLDERS,
    FORMAT,
    LOOKS,
    MARKER,
    REPORTS,
    Failed,
    Failure,
    Kind,
    Look,
    Marker,
    digest_of,
    is_store_file,
    name_of,
)
from winticket.text import cleaned, hide, visible, without_secrets

T = TypeVar("T")


class Shelf:
    """What a store keeps and gives; `Store` adds what looks after it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._files = place(os.fspath(path))
        self.path = without_secrets(os.fspath(path))
        self._where = without_secrets(self._files.where)
        self.private = self._files.private  # whether only this process can see what it holds
        self._marked = False
        with self._explained("be read"):
            self._open()

    def exists(self) -> bool:
        """Whether there is a store at this place yet."""
        return self._files.exists(MARKER)

    def __repr__(self) -> str:
        return f"Store({self.path!r})"

    def __reduce__(self) -> tuple[type[Shelf], tuple[str]]:
        return type(self), (self._files.where,)

    def _open(self) -> None:
        if not self._files.exists(MARKER):
            # Of an unfinished first write, or a store whose removal was not finished: still nobody else's.
            if any(not self._may_be_ours(name) for name in self._files.top()):
                raise StoreError(
                    f"{self._where} is not empty and not a store; give an empty or a new directory"
                )
            return
        about = self._json(MARKER, Marker)
        if about.format > FORMAT or about.format < 1:
            raise StoreError(
                f"{self._where} was made by a newer winticket (format {about.format}; this one knows up to "
                f"{FORMAT}): upgrade, or give another directory"
            )
        if about.format < FORMAT:
            raise StoreError(
                f"{self._where} was made by an earlier winticket (format {about.format}; this one writes "
                f"{FORMAT} and cannot use what is there): give another directory, or remove this one"
            )
        self._marked = True

    def _may_be_ours(self, top: str) -> bool:
        if top == REPORTS:
            return True
        if top not in (TEMPORARY, LOOKS, CLAIMS, *FOLDERS.values()):
            return False
        return all(is_store_file(e.name) for e in self._files.entries(top))

    def _json(self, name: str, kind: type[T], data: bytes | None = None) -> T:
        """A JSON file of the store's own, as one of `kind`. Errors: Damaged."""
        try:
            return read_json(self._files.read(name) if data is None else data, kind)
        except Unreadable as error:
            raise Damaged(f"{self._where}/{name} is damaged: {error}") from error

    @contextlib.contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Turns what the file system says into a StoreError that says what to do."""
        try:
            yield
        except OSError as error:
            said = hide(str(error.strerror or error), self._files.where)
            raise StoreError(
                f"store {self._where} cannot {what}: {said}; check its disk space and permissions, or give another "
                "place"
            ) from error

    def _write(self, name: str, data: bytes) -> None:
        with self._explained("be written"):
            self._mark()
            self._files.write(name, data)

    def _mark(self) -> None:
        if not self._marked:
            self._files.write(MARKER, json.dumps({"format": FORMAT}).encode())
            self._marked = True
        self.require()

    def require(self) -> None:
        """StoreError if there was a store here and is none any more, such as one removed while it was in use."""
        if self._marked and not self._files.exists(MARKER):
            raise StoreError(
                f"store {self._where} is gone: it was removed or moved while it was in use; put it back, or run "
                "again and what is missing is computed anew"
            )

    def check_writable(self, need: int = 0) -> None:
        """Writes and removes a probe, and compares `need` (bytes) with the free space; then the store exists.

        Errors: StoreError, with nothing left behind, where the store could not take results.
        """
        probe = temporary_name("probe")
        with self._explained("be written"):
            free = self._files.free()
            if free is not None and free < need:
                raise StoreError(
                    f"store {self._where} needs about {need} bytes, but {free} are free; make room, "
                    "or give another place"
                )
            self._files.write(probe, bytes(65536))
            self._files.remove(probe)
            self._mark()

    def has(self, key: str) -> bool:
        with self._explained("be read"):
            return self._files.exists(name_of("result", key))

    def get(self, key: str) -> Any:
        """The value kept under a key. Errors: Missing (a KeyError) if there is none; StoreError if it is damaged."""
        return self.get_sized(key)[0]

    def get_sized(self, key: str) -> tuple[Any, int]:
        """The value, and how many bytes it takes in the store. Errors as for `get`."""
        data = self._read("result", key)
        return said_of(self._file("result", key), lambda: codec.decode(data, key=key)), len(data)

    def meta(self, key: str) -> Mapping[str, Json]:
        """The notes kept with a result. Errors as for `get`."""
        data = self._read("result", key)
        about = said_of(self._file("result", key), lambda: codec.read_header(data, key=key)["about"])
        return cast("Mapping[str, Json]", about)

    def put(self, key: str, value: object, meta: Mapping[str, Json]) -> None:
        """Keeps a value with its notes; one that is there already stays as it is.

        Errors: TypeError for a value that cannot be kept; StoreError if the store cannot be written.
        """
        self.put_encoded(key, codec.encode(value, {**meta, "key": key}))

    def put_encoded(self, key: str, data: bytes) -> None:
        """`put` for bytes that codec.encode made, with the key among their notes."""
        if not self.has(key):
            self._write(name_of("result", key), data)
        self.forget(key, "failure")

    def failure(self, key: str) -> Failure | None:
        """How the task failed, if it did."""
        name = name_of("failure", key)
        with self._explained("be read"):
            try:
                data = self._files.read(name)
            except (FileNotFoundError, NotADirectoryError):
                return None
        failed = self._json(name, Failed, data)
        try:
            sound = failed.digest == digest_of(failed.key, failed.traceback, failed.meta)
        except Unreadable:
            sound = False
        if not sound or failed.key != key:
            raise Damaged(f"{self._where}/{name} is damaged: its content does not match its digest")
        return Failure(failed.traceback, failed.meta)

    def put_failure(self, key: str, traceback: str, meta: Mapping[str, Json]) -> None:
        """Keeps a failure in the place of a result."""
        # Half a surrogate pair, as of a file name that is no text, is in no JSON that others read.
        traceback, notes = visible(traceback), cleaned(meta)
        digest = digest_of(key, traceback, notes)
        failed = {"format": FORMAT, "key": key, "traceback": traceback, "meta": notes, "digest": digest}
        self._write(name_of("failure", key), json.dumps(failed, indent=1).encode())

    def save_partial(self, key: str, value: object) -> None:
        """Keeps a checkpoint, in the place of the last one."""
        self._write(name_of("partial", key), codec.encode(value, {"key": key}))

    def load_partial(self, key: str) -> Any:
        """The last checkpoint, or None. Errors: StoreError if it is damaged."""
        try:
            data = self._read("partial", key)
        except KeyError:
            return None
        return said_of(self._file("partial", key), lambda: codec.decode(data, key=key))

    def looks(self, question: str) -> list[dict[str, Any]]:
        """The verdicts reached so far on a question, by their number. Errors: Damaged for a file that is none."""
        with self._explained("be read"):
            names = [entry.name for entry in self._ours(f"{LOOKS}/{question}")]
            found = [self._look(name, self._files.read(name)) for name in names]
        return sorted(found, key=lambda look: (look["look"], look["when"], look["name"]))

    def put_look(self, question: str, about: Mapping[str, Json]) -> None:
        """Keeps a verdict under the name of what it was reached on."""
        signed = {**about, "digest": digest_of(dict(about))}
        self._write(f"{LOOKS}/{question}/{about['name']}.json", json.dumps(signed, indent=1).encode())

    def _look(self, name: str, data: bytes) -> dict[str, Any]:
        try:
            about = read_json(data, dict[str, Any])
            if about.pop("digest", None) != digest_of(about):
                raise Unreadable("its content does not match its digest")
            return msgspec.structs.asdict(converted(about, Look))
        except Unreadable as error:
            raise Damaged(
                f"{self._where}/{name} is damaged: {error}; it recorded a look at these results, and how much "
                "of the error that look spent is not known without it: use another --seed; or remove the file, and "
                "the chance of a false win is higher than is said"
            ) from error

    def forget(self, key: str, kind: Kind) -> None:
        """Removes what is kept under a key, if there is anything."""
        with self._explained("be written"):
            self._files.remove(name_of(kind, key))

    def _entries(self, kind: Kind) -> list[Entry]:
        return self._ours(FOLDERS[kind])

    def claimed(self) -> list[Entry]:
        """The claim files (see claims.py)."""
        with self._explained("be read"):
            return [entry for entry in self._ours(CLAIMS) if entry.name != f"{CLAIMS}/lock"]

    def _ours(self, folder: str) -> list[Entry]:
        """The regular files in a folder whose names a store gives."""
        entries = self._files.entries(folder)
        return [e for e in entries if e.plain and is_store_file(e.name)]

    @property
    def files(self) -> Files:
        """Where its bytes lie, for what is kept beside the results (see claims.py)."""
        return self._files

    def _read(self, kind: Kind, key: str) -> bytes:
        with self._explained("be read"):
            try:
                return self._files.read(name_of(kind, key))
            except (FileNotFoundError, NotADirectoryError):
                self.require()
                raise Missing(f"store {self._where} has no {kind} {key}") from None

    def _file(self, kind: Kind, key: str) -> str:
        return f"{self._where}/{name_of(kind, key)}"


def said_of(where: str, read: Callable[[], Any]) -> Any:
    """What `read` gives; a StoreError from it is told with the file and what to do."""
    try:
        return read()
    except Damaged as error:
        raise Damaged(f"{where}: {error}; remove the file, and running again will make it anew") from error
    except StoreError as error:
        raise StoreError(f"{where}: {error}") from error
