"""Results by key: what a task gave is kept once, whole or not at all, and can be checked byte by byte.

winticket-store.json          the store's format
results/ab/KEY.safetensors    a value (see codec.py) with notes on how it was made
failures/ab/KEY.json          the traceback of a task that raised
partial/ab/KEY.safetensors    a checkpoint of a task under way
looks/QUESTION/NAME.json      a verdict that was reached on results here; each look spends some of the error
tmp/                          files being written
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, cast

from . import codec
from .errors import Damaged, StoreError
from .files import TEMPORARY, Entry, abandoned, place, temporary_name
from .keys import Json

FORMAT = 1
MARKER = "winticket-store.json"
LOOKS = "looks"
_LOOK: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "look": int,
    "when": int,
    "replicates": int,
    "margin_pp": (int, float),
    "alpha": (int, float),
    "claimed": list,
    "paths": list,
}
Kind = Literal["result", "failure", "partial"]
_FOLDERS: dict[Kind, str] = {"result": "results", "failure": "failures", "partial": "partial"}


@dataclass(frozen=True)
class Failure:
    """A task that raised: its traceback, and the notes kept with it."""

    traceback: str
    meta: Mapping[str, Json]


@dataclass(frozen=True)
class Row:
    """One entry of a store. `seconds` and `when` (ISO 8601, UTC) are None where they were not recorded."""

    kind: Kind
    key: str
    fn: str | None
    label: Mapping[str, Json]
    seconds: float | None
    bytes: int
    when: str | None
    digest: str | None  # sha256 of the value alone; equal digests are equal values


@dataclass(frozen=True)
class Problem:
    """Something that verify found: `kind` is "damaged" or "leftover"."""

    kind: Literal["damaged", "leftover"]
    name: str
    reason: str


@dataclass(frozen=True)
class Removed:
    name: str
    bytes: int
    why: str


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
            # An unfinished first write leaves tmp/ without a marker; that is still nobody else's directory.
            if not self._files.empty() and any(
                not e.name.startswith(TEMPORARY + "/") for e in self._files.entries()
            ):
                raise StoreError(
                    f"{self._files.where} is not empty and not a store; give an empty or a new directory"
                )
            return
        try:
            version = json.loads(self._files.read(MARKER))["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{self._files.where}/{MARKER} is damaged: {error}") from error
        if type(version) is not int or version > FORMAT:
            raise StoreError(
                f"{self._files.where} was made by a newer winticket (format {version}; this one knows up to "
                f"{FORMAT}): upgrade, or give another directory"
            )
        self._marked = True

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
            return self._files.exists(_name("result", key))

    def get(self, key: str) -> Any:
        """The value kept under a key. Errors: KeyError if there is none; StoreError if it is damaged."""
        return self.get_sized(key)[0]

    def get_sized(self, key: str) -> tuple[Any, int]:
        """The value, and how many bytes it takes in the store. Errors as for `get`."""
        data = self._read("result", key)
        return _from(self._where("result", key), lambda: codec.decode(data)), len(data)

    def meta(self, key: str) -> Mapping[str, Json]:
        """The notes kept with a result. Errors as for `get`."""
        data = self._read("result", key)
        about = _from(self._where("result", key), lambda: codec.read_header(data)["about"])
        return cast("Mapping[str, Json]", about)

    def put(self, key: str, value: object, meta: Mapping[str, Json]) -> None:
        """Keeps a value with its notes; one that is there already stays as it is.

        Errors: TypeError for a value that cannot be kept; StoreError if the store cannot be written.
        """
        self.put_encoded(key, codec.encode(value, meta))

    def put_encoded(self, key: str, data: bytes) -> None:
        """`put` for bytes that codec.encode made."""
        if not self.has(key):
            self._write(_name("result", key), data)
        self.forget(key, "failure")

    def failure(self, key: str) -> Failure | None:
        """How the task failed, if it did."""
        name = _name("failure", key)
        with self._explained("be read"):
            try:
                data = self._files.read(name)
            except (FileNotFoundError, NotADirectoryError):
                return None
        try:
            told = json.loads(data)
            return Failure(told["traceback"], told["meta"])
        except (ValueError, KeyError, TypeError) as error:
            raise Damaged(
                f"{self._files.where}/{name} is damaged: {error}; remove it and run again"
            ) from error

    def put_failure(self, key: str, traceback: str, meta: Mapping[str, Json]) -> None:
        """Keeps a failure in the place of a result."""
        told = {"format": FORMAT, "traceback": traceback, "meta": dict(meta)}
        self._write(_name("failure", key), json.dumps(told, indent=1).encode())

    def save_partial(self, key: str, value: object) -> None:
        """Keeps a checkpoint, in the place of the last one."""
        self._write(_name("partial", key), codec.encode(value))

    def load_partial(self, key: str) -> Any:
        """The last checkpoint, or None. Errors: StoreError if it is damaged."""
        try:
            data = self._read("partial", key)
        except KeyError:
            return None
        return _from(self._where("partial", key), lambda: codec.decode(data))

    def looks(self, question: str) -> list[dict[str, Any]]:
        """The verdicts reached so far on a question, by their number. Errors: Damaged for a file that is none."""
        with self._explained("be read"):
            names = [entry.name for entry in self._files.entries(f"{LOOKS}/{question}")]
            found = [self._look(name, self._files.read(name)) for name in names]
        return sorted(found, key=lambda look: (look["look"], look["when"], look["name"]))

    def put_look(self, question: str, about: Mapping[str, Json]) -> None:
        """Keeps a verdict under the name of what it was reached on."""
        self._write(f"{LOOKS}/{question}/{about['name']}.json", json.dumps(dict(about), indent=1).encode())

    def _look(self, name: str, data: bytes) -> dict[str, Any]:
        try:
            about = json.loads(data)
            kept = {key: about[key] for key in _LOOK}
            if any(not isinstance(kept[key], kind) for key, kind in _LOOK.items()):
                raise TypeError("its entries are of other types")
            return kept
        except (ValueError, KeyError, TypeError) as error:
            raise Damaged(
                f"{self._files.where}/{name} is damaged: {error}; it recorded a look at these results, and how much "
                "of the error that look spent is not known without it"
            ) from error

    def forget(self, key: str, kind: Kind) -> None:
        """Removes what is kept under a key, if there is anything."""
        with self._explained("be written"):
            self._files.remove(_name(kind, key))

    def ls(self) -> list[Row]:
        """Results, failures and partials, each sorted by key. Errors: StoreError naming a damaged file."""
        with self._explained("be read"):
            return [self._row(kind, entry) for kind in _FOLDERS for entry in self._entries(kind)]

    def verify(self) -> list[Problem]:
        """Reads and re-hashes every file; reports the damaged ones, and temporaries whose writer is gone."""
        found: list[Problem] = []
        with self._explained("be read"):
            for kind in _FOLDERS:
                judged = ((entry, self._damage(kind, entry)) for entry in self._entries(kind))
                found += [Problem("damaged", entry.name, reason) for entry, reason in judged if reason]
            for entry in self._files.entries(LOOKS):
                try:
                    self._look(entry.name, self._files.read(entry.name))
                except Damaged as error:
                    found.append(Problem("damaged", entry.name, str(error)))
            leftover = [e for e in self._files.entries(TEMPORARY) if abandoned(e)]
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
            going = [
                (e, "temporary of a stopped writer") for e in self._files.entries(TEMPORARY) if abandoned(e)
            ]
            for kind in _FOLDERS:
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
        key = _key(entry)
        if keep is not None and key not in keep:
            return "not to be kept"
        if kind == "partial" and self._files.exists(_name("result", key)):
            return "its task is finished"
        if kind == "failure" and failures:
            return "failures are to be tried again"
        return "damaged" if damaged and self._damage(kind, entry) else None

    def _entries(self, kind: Kind) -> list[Entry]:
        return self._files.entries(_FOLDERS[kind])

    def _read(self, kind: Kind, key: str) -> bytes:
        with self._explained("be read"):
            try:
                return self._files.read(_name(kind, key))
            except (FileNotFoundError, NotADirectoryError):
                raise KeyError(f"store {self._files.where} has no {kind} {key}") from None

    def _where(self, kind: Kind, key: str) -> str:
        return f"{self._files.where}/{_name(kind, key)}"

    def _row(self, kind: Kind, entry: Entry) -> Row:
        key = _key(entry)
        if kind == "failure":
            failed = self.failure(key)
            return _row(kind, key, entry, failed.meta if failed else {}, None)

        def read() -> dict[str, Any]:
            size = codec.header_size(self._files.read(entry.name, first=8))
            return codec.read_header(self._files.read(entry.name, first=size))

        header = _from(f"{self._files.where}/{entry.name}", read)
        return _row(kind, key, entry, header["about"], header["digest"])

    def _damage(self, kind: Kind, entry: Entry) -> str | None:
        try:
            if kind == "failure":
                self.failure(_key(entry))
            else:
                codec.verify(self._files.read(entry.name))
        except StoreError as error:
            return str(error)
        return None

    def bytes(self) -> int:
        """The bytes of everything in the store."""
        with self._explained("be read"):
            return sum(entry.bytes for entry in self._files.entries())


def _row(kind: Kind, key: str, entry: Entry, meta: Mapping[str, Any], digest: str | None) -> Row:
    when = meta.get("when")
    if when is None and entry.modified is not None:
        when = datetime.fromtimestamp(entry.modified, UTC).isoformat(timespec="seconds")
    return Row(
        kind, key, meta.get("fn"), meta.get("label") or {}, meta.get("seconds"), entry.bytes, when, digest
    )


def _name(kind: Kind, key: str) -> str:
    ending = ".json" if kind == "failure" else ".safetensors"
    return f"{_FOLDERS[kind]}/{key[:2]}/{key}{ending}"


def _key(entry: Entry) -> str:
    return Path(entry.name).stem


def _from(where: str, read: Callable[[], Any]) -> Any:
    """What `read` gives; a StoreError from it is told with the file and what to do."""
    try:
        return read()
    except Damaged as error:
        raise Damaged(f"{where}: {error}; remove the file, and running again will make it anew") from error
    except StoreError as error:
        raise StoreError(f"{where}: {error}") from error
