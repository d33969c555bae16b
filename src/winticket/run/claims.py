"""Who computes what: claims that expire, so that commands on one store share the work and nobody does it twice.

`claims/KEY.json` is created, and only if there is none, by whoever is about to compute a task; it is renewed while
the task is under way and removed after. A claim that is not renewed for `EXPIRY` seconds is anybody's, as is one whose
process on this machine is gone. Nobody's clock is compared with another machine's: whoever waits watches for a renewal
by its own clock.

Claims decide who computes, and never what: they are in no key, and a task that is computed twice after all (a process
stopped for longer than the expiry, a file system without locks) gives the same result twice, of which the first stays.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from winticket.outside import Unreadable, read_json
from winticket.run.errors import StoreError
from winticket.run.files import Entry, alive, host
from winticket.run.layout import CLAIMS
from winticket.run.shelf import Shelf

EXPIRY = 30.0  # seconds without a renewal after which a claim is anybody's
_RENEWALS = 6  # in that time
_LEFT = 3600.0  # seconds after which a claim that cannot be asked about is cleared up
_LOCK = f"{CLAIMS}/lock"


class Claim(msgspec.Struct, frozen=True):
    """The content of a claim file. `beat` counts the renewals."""

    owner: str
    host: str
    boot: str
    pid: int
    beat: int = 0

    def dead(self) -> bool:
        """Whether its process ran on this machine, since it was started last, and is gone."""
        return (self.host, self.boot) == (host(), _boot()) and not alive(self.pid)

    def who(self) -> str:
        return f"process {self.pid}" + ("" if self.host == host() else f" on {self.host}")


_NOBODY = Claim("", "", "", 0)  # what a damaged file counts as until it expires


@dataclass
class _Seen:
    """Another's claim as it was when it last changed, by this process's clock."""

    claim: Claim
    since: float


class Claims:
    """The claims that one run holds on a store, renewed by a thread while it holds any.

    `expiry` in seconds, by default `EXPIRY`. In a store that only this process sees there are none, and everything
    may be taken.
    """

    def __init__(self, store: Shelf, *, expiry: float | None = None) -> None:
        self._store, self._files = store, store.files
        self._expiry = EXPIRY if expiry is None else expiry
        self._needed = not store.private
        self._me = Claim(secrets.token_hex(8), host(), _boot(), os.getpid())
        self._held: dict[str, int] = {}  # key -> beat
        self._seen: dict[str, _Seen] = {}
        self._guard = threading.Lock()
        self._enough = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self, key: str) -> Claim | None:
        """Claims a task: None, if it is this run's now; else the living claim of another."""
        if not self._needed:
            return None
        mine = _encoded(self._me)
        with _in_words():
            self._store.require()
            while not self._files.create(_name(key), mine):
                other = self._read(key)
                if other is None:
                    continue  # given back just now
                if other.owner == self._me.owner:
                    break
                if not self._expired(key, other) or not self._take_over(key, other, mine):
                    return other
                break
        self._mine(key)
        return None

    def _take_over(self, key: str, expired: Claim, mine: bytes) -> bool:
        """Whoever is first puts its own claim in the place of an expired one; the next one finds another there."""
        with self._files.exclusive(_LOCK) as alone:
            if not alone or self._read(key) != expired:
                return False
            self._files.write(_name(key), mine)
        return True

    def open(self, key: str) -> bool:
        """Whether nobody computes a task, as far as can be seen now; it is not claimed by asking."""
        if not self._needed:
            return True
        with _in_words():
            other = self._read(key)
        return other is None or other.owner == self._me.owner or self._expired(key, other)

    def _mine(self, key: str) -> None:
        self._seen.pop(key, None)
        with self._guard:
            self._held[key] = 0
        if self._thread is None:
            self._thread = threading.Thread(target=self._renew, name="winticket-claims", daemon=True)
            self._thread.start()

    def _expired(self, key: str, claim: Claim) -> bool:
        if claim.dead():
            return True
        now, seen = time.monotonic(), self._seen.get(key)
        if seen is None or seen.claim != claim:
            self._seen[key] = _Seen(claim, now)
            return False
        return now - seen.since > self._expiry

    def give_back(self, key: str) -> None:
        """Lets go of a task, computed or not."""
        with self._guard:
            held = self._held.pop(key, None)
        if held is None:
            return
        with contextlib.suppress(StoreError, OSError):  # it expires by itself
            claim = self._read(key)
            if claim is not None and claim.owner == self._me.owner:
                self._files.remove(_name(key))

    def close(self) -> None:
        """Lets go of everything."""
        self._enough.set()
        for key in list(self._held):
            self.give_back(key)
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _read(self, key: str) -> Claim | None:
        """A claim file's content; None if there is none, a claim that nobody holds if it is no claim."""
        try:
            return read_json(self._files.read(_name(key)), Claim)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except Unreadable:
            return _NOBODY

    def _renew(self) -> None:
        while not self._enough.wait(self._expiry / _RENEWALS):
            with self._guard:
                held = dict(self._held)
            for key, beat in held.items():
                with contextlib.suppress(StoreError, OSError):  # the next time, or it expires
                    self._renew_one(key, beat + 1)

    def _renew_one(self, key: str, beat: int) -> None:
        with self._files.exclusive(_LOCK) as alone:
            claim = self._read(key) if alone else None
            if claim is None or claim.owner != self._me.owner:
                return  # somebody took it over while this process was stopped: both finish, the first result stays
            with self._guard:
                if key not in self._held:
                    return
                self._held[key] = beat
            self._files.write(_name(key), _encoded(msgspec.structs.replace(self._me, beat=beat)))


def claims_of(store: Shelf) -> tuple[list[Claim], list[Entry]]:
    """The claims of processes that are at work, as far as can be known at once, and the files of those that are not.

    A claim from another machine counts as left after an hour without a renewal: its clock may be another.
    """
    held, left = [], []
    for entry in store.claimed():
        try:
            claim = read_json(store.files.read(entry.name), Claim)
        except FileNotFoundError:
            continue
        except Unreadable:
            claim = _NOBODY
        old = entry.modified is not None and time.time() - entry.modified > _LEFT
        if claim.dead() or old:
            left.append(entry)
        elif claim != _NOBODY:
            held.append(claim)
    return held, left


@contextlib.contextmanager
def _in_words() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"a claim cannot be written ({error.strerror or error}); check the store's disk space and permissions"
        ) from error


def _encoded(claim: Claim) -> bytes:
    return json.dumps(msgspec.structs.asdict(claim)).encode()


def _name(key: str) -> str:
    return f"{CLAIMS}/{key}.json"


def _boot() -> str:
    """This start of this machine, and the space its process numbers are of; empty where that is not told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except (OSError, ValueError):
        return ""
