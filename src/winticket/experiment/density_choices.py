"""Checks of an experiment's densities: how they are given, and which of the ways to give them go together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from winticket import allocate, schedules
from winticket.catalogue import typed_again
from winticket.experiment.names import methods, resolve


class _Given(Protocol):
    """What is checked of an given."""

    @property
    def density(self) -> Sequence[float]: ...
    @property
    def final_density(self) -> float | None: ...
    @property
    def levels(self) -> int: ...
    @property
    def pruning(self) -> str: ...
    @property
    def allocate(self) -> str: ...
    @property
    def output_rate(self) -> float | None: ...
    @property
    def conv_rate(self) -> float | None: ...


def check_densities(given: _Given) -> None:
    """ValueError if densities, rates and allocation do not go together."""
    schedule = resolve(schedules, given.pruning, what="pruning")
    if given.final_density is not None:
        schedule(given.final_density, given.levels)
    elif given.pruning != "geometric":
        raise ValueError(
            f"pruning {given.pruning} ends at a final density; set it (final_density=, --final-density)"
        )
    if given.density and (given.final_density is not None or given.pruning != "geometric"):
        raise ValueError("density lists all levels, so leave pruning and final_density out")
    if any(not 0 < d < 1 for d in given.density) or list(given.density) != sorted(
        set(given.density), reverse=True
    ):
        raise ValueError(
            f"density is {list(given.density)}; densities are shares of the weights kept, in (0, 1) and falling, "
            "as " + typed_again("--density", ("0.5", "0.2", "0.1"))
        )
    rated = [name for name in ("output_rate", "conv_rate") if getattr(given, name) is not None]
    if rated and given.allocate in methods(allocate) and given.allocate not in ("layerwise", "global_top"):
        raise ValueError(
            f"allocate {given.allocate} takes one density for all layers, but {rated[0]} gives some layers "
            f"another rate; leave {rated[0]} out, or choose allocate layerwise or global_top"
        )
    if listed(given) and (given.output_rate is not None or given.conv_rate is not None):
        raise ValueError(
            "output_rate and conv_rate go with a rate per level; with densities, every layer gets the same density"
        )


def require_densities(given: _Given) -> None:
    """TypeError for a density that is no number."""
    for value in (*given.density, *([] if given.final_density is None else [given.final_density])):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"a density is {value!r}; densities are numbers in (0, 1)")


def listed(given: _Given) -> bool:
    """True if densities are listed or end at a final one, instead of following from rates."""
    return bool(given.density) or given.final_density is not None
