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
from collections.abc import Callable, Iterator, Mapping, Set
from typing import Any, TypeVar, cast

import msgspec

from winticket.outside import Unreadable, converted, read_json

from . import codec
from .errors import Damaged, Missing, StoreError
from .files import TEMPORARY, Entry, Files, abandoned, place, temporary_name
from .keys import Json
from .layout import (
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
    Problem,
    Removed,
    Row,
    digest_of,
    is_ours,
    key_of,
    name_of,
    row_of,
)

T = TypeVar("T")


class Store:
    """A directory, or any fsspec URL, of results. Opening one creates nothing; the first write does.

    Errors: StoreError for a place that holds something else, or a store written in a newer format.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._files = place(self.path)
        self.private = self._files.private  # whether only this process can see what it holds
        self._marked = False
        with self._explained("be read"):
            self._open()

    def exists(self) -> bool:
        """Whether there is a store at this place yet."""
        return self._files.exists(MARKER)

    def __repr__(self) -> str:
        return f"Store({self.path!r})"

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        return Store, (self._files.where,)

    def _open(self) -> None:
        if not self._files.exists(MARKER):
            # Of an unfinished first write, or a store whose removal was not finished: still nobody else's.
            if any(not self._may_be_ours(name) for name in self._files.top()):
                raise StoreError(
                    f"{self._files.where} is not empty and not a store; give an empty or a new directory"
                )
            return
        about = self._json(MARKER, Marker)
        if about.format > FORMAT or about.format < 1:
            raise StoreError(
                f"{self._files.where} was made by a newer winticket (format {about.format}; this one knows up to "
                f"{FORMAT}): upgrade, or give another directory"
            )
        if about.format < FORMAT:
            raise StoreError(
                f"{self._files.where} was made by an earlier winticket (format {about.format}; this one writes "
                f"{FORMAT} and cannot use what is there): give another directory, or remove this one"
            )
        self._marked = True

    def _may_be_ours(self, top: str) -> bool:
        if top == REPORTS:
            return True
        if top not in (TEMPORARY, LOOKS, CLAIMS, *FOLDERS.values()):
            return False
        return all(is_ours(e.name) for e in self._files.entries(top))

    def _json(self, name: str, kind: type[T], data: bytes | None = None) -> T:
        """A JSON file of the store's own, as one of `kind`. Errors: Damaged."""
        try:
            return read_json(self._files.read(name) if data is None else data, kind)
        except Unreadable as error:
            raise Damaged(f"{self._files.where}/{name} is damaged: {error}") from error

    @contextlib.contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Turns what the file system says into a StoreError that says what to do."""
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"store {self._files.where} cannot {what}: {error.strerror or error}; check its disk space "
                "and permissions, or give another place"
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
                f"store {self._files.where} is gone: it was removed or moved while it was in use; put it back, or run "
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
                    f"store {self._files.where} needs about {need} bytes, but {free} are free; make room, "
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
        return _from(self._where("result", key), lambda: _value(data, key)), len(data)

    def meta(self, key: str) -> Mapping[str, Json]:
        """The notes kept with a result. Errors as for `get`."""
        data = self._read("result", key)
        about = _from(self._where("result", key), lambda: _header_of(data, key)["about"])
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
        if failed.digest != digest_of(failed.key, failed.traceback, failed.meta) or failed.key != key:
            raise Damaged(f"{self._files.where}/{name} is damaged: its content does not match its digest")
        return Failure(failed.traceback, failed.meta)

    def put_failure(self, key: str, traceback: str, meta: Mapping[str, Json]) -> None:
        """Keeps a failure in the place of a result."""
        # Half a surrogate pair, as of a file name that is no text, is in no JSON that others read.
        traceback = traceback.encode("utf-8", "backslashreplace").decode()
        failed = {
            "format": FORMAT,
            "key": key,
            "traceback": traceback,
            "meta": dict(meta),
            "digest": digest_of(key, traceback, meta),
        }
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
        return _from(self._where("partial", key), lambda: _value(data, key))

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
                f"{self._files.where}/{name} is damaged: {error}; it recorded a look at these results, and how much "
                "of the error that look spent is not known without it: use another --seed; or remove the file, and "
                "the chance of a false win is higher than is said"
            ) from error

    def forget(self, key: str, kind: Kind) -> None:
        """Removes what is kept under a key, if there is anything."""
        with self._explained("be written"):
            self._files.remove(name_of(kind, key))

    def ls(self) -> list[Row]:
        """Results, failures and partials, each sorted by key. Errors: StoreError naming a damaged file."""
        with self._explained("be read"):
            return [self._row(kind, entry) for kind in FOLDERS for entry in self._entries(kind)]

    def verify(self) -> list[Problem]:
        """Reads and re-hashes every file; reports the damaged ones, and temporaries whose writer is gone."""
        found: list[Problem] = []
        with self._explained("be read"):
            for kind in FOLDERS:
                judged = ((entry, self._damage(kind, entry)) for entry in self._entries(kind))
                found += [Problem("damaged", entry.name, reason) for entry, reason in judged if reason]
            for entry in self._ours(LOOKS):
                try:
                    self._look(entry.name, self._files.read(entry.name))
                except StoreError as error:
                    found.append(Problem("damaged", entry.name, str(error)))
            for folder in (TEMPORARY, LOOKS, CLAIMS, *FOLDERS.values()):
                found += [
                    Problem("foreign", e.name, "no name or no file that a store writes; it is left alone")
                    for e in self._files.entries(folder)
                    if not is_ours(e.name) or not e.plain
                ]
            leftover = [e for e in self._ours(TEMPORARY) if abandoned(e)]
        return found + [Problem("leftover", e.name, "its writer was stopped") for e in leftover]

    def gc(
        self,
        keep: Set[str] | None = None,
        *,
        failures: bool = False,
        damaged: bool = False,
        dry_run: bool = False,
    ) -> list[Removed]:
        """Removes abandoned temporaries and the partials of finished tasks, and tells what went.

        keep      if given, everything whose key is not in it goes too
        failures  whether the stored failures go, so that they are tried again
        damaged   whether what verify calls damaged goes, so that it is computed again
        dry_run   only tells
        """
        with self._explained("be written"):
            if not self.exists():
                return []
            going = [(e, "temporary of a stopped writer") for e in self._ours(TEMPORARY) if abandoned(e)]
            for kind in FOLDERS:
                for entry in self._entries(kind):
                    why = self._unwanted(kind, entry, keep, failures=failures, damaged=damaged)
                    going += [(entry, why)] if why else []
            if not dry_run:
                for entry, _ in going:
                    self._files.remove(entry.name)
        return [Removed(entry.name, entry.bytes, why) for entry, why in going]

    def _unwanted(
        self, kind: Kind, entry: Entry, keep: Set[str] | None, *, failures: bool, damaged: bool
    ) -> str | None:
        key = key_of(entry)
        if keep is not None and key not in keep:
            return "not to be kept"
        if kind == "partial" and self._files.exists(name_of("result", key)):
            return "its task is finished"
        if kind == "failure" and failures:
            return "failures are to be tried again"
        return "damaged" if damaged and self._damage(kind, entry) else None

    def _entries(self, kind: Kind) -> list[Entry]:
        return self._ours(FOLDERS[kind])

    def claimed(self) -> list[Entry]:
        """The claim files (see claims.py)."""
        with self._explained("be read"):
            return [entry for entry in self._ours(CLAIMS) if entry.name != f"{CLAIMS}/lock"]

    def _ours(self, folder: str) -> list[Entry]:
        """The regular files in a folder whose names a store gives."""
        entries = self._files.entries(folder)
        return [e for e in entries if e.plain and is_ours(e.name)]

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
                raise Missing(f"store {self._files.where} has no {kind} {key}") from None

    def _where(self, kind: Kind, key: str) -> str:
        return f"{self._files.where}/{name_of(kind, key)}"

    def _row(self, kind: Kind, entry: Entry) -> Row:
        key = key_of(entry)
        if kind == "failure":
            failed = self.failure(key)
            return row_of(kind, key, entry, failed.meta if failed else {}, None)

        def read() -> dict[str, Any]:
            size = codec.header_size(self._files.read(entry.name, first=8))
            return _header_of(self._files.read(entry.name, first=size), key)

        header = _from(f"{self._files.where}/{entry.name}", read)
        return row_of(kind, key, entry, header["about"], header["digest"])

    def _damage(self, kind: Kind, entry: Entry) -> str | None:
        try:
            if kind == "failure":
                self.failure(key_of(entry))
            else:
                data = self._files.read(entry.name)
                _header_of(data, key_of(entry))
                codec.verify(data)
        except StoreError as error:
            return str(error)
        return None

    def bytes(self) -> int:
        """The bytes of everything in the store."""
        with self._explained("be read"):
            return sum(entry.bytes for entry in self._files.entries())


def _header_of(data: bytes, key: str) -> dict[str, Any]:
    """The header of a file that is kept under a key. Errors: Damaged if another task's file stands in its place."""
    header = codec.read_header(data)
    if header["about"].get("key") != key:
        raise Damaged(
            f"damaged: it is the file of task {str(header['about'].get('key'))[:12]}, not of this one"
        )
    return header


def _value(data: bytes, key: str) -> Any:
    _header_of(data, key)
    return codec.decode(data)


def _from(where: str, read: Callable[[], Any]) -> Any:
    """What `read` gives; a StoreError from it is told with the file and what to do."""
    try:
        return read()
    except Damaged as error:
        raise Damaged(f"{where}: {error}; remove the file, and running again will make it anew") from error
    except StoreError as error:
        raise StoreError(f"{where}: {error}") from error
