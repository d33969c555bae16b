"""A store of results: listing, checking and cleaning up. Reading and writing are in shelf.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from winticket.run import codec
from winticket.run.claims import who_claims
from winticket.run.codec_header import header_size, read_header
from winticket.run.errors import Damaged, StoreError
from winticket.run.files import TEMPORARY, Entry, abandoned
from winticket.run.layout import (
    CLAIMS,
    FOLDERS,
    LOOKS,
    MACHINES,
    PLANS,
    STOPS,
    Kind,
    Problem,
    Removed,
    Row,
    is_store_file,
    key_of,
    name_of,
    row_of,
)
from winticket.run.plans import Waiting, standings
from winticket.run.shelf import Shelf, explained
from winticket.run.stops import abandoned_stops

T = TypeVar("T")
_START = 1 << 15  # bytes of a file that are read for its notes; most headers are shorter
_AT_ONCE = 16  # requests to a remote store


class Store(Shelf):
    """A directory, or any fsspec URL, of results. Opening a store creates nothing; the first write does.

    Raises StoreError if the path holds something else, or a store of another format.

    >>> store = Store("memory://example-store")
    >>> store.put("ab" + 62 * "0", {"density": 0.2}, {"seconds": 1.5})
    >>> store.get("ab" + 62 * "0"), [row.kind for row in store.ls()]
    ({'density': 0.2}, ['result'])
    """

    def ls(self) -> list[Row]:
        """Results, failures and checkpoints, each sorted by key. Raises StoreError, which names a damaged file."""
        with self._explained("be read"):
            return [
                row for kind in FOLDERS for row in self._each(partial(self._row, kind), self._entries(kind))
            ]

    def verify(self) -> list[Problem]:
        """Read and re-hash every file. Returns the damaged ones, and temporary files whose writer has ended."""
        problems: list[Problem] = []
        with self._explained("be read"):
            for kind in FOLDERS:
                entries = self._entries(kind)
                reasons = self._each(partial(self._damage, kind), entries)
                problems += [
                    Problem("damaged", entry.name, reason)
                    for entry, reason in zip(entries, reasons, strict=True)
                    if reason
                ]
            for entry in self._ours(LOOKS):
                try:
                    self._look(entry.name, self._files.read(entry.name))
                except StoreError as error:
                    problems.append(Problem("damaged", entry.name, str(error)))
            problems += [Problem("damaged", name, reason) for name, reason in self._damaged_plans().items()]
            for folder in (TEMPORARY, LOOKS, CLAIMS, PLANS, MACHINES, STOPS, *FOLDERS.values()):
                problems += [
                    Problem("foreign", e.name, "not a file that a store writes; no command touches it")
                    for e in self._files.entries(folder)
                    if not is_store_file(e.name) or not e.plain
                ]
            leftover = [e for e in self._ours(TEMPORARY) if abandoned(e)]
        return problems + [Problem("leftover", e.name, "its writer was stopped") for e in leftover]

    def gc(
        self,
        keep: Set[str] | None = None,
        *,
        failures: bool = False,
        damaged: bool = False,
        dry_run: bool = False,
    ) -> list[Removed]:
        """Remove abandoned temporary files, the checkpoints of finished tasks, and plans that are done.

        Returns what was removed.

        keep      if given, everything with another key is removed too, but for what an unfinished plan has; raises
                  StoreError while a command computes here
        failures  also remove stored failures, so that their tasks are run again
        damaged   also remove what `verify` calls damaged, so that it is computed again
        dry_run   remove nothing, only return what would be removed
        """
        with self._explained("be written"):
            if not self.exists():
                return []
            held, left = who_claims(self)
            if keep is not None and held:
                who = next(iter(held.values())).who()
                raise StoreError(
                    f"{who} is computing in store {self._where}, and may need what would be removed; "
                    "wait until it is done, or stop it"
                )
            going = [(e, "temporary file of a stopped writer") for e in self._ours(TEMPORARY) if abandoned(e)]
            broken = self._damaged_plans()
            if keep is not None and broken:
                raise Damaged(next(iter(broken.values())))  # nobody knows which results it needs
            over, wanted = (set[str](), set[str]()) if broken else self._plans()
            keep = None if keep is None else keep | wanted
            going += [(e, "plan that is done") for e in self._ours(PLANS) if e.name in over]
            going += [(e, "damaged") for e in self._ours(PLANS) if damaged and e.name in broken]
            if held:  # somebody may be about to take a task over, by a claim after those that are there
                ended = self.keys() | self.keys("failure")
                left = [name for name in left if name.rpartition("/")[2][:64] in ended]
            going += [(e, "claim of a process that has ended") for e in self._ours(CLAIMS) if e.name in left]
            going += [(e, "file of a run that has ended") for e in abandoned_stops(self)]
            for kind in FOLDERS:
                for entry in self._entries(kind):
                    why = self._unwanted(kind, entry, keep, failures=failures, damaged=damaged)
                    going += [(entry, why)] if why else []
            if not dry_run:
                for entry, _ in going:
                    self._files.remove(entry.name)
        return [Removed(entry.name, entry.bytes, why) for entry, why in going]

    def _damaged_plans(self) -> dict[str, str]:
        """The names of plans that cannot be read, and why."""
        reasons: dict[str, str] = {}
        for entry in self._ours(PLANS):
            try:
                self._signed(entry.name, self._files.read(entry.name), Waiting)
            except StoreError as error:
                reasons[entry.name] = str(error)
        return reasons

    def _plans(self) -> tuple[set[str], set[str]]:
        """The files of plans that are done, and the keys of all tasks of the others."""
        over: set[str] = set()
        wanted: set[str] = set()
        for plan, how_far in standings(self):
            if how_far.over() and not how_far.failed:  # failures may be tried again
                over.add(f"{PLANS}/{plan.name}.json")
            else:
                wanted.update(listed.key for listed in plan.tasks)
        return over, wanted

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

    def _each(self, look: Callable[[Entry], T], entries: list[Entry]) -> Iterator[T]:
        """`look` at every entry, in their order; at several at once if each takes a request."""
        if not self._files.remote:
            yield from map(look, entries)
            return
        with ThreadPoolExecutor(_AT_ONCE, "winticket-store") as several:
            yield from several.map(look, entries)

    def _row(self, kind: Kind, entry: Entry) -> Row:
        key = key_of(entry)
        if kind == "failure":
            failed = self.failure(key)
            return row_of(kind, key, entry, failed.meta if failed else {}, None)

        def read() -> dict[str, Any]:
            start = self._files.read(entry.name, first=_START)
            size = header_size(start)
            if size > len(start) and len(start) == _START:
                start = self._files.read(entry.name, first=size)
            return read_header(start, key=key)

        header = explained(f"{self._where}/{entry.name}", read)
        return row_of(kind, key, entry, header["about"], header["digest"])

    def _damage(self, kind: Kind, entry: Entry) -> str | None:
        try:
            if kind == "failure":
                self.failure(key_of(entry))
            else:
                codec.verify(self._files.read(entry.name), key=key_of(entry))
        except StoreError as error:
            return str(error)
        return None

    def bytes(self) -> int:
        """The total bytes of everything in the store."""
        with self._explained("be read"):
            return sum(entry.bytes for entry in self._files.entries())
