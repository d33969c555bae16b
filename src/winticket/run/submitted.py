"""What a process computes for an executor that sends it functions: one task per call, and a message as the value.

Such a process may run on another machine. So each call first checks that winticket is the same version there, and that
the process sees the store of the run.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path

from winticket.importing import Known, know
from winticket.run.desk import Conditions, Desk
from winticket.run.errors import StoreError
from winticket.run.messages import Message
from winticket.run.stops import Stopping, asked_to_stop
from winticket.run.work import attempt
from winticket.version import __version__

_TOKEN = secrets.token_hex(8)  # with the process's number, since a forked process has the same token
_ALONE = (
    threading.Lock()
)  # the global random state, stdout and the number of threads belong to one task at a time
_KEPT: dict[
    bytes, Desk
] = {}  # the last run's desk, whose memory saves reading what this process has just written
_watched: list[threading.Thread] = []


def this_process() -> str:
    """A name that no other process has, on any machine."""
    return f"{_TOKEN}-{os.getpid()}"


@dataclass(frozen=True)
class Settings:
    """What a process must know of a run, besides the task. It travels pickled.

    conditions  the run's `Conditions`, with its store, pickled: they may need modules that are not found before
    modules     where the user's modules are searched (see `winticket.importing`)
    folders     Python's search path, of which the process adds what it lacks
    run         name of the run's file in the store (see `stops.py`)
    sender      the process that runs the plan
    """

    conditions: bytes
    modules: Known
    folders: tuple[str, ...]
    run: str
    sender: str


def compute(key: str, version: str, settings: bytes, nodes: bytes) -> Message:
    """Compute a task in this process and store its result. Returns the message that says how it went.

    Args:
      key: the task's key
      version: winticket's version in the process that runs the plan
      settings: a pickled `Settings`
      nodes: the pickled nodes, as `winticket.run.work.attempt` takes them

    Nothing is computed if winticket has another version here, or if the store of the run is not visible here; the
    message is "aborted" then. There is no way to report progress: the executor hears when a task has started and ended.
    """
    if version != __version__:
        text = f"{_here()} has winticket {__version__}, and the run uses {version}; install the same version there"
        return Message("aborted", key, text=text)
    with _ALONE:
        try:
            desk, inside = _desk(settings)
        except (
            StoreError,
            ImportError,
            ValueError,
        ) as error:  # ImportError, ValueError: no package for its URL
            return Message("aborted", key, text=f"on {_here()}: {error}", cause="store")
        try:
            task = pickle.loads(nodes)
        except Exception as error:  # noqa: BLE001 - an import in here may raise anything
            text = f"on {_here()}: {type(error).__name__}: {error}"
            return Message("aborted", key, text=text, cause="import")
        with _one_thread(inside=inside), _stdout_apart(inside=inside):
            return attempt(task, desk)


def _desk(data: bytes) -> tuple[Desk, bool]:
    """The desk of a run, and whether this is the process that runs the plan.

    Raises StoreError if the store of the run is not visible here.
    """
    settings: Settings = pickle.loads(data)
    inside = settings.sender == this_process()
    if not inside:
        _leave_signals()
    if data not in _KEPT:
        know(settings.modules)
        sys.path += [
            folder for folder in settings.folders if folder not in sys.path and Path(folder).is_dir()
        ]
        conditions: Conditions = pickle.loads(settings.conditions)
        store = conditions.store
        if asked_to_stop(store, settings.run) is None:
            raise StoreError(
                f"store {store.path} is not visible: the run's file is not in it, so either this machine has no such "
                "folder, or it has another one under that path; keep results in a folder on a file system that all "
                "machines share, or in an object store such as s3://bucket/runs"
            )
        _KEPT.clear()
        _KEPT[data] = Desk(conditions, _unheard, Stopping(store, settings.run))
    return _KEPT[data], inside


def forget(settings: bytes) -> None:
    """Free the memory that this process holds for a run which is over."""
    _KEPT.pop(settings, None)


def _unheard(message: Message) -> None:
    del message


def _here() -> str:
    return f"host {socket.gethostname()}"


def _leave_signals() -> None:
    """Ctrl-C, which reaches a whole process group, is left to the process that runs the plan.

    The process ends when the one that started it with `multiprocessing` has ended: an executor that was killed would
    leave it waiting for tasks forever.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None and not _watched:

        def watch(sentinel: int = parent.sentinel) -> None:
            connection.wait([sentinel])
            os._exit(1)

        _watched.append(threading.Thread(target=watch, name="winticket-parent", daemon=True))
        _watched[0].start()


@contextlib.contextmanager
def _one_thread(*, inside: bool) -> Iterator[None]:
    """Within: torch computes with one thread, so that sums do not depend on who computed them."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        if inside:
            torch.set_num_threads(before)


@contextlib.contextmanager
def _stdout_apart(*, inside: bool) -> Iterator[None]:
    """Within: what a task prints goes to stderr; in the process that runs the plan, what Python code prints."""
    with contextlib.ExitStack() as undo:
        if not inside:
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
            with contextlib.suppress(OSError):  # one of the two is closed
                kept = os.dup(1)
                undo.callback(os.close, kept)
                os.dup2(2, 1)
                undo.callback(os.dup2, kept, 1)
        undo.enter_context(contextlib.redirect_stdout(sys.stderr))
        yield
