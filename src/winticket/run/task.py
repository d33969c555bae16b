"""Plans: frozen tasks named by what they compute. Nothing here runs anything."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType, MappingProxyType
from typing import Any, ClassVar, NamedTuple, TypeVar

from winticket.run.keys import Json, Ref, canonical, canonical_text, identity, name_of, rebuild, resolve
from winticket.text import nearest

F = TypeVar("F", bound=Callable[..., object])
SUPPLIED = frozenset({"checkpoint", "context", "on_the_way", "report", "variants"})
"""Parameters of a stage whose values come from the worker; they are never options."""
_SCHEME = 2  # raise it only to make every key new


@dataclass(frozen=True, eq=False)
class Task:
    """One call that a plan will make: `fn(*inputs, **options)`, where inputs may be other tasks.

    key     sha256 (hex) of everything that decides the value; equal keys are the same task
    stored  whether the result is kept; an unstored (derived) task is evaluated inside every task that needs it
    label, weight   for progress only, and not part of the key; weight is a cost in any unit
    memory  bytes that a process which computes it is estimated to need at most, 0 if unknown; not part of the key
    """

    fn: str
    inputs: tuple[object, ...]
    options: Mapping[str, object]
    key: str
    stored: bool
    label: Mapping[str, Json]
    weight: float
    memory: int = 0
    __task_key__: ClassVar[bool] = True

    def __eq__(self, other: object) -> bool:
        return self.key == other.key if isinstance(other, Task) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        label = "".join(f" {name}={value}" for name, value in self.label.items())
        return f"<{'task' if self.stored else 'derived'} {self.key[:12]} {self.fn}{label}>"

    def __reduce__(self) -> tuple[Callable[..., Task], tuple[tuple[Node, ...]]]:
        # Flat, because a chain of a few hundred tasks would overflow the pickler's recursion.
        return unpack, (pack(self, whole=True),)


class Node(NamedTuple):
    """A task as it travels between processes: its input tasks are replaced by `Ref`s."""

    fn: str
    inputs: tuple[object, ...]
    options: dict[str, object]
    key: str
    stored: bool
    label: dict[str, Json]
    weight: float
    parts: tuple[Node, ...] = ()  # tasks whose values are wanted of this one on its way
    memory: int = 0


def part_of(number: int) -> Callable[[F], F]:
    """Mark a stage whose value another task, its input at position `number`, can produce on its way.

    Such a value is a separate task. If the other task is computed in the same run, it is asked for the value through
    its parameter `on_the_way`, which changes none of its keys; otherwise the marked stage computes the value alone.
    """

    def mark(fn: F) -> F:
        fn.__dict__["part_of"] = number
        return fn

    return mark


def whole_of(planned: Task) -> Task | None:
    """The task that can produce this one's value on its way; None if this is not a part of another task."""
    number = getattr(resolve(planned.fn), "part_of", None)
    whole = planned.inputs[number] if number is not None else None
    return whole if isinstance(whole, Task) else None


def task(
    fn: Callable[..., object] | str,
    /,
    *inputs: object,
    label: Mapping[str, Json] | None = None,
    weight: float = 1.0,
    memory: int = 0,
    **options: object,
) -> Task:
    """Plan one stored call of `fn`; its result is kept under the key and never computed twice.

    `inputs` are tasks, literals, or tuples, lists and dicts of both; `fn` gets the tasks' values. `options` are
    literals (see `keys.canonical`); defaults are filled in and hashed too.
    Raises TypeError, now and not while running, for a function that cannot be imported by its path, a wrong or missing
    option, or a value that cannot be part of a key.

    >>> half = task("operator:truediv", 1.0, 2.0)
    >>> half.key == task("operator:truediv", 1.0, 2.0).key, half == task("operator:truediv", 1.0, 3.0)
    (True, False)
    >>> task("operator:neg", half).inputs == (half,)  # a plan is tasks of tasks
    True
    """
    return _plan(fn, inputs, options, stored=True, label=dict(label or {}), weight=weight, memory=memory)


def derive(fn: Callable[..., object] | str, /, *inputs: object, **options: object) -> Task:
    """Plan a cheap, unstored call, evaluated inside each task that needs it.

    If input values are stacks (tuples, one element per replicate), `fn` is called once per element, and inputs that
    are no stacks are repeated. An element of a class with `failed_replicate = True` becomes the value of its call.

    >>> derive("operator:neg", task("operator:add", 1, 2)).stored
    False
    """
    return _plan(fn, inputs, options, stored=False, label={}, weight=0.0)


def key(
    fn: Callable[..., object] | str,
    inputs: Sequence[object],
    options: Mapping[str, object],
    *,
    stored: bool = True,
) -> str:
    """The key that `task` (or, unstored, `derive`) would give to this call."""
    return _plan(fn, tuple(inputs), dict(options), stored=stored, label={}, weight=0.0).key


def _plan(
    fn: Callable[..., object] | str,
    inputs: tuple[object, ...],
    options: dict[str, object],
    *,
    stored: bool,
    label: dict[str, Json],
    weight: float,
    memory: int = 0,
) -> Task:
    call, inputs, options = _open(fn, inputs, options)
    path = name_of(call, "fn")
    inputs, options = _bind(call, path, inputs, options, stored=stored)
    inputs = tuple(rebuild(value, lambda leaf: leaf) for value in inputs)
    options = {name: rebuild(value, lambda leaf: leaf) for name, value in sorted(options.items())}
    identified: dict[str, Json] = {
        "scheme": _SCHEME,
        "kind": "task"
        if stored
        else "step",  # the stored word for a derived task: another would make its keys new
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
    digest = hashlib.sha256(canonical_text(identified).encode()).hexdigest()
    return Task(
        path,
        inputs,
        MappingProxyType(options),
        digest,
        stored,
        MappingProxyType(label),
        float(weight),
        memory,
    )


def _as_ref(leaf: object) -> object:
    return Ref(leaf.key, leaf.fn) if isinstance(leaf, Task) else leaf


def _open(
    fn: Callable[..., object] | str, inputs: tuple[object, ...], options: dict[str, object]
) -> tuple[Callable[..., object], tuple[object, ...], dict[str, object]]:
    """The function itself; the arguments of a functools.partial are put among inputs and options."""
    call: Any = resolve(fn) if isinstance(fn, str) else fn
    while hasattr(call, "func") and hasattr(call, "keywords"):
        inputs, options = (*call.args, *inputs), {**call.keywords, **options}
        call = call.func
    if not callable(call):
        raise TypeError(f"fn: {fn!r} is not a function")
    return call, inputs, options


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
        # A plan calls the same few functions thousands of times.
        signature, takes = _remembered(call) if isinstance(call, FunctionType) else _signature(call)
    except ValueError:
        raise TypeError(f"{path} has no readable signature; wrap it in a function that has one") from None
    if not stored and takes:
        raise TypeError(
            f"{path} takes {' and '.join(sorted(takes))}, so its result must be stored; plan it with task()"
        )
    parameters = list(signature.parameters.values())
    try:
        if supplied := SUPPLIED & options.keys():
            raise TypeError(
                f"{' and '.join(sorted(supplied))} is supplied by the worker and cannot be passed"
            )
        bound = signature.bind(*inputs, **options)
    except TypeError as error:
        raise TypeError(_explain(path, str(error), parameters, inputs, options)) from None
    bound.apply_defaults()
    filled = dict(options)
    extra: list[object] = []
    for position, p in enumerate(parameters):
        if p.kind is p.VAR_KEYWORD or p.kind is p.VAR_POSITIONAL:
            continue
        if p.kind is p.POSITIONAL_ONLY and position >= len(inputs):
            extra.append(bound.arguments[p.name])
        elif p.kind is p.KEYWORD_ONLY or position >= len(inputs):
            filled[p.name] = bound.arguments[p.name]
    return (*inputs, *extra), filled


def _signature(call: Callable[..., object]) -> tuple[inspect.Signature, frozenset[str]]:
    """The signature without what the worker supplies, and the names of that. ValueError if it has no signature."""
    signature = inspect.signature(call)
    parameters = [p for p in signature.parameters.values() if p.name not in SUPPLIED]
    return signature.replace(parameters=parameters), SUPPLIED & signature.parameters.keys()


_remembered = functools.lru_cache(maxsize=1024)(_signature)


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
    tasks: dict[str, Task] = {}

    def leaf(value: object) -> object:
        if isinstance(value, Task):
            tasks.setdefault(value.key, value)
        return value

    rebuild(planned.inputs, leaf)
    return tuple(tasks.values())


def walk(targets: Iterable[Task]) -> list[Task]:
    """The targets and everything that they need, inputs first, each key once."""
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
    """For each task of a walk, the nearest stored tasks that it needs, directly or through derived ones."""
    edges: dict[str, tuple[Task, ...]] = {}
    for current in order:
        above: dict[str, Task] = {}
        for need in needs(current):
            for stored in (need,) if need.stored else edges[need.key]:
                above.setdefault(stored.key, stored)
        edges[current.key] = tuple(above.values())
    return edges


def stored_needs(planned: Task) -> tuple[Task, ...]:
    """The nearest stored tasks that this one needs: they must be in the store before it can run."""
    return stored_edges(_within(planned, whole=False))[planned.key]


def _within(planned: Task, *, whole: bool) -> list[Task]:
    """The task and what it needs, inputs first; without `whole`, only up to the nearest stored tasks."""
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
    """The task as flat nodes, inputs first and itself last: with the derived tasks it needs, or the whole graph.

    `parts` are the tasks whose values it is asked for on its way.
    """
    nodes = [_node(t) for t in _within(planned, whole=whole)]
    wanted = tuple(_node(part)._replace(inputs=()) for part in parts)
    return (*nodes[:-1], nodes[-1]._replace(parts=wanted))


def _node(t: Task) -> Node:
    inputs = tuple(rebuild(value, _as_ref) for value in t.inputs)
    return Node(t.fn, inputs, dict(t.options), t.key, t.stored, dict(t.label), t.weight, memory=t.memory)


def unpack(nodes: tuple[Node, ...]) -> Task:
    """The task of nodes that `pack(..., whole=True)` made."""
    made: dict[str, Task] = {}

    def leaf(value: object) -> object:
        return made[value.key] if isinstance(value, Ref) else value

    for n in nodes:
        inputs = tuple(rebuild(value, leaf) for value in n.inputs)
        made[n.key] = Task(
            n.fn,
            inputs,
            MappingProxyType(n.options),
            n.key,
            n.stored,
            MappingProxyType(n.label),
            n.weight,
            n.memory,
        )
    return made[nodes[-1].key]
