"""Who computes what: claims that expire, so that commands on one store share the work and no task is computed twice.

A run that is about to compute a task creates `claims/KEY.json`, which succeeds only if there is none. It renews the
claim while the task is under way and removes it afterwards. Any run may take over a claim that has not been renewed for
`EXPIRY` seconds, or whose process on this machine has ended. Clocks of two machines are never compared: a run that
waits watches for renewals by its own clock.

To take a claim over is to create the file of its next generation, `claims/KEY-1.json`, then `claims/KEY-2.json`, and so
on; the last generation is the valid one. So of several runs one takes over, and nothing is asked of the file system but
to create a file only if there is none, which object stores can do as well. A claim that was taken over is not removed
before the task is finished; a run that gives up such a task adds a generation that is marked as released.

Claims decide who computes, never what: they are in no key. If a task is computed twice after all (a process stopped for
longer than the expiry), both results are the same, and the first is kept.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import msgspec

from winticket.run.claim_files import NOBODY, UNREAD, Claim, boot, claim_name, encoded, read_claim
from winticket.run.errors import StoreError
from winticket.run.files import Entry, host
from winticket.run.shelf import Shelf

EXPIRY = 30.0  # seconds without a renewal after which any run may take a claim over
RENEWALS = 6  # per expiry


@dataclass
class _Held:
    """A claim of this run: its generation, its content, and when it was renewed last."""

    generation: int
    claim: Claim
    renewed: float
    writing: threading.Lock = field(default_factory=threading.Lock)


@dataclass
class _Seen:
    """Another run's claim: its content when it was read last, its file's time, and when it was seen to change last."""

    generation: int
    claim: Claim
    stamp: tuple[float | None, int] | None
    since: float


class Claims:
    """The claims that one run holds on a store, renewed by a thread while it holds any.

    `expiry` is in seconds (default: `EXPIRY`). A store that only this process can see needs no claims, so every task
    may be taken.
    """

    def __init__(self, store: Shelf, *, expiry: float | None = None) -> None:
        self._store, self._files = store, store.files
        self._expiry = EXPIRY if expiry is None else expiry
        self._needed = not store.private
        self._me = Claim(secrets.token_hex(8), host(), boot(), os.getpid())
        self.others = 0
        self._held: dict[str, _Held] = {}
        self._seen: dict[str, _Seen] = {}
        self._guard = threading.Lock()
        self._enough = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self, key: str) -> Claim | None:
        """Claim a task. None if this run holds it now, else the valid claim of another run."""
        if not self._needed or key in self._held:
            return None
        with _in_words():
            self._store.require()
            generation = 0
            while not self._files.create(claim_name(key, generation), encoded(self._me)):
                last = self._last(key)
                if last is None:
                    generation = 0  # released just now
                    continue
                self._note(key, *last)
                if not self._expired(key):
                    return last[1]
                generation = last[0] + 1
        self._mine(key, generation)
        return None

    def claimed(self, keys: Collection[str]) -> dict[str, Claim]:
        """The claims of other runs on these tasks, as far as one listing can show, by key.

        A claim is valid until it has not changed for the time of its expiry. `others` then says how many claims of
        other runs there are in all.
        """
        if not self._needed or not keys:
            return {}
        with _in_words():
            families = self._store.claims()
            with self._guard:
                self.others = len(families.keys() - self._held.keys())
            for key in keys:
                if key in families:
                    self._look(key, *max(families[key].items()))
                else:
                    self._seen.pop(key, None)
        return {key: self._seen[key].claim for key in keys if key in self._seen and not self._expired(key)}

    def _look(self, key: str, generation: int, entry: Entry) -> None:
        """Note what the listing shows of another run's claim.

        Its file is read to see whether its process has ended: at once in a folder, but elsewhere, where that is a
        request, only if the claim has not been renewed when it should have been.
        """
        seen, stamp, now = self._seen.get(key), (entry.modified, entry.bytes), time.monotonic()
        if seen is None or seen.generation != generation or None in (seen.stamp, entry.modified):
            later = self._store.remote and generation == 0 and entry.modified is not None
            claim = UNREAD if later else read_claim(self._files, key, generation)
            if claim is not None:
                self._note(key, generation, claim, stamp)
        elif seen.stamp != stamp:
            seen.stamp, seen.since = stamp, now
        elif seen.claim == UNREAD and now - seen.since > self._expiry / 3:
            seen.claim = read_claim(self._files, key, generation) or seen.claim

    def _last(self, key: str) -> tuple[int, Claim] | None:
        """The last generation of a task's claims with its content; None if there is none."""
        found: tuple[int, Claim] | None = None
        generation = self._seen[key].generation if key in self._seen else 0
        while (claim := read_claim(self._files, key, generation)) is not None:
            found = generation, claim
            generation += 1
        if found is None and key in self._seen:  # begun too high: the claims have been removed meanwhile
            del self._seen[key]
            return self._last(key)
        return found

    def _note(
        self, key: str, generation: int, claim: Claim, stamp: tuple[float | None, int] | None = None
    ) -> None:
        """Remember what was seen of another run's claim, and when it changed."""
        seen = self._seen.get(key)
        if seen is None or (seen.generation, seen.claim) != (generation, claim):
            self._seen[key] = _Seen(generation, claim, stamp, time.monotonic())
        elif stamp is not None:
            seen.stamp = stamp

    def _expired(self, key: str) -> bool:
        seen = self._seen[key]
        return seen.claim.released or seen.claim.dead() or time.monotonic() - seen.since > self._expiry

    def _mine(self, key: str, generation: int) -> None:
        self._seen.pop(key, None)
        with self._guard:
            self._held[key] = _Held(generation, self._me, time.monotonic())
        if self._thread is None:
            self._thread = threading.Thread(target=self._renew, name="winticket-claims", daemon=True)
            self._thread.start()

    def give_back(self, key: str, *, finished: bool = False) -> None:
        """Release a task. `finished`: its result or failure is stored, so that nobody will claim it again."""
        with self._guard:
            held = self._held.pop(key, None)
        if held is None:
            return
        # A renewal under way would write the file again.
        with held.writing, contextlib.suppress(StoreError, OSError):  # it expires by itself
            if self._lost(key, held, surely=not finished):
                return
            if held.generation and not finished:
                released = msgspec.structs.replace(self._me, released=True)
                self._files.create(claim_name(key, held.generation + 1), encoded(released))
                return
            for generation in reversed(range(held.generation + 1)):
                self._files.remove(claim_name(key, generation))

    def _lost(self, key: str, held: _Held, *, surely: bool = False) -> bool:
        """True if another run has taken the claim over, which it can only if this process was stopped for a while.

        The clock may have stood still meanwhile, so `surely` asks the store in any case.
        """
        late = surely or time.monotonic() - held.renewed > self._expiry / 2
        return late and self._files.exists(claim_name(key, held.generation + 1))

    def close(self) -> None:
        """Release every task."""
        self._enough.set()
        for key in list(self._held):
            self.give_back(key)
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _renew(self) -> None:
        while not self._enough.wait(self._expiry / RENEWALS):
            with self._guard:
                held = dict(self._held)
            # Several at a time, since one request may be slow, and the longest waiting first.
            with ThreadPoolExecutor(min(max(len(held), 1), _AT_ONCE)) as pool:
                list(pool.map(self._renew_one, *zip(*_oldest_first(held), strict=True)) if held else ())

    def _renew_one(self, key: str, held: _Held) -> None:
        with held.writing, contextlib.suppress(StoreError, OSError):  # the next time, or it expires
            self._renew_now(key, held)

    def _renew_now(self, key: str, held: _Held) -> None:
        if self._lost(key, held):
            return  # both finish, and the first result is kept
        if not self._files.exists(name := claim_name(key, held.generation)):
            return  # the store is gone
        with self._guard:
            if self._held.get(key) is not held:
                return
            held.claim = msgspec.structs.replace(held.claim, beat=held.claim.beat + 1)
        self._files.write(name, encoded(held.claim))
        held.renewed = time.monotonic()


_AT_ONCE = 16
"""Requests to a store at the same time."""


def _oldest_first(held: dict[str, _Held]) -> list[tuple[str, _Held]]:
    return sorted(held.items(), key=lambda item: item[1].renewed)


def who_claims(store: Shelf) -> tuple[dict[str, Claim], list[str]]:
    """The valid claims by their tasks, as far as can be known at once, and the names of abandoned claim files.

    A claim from another machine counts as abandoned after an hour without a renewal, since its clock may differ.
    """
    held: dict[str, Claim] = {}
    left: list[str] = []
    families = store.claims()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        last = list(pool.map(lambda key: read_claim(store.files, key, max(families[key])), families))
    for (key, family), claim in zip(families.items(), last, strict=True):
        entry = family[max(family)]
        if claim is None:
            continue
        old = entry.modified is not None and time.time() - entry.modified > _LEFT
        if claim.released or claim.dead() or old:
            left += [claim_name(key, number) for number in sorted(family, reverse=True)]
        elif claim != NOBODY:
            held[key] = claim
    return held, left


_LEFT = 3600.0  # seconds after which another machine's claim counts as abandoned


@contextlib.contextmanager
def _in_words() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"a claim cannot be written ({error.strerror or error}); check the store's disk space and permissions"
        ) from error
