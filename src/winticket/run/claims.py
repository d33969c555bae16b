"""Who computes what: claims that expire, so that commands on one store share the work and no task is computed twice.

A run that is about to compute a task creates `claims/KEY.json`, which succeeds only if there is none. It renews the
claim while the task is under way and removes it afterwards. Any run may take over a claim that has not been renewed for
`EXPIRY` seconds, or whose process on this machine has ended. Clocks of two machines are never compared: a run that
waits watches for renewals by its own clock.

Claims decide who computes, never what: they are in no key. If a task is computed twice after all (a process stopped for
longer than the expiry, a file system without locks), both results are the same, and the first is kept.
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

from winticket.alive import alive
from winticket.outside import Unreadable, read_json
from winticket.run.errors import StoreError
from winticket.run.files import Entry, host
from winticket.run.layout import CLAIMS
from winticket.run.shelf import Shelf

EXPIRY = 30.0  # seconds without a renewal after which any run may take a claim over
_RENEWALS = 6  # per expiry
_LEFT = 3600.0  # seconds after which another machine's claim counts as abandoned
_LOCK = f"{CLAIMS}/lock"


class Claim(msgspec.Struct, frozen=True):
    """The content of a claim file. `beat` counts the renewals."""

    owner: str
    host: str
    boot: str
    pid: int
    beat: int = 0

    def dead(self) -> bool:
        """True if the claim's process ran on this machine since its last boot, and has ended."""
        return (self.host, self.boot) == (host(), _boot()) and not alive(self.pid)

    def who(self) -> str:
        return f"process {self.pid}" + ("" if self.host == host() else f" on {self.host}")


_NOBODY = Claim("", "", "", 0)  # stands for a damaged file until it expires


@dataclass
class _Seen:
    """Another run's claim, and when this process saw it change last, by its own clock."""

    claim: Claim
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
        self._me = Claim(secrets.token_hex(8), host(), _boot(), os.getpid())
        self._held: dict[str, int] = {}  # key -> beat
        self._seen: dict[str, _Seen] = {}
        self._guard = threading.Lock()
        self._enough = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self, key: str) -> Claim | None:
        """Claim a task. None if this run holds it now, else the valid claim of another run."""
        if not self._needed:
            return None
        mine = _encoded(self._me)
        with _in_words():
            self._store.require()
            while not self._files.create(_name(key), mine):
                other = self._read(key)
                if other is None:
                    continue  # released just now
                if other.owner == self._me.owner:
                    break
                if not self._expired(key, other) or not self._take_over(key, other, mine):
                    return other
                break
        self._mine(key)
        return None

    def _take_over(self, key: str, expired: Claim, mine: bytes) -> bool:
        """Replace an expired claim by this run's; False if another run was faster."""
        with self._files.exclusive(_LOCK) as alone:
            if not alone or self._read(key) != expired:
                return False
            self._files.write(_name(key), mine)
        return True

    def open(self, key: str) -> bool:
        """True if no other run computes the task now, as far as can be seen. Does not claim it."""
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
        """Release a task, computed or not."""
        with self._guard:
            held = self._held.pop(key, None)
        if held is None:
            return
        with contextlib.suppress(StoreError, OSError):  # it expires by itself
            claim = self._read(key)
            if claim is not None and claim.owner == self._me.owner:
                self._files.remove(_name(key))

    def close(self) -> None:
        """Release every task."""
        self._enough.set()
        for key in list(self._held):
            self.give_back(key)
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _read(self, key: str) -> Claim | None:
        """A claim file's content; None if there is no file, a claim that nobody holds if the file is damaged."""
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
                return  # another run took it over while this process was stopped: both finish, the first result is kept
            with self._guard:
                if key not in self._held:
                    return
                self._held[key] = beat
            self._files.write(_name(key), _encoded(msgspec.structs.replace(self._me, beat=beat)))


def claims_of(store: Shelf) -> tuple[list[Claim], list[Entry]]:
    """The claims of running processes, as far as can be known at once, and the files of abandoned claims.

    A claim from another machine counts as abandoned after an hour without a renewal, since its clock may differ.
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
    """An identifier of this boot and of the process namespace; empty if the system has none."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except (OSError, ValueError):
        return ""
