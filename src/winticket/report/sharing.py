"""Shares the drawing of figures between two processes, since drawing is what a page takes longest for."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")
MOST = 2048
"""Works that are shared: a pipe holds the number of each, and it has at least this room for two bytes each."""


def each(works: Sequence[Callable[[], T]]) -> list[T]:
    """Call each of the works and return their results, in order.

    On a machine with two cores, a forked process takes every other work from the same queue. What it does not give
    back, because it failed or was killed, is done here; so the results do not depend on it, and errors are those of
    this process. Results have to be picklable.

    >>> each([lambda: "a", lambda: "b"])
    ['a', 'b']
    """
    if len(works) < 2 or len(works) > MOST or not forks():
        return [work() for work in works]
    queue, fill = os.pipe()
    os.write(fill, b"".join(number.to_bytes(2, "big") for number in range(len(works))))
    os.close(fill)
    from_child, to_parent = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 warns of other threads. Those of numerical libraries hold no lock between two calls.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        _help(works, queue, to_parent)
    os.close(to_parent)
    done: dict[int, T] = {}
    try:
        while (number := _next(queue)) is not None:
            done[number] = works[number]()
        done |= _received(from_child)
    except BaseException:
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        os.close(queue)
        os.close(from_child)
        os.waitpid(child, 0)
    return [done[number] if number in done else work() for number, work in enumerate(works)]


def forks() -> bool:
    """Whether a second process would help, and can be forked: another Python thread might hold a lock for ever."""
    return sys.platform == "linux" and threading.active_count() == 1 and len(os.sched_getaffinity(0)) > 1


def _help(works: Sequence[Callable[[], T]], queue: int, to_parent: int) -> None:
    """Do works of the queue and send their results; never returns. A work that fails is left to the parent."""
    status = 1
    try:
        gc.freeze()  # What the parent had is neither garbage here, nor copied by being looked at.
        done: dict[int, T] = {}
        while (number := _next(queue)) is not None:
            try:
                done[number] = works[number]()
            except Exception:  # noqa: BLE001 - the parent does this work again, and raises what it raises
                continue
        with os.fdopen(to_parent, "wb") as pipe:
            pickle.dump(done, pipe)
        status = 0
    finally:
        os._exit(status)  # Without the handlers and buffers of the parent, which are copied here.


def _next(queue: int) -> int | None:
    number = os.read(queue, 2)
    return int.from_bytes(number, "big") if number else None


def _received(pipe: int) -> dict[int, T]:
    with os.fdopen(os.dup(pipe), "rb") as stream:
        sent = stream.read()
    try:
        results: dict[int, T] = pickle.loads(sent)
    except (EOFError, pickle.UnpicklingError):
        return {}
    return results
