"""The names by which stored data refer to winticket's functions and records, independent of their files.

Keys and files hold `winticket/train_stack`, and this table says where that function is. If a function or class moves,
its line here changes and no key does. A name is never reused for something else. Users' functions are named by their
import paths.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping

OURS = "winticket"
ROOMS = ("allocate", "analyse", "controls", "criteria", "rewind", "schedules", "stages")
"""Rooms whose public functions may all be in a key, as `winticket/criteria/snip`; a line in `HOMES` goes first.

A new stage needs no line: `winticket.stages` exports it, and `winticket/stages/name` is what keys call it.
"""
HOMES: Mapping[str, str] = {
    "Setup": "stages.setup:Setup",
    "Recipe": "train.recipe:Recipe",
    "dense_ticket": "stages.tickets:dense_ticket",
    "prune": "stages.pruning:prune",
    "prune_untrained": "stages.pruning:prune_untrained",
    "control_ticket": "stages.controlling:control_ticket",
    "trained_control_ticket": "stages.controlling:trained_control_ticket",
    "neighbour_ticket": "stages.controlling:neighbour_ticket",
    "train_stack": "stages.training:train_stack",
    "states": "stages.training:states",
    "with_states": "stages.training:with_states",
    "emerged": "stages.settling:emerged",
    "sparse_start": "stages.changing:sparse_start",
    "last_mask": "stages.changing:last_mask",
    "at_random": "train.rules:at_random",
    "by_gradient": "train.rules:by_gradient",
    "train_regrowing": "stages.changing:train_regrowing",
    "train_thinning": "stages.changing:train_thinning",
    "train_mask": "stages.learning:train_mask",
    "carried": "stages.carrying:carried",
    "widened": "stages.carrying:widened",
    "Layout": "units.layout:Layout",
    "Curve": "ticket.curve:Curve",
    "Mask": "ticket.mask:Mask",
    "State": "ticket.nouns:State",
    "Seeds": "ticket.nouns:Seeds",
    "Ticket": "ticket.nouns:Ticket",
    "Trajectory": "ticket.nouns:Trajectory",
    "Failed": "ticket.nouns:Failed",
    "Table": "table:Table",
}
"""Name -> module and name within winticket."""
RECORDS = frozenset(
    f"{OURS}/{name}"
    for name in ("Curve", "Failed", "Layout", "Mask", "Seeds", "State", "Table", "Ticket", "Trajectory")
)
"""Classes that may be built from a file."""
_NAMES = {f"{OURS}.{path}": f"{OURS}/{name}" for name, path in HOMES.items()}


def is_winticket(module: str) -> bool:
    """True for a module of winticket."""
    return module == OURS or module.startswith(OURS + ".")


def stored_name(module: str, name: str) -> str | None:
    """The stored name of a function or class of winticket; None if it has none."""
    return _NAMES.get(f"{module}:{name}") or _of_a_room(module, name)


@functools.cache
def home(stored: str) -> tuple[str, str] | None:
    """The module and the name in it that a stored name stands for; None for an unknown name."""
    top, _, name = stored.partition("/")
    if top != OURS:
        return None
    room, _, function = name.partition("/")
    if room in ROOMS and function in importlib.import_module(f"{OURS}.{room}").__all__:
        thing = getattr(importlib.import_module(f"{OURS}.{room}"), function)
        one_name = stored_name(thing.__module__, thing.__name__) == stored  # a line in the table goes first
        return (f"{OURS}.{room}", function) if one_name else None
    if name not in HOMES:
        return None
    module, _, name = HOMES[name].partition(":")
    return f"{OURS}.{module}", name


def _of_a_room(module: str, name: str) -> str | None:
    room = module.removeprefix(f"{OURS}.").partition(".")[0]
    if room not in ROOMS or name not in importlib.import_module(f"{OURS}.{room}").__all__:
        return None
    return f"{OURS}/{room}/{name}"
