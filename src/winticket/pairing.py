"""The allocation that goes with a criterion: its paper's by default, and what the criterion becomes with another.

SNIP ranks all weights of the network together; applied layer by layer, it is a different method. LAMP's scores differ
from magnitudes only between layers; applied layer by layer, it is magnitude pruning under another name.
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
"""What a criterion's usual allocation says about it. A criterion whose usual allocation is not here goes with any."""
IN_LAYERS = ("layerwise", "uniform", "erk", "constant_fan_in", "n_of_m")
"""Allocations that compare single weights within one layer only."""

EACH_LAYER = (*IN_LAYERS, "blocks", "units")
"""Allocations that decide each layer from that layer's scores alone."""

WHOLE = {
    "units": ("a unit", ", and exclude the output layer, whose units are the classes"),
    "structures": ("an attention head", ""),
}
"""What a criterion scores whole, by its usual allocation, and what to mind."""


def usual(criterion: Criterion) -> Allocate:
    """The allocation of the criterion's paper; `layerwise` for a criterion of yours that names none.

    Raises ValueError if the criterion names an allocation that does not exist.

    >>> from winticket.criteria import magnitude, snip
    >>> usual(snip).__name__, usual(magnitude).__name__
    ('global_top', 'layerwise')
    """
    name = usual_allocate(criterion)
    offered = {n: f for n in room.__all__ if callable(f := getattr(room, n)) and n != "Allocate"}
    if name not in offered:
        raise ValueError(
            f"criterion {_name(criterion)} says that it goes with allocation {name!r}, which does not exist; possible: "
            f"{', '.join(offered)}"
        )
    allocation: Allocate = offered[name]
    return allocation


def variant(criterion: Criterion, allocate: Allocate) -> str | None:
    """A sentence that says how this allocation changes the criterion's published method; None if it does not.

    Your own allocations are not judged. Raises ValueError if the combination defeats the criterion.

    >>> from winticket.criteria import snip
    >>> variant(snip, room.global_top) is None
    True
    >>> variant(snip, room.layerwise)[:60]
    'criterion snip ranks all weights of the network together in '
    """
    chosen, usual, name = _name(allocate), usual_allocate(criterion), _name(criterion)
    if getattr(_bare(allocate), "__module__", "") != room.__name__ or chosen == usual:
        return None
    if is_layer_by_layer(criterion) and chosen not in EACH_LAYER:
        raise ValueError(
            f"{name} scores layer by layer, each with the layers before it already pruned, but {chosen} decides over "
            f"several layers at once; use allocate {usual}, or another of {', '.join(EACH_LAYER)}"
        )
    same = getattr(_bare(criterion), "in_layer", "")
    if same and chosen in IN_LAYERS:
        raise ValueError(
            f"criterion {name} with allocate {chosen} is {same}: within a layer both rank weights alike, and only "
            f"{usual} compares layers; use allocate {usual}, or criterion {same}"
        )
    if scores_units(criterion):
        whole, hint = WHOLE[usual]
        raise ValueError(
            f"criterion {name} gives all weights of {whole} the same score, and allocate {chosen} would choose among "
            f"them by position; use allocate {usual}{hint}"
        )
    if usual not in RANKS or chosen in getattr(_bare(criterion), "also", ()):
        return None
    return (
        f"criterion {name} {RANKS[usual]} in its paper (allocate {usual}), but allocate {chosen} does not: these are "
        f"results of a variant, not of {name} as published"
    )


def check_exchange(criterion: Criterion, method: str) -> None:
    """Raise ValueError if a criterion cannot rank single weights of a layer, which `method` exchanges.

    >>> from winticket.criteria import lamp
    >>> check_exchange(lamp, "rigl")
    Traceback (most recent call last):
    ValueError: rigl exchanges weights within each layer, and there criterion lamp ranks them as magnitude does; ...
    """
    name, same = _name(criterion), getattr(_bare(criterion), "in_layer", "")
    if same:
        raise ValueError(
            f"{method} exchanges weights within each layer, and there criterion {name} ranks them as {same} does; use "
            f"criterion {same}"
        )
    if scores_units(criterion):
        raise ValueError(
            f"criterion {name} gives all weights of a unit the same score, but {method} exchanges weights singly, so "
            "position would decide; use a criterion of single weights (magnitude, ...)"
        )


def _bare(function: Callable[..., Any]) -> Callable[..., Any]:
    return _bare(function.func) if isinstance(function, partial) else function


def _name(function: Callable[..., Any]) -> str:
    return str(getattr(_bare(function), "__name__", function))
