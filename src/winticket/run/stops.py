"""The one line to tasks on other machines: a file in the store, by which a run asks its tasks to stop.

A run whose workers it cannot send messages to writes `stops/RUN.json`, which says whether the run has been asked to
stop, and removes it when it ends. A worker that cannot see the file does not see the run's store, or its run is over.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Iterator

import msgspec

from winticket.outside import Unreadable, read_json
from winticket.run.errors import StoreError
from winticket.run.files import Entry
from winticket.run.layout import STOPS, is_store_file
from winticket.run.shelf import Shelf

_LEFT = 3600.0  # seconds after which a file that is not renewed belongs to no run
_RENEWAL = 300.0
_LOOK = 1.0  # seconds between a worker's looks at the file, since each is a request to the store


class _Content(msgspec.Struct):
    stop: bool


class StopFile:
    """The file of one run, on the side of the run.

    >>> from winticket.run.store import Store
    >>> store = Store("memory://stops")
    >>> file = StopFile(store)
    >>> file.write(), asked_to_stop(store, file.run)
    (None, False)
    >>> file.ask(), asked_to_stop(store, file.run)
    (None, True)
    >>> file.remove(), asked_to_stop(store, file.run)
    (None, None)
    """

    def __init__(self, store: Shelf) -> None:
        self._store = store
        self.run = secrets.token_hex(8)
        self._stop = False
        self._written: float | None = None

    def write(self) -> None:
        """Write the file. Raises StoreError if the store cannot be written."""
        with _in_words(self._store):
            self._store.files.write(_name(self.run), json.dumps({"stop": self._stop}).encode())
        self._written = time.monotonic()

    def renew(self) -> None:
        """Write the file again if it is older than five minutes, so that nobody takes it for abandoned."""
        if self._written is not None and time.monotonic() - self._written > _RENEWAL:
            self.write()

    def ask(self) -> None:
        """Ask the run's tasks to stop. Raises StoreError if the store cannot be written."""
        if not self._stop and self._written is not None:
            self._stop = True
            self.write()

    def remove(self) -> None:
        """Remove the file, since the run is over. Raises StoreError if the store cannot be written."""
        if self._written is not None:
            with _in_words(self._store):
                self._store.files.remove(_name(self.run))
            self._written = None


class Stopping:
    """True once the run has been asked to stop or is over, as far as the store says; looks once a second at most."""

    def __init__(self, store: Shelf, run: str) -> None:
        self._store, self._run = store, run
        self._stop = False
        self._looked = time.monotonic()

    def __call__(self) -> bool:
        now = time.monotonic()
        if not self._stop and now - self._looked >= _LOOK:
            self._looked = now
            with contextlib.suppress(StoreError):  # an error that stays shows when the task saves something
                self._stop = asked_to_stop(self._store, self._run) is not False
        return self._stop


def asked_to_stop(store: Shelf, run: str) -> bool | None:
    """Whether the run has been asked to stop; None if the store has no file of that run.

    Raises StoreError if the store cannot be read.
    """
    try:
        with _in_words(store):
            return read_json(store.files.read(_name(run)), _Content).stop
    except FileNotFoundError:
        return None
    except Unreadable:
        return False


def abandoned_stops(store: Shelf) -> list[Entry]:
    """The files of runs that have ended without removing them: those an hour old, since a run renews its file."""
    old = time.time() - _LEFT
    with _in_words(store):
        entries = store.files.entries(STOPS)
    ours = [e for e in entries if e.plain and is_store_file(e.name)]
    return [e for e in ours if e.modified is not None and e.modified < old]


@contextlib.contextmanager
def _in_words(store: Shelf) -> Iterator[None]:
    """Within: an error of the file system, other than a missing file, becomes a StoreError."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(*error.args) from error
    except OSError as error:
        raise StoreError(
            f"store {store.path} cannot be used: {error.strerror or error}; check its disk space and permissions"
        ) from error


def _name(run: str) -> str:
    return f"{STOPS}/{run}.json"
