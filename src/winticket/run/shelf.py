"""Results by key: the value of a task is kept once, whole or not at all, and can be checked byte by byte.

winticket-store.json          the store's format
results/ab/KEY.safetensors    a value (see codec.py) with notes on how it was made
failures/ab/KEY.json          the traceback of a task that raised
partial/ab/KEY.safetensors    a checkpoint of a task under way
looks/QUESTION/NAME.json      a verdict on these results; each such look spends some of the error rate
claims/KEY.json               the process that computes a task now (see claims.py)
stops/RUN.json                whether a run has been asked to stop (see stops.py)
plans/NAME.json               a plan that waits for workers (see plans.py)
machines/NAME.json            what was measured on machines of one kind, for others like them
tmp/                          files being written

Nothing else in the directory is listed, changed or removed, and links in it are not followed.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Protocol, TypeVar, cast

import msgspec

from winticket.outside import Unreadable, converted, read_json
from winticket.run import codec
from winticket.run.codec_header import read_header
from winticket.run.errors import Damaged, Missing, StoreError
from winticket.run.files import TEMPORARY, Entry, Files
from winticket.run.keys import Json
from winticket.run.layout import (
    CLAIMS,
    FOLDERS,
    FORMAT,
    LOOKS,
    MACHINES,
    MARKER,
    PLANS,
    REPORTS,
    STOPS,
    Failed,
    Failure,
    Kind,
    Look,
    Marker,
    digest_of,
    is_store_file,
    key_of,
    name_of,
)
from winticket.run.remote import files_at
from winticket.text import cleaned, hide, visible, without_secrets

T = TypeVar("T")
P = TypeVar("P", bound="_Dated")
_PRESENT = 5.0  # seconds for which a remote store that was seen is taken to be still there
_ONE_BY_ONE = 20  # keys of a remote store that are asked for one by one


class _Dated(Protocol):
    """What of a plan says when it was written."""

    @property
    def name(self) -> str: ...
    @property
    def when(self) -> str: ...


class Shelf:
    """Reading and writing of a store; `Store` adds listing, checking and cleaning up."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._files = files_at(os.fspath(path))
        self.path = without_secrets(os.fspath(path))
        self._where = without_secrets(self._files.where)
        self.private = self._files.private  # True if only this process can see the results
        self.remote = self._files.remote  # True if it is reached over a network
        self._marked = False
        self._required = 0.0  # when the marker was last seen, by the monotonic clock
        with self._explained("be read"):
            self._open()

    def exists(self) -> bool:
        """True if there is a store at this path already."""
        return self._files.exists(MARKER)

    def __repr__(self) -> str:
        return f"Store({self.path!r})"

    def __reduce__(self) -> tuple[type[Shelf], tuple[str]]:
        return type(self), (self._files.where,)

    def _open(self) -> None:
        try:
            data = self._files.read(MARKER)
        except (FileNotFoundError, NotADirectoryError):
            # Left by an unfinished first write or an unfinished removal of a store: files of a store all the same.
            if any(not self._may_be_ours(name) for name in self._files.top()):
                raise StoreError(
                    f"{self._where} is not empty and not a store; pass an empty or a new directory"
                ) from None
            return
        about = self._json(MARKER, Marker, data)
        if about.format > FORMAT or about.format < 1:
            raise StoreError(
                f"{self._where} was made by a newer winticket (format {about.format}; this one knows up to "
                f"{FORMAT}): upgrade, or pass another directory"
            )
        if about.format < FORMAT:
            raise StoreError(
                f"{self._where} was made by an earlier winticket (format {about.format}; this one writes "
                f"{FORMAT} and cannot use those results): pass another directory, or remove this one"
            )
        self._marked = True

    def _may_be_ours(self, top: str) -> bool:
        if top == REPORTS:
            return True
        if top not in (TEMPORARY, LOOKS, CLAIMS, PLANS, MACHINES, STOPS, *FOLDERS.values()):
            return False
        return all(is_store_file(e.name) for e in self._files.entries(top))

    def _json(self, name: str, kind: type[T], data: bytes | None = None) -> T:
        """A JSON file of the store, as one of `kind`. Raises Damaged."""
        try:
            return read_json(self._files.read(name) if data is None else data, kind)
        except Unreadable as error:
            raise Damaged(f"{self._where}/{name} is damaged: {error}") from error

    @contextlib.contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Within: an error of the file system becomes a StoreError that says what to do."""
        try:
            yield
        except OSError as error:
            reason = hide(str(error.strerror or error), self._files.where)
            raise StoreError(
                f"store {self._where} cannot {what}: {reason}; check its disk space and permissions, or pass another "
                "store"
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
        """StoreError if the store has disappeared since it was opened, for example because somebody removed it."""
        now = time.monotonic()
        if not self._marked or (self._files.remote and now - self._required < _PRESENT):
            return
        if not self._files.exists(MARKER):
            raise StoreError(
                f"store {self._where} is gone: it was removed or moved while it was in use; put it back, or run "
                "again to compute what is missing"
            )
        self._required = now

    def check_writable(self, need: int = 0) -> None:
        """Compare `need` (bytes) with the free space, and write, create and remove a probe. Then the store exists.

        Raises StoreError, and leaves nothing behind, if the store cannot take results, or cannot keep two writers of
        one file apart.
        """
        with self._explained("be written"):
            free = self._files.free()
            if free is not None and free < need:
                raise StoreError(
                    f"store {self._where} needs about {need} bytes, but {free} are free; make room, "
                    "or pass another store"
                )
            self._files.check_create()
            self._mark()

    def has(self, key: str) -> bool:
        with self._explained("be read"):
            return self._files.exists(name_of("result", key))

    def get(self, key: str) -> Any:
        """The value of a key. Raises Missing (a KeyError) if there is none, StoreError if it is damaged."""
        return self.get_sized(key)[0]

    def get_sized(self, key: str) -> tuple[Any, int]:
        """The value, and how many bytes it takes in the store. Raises as `get` does."""
        data = self._read("result", key)
        return explained(self._file("result", key), lambda: codec.decode(data, key=key)), len(data)

    def meta(self, key: str) -> Mapping[str, Json]:
        """The notes that are kept with a result. Raises as `get` does."""
        data = self._read("result", key)
        about = explained(self._file("result", key), lambda: read_header(data, key=key)["about"])
        return cast("Mapping[str, Json]", about)

    def put(self, key: str, value: object, meta: Mapping[str, Json]) -> None:
        """Keep a value with its notes; a value that is already kept under the key stays.

        Raises TypeError for a value that cannot be kept, StoreError if the store cannot be written.
        """
        self.put_encoded(key, codec.encode(value, {**meta, "key": key}))

    def put_encoded(self, key: str, data: bytes) -> None:
        """`put` for the bytes of `codec.encode`, with the key among their notes."""
        if self._files.remote:
            with self._explained("be written"):
                self._mark()
                self._files.create(name_of("result", key), data)  # one request, and none to ask before
        elif not self.has(key):
            self._write(name_of("result", key), data)
        self.forget(key, "failure")

    def failure(self, key: str) -> Failure | None:
        """The failure of a task; None if it has not failed. Raises Damaged for a file that was changed."""
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
        """Keep a failure instead of a result."""
        # JSON cannot hold half a surrogate pair, which comes from a file name that is not text.
        traceback, notes = visible(traceback), cleaned(meta)
        digest = digest_of(key, traceback, notes)
        failed = {"format": FORMAT, "key": key, "traceback": traceback, "meta": notes, "digest": digest}
        self._write(name_of("failure", key), json.dumps(failed, indent=1).encode())

    def save_partial(self, key: str, value: object) -> None:
        """Keep a checkpoint; it replaces the last one."""
        self._write(name_of("partial", key), codec.encode(value, {"key": key}))

    def load_partial(self, key: str) -> Any:
        """The last checkpoint, or None. Raises StoreError if it is damaged."""
        try:
            data = self._read("partial", key)
        except KeyError:
            return None
        return explained(self._file("partial", key), lambda: codec.decode(data, key=key))

    def looks(self, question: str) -> list[dict[str, Any]]:
        """The verdicts reached so far on a question, by their number. Raises Damaged for a file that was changed."""
        with self._explained("be read"):
            names = [entry.name for entry in self._ours(f"{LOOKS}/{question}")]
            looks = [self._look(name, self._files.read(name)) for name in names]
        return sorted(looks, key=lambda look: (look["look"], look["when"], look["name"]))

    def put_look(self, question: str, about: Mapping[str, Json]) -> None:
        """Keep a verdict under the name of the results that it was reached on."""
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
                f"{self._where}/{name} is damaged: {error}; it recorded a look at these results, and without it "
                "nobody knows how much of the error rate that look spent: use another --seed; or remove the file, and "
                "the chance of a false win is higher than reported"
            ) from error

    def measurements(self, but: Collection[str] = ()) -> dict[str, bytes]:
        """What was measured on machines, as files by name, except those names."""
        with self._explained("be read"):
            names = [entry.name.rpartition("/")[2] for entry in self._ours(MACHINES)]
            return {name: self._files.read(f"{MACHINES}/{name}") for name in names if name not in but}

    def put_measurement(self, name: str, content: bytes) -> None:
        """Keep a measurement unless there is one of that name."""
        with self._explained("be written"):
            self._mark()
            self._files.create(f"{MACHINES}/{name}", content)

    def forget(self, key: str, kind: Kind) -> None:
        """Remove the file of this kind under a key, if there is one."""
        with self._explained("be written"):
            self._files.remove(name_of(kind, key))

    def _entries(self, kind: Kind) -> list[Entry]:
        return self._ours(FOLDERS[kind])

    def keys(self, kind: Kind = "result") -> frozenset[str]:
        """The keys of all results, or failures or checkpoints, by one listing."""
        with self._explained("be read"):
            return frozenset(key_of(entry) for entry in self._entries(kind))

    def among(self, keys: Collection[str], kind: Kind = "result") -> frozenset[str]:
        """Those of the keys under which there is a file of this kind.

        A store elsewhere answers a request in tens of milliseconds, and a listing has a thousand names per request; so
        there more than a few keys are looked up by one listing. On a disk, one by one is faster.
        """
        with self._explained("be read"):
            if self._files.remote and len(keys) > _ONE_BY_ONE:
                return frozenset(key_of(entry) for entry in self._entries(kind)).intersection(keys)
            return frozenset(key for key in keys if self._files.exists(name_of(kind, key)))

    def put_plan(self, name: str, about: msgspec.Struct) -> None:
        """Keep a plan that waits for workers, unless there is one of that name."""
        content = msgspec.to_builtins(about)
        data = json.dumps({**content, "digest": digest_of(content)}).encode()
        with self._explained("be written"):
            self._mark()
            self._files.create(f"{PLANS}/{name}.json", data)

    def has_plans(self) -> bool:
        """True if plans wait in the store, or have waited."""
        with self._explained("be read"):
            return bool(self._ours(PLANS))

    def plans(self, kind: type[P]) -> list[P]:
        """The plans that wait in the store, in the order in which they were written. Raises Damaged."""
        with self._explained("be read"):
            names = [entry.name for entry in self._ours(PLANS)]
            plans = [self._signed(name, self._files.read(name), kind) for name in names]
        if misnamed := [
            name for name, plan in zip(names, plans, strict=True) if f"{PLANS}/{plan.name}.json" != name
        ]:
            raise Damaged(f"{self._where}/{misnamed[0]} holds the plan of another name; remove it")
        return sorted(plans, key=lambda plan: (plan.when, plan.name))

    def _signed(self, name: str, data: bytes, kind: type[T]) -> T:
        """A JSON file with a digest of its own, as one of `kind`. Raises Damaged."""
        try:
            about = read_json(data, dict[str, Any])
            if about.pop("digest", None) != digest_of(about):
                raise Unreadable("its content does not match its digest")
            return converted(about, kind)
        except Unreadable as error:
            raise Damaged(
                f"{self._where}/{name} is damaged: {error}; remove it, and submit the plan again"
            ) from error

    def claims(self) -> dict[str, dict[int, Entry]]:
        """The claim files by task and generation (see claims.py)."""
        families: dict[str, dict[int, Entry]] = {}
        with self._explained("be read"):
            for entry in self._ours(CLAIMS):
                key, _, generation = key_of(entry).partition("-")
                families.setdefault(key, {})[int(generation or 0)] = entry
        return families

    def _ours(self, folder: str) -> list[Entry]:
        """The regular files in a folder that have a store's names."""
        entries = self._files.entries(folder)
        return [e for e in entries if e.plain and is_store_file(e.name)]

    @property
    def files(self) -> Files:
        """The files of the store, for the claims beside the results (see claims.py)."""
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


def explained(where: str, read: Callable[[], Any]) -> Any:
    """The value of `read()`; a StoreError that it raises is raised again with the file and what to do."""
    try:
        return read()
    except Damaged as error:
        raise Damaged(f"{where}: {error}; remove the file, and run again to compute it anew") from error
    except StoreError as error:
        raise StoreError(f"{where}: {error}") from error
