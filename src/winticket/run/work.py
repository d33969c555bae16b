"""What a worker does with one task: read the inputs, call the function, store the result."""

from __future__ import annotations

import functools
import inspect
import platform
import random
import sys
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from typing import Any, Literal, cast

from winticket.run import codec
from winticket.run.errors import RunError, StoreError, Unavailable
from winticket.run.keys import Json, Ref, rebuild, resolve
from winticket.run.store import Store
from winticket.run.task import SUPPLIED, Node
from winticket.run.variants import Variants
from winticket.trouble import of_the_machine, short_of_memory, where

_THROTTLE = 0.2  # seconds between two progress messages
SAVING = 0.05  # largest share of the time that goes into saving states
_PATIENCE = 1.5  # seconds that a task has to reach its next checkpoint when the run stops

Said = Literal["progress", "finished", "failed", "stopped", "aborted", "died"]


class Stop(BaseException):
    """Raised by report() in a task that has to stop; no `except Exception` in a task catches it."""


@dataclass(frozen=True)
class Message:
    """What a worker says about the task in its hands."""

    said: Said
    key: str
    step: int | None = None
    steps: int | None = None
    seconds: float | None = None
    text: str | None = None  # traceback or reason
    reused: bool = False  # finished: another command had stored it by then
    handed_over: tuple[str, ...] = ()  # finished: the keys of the parts that were stored with it
    cause: Literal["store", "memory", "import", "machine", "unready"] | None = None  # of aborted and died


class Checkpoint:
    """The value of a stage's parameter `checkpoint`: saves and loads the state from which the task can resume."""

    def __init__(self, store: Store, key: str, seconds: float, stopping: Callable[[], bool]) -> None:
        self._store, self._key, self._seconds, self._stopping = store, key, seconds, stopping
        self._last, self._took = time.monotonic(), 0.0
        self.saved_for_stop = False

    def load(self) -> Any:
        """The state that was saved last, or None; a damaged checkpoint counts as none."""
        try:
            return self._store.load_partial(self._key)
        except StoreError:
            return None

    def due(self) -> bool:
        """True if it is time to save: the interval has passed, or the run is about to stop."""
        if self._stopping():
            return not self.saved_for_stop
        # A state of gigabytes takes seconds to write, which shall remain a small part of the time. An interval of 0
        # asks for every state, whatever that takes.
        pause = max(self._seconds, self._took / SAVING) if self._seconds else 0.0
        return time.monotonic() - self._last >= pause

    def save(self, value: object) -> None:
        """Save a state, whole or not at all; it replaces the last one."""
        stopping, begun = self._stopping(), time.monotonic()
        self._store.save_partial(self._key, value)
        self._last = time.monotonic()
        self._took = self._last - begun
        self.saved_for_stop = stopping


class Report:
    """The value of a stage's parameter `report`: `report(step, steps)` reports its progress at little cost."""

    def __init__(
        self,
        key: str,
        say: Callable[[Message], None],
        stopping: Callable[[], bool],
        checkpoint: Checkpoint | None,
    ) -> None:
        self._key, self._say, self._stopping, self._checkpoint = key, say, stopping, checkpoint
        self._last = float("-inf")
        self._stopped_at: float | None = None

    def __call__(self, step: int, steps: int) -> None:
        now = time.monotonic()
        if self._stopping():
            self._stopped_at = now if self._stopped_at is None else self._stopped_at
            waits = self._checkpoint is not None and not self._checkpoint.saved_for_stop
            if not waits or now - self._stopped_at > _PATIENCE:
                raise Stop
        if now - self._last >= _THROTTLE or step >= steps:
            self._last = now
            self._say(Message("progress", self._key, step=step, steps=steps))


@dataclass(frozen=True)
class _Encoded:
    """A result as it was written; it is decoded when a task needs it, which happens to few results."""

    data: bytes


class Parts:
    """The value of a stage's parameter `on_the_way`: which other values are wanted of it, and `keep` for them."""

    def __init__(self, wanted: Sequence[Node]) -> None:
        self._wanted = wanted
        self.kept: list[tuple[Node, object]] = []

    @property
    def wanted(self) -> list[Mapping[str, Any]]:
        """The options of each task whose value is wanted."""
        return [node.options for node in self._wanted]

    def keep(self, number: int, value: object) -> None:
        """Hand over the value of the task at that position in `wanted`; others are computed separately."""
        self.kept.append((self._wanted[number], value))


class Memory:
    """The values that a worker used last, so that a chain of tasks on it need not read what it has just written."""

    def __init__(self, limit: int, count: int = 64) -> None:
        self._limit, self._count, self._size = limit, count, 0
        self._values: OrderedDict[str, tuple[object, int]] = OrderedDict()

    def get(self, key: str) -> tuple[object] | None:
        """The value in a tuple of one, or None."""
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        value, size = self._values[key]
        if isinstance(value, _Encoded):
            value = codec.decode(value.data, check=False)
            self._values[key] = value, size
        return (value,)

    def add(self, key: str, value: object, size: int) -> None:
        if size > self._limit or key in self._values:
            return
        self._values[key] = (value, size)
        self._size += size
        while self._size > self._limit or len(self._values) > self._count:
            self._size -= self._values.popitem(last=False)[1][1]


@dataclass(frozen=True)
class Conditions:
    """What holds for every task of a run; it travels to every worker, so it can be pickled.

    A task is asked every `checkpoint_seconds` to save its state. Functions with a parameter `context` are given
    `context`: plain values that say how to compute and change no number, since they are in no key.
    """

    store: Store
    checkpoint_seconds: float = 10.0
    context: Mapping[str, Json] = field(default_factory=dict)


@dataclass
class Desk:
    """What a worker has at hand: its conditions, its memory, a line to the executor, and the request to stop."""

    conditions: Conditions
    say: Callable[[Message], None]
    stopping: Callable[[], bool]
    memory: Memory = field(default_factory=lambda: Memory(256 << 20))

    @property
    def store(self) -> Store:
        return self.conditions.store

    def fetch(self, ref: Ref) -> object:
        held = self.memory.get(ref.key)
        if held is not None:
            return held[0]
        try:
            # The plan names this module, so it may be imported: the value may hold its classes.
            resolve(ref.fn)
            value, size = self.store.get_sized(ref.key)
        except (KeyError, ValueError) as error:  # removed, or not importable here: no failure of the task
            raise StoreError(f"an input cannot be read: {error}") from error
        self.memory.add(ref.key, value, size)
        return value

    def supplies(self, node: Node) -> dict[str, object]:
        """The values of those SUPPLIED parameters that the function has."""
        fn = cast("Callable[..., object]", resolve(node.fn))
        names = SUPPLIED & inspect.signature(fn).parameters.keys()
        checkpoint = (
            Checkpoint(self.store, node.key, self.conditions.checkpoint_seconds, self.stopping)
            if "checkpoint" in names
            else None
        )
        values = {
            "checkpoint": checkpoint,
            "report": Report(node.key, self.say, self.stopping, checkpoint),
            "on_the_way": Parts(node.parts),
            "context": dict(self.conditions.context),
            "variants": Variants(self.store, node),
        }
        return {name: value for name, value in values.items() if name in names}


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
            with _own_random_state(node.key):
                value = evaluate(nodes, desk.fetch, supplied)
            seconds = time.perf_counter() - started
            data = codec.encode(value, about(node, seconds))
            parts = supplied.get("on_the_way")
            beside = [
                (part.key, codec.encode(other, about(part, 0.0)))
                for part, other in (parts.kept if isinstance(parts, Parts) else ())
            ]
            # Remembered as written, not as returned, so that strides and types do not depend on who computed it.
            desk.memory.add(node.key, _Encoded(data), len(data))
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


def evaluate(nodes: Sequence[Node], fetch: Callable[[Ref], object], supplies: dict[str, object]) -> object:
    """The last node's value; the other nodes are derived tasks that it needs, evaluated here."""
    made: dict[str, object] = {}

    def leaf(value: object) -> object:
        if not isinstance(value, Ref):
            return value
        return made[value.key] if value.key in made else fetch(value)

    for node in nodes:
        fn = cast("Callable[..., object]", resolve(node.fn))
        inputs = [rebuild(value, leaf) for value in node.inputs]
        options = {name: rebuild(value, lambda item: item) for name, value in node.options.items()}
        made[node.key] = (
            fn(*inputs, **options, **supplies) if node.stored else _each(node.fn, fn, inputs, options)
        )
    return made[nodes[-1].key]


def _each(path: str, fn: Callable[..., object], inputs: list[object], options: dict[str, object]) -> object:
    """The call, or one call per element if inputs are stacks; a failed replicate is the value of its call."""

    def once(values: Sequence[object]) -> object:
        failed = [value for value in values if getattr(type(value), "failed_replicate", False) is True]
        return failed[0] if failed else fn(*values, **options)

    lengths = {len(value) for value in inputs if type(value) is tuple}
    if not lengths:
        return once(inputs)
    if len(lengths) > 1:
        raise ValueError(
            f"{path}: stacks of different lengths {sorted(lengths)} cannot be taken element by element"
        )
    rows = range(lengths.pop())
    return tuple(once([value[i] if type(value) is tuple else value for value in inputs]) for i in rows)


def about(node: Node, seconds: float) -> dict[str, Json]:
    """The notes that are kept with a result: function, options, time, versions and device; nothing personal."""
    import torch

    options = {name: _readable(value) for name, value in node.options.items()}
    cuda: Any = torch.cuda
    return {
        "key": node.key,
        "fn": node.fn,
        "options": options,
        "label": node.label,
        "seconds": round(seconds, 6),
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": {
            "winticket": _version("winticket"),
            "torch": torch.__version__,
            "numpy": _version("numpy"),
            "python": platform.python_version(),
            "system": f"{sys.platform} {platform.machine()}",
            "device": cuda.get_device_name() if cuda.is_initialized() else "cpu",
            "cpu": torch.backends.cpu.get_cpu_capability(),
            "threads": torch.get_num_threads(),
        },
    }


def _readable(value: object) -> Json:
    """An option as people read it; the exact value is in the key."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if abs(value) != float("inf") else repr(value)
    if isinstance(value, (list, tuple)):
        return [_readable(item) for item in value]
    if isinstance(value, dict):
        return {name: _readable(item) for name, item in value.items()}
    if hasattr(value, "__qualname__"):
        return f"{value.__module__}:{value.__qualname__}"
    return repr(value)


@functools.cache
def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


@contextmanager
def _own_random_state(key: str) -> Iterator[None]:
    """Within: global generators are seeded by the key; afterwards they are restored.

    winticket never draws from them, but a user's dropout does, and must not depend on what a worker ran before.
    """
    import numpy as np
    import torch

    seed = int(key[:8], 16)
    kept = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)
    cuda: Any = torch.cuda
    if cuda.is_initialized():
        cuda.manual_seed_all(seed)
    try:
        yield
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])  # noqa: NPY002
        torch.set_rng_state(kept[2])
