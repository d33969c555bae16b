"""How keys represent functions and literals: by name, revision and exact value."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import json
import math
import sys
from collections.abc import Callable
from typing import TypeAlias

from winticket.importing import object_named
from winticket.run.names import home, is_winticket, stored_name

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"


@dataclasses.dataclass(frozen=True)
class Ref:
    """Stands for another task's value: its key, and the name of its function, whose module reading it may need."""

    key: str
    fn: str


def rebuild(value: object, leaf: Callable[[object], object]) -> object:
    """A copy of nested tuples, lists and dicts with `leaf` applied to everything else."""
    if type(value) is tuple:
        return tuple(rebuild(item, leaf) for item in value)
    if type(value) is list:
        return [rebuild(item, leaf) for item in value]
    if type(value) is dict:
        return {name: rebuild(item, leaf) for name, item in value.items()}
    return leaf(value)


# Made once: `json.dumps` makes one for every call, which takes half of its time for a short value.
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def canonical_text(value: Json) -> str:
    """The one JSON text of a value: sorted names, no spaces, ASCII, floats by repr."""
    return _ENCODER.encode(value)


def resolve(name: str) -> object:
    """The object of a stored name (`winticket/prune`) or an import path (`package.module:name`).

    Imports the object's module. Raises ValueError if there is no such object.

    >>> resolve("math:sqrt")(4.0)
    2.0
    """
    known = home(name)
    return object_named(f"{known[0]}:{known[1]}" if known else name)


def name_of(thing: object, where: str) -> str:
    """The name of a function or class in keys: its stored name, else `package.module:name`.

    Raises TypeError if a worker could not import it by that name.
    """
    module = getattr(thing, "__module__", None)
    name = getattr(thing, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str):
        raise TypeError(f"{where}: {thing!r} has no import path; pass a function that is defined in a module")
    if "<lambda>" in name or "<locals>" in name:
        raise TypeError(
            f"{where}: {module}:{name} is a lambda or a local function, which workers and later runs cannot "
            "find; define it at the top level of a module"
        )
    if module == "__main__" and getattr(sys.modules["__main__"], "__file__", None) is None:
        raise TypeError(
            f"{where}: {name} was defined interactively, where workers cannot find it; put it in a .py file"
        )
    path = f"{module}:{name}"
    if is_winticket(module):
        stored = stored_name(module, name)
        if stored is None:
            raise TypeError(f"{where}: {path} has no line in winticket/run/names.py, so no key may hold it")
        path = stored
    try:
        resolved = resolve(path)
    except ValueError as error:
        raise TypeError(f"{where}: {error}") from error
    if resolved != thing:
        raise TypeError(f"{where}: {path} names another object; pass the one that can be imported")
    return path


@functools.lru_cache(maxsize=4096)
def _source(thing: Callable[..., object]) -> str | None:
    try:
        text = inspect.getsource(thing)
    except (OSError, TypeError):  # compiled, without source
        return None
    return hashlib.sha256(text.encode()).hexdigest()


def identity(thing: Callable[..., object], name: str) -> dict[str, Json]:
    """How a key identifies a function: by its name, its module's REVISION and, outside winticket, its source.

    The source is that of the function alone; a change in what it calls shows only through REVISION.
    """
    module = thing.__module__
    revision = getattr(sys.modules.get(module), "REVISION", None)
    if type(revision) is not int and (revision is not None or is_winticket(module)):
        raise TypeError(f"{module}.REVISION is {revision!r}; it must be an int, raised when numbers change")
    parts: dict[str, Json] = {"fn": name, "revision": revision or 0}
    if not is_winticket(module):
        parts["source"] = _source(thing)
    return parts


def canonical(value: object, where: str) -> Json:
    """A literal as JSON; two literals have the same JSON only if they are the same value.

    Raises TypeError, which names `where`, for a value without an exact, lasting text (nan, tensors, open files, ...).
    """
    if value is None or type(value) in (bool, int, str):
        return value  # type: ignore[return-value]  # mypy does not narrow by `type(...) in`
    if isinstance(value, float):
        return _float(float(value), where)
    if isinstance(value, Ref):
        return {"task": value.key}
    if type(value) is list:
        return [canonical(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if type(value) is tuple:
        return {"tuple": [canonical(item, f"{where}[{i}]") for i, item in enumerate(value)]}
    if type(value) is dict:
        return {"dict": _members(value, where)}
    if isinstance(value, functools.partial):
        return {
            "partial": canonical(value.func, where),
            "inputs": [canonical(item, f"{where}.args[{i}]") for i, item in enumerate(value.args)],
            "options": _members(value.keywords, where),
        }
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _record(value, where)
    if inspect.isroutine(value) or isinstance(value, type):
        return dict(identity(value, name_of(value, where)))
    raise TypeError(
        f"{where} is a {type(value).__module__}.{type(value).__qualname__}, which cannot be part of a key; "
        "possible: None, bool, int, float, str, tuple, list, dict with str keys, frozen dataclasses of "
        "these, functions named by import path and functools.partial of them"
    )


def _float(value: float, where: str) -> Json:
    if math.isnan(value):
        raise TypeError(f"{where} is nan, which no plan may hold; use None for a missing value")
    return value if math.isfinite(value) else {"float": repr(value)}


def _members(value: dict[str, object], where: str) -> dict[str, Json]:
    for name in value:
        if type(name) is not str:
            raise TypeError(f"{where} has the dict key {name!r}; only str keys can be part of a key")
    return {name: canonical(item, f"{where}[{name!r}]") for name, item in value.items()}


def _record(value: object, where: str) -> Json:
    kind = type(value)
    if hasattr(kind, "__task_key__"):
        raise TypeError(f"{where} is a task; tasks go among the positional inputs, not into options")
    if not kind.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise TypeError(
            f"{where}: dataclass {kind.__qualname__} is not frozen; only frozen dataclasses can be options of a task"
        )
    path = name_of(kind, where)
    if hasattr(value, "key_fields"):
        fields = value.key_fields()
    else:
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}  # type: ignore[arg-type]
    return {"record": path, "fields": _members(dict(fields), where)}
