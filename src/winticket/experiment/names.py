"""Everything that can be asked for by name: methods, and what the rooms offer."""

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
"""Allocations that decide each layer's count alone, and not where in it weights stand."""
ROOMS = {"criterion": criteria, "allocate": allocate, "rewind": rewind}
CARRYING = (rewind.to_init, rewind.to_step, rewind.to_step_with_optimizer)
"""Rewinds whose tickets start where a dense network does, so that they can be carried over."""
ARMS = controls.arms()
"""Name of the arm -> control. The first two decide the verdict; the others stand beside it."""


def resolve(room: ModuleType, name: str, *, what: str) -> Callable[..., Any]:
    """The function that a short name means in a room, or that an import path `package.module:function` names."""
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
    """What is to be known of the method of that name; of one that is none, what holds of most."""
    return method_of(METHODS[method]) if method in METHODS else Method(method)


def check_carried(method: str, rewinding: Callable[..., Any]) -> None:
    """ValueError if another training cannot start from tickets that were found so."""
    for what, name, carries in (
        ("method", method, facts(method).starts_dense),
        ("rewind", rewinding.__name__, rewinding in CARRYING),
    ):
        if not carries:
            others = f"; there are {', '.join(r.__name__ for r in CARRYING)}" if what == "rewind" else ""
            raise ValueError(
                f"{what} {name} starts tickets from weights that were trained for them, which no dense network "
                f"starts from{others or '; carry over the tickets of another method'}"
            )


def usual_criterion(method: str) -> str:
    """The criterion of the method's paper."""
    return facts(method).criterion


def usual_allocation(method: str, criterion: str) -> str:
    """The allocation of the method's paper if it has one of its own, else of the criterion's."""
    return facts(method).allocate or usual(resolve(criteria, criterion, what="criterion")).__name__


def methods(room: ModuleType) -> dict[str, Callable[..., Any]]:
    """The public functions of a room: what the command offers."""
    return {n: getattr(room, n) for n in room.__all__ if type(getattr(room, n)).__name__ == "function"}


def offered() -> dict[str, dict[str, Callable[..., Any]]]:
    """Everything that can be asked for by name: kind of choice -> name -> function."""
    rooms = {kind: methods(room) for kind, room in ROOMS.items()}
    rooms["pruning"] = methods(schedules)
    return {"method": dict(METHODS), **rooms, "control": dict(ARMS)}
