"""Refuse densities, schedules and rates of layers that do not go together."""

from __future__ import annotations

from collections.abc import Sequence

from winticket import allocate, schedules
from winticket.catalogue import typed_again
from winticket.experiment.names import methods, resolve


def check_densities(
    levels: int,
    *,
    pruning: str,
    final_density: float | None,
    density: Sequence[float],
    allocation: str,
    rated: Sequence[str],
) -> None:
    """ValueError for choices that contradict each other; `rated` are options that give layers a rate of their own."""
    schedule = resolve(schedules, pruning, what="pruning")
    if final_density is not None:
        schedule(final_density, levels)
    elif pruning != "geometric":
        raise ValueError(
            f"pruning {pruning} ends at a final density; set it (final_density=, --final-density)"
        )
    if density and (final_density is not None or pruning != "geometric"):
        raise ValueError("density lists all levels, so leave pruning and final_density out")
    if any(not 0 < d < 1 for d in density) or list(density) != sorted(set(density), reverse=True):
        raise ValueError(
            f"density is {list(density)}; densities are shares of the weights kept, in (0, 1) and falling, as "
            + typed_again("--density", ("0.5", "0.2", "0.1"))
        )
    if rated and allocation in methods(allocate) and allocation not in ("layerwise", "global_top"):
        raise ValueError(
            f"allocate {allocation} takes one density for all layers, but {rated[0]} gives some layers another "
            f"rate; leave {rated[0]} out, or choose allocate layerwise or global_top"
        )
    if rated and (density or final_density is not None):
        raise ValueError(
            "output_rate and conv_rate go with a rate per level; with densities, every layer gets the same density"
        )
