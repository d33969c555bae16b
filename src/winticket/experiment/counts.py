"""How many weights every level keeps: densities and exact counts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from winticket import models, schedules
from winticket.allocate import Allocate, quotas
from winticket.experiment.names import resolve
from winticket.experiment.spec import Experiment
from winticket.procedures.facts import halved_output_rate
from winticket.stages import Density
from winticket.ticket import Mask


def densities(experiment: Experiment, module: nn.Module, eligible: Sequence[str]) -> list[Density]:
    """The share of each part of the network that levels 1..levels keep: the listed densities, else (1 - rate)^level."""
    if experiment.density:
        return list(experiment.density)
    if experiment.final_density is not None:
        schedule = resolve(schedules, experiment.pruning, what="pruning")
        return list(schedule(experiment.final_density, experiment.levels))
    rate, levels = experiment.rate, range(1, experiment.levels + 1)
    rates = {"*": rate}
    usual = halved_output_rate(rate, model=experiment.model, allocate=experiment.allocate)
    output = usual if experiment.output_rate is None else experiment.output_rate
    # If the output layer is excluded, the allocation would take the last pruned layer for the output layer.
    if output is not None and models.output_layer(module) == eligible[-1]:
        rates["output"] = output
    if experiment.conv_rate is not None:
        rates["conv"] = experiment.conv_rate
    if rates == {"*": rate}:
        return [(1 - rate) ** level for level in levels]
    return [{k: (1 - r) ** level for k, r in rates.items()} for level in levels]


def counts(
    experiment: Experiment, whole: Mask, densities: Sequence[Density], allocation: Allocate
) -> list[int]:
    """Eligible weights kept at levels 0..levels.

    Raises ValueError if a level would keep no weight of a layer, or would prune nothing.
    """
    by_quota = experiment.allocate in ("layerwise", "global_top")
    if by_quota:
        remaining = _quotas(whole, densities, competing=experiment.allocate != "layerwise")
    else:
        remaining = _tried(experiment.allocate, allocation, whole, densities)
    kept = [whole.total(), *remaining]
    for level in range(1, len(kept)):
        if kept[level] >= kept[level - 1]:
            raise ValueError(
                f"level {level} would prune none of the {kept[level - 1]} weights that level {level - 1} keeps; "
                f"use at most {level - 1} levels, or a larger rate"
            )
    return kept


def _quotas(whole: Mask, densities: Sequence[Density], *, competing: bool) -> list[int]:
    kept = []
    for level, density in enumerate(densities, 1):
        groups = quotas(whole, density, competing=competing)
        for names, count in groups:
            if count < 1:
                raise ValueError(
                    f"level {level} would keep none of the {sum(whole.keep[n].numel() for n in names)} weights of "
                    f"{', '.join(names)}: more pruning than weights; use at most {level - 1} levels, or a "
                    "smaller rate"
                )
        kept.append(sum(count for _, count in groups))
    return kept


def _tried(name: str, allocation: Allocate, mask: Mask, densities: Sequence[Density]) -> list[int]:
    """Weights that an allocation keeps under random scores, by level; the counts must not depend on the scores."""
    kept: list[int] = []
    generator = torch.Generator().manual_seed(0)
    scores = {n: torch.rand(keep.shape, generator=generator) for n, keep in mask.keep.items()}
    for level, density in enumerate(densities, 1):
        try:
            mask = allocation(scores, mask, density=density)
            kept.append(mask.count())
        except Exception as error:
            at = f"allocate {name!r} fails at level {level}, density {density}"
            if ":" not in name:
                raise ValueError(f"{at}: {error}") from error
            raise ValueError(
                f"{at}: {type(error).__name__}: {error}; it is called as allocate(scores, mask, density=...) and must "
                "return a smaller mask"
            ) from error
        if kept[-1] < 1:
            raise ValueError(f"allocate {name!r} keeps no weight at level {level}: more pruning than weights")
    return kept
