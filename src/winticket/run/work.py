"""What a worker does with one task: read the inputs, call the function, store the result."""

from __future__ import annotations

import time
import traceback
from collections.abc import Sequence
from typing import Literal

from winticket.run import codec
from winticket.run.checkpoints import Stop
from winticket.run.desk import Desk, Parts
from winticket.run.errors import RunError, StoreError, Unavailable
from winticket.run.evaluating import evaluate, own_random_state
from winticket.run.keys import resolve
from winticket.run.messages import Message
from winticket.run.notes import about
from winticket.run.remembered import Encoded
from winticket.run.task import Node
from winticket.trouble import of_the_machine, short_of_memory, where


def attempt(nodes: Sequence[Node], desk: Desk) -> Message:
    """Compute the last node and store its result or its failure. Returns the message that says how it went."""
    node, started = nodes[-1], time.perf_counter()
    try:
        if desk.store.has(node.key):
            return Message("finished", node.key, seconds=0.0, reused=True)
        for each in nodes:
            resolve(each.fn)  # first, since a module that the worker cannot import is no failure of the task
        try:
            supplied = desk.supplies(node)
            with own_random_state(node.key):
                value = evaluate(nodes, desk.fetch, supplied)
            seconds = time.perf_counter() - started
            data = codec.encode(value, about(node, seconds))
            parts = supplied.get("on_the_way")
            beside = [
                (part.key, codec.encode(other, about(part, 0.0)))
                for part, other in (parts.kept if isinstance(parts, Parts) else ())
            ]
            # Remembered as written, not as returned, so that strides and types do not depend on who computed it.
            desk.memory.add(node.key, Encoded(data), len(data))
        except (Exception, SystemExit) as error:
            if _outside(error):
                raise
            text, seconds = traceback.format_exc(), time.perf_counter() - started
            desk.store.put_failure(node.key, text, about(node, seconds))
            desk.store.forget(node.key, "partial")
            return Message("failed", node.key, text=text, seconds=seconds)
        # Before the result itself, or another command could begin to compute them.
        for key, other in beside:
            desk.store.put_encoded(key, other)
        desk.store.put_encoded(node.key, data)
        desk.store.forget(node.key, "partial")
        seconds, keys = time.perf_counter() - started, tuple(key for key, _ in beside)
        return Message("finished", node.key, seconds=seconds, handed_over=keys)
    except Stop:
        return Message("stopped", node.key)
    except Exception as error:  # noqa: BLE001 - a worker must report any error and stay alive
        # The line helps with errors in a user's code; messages of the store are complete without it.
        line = "" if isinstance(error, (StoreError, RunError)) else where(error)
        text = f"{type(error).__name__}: {error}" + (f" ({line})" if line else "")
        return Message("aborted", node.key, text=text, cause=_cause(error))


def _cause(error: Exception) -> Literal["store", "memory", "import", "machine"]:
    if isinstance(error, StoreError):
        return "store"
    if short_of_memory(error):
        return "memory"
    if isinstance(error, (ValueError, ImportError)) and not isinstance(error, Unavailable):
        return "import"
    return "machine"


def _outside(error: BaseException) -> bool:
    """True for errors of the machine or the store, which are no results of the task."""
    return isinstance(error, (StoreError, RunError)) or of_the_machine(error)
