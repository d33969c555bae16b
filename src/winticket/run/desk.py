"""What a worker has at hand, and what it supplies to a task."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from winticket.run.checkpoints import Checkpoint, Report
from winticket.run.errors import StoreError
from winticket.run.keys import Json, Ref, resolve
from winticket.run.messages import Message
from winticket.run.remembered import Memory
from winticket.run.store import Store
from winticket.run.task import SUPPLIED, Node
from winticket.run.variants import Variants


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
