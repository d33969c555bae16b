"""Plans that wait in a store for workers: what each is about, its tasks, and how far they are.

A plan's file says which question it answers and lists its stored tasks, so that people can see how far it is without
its data or its code. A worker makes the plan anew from the question and compares the keys; so a file can ask only for
what the worker's own code would plan.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from winticket.run.claim_files import Claim
from winticket.run.claims import who_claims
from winticket.run.keys import Json
from winticket.run.shelf import Shelf
from winticket.run.task import Task, stored_edges, walk
from winticket.version import __version__


class Listed(msgspec.Struct, frozen=True):
    """A stored task of a plan: key, label, weight and memory (see `Task`), and the positions of the tasks it needs."""

    key: str
    label: dict[str, Any]
    weight: float
    needs: tuple[int, ...] = ()
    memory: int = 0


class Waiting(msgspec.Struct, frozen=True):
    """A plan in a store.

    name       of its file: 16 hexadecimal digits, the same for the same question and tasks
    when       it was written: ISO 8601, UTC
    winticket  version that wrote it
    question   what it answers, and how it is to be computed; JSON
    tasks      its stored tasks, inputs first
    """

    name: str
    when: str
    winticket: str
    question: dict[str, Any]
    tasks: tuple[Listed, ...]

    def __post_init__(self) -> None:
        """ValueError for a file that no winticket wrote: tasks that need later ones, or what is no key."""
        for position, listed in enumerate(self.tasks):
            if any(not 0 <= need < position for need in listed.needs) or not _KEY.fullmatch(listed.key):
                raise ValueError(f"task {position + 1} has no key, or needs a task that is not before it")
            if not 0 <= listed.weight < math.inf:
                raise ValueError(f"task {position + 1} has the weight {listed.weight}")


_KEY = re.compile(r"[0-9a-f]{64}")


def waiting(targets: Sequence[Task], question: Mapping[str, Json]) -> Waiting:
    """The plan of the targets, and of everything that they need, for `Shelf.put_plan`.

    >>> from winticket.run import task
    >>> whole = task("operator:add", task("operator:add", 1, 2), 3)
    >>> [listed.needs for listed in waiting([whole], {"about": "sums"}).tasks]
    [(), (0,)]
    """
    order = walk(targets)
    edges = stored_edges(order)
    stored = [task for task in order if task.stored]
    at = {task.key: position for position, task in enumerate(stored)}
    tasks = tuple(
        Listed(t.key, dict(t.label), t.weight, tuple(at[need.key] for need in edges[t.key]), t.memory)
        for t in stored
    )
    names = sorted(target.key for target in targets)
    digest = hashlib.sha256(msgspec.json.encode([dict(question), names], order="sorted")).hexdigest()
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Waiting(digest[:16], now, __version__, dict(question), tasks)


@dataclass(frozen=True)
class Standing:
    """How far a plan is: its tasks by state, each in one of the six, in the plan's order.

    done, failed, computing (with the claim), skipped (a task that they need has failed), ready, and blocked (a task
    that they need is not done yet).
    """

    done: tuple[Listed, ...]
    failed: tuple[Listed, ...]
    computing: tuple[tuple[Listed, Claim], ...]
    skipped: tuple[Listed, ...]
    ready: tuple[Listed, ...]
    blocked: tuple[Listed, ...]

    def over(self) -> bool:
        """True if nothing is left to compute."""
        return not (self.computing or self.ready or self.blocked)


def standing(
    plan: Waiting, done: Collection[str], failed: Collection[str], claims: Mapping[str, Claim]
) -> Standing:
    """How far a plan is, from the keys of a store's results and failures, and the claims on its tasks.

    >>> from winticket.run import task
    >>> sums = waiting([task("operator:add", task("operator:add", 1, 2), 3)], {"about": "sums"})
    >>> [len(standing(sums, done, (), {}).ready) for done in ((), [sums.tasks[0].key], [t.key for t in sums.tasks])]
    [1, 1, 0]
    """
    states: list[str] = []
    needed = _still_needed(plan, done)
    for position, listed in enumerate(plan.tasks):
        before = {states[need] for need in listed.needs}
        if listed.key in done or position not in needed:
            states.append("done")
        elif listed.key in claims:  # perhaps again, after a failure
            states.append("computing")
        elif listed.key in failed:
            states.append("failed")
        elif before & {"failed", "skipped"}:
            states.append("skipped")
        else:
            states.append("ready" if before <= {"done"} else "blocked")
    by = {
        state: tuple(listed for listed, each in zip(plan.tasks, states, strict=True) if each == state)
        for state in ("done", "failed", "computing", "skipped", "ready", "blocked")
    }
    computing = tuple((listed, claims[listed.key]) for listed in by["computing"])
    return Standing(by["done"], by["failed"], computing, by["skipped"], by["ready"], by["blocked"])


def _still_needed(plan: Waiting, done: Collection[str]) -> set[int]:
    """The positions of tasks that are done, are nobody's input, or are an input of one that is needed and not done."""
    inputs = {need for listed in plan.tasks for need in listed.needs}
    needed = {position for position in range(len(plan.tasks)) if position not in inputs}
    for position in reversed(range(len(plan.tasks))):
        if position in needed and plan.tasks[position].key not in done:
            needed.update(plan.tasks[position].needs)
    return needed


def standings(store: Shelf, *, claimed: bool = True) -> list[tuple[Waiting, Standing]]:
    """Every plan of a store with how far it is, the oldest first. Raises StoreError for a store that cannot be read.

    Without `claimed`, nobody asks who computes what, so such tasks count as ready.
    """
    plans = store.plans(Waiting)
    done, failed = store.keys(), store.keys("failure")
    claims = who_claims(store)[0] if claimed else {}
    return [(plan, standing(plan, done, failed, claims)) for plan in plans]
