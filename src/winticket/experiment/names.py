"""Look up everything that has a name: methods, and the functions of the rooms."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from winticket import allocate, controls, criteria, procedures, rewind, schedules
from winticket.catalogue import choose
from winticket.importing import object_named
from winticket.pairing import usual
from winticket.procedures import Method, method_of

METHODS = procedures.METHODS
BY_LAYER = tuple(by_layer.__name__ for by_layer in allocate.BY_LAYER)
"""Allocations that decide only how many weights each layer keeps."""
ROOMS = {"criterion": criteria, "allocate": allocate, "rewind": rewind}
TRANSFERABLE = (rewind.to_init, rewind.to_step, rewind.to_step_with_optimizer)
"""Rewinds whose tickets start from weights of a dense network, so that other experiments can train them."""
ARMS = controls.arms()
"""Name of the arm -> control. The first two decide the verdict; the others are only reported."""


def resolve(room: ModuleType, name: str, *, what: str) -> Callable[..., Any]:
    """The function with this short name in a room, or with this import path `package.module:function`.

    `what` is the option, for messages. Raises ValueError if there is no such function.

    >>> resolve(criteria, "snip", what="criterion").__name__
    'snip'
    """
    if ":" in name:
        function = object_named(name)
        if not callable(function):
            raise ValueError(f"{name!r} is a {type(function).__name__}, not a function")
        return function
    offered = methods(room)
    choose(what, name, offered)
    return offered[name]


def functions(criterion: str, allocate: str, rewind: str) -> dict[str, Callable[..., Any]]:
    """Criterion, allocation and rewind as functions, by the option that names them."""
    named = {"criterion": criterion, "allocate": allocate, "rewind": rewind}
    return {option: resolve(room, named[option], what=option) for option, room in ROOMS.items()}


def facts(method: str) -> Method:
    """The properties of the method with this name; those of most methods if the name is unknown."""
    return method_of(METHODS[method]) if method in METHODS else Method(method)


def check_transferable(method: str, rewinding: Callable[..., Any]) -> None:
    """ValueError if another experiment cannot train the tickets that this method and rewind produce."""
    for what, name, transferable in (
        ("method", method, facts(method).starts_dense),
        ("rewind", rewinding.__name__, rewinding in TRANSFERABLE),
    ):
        if not transferable:
            allowed = ", ".join(r.__name__ for r in TRANSFERABLE)
            advice = f"possible: {allowed}" if what == "rewind" else "transfer the tickets of another method"
            raise ValueError(
                f"{what} {name} starts tickets from weights that were trained for them, but no dense network starts "
                f"from such weights; {advice}"
            )


def usual_criterion(method: str) -> str:
    """The criterion of the method's paper.

    >>> usual_criterion("at-init"), usual_criterion("imp")
    ('snip', 'magnitude')
    """
    return facts(method).criterion


def usual_allocation(method: str, criterion: str) -> str:
    """The allocation of the method's paper if it names one, else that of the criterion's paper.

    >>> usual_allocation("rigl", "magnitude"), usual_allocation("imp", "lamp")
    ('erk', 'global_top')
    """
    return facts(method).allocate or usual(resolve(criteria, criterion, what="criterion")).__name__


def methods(room: ModuleType) -> dict[str, Callable[..., Any]]:
    """The public functions of a room by name, as the command offers them."""
    return {n: getattr(room, n) for n in room.__all__ if type(getattr(room, n)).__name__ == "function"}


def offered() -> dict[str, dict[str, Callable[..., Any]]]:
    """Everything that has a name: kind of choice -> name -> function.

    >>> sorted(offered())
    ['allocate', 'control', 'criterion', 'method', 'pruning', 'rewind']
    """
    rooms = {kind: methods(room) for kind, room in ROOMS.items()}
    rooms["pruning"] = methods(schedules)
    return {"method": dict(METHODS), **rooms, "control": dict(ARMS)}
