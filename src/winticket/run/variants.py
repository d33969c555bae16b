"""Stored results of a task's own call with other options, from which a task may start instead of from nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from winticket.run.errors import StoreError
from winticket.run.store import Store
from winticket.run.task import Node, key


class Variants:
    """The value of a stage's parameter `variants`: results of the same call, with other options, in the store.

    Whether the store has one decides how long the stage takes and may not change its value, since no key says so.
    """

    def __init__(self, store: Store, node: Node) -> None:
        self._store, self._node = store, node

    def first(self, choices: Iterable[Mapping[str, Any]]) -> tuple[Mapping[str, Any], Any] | None:
        """The first of the choices of options whose result the store has, with that result; None if it has none.

        Options that a choice lacks are the task's. A result that cannot be read counts as none.
        """
        keys: frozenset[str] | None = None
        for options in choices:
            if keys is None:  # one listing, since there may be thousands of choices and the store far away
                keys = self._store.keys()
            other = key(self._node.fn, self._node.inputs, {**self._node.options, **options})
            if other in keys:
                try:
                    return options, self._store.get(other)
                except StoreError:
                    continue
        return None
