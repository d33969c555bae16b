"""Which allocation goes with which criterion: its paper's by default, and what another one makes of it.

SNIP ranks all weights of the network together; layer by layer it is another method. LAMP's scores differ from
magnitudes only between layers; layer by layer it is magnitude pruning under another name.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from winticket import allocate as room
from winticket.allocate import Allocate
from winticket.criteria.evidence import Criterion, is_layer_by_layer, scores_units, usual_allocate

RANKS = {
    "global_top": "ranks all weights of the network together",
    "constant_fan_in": "compares the weights of each output unit",
}
"""What a criterion's usual allocation says of it. Criteria that prune layer by layer go with every allocation."""
IN_LAYERS = ("layerwise", "uniform", "erk", "constant_fan_in", "n_of_m")
"""Allocations that compare weights of one layer only, one by one."""

EACH_LAYER = (*IN_LAYERS, "blocks", "units")
"""Allocations that decide each layer by its own scores."""


def usual(criterion: Criterion) -> Allocate:
    """The allocation of the criterion's paper; `layerwise` for one of your own that names none.

    ValueError if the criterion names an allocation that does not exist.
    """
    name = usual_allocate(criterion)
    offered = {n: f for n in room.__all__ if callable(f := getattr(room, n)) and n != "Allocate"}
    if name not in offered:
        raise ValueError(
            f"criterion {_name(criterion)} says that it goes with allocation {name!r}, which does not exist; possible: "
            f"{', '.join(offered)}"
        )
    found: Allocate = offered[name]
    return found


def variant(criterion: Criterion, allocate: Allocate) -> str | None:
    """A sentence if this allocation makes another method of the criterion than its paper's; None if it is the paper's.

    Your own allocations are not judged. ValueError if the combination undoes the criterion.
    """
    given, wanted, name = _name(allocate), usual_allocate(criterion), _name(criterion)
    if getattr(_bare(allocate), "__module__", "") != room.__name__ or given == wanted:
        return None
    if is_layer_by_layer(criterion) and given not in EACH_LAYER:
        raise ValueError(
            f"{name} scores layer by layer, each behind those that are pruned already, and {given} decides over "
            f"several layers at once; ask for allocate {wanted}, or another of {', '.join(EACH_LAYER)}"
        )
    same = getattr(_bare(criterion), "in_layer", "")
    if same and given in IN_LAYERS:
        raise ValueError(
            f"criterion {name} with allocate {given} is {same}: within a layer both rank weights alike, and only "
            f"{wanted} compares layers; ask for allocate {wanted}, or for criterion {same}"
        )
    if wanted == "units":
        raise ValueError(
            f"criterion {name} gives all weights of a unit the same score, and allocate {given} would choose among "
            "them by position; ask for allocate units, and exclude the output layer, whose units are the classes"
        )
    if wanted not in RANKS or given in getattr(_bare(criterion), "also", ()):
        return None
    return (
        f"criterion {name} {RANKS[wanted]} in its paper (allocate {wanted}), and allocate {given} does not: these are "
        f"results of a variant, not of {name} as published"
    )


def check_exchange(criterion: Criterion, method: str) -> None:
    """ValueError for a criterion that says nothing of single weights of a layer, which `method` exchanges."""
    name, same = _name(criterion), getattr(_bare(criterion), "in_layer", "")
    if same:
        raise ValueError(
            f"{method} exchanges weights within each layer, where criterion {name} ranks them as {same} does; ask for "
            f"criterion {same}"
        )
    if scores_units(criterion):
        raise ValueError(
            f"criterion {name} gives all weights of a unit the same score, and {method} exchanges weights singly, so "
            "that position would decide; ask for a criterion of single weights (magnitude, ...)"
        )


def _bare(function: Callable[..., Any]) -> Callable[..., Any]:
    return _bare(function.func) if isinstance(function, partial) else function


def _name(function: Callable[..., Any]) -> str:
    return str(getattr(_bare(function), "__name__", function))
