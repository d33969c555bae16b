"""Plans: frozen tasks named by what they compute. Nothing here runs anything."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, TypeVar

from winticket.run.keys import Json, Ref, canonical, canonical_text, identity, name_of, rebuild, resolve
from winticket.text import nearest

F = TypeVar("F", bound=Callable[..., object])
SUPPLIED = frozenset({"checkpoint", "report", "on_the_way"})
"""Parameters that the worker fills in; never options."""
_SCHEME = 2  # raise it only to make every key new


@dataclass(frozen=True, eq=False)
class Task:
    """One call that a plan will make: `fn(*inputs, **options)`, where inputs may be other tasks.

    key     sha256 (hex) of everything that decides the value; equal keys are the same task
    stored  whether the result is kept; an unstored task (a step) is evaluated inside whoever needs it
    label, weight   for progress only, and not part of the key; weight is a cost in any unit
    """

    fn: str
    inputs: tuple[object, ...]
    options: Mapping[str, object]
    key: str
    stored: bool
    label: Mapping[str, Json]
    weight: float
    __task_key__: ClassVar[bool] = True

    def __eq__(self, other: object) -> bool:
        return self.key == other.key if isinstance(other, Task) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        told = " ".join(f"{name}={value}" for name, value in self.label.items())
        return f"<{'task' if self.stored else 'step'} {self.key[:12]} {self.fn}{' ' + told if told else ''}>"

    def __reduce__(self) -> tuple[Callable[..., Task], tuple[tuple[Node, ...]]]:
        # Flat, because a chain of a few hundred tasks would overflow the pickler's recursion.
        return unpack, (pack(self, whole=True),)


class Node(NamedTuple):
    """A task with its input tasks replaced by `Ref`s: what travels between processes."""

    fn: str
    inputs: tuple[object, ...]
    options: dict[str, object]
    key: str
    stored: bool
    label: dict[str, Json]
    weight: float
    parts: tuple[Node, ...] = ()  # other tasks' values that this one can give on its way, and that are wanted


def part_of(number: int) -> Callable[[F], F]:
    """Marks a stage whose value the task among its inputs at that number can give on its way.

    Such a value is a task of its own: if that other task is computed in the same run, it is asked for it through its
    parameter `on_the_way`, and no key of its changes; otherwise the marked stage computes it alone.
    """

    def mark(fn: F) -> F:
        fn.__dict__["part_of"] = number
        return fn

    return mark


def whole_of(planned: Task) -> Task | None:
    """The task on whose way this one's value comes about; None if it is no part of another."""
    number = getattr(resolve(planned.fn), "part_of", None)
    whole = planned.inputs[number] if number is not None else None
    return whole if isinstance(whole, Task) else None


def task(
    fn: Callable[..., object] | str,
    /,
    *inputs: object,
    label: Mapping[str, Json] | None = None,
    weight: float = 1.0,
    **options: object,
) -> Task:
    """Plan one stored call of `fn`; its result is kept under the key and never computed twice.

    inputs: tasks, literals, or tuples, lists and dicts of both; `fn` gets the tasks' values.
    options: literals (see `keys.canonical`); defaults are filled in and hashed too.
    Errors: TypeError, now and not when running, for a function that cannot be imported by its path, a wrong
    or missing option, or a value that cannot be part of a key.
    """
    return _plan(fn, inputs, options, stored=True, label=dict(label or {}), weight=weight)


def step(fn: Callable[..., object] | str, /, *inputs: object, **options: object) -> Task:
    """Plan a cheap, unstored call, evaluated inside each task that needs it.

    Where input values are stacks (tuples, one element per replicate) `fn` is called per element, zipped, with
    the other inputs repeated. An element of a class with `failed_replicate = True` takes its call's place.
    """
    return _plan(fn, inputs, options, stored=False, label={}, weight=0.0)


def key(
    fn: Callable[..., object] | str,
    inputs: Sequence[object],
    options: Mapping[str, object],
    *,
    stored: bool = True,
) -> str:
    """The key that `task` (or, unstored, `step`) would give to this call."""
    return _plan(fn, tuple(inputs), dict(options), stored=stored, label={}, weight=0.0).key


def _plan(
    fn: Callable[..., object] | str,
    inputs: tuple[object, ...],
    options: dict[str, object],
    *,
    stored: bool,
    label: dict[str, Json],
    weight: float,
) -> Task:
    call, inputs, options = _open(fn, inputs, options)
    path = name_of(call, "fn")
    inputs, options = _bind(call, path, inputs, options, stored=stored)
    inputs = tuple(rebuild(value, lambda leaf: leaf) for value in inputs)
    options = {name: rebuild(value, lambda leaf: leaf) for name, value in sorted(options.items())}
    told: dict[str, Json] = {
        "scheme": _SCHEME,
        "kind": "task" if stored else "step",
        "call": dict(identity(call, path)),
        "inputs": [canonical(rebuild(v, _as_ref), f"{path}: input {i + 1}") for i, v in enumerate(inputs)],
        "options": {name: canonical(v, f"{path}: option {name!r}") for name, v in options.items()},
    }
    try:
        json.dumps(label, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{path}: label {label!r} is not plain JSON: {error}") from None
    if not 0 <= weight < float("inf"):
        raise ValueError(f"{path}: weight {weight} must be a finite cost >= 0")
    digest = hashlib.sha256(canonical_text(told).encode()).hexdigest()
    return Task(
        path, inputs, MappingProxyType(options), digest, stored, MappingProxyType(label), float(weight)
    )


def _as_ref(leaf: object) -> object:
    return Ref(leaf.key, leaf.fn) if isinstance(leaf, Task) else leaf


def _open(
    fn: Callable[..., object] | str, inputs: tuple[object, ...], options: dict[str, object]
) -> tuple[Callable[..., object], tuple[object, ...], dict[str, object]]:
    """The function itself, with the arguments of a functools.partial put where they would have been given."""
    found: Any = resolve(fn) if isinstance(fn, str) else fn
    while hasattr(found, "func") and hasattr(found, "keywords"):
        inputs, options = (*found.args, *inputs), {**found.keywords, **options}
        found = found.func
    if not callable(found):
        raise TypeError(f"fn: {fn!r} is not a function")
    return found, inputs, options


def _bind(
    call: Callable[..., object],
    path: str,
    inputs: tuple[object, ...],
    options: dict[str, object],
    *,
    stored: bool,
) -> tuple[tuple[object, ...], dict[str, object]]:
    """Inputs and options of the call with every default filled in."""
    try:
        signature = inspect.signature(call)
    except ValueError:
        raise TypeError(f"{path} does not tell its parameters; wrap it in a function that does") from None
    if not stored and (takes := SUPPLIED & signature.parameters.keys()):
        raise TypeError(
            f"{path} takes {' and '.join(sorted(takes))}, so it is no cheap step; plan it with task()"
        )
    parameters = [p for p in signature.parameters.values() if p.name not in SUPPLIED]
    try:
        if given := SUPPLIED & options.keys():
            raise TypeError(f"{' and '.join(sorted(given))} is supplied by the worker and cannot be given")
        bound = signature.replace(parameters=parameters).bind(*inputs, **options)
    except TypeError as error:
        raise TypeError(_explain(path, str(error), parameters, inputs, options)) from None
    bound.apply_defaults()
    filled = dict(options)
    extra: list[object] = []
    for place, p in enumerate(parameters):
        if p.kind is p.VAR_KEYWORD or p.kind is p.VAR_POSITIONAL:
            continue
        if p.kind is p.POSITIONAL_ONLY and place >= len(inputs):
            extra.append(bound.arguments[p.name])
        elif p.kind is p.KEYWORD_ONLY or place >= len(inputs):
            filled[p.name] = bound.arguments[p.name]
    return (*inputs, *extra), filled


def _explain(
    path: str,
    error: str,
    parameters: list[inspect.Parameter],
    inputs: tuple[object, ...],
    options: Mapping[str, object],
) -> str:
    ordered = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    free = [*ordered[len(inputs) :], *(p for p in parameters if p.kind is p.KEYWORD_ONLY)]
    known = [p.name for p in free]
    unknown = [name for name in options if name not in known]
    if unknown and not SUPPLIED & options.keys() and all(p.kind is not p.VAR_KEYWORD for p in parameters):
        error = f"no option {' or '.join(map(repr, unknown))}"
    shown = [p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in free]
    message = (
        f"{path}: {error}; given {len(inputs)} inputs for ({', '.join(p.name for p in ordered)}); "
        f"its options: {', '.join(shown) or 'none'}"
    )
    return message + "".join(nearest(name, known) for name in unknown)


def needs(planned: Task) -> tuple[Task, ...]:
    """The tasks among the inputs, in order, each once."""
    found: dict[str, Task] = {}

    def leaf(value: object) -> object:
        if isinstance(value, Task):
            found.setdefault(value.key, value)
        return value

    rebuild(planned.inputs, leaf)
    return tuple(found.values())


def walk(targets: Iterable[Task]) -> list[Task]:
    """Everything that the targets need and they themselves, inputs first, each key once."""
    done: dict[str, Task] = {}
    for target in targets:
        trail = [(target, iter(needs(target)))] if target.key not in done else []
        while trail:
            current, rest = trail[-1]
            following = next((t for t in rest if t.key not in done), None)
            if following is None:
                done.setdefault(current.key, current)
                trail.pop()
            else:
                trail.append((following, iter(needs(following))))
    return list(done.values())


def stored_edges(order: Iterable[Task]) -> dict[str, tuple[Task, ...]]:
    """For each task of a walk: the nearest stored tasks above it, seen through steps."""
    edges: dict[str, tuple[Task, ...]] = {}
    for current in order:
        above: dict[str, Task] = {}
        for need in needs(current):
            for stored in (need,) if need.stored else edges[need.key]:
                above.setdefault(stored.key, stored)
        edges[current.key] = tuple(above.values())
    return edges


def stored_needs(planned: Task) -> tuple[Task, ...]:
    """The nearest stored ancestors, through steps: what must be in the store before this task can run."""
    return stored_edges(_within(planned, whole=False))[planned.key]


def _within(planned: Task, *, whole: bool) -> list[Task]:
    """The task and what is above it, inputs first; unless `whole`, stored ancestors are not entered."""
    if whole:
        return walk([planned])
    done: dict[str, Task] = {}
    trail = [(planned, iter(needs(planned)))]
    while trail:
        current, rest = trail[-1]
        following = next((t for t in rest if not t.stored and t.key not in done), None)
        if following is None:
            done.setdefault(current.key, current)
            trail.pop()
        else:
            trail.append((following, iter(needs(following))))
    return list(done.values())


def pack(planned: Task, *, whole: bool = False, parts: Iterable[Task] = ()) -> tuple[Node, ...]:
    """The task as flat nodes, inputs first and itself last: with the steps it needs, or the whole graph.

    `parts` are the tasks whose values are wanted from it on its way.
    """
    nodes = [_node(t) for t in _within(planned, whole=whole)]
    wanted = tuple(_node(part)._replace(inputs=()) for part in parts)
    return (*nodes[:-1], nodes[-1]._replace(parts=wanted))


def _node(t: Task) -> Node:
    inputs = tuple(rebuild(value, _as_ref) for value in t.inputs)
    return Node(t.fn, inputs, dict(t.options), t.key, t.stored, dict(t.label), t.weight)


def unpack(nodes: tuple[Node, ...]) -> Task:
    """The task that was packed whole."""
    made: dict[str, Task] = {}

    def leaf(value: object) -> object:
        return made[value.key] if isinstance(value, Ref) else value

    for n in nodes:
        inputs = tuple(rebuild(value, leaf) for value in n.inputs)
        made[n.key] = Task(
            n.fn, inputs, MappingProxyType(n.options), n.key, n.stored, MappingProxyType(n.label), n.weight
        )
    return made[nodes[-1].key]
