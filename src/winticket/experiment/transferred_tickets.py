"""How tickets of one network fit another: which weights they do not cover, and how many weights each level keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from winticket import models
from winticket.align import resized, symmetry
from winticket.allocate import Allocate
from winticket.experiment.spec import Experiment
from winticket.stages import Density, Setup, kept_here, prunable
from winticket.ticket import Mask, Weights


@dataclass(frozen=True)
class SourceLevels:
    """What the levels of the source experiment keep.

    counts     eligible weights kept at levels 0..levels
    whole      the mask that prunes nothing; it names the eligible weights
    densities  the densities that were requested at levels 1..levels
    allocate   the allocation that turns a density into a mask
    """

    counts: Sequence[int]
    whole: Mask
    densities: Sequence[Density]
    allocate: Allocate


def new_weights(experiment: Experiment, setup: Setup, source: Setup) -> tuple[str, ...]:
    """The eligible weights of `setup` that no ticket of `source` covers: an output layer for other classes.

    Raises ValueError if the tickets of the source do not fit this network.
    """
    if setup.input_shape != source.input_shape:
        raise ValueError(
            f"the tickets were found on {source.data}, whose examples have shape {source.input_shape}, but examples "
            f"of {setup.data} have shape {setup.input_shape}; a mask fits one shape alone"
        )
    weights: Weights = {n: p.detach() for n, p in source.module().named_parameters()}
    if another_width(setup, source):
        if "other-aligned" in experiment.controls:
            raise ValueError(
                "control other-aligned matches hidden units by what a dense network of this width has learned, but "
                f"these tickets were found in another network ({source.model}); leave other-aligned out of the controls"
            )
        weights = _widened(weights, setup, source)
    return _new(setup, weights)


def counts(
    experiment: Experiment, setup: Setup, whole: Mask, source: Setup, levels: SourceLevels
) -> list[int]:
    """Weights kept at level 0 and at each transferred level, without an output layer that is new.

    Raises ValueError if the counts of the layers depend on the scores, so that they cannot be known beforehand.
    """
    chosen = (0, *experiment.carried)
    wider = another_width(setup, source)
    if whole.keep.keys() == levels.whole.keep.keys() and not wider:
        return [levels.counts[level] for level in chosen]
    once, again = (_layers(levels, seed=seed) for seed in (0, 1))
    if any(
        {n: a[n] for n in whole.keep} != {n: b[n] for n in whole.keep}
        for a, b in zip(once, again, strict=True)
    ):
        allocation = experiment.source.allocate if experiment.source else ""
        raise ValueError(
            f"allocate {allocation} lets layers compete, so tickets would keep different counts in a network of "
            "another width; let the source prune layer by layer (allocate layerwise)"
            if wider
            else f"allocate {allocation} lets the output layer compete with the others, so tickets would keep "
            "different counts without it; let the source leave it out (exclude "
            f"{models.output_layer(source.module())})"
        )
    sizes = {n: keep.numel() for n, keep in whole.keep.items()}
    return [sum(kept_here(once[level][n], once[0][n], sizes[n]) for n in sizes) for level in chosen]


def another_width(setup: Setup, source: Setup) -> bool:
    """True if the networks differ in more than their output layer, so that no starting weights can be transferred."""
    if setup.model == source.model:
        return False
    now, then = ({n: p.shape for n, p in each.module().named_parameters()} for each in (setup, source))
    return any(
        now.get(n) != then.get(n) for n in {**then, **now} if n.rpartition(".")[0] != _output_path(setup)
    )


def _output_path(setup: Setup) -> str | None:
    """The output layer's path; None in a network without Linear and Conv layers."""
    weight = models.output_layer(setup.module())
    return None if weight is None else weight.rpartition(".")[0]


def _widened(weights: Weights, setup: Setup, source: Setup) -> Weights:
    """The source's weights in the shapes of another width. ValueError if the networks do not correspond."""
    attempt = f"tickets of {source.model} cannot be transferred to {setup.model}"
    try:
        units = [symmetry(each.module(), each.input_shape) for each in (source, setup)]
    except ValueError as error:
        raise ValueError(
            f"{attempt}, since its units have no counterparts in another width: {error}"
        ) from error
    try:
        return resized(weights, *units)
    except ValueError as error:
        raise ValueError(
            f"{attempt}, which is not the same network with other numbers of hidden units: {error}"
        ) from error


def _new(setup: Setup, weights: Weights) -> tuple[str, ...]:
    """The prunable weights of `setup` that differ in shape from `weights`: those of an output layer for other classes.

    Raises ValueError if any other parameter differs in shape.
    """
    now = {n: tuple(p.shape) for n, p in setup.module().named_parameters()}
    then = {n: tuple(w.shape) for n, w in weights.items()}
    differ = [n for n in {**then, **now} if now.get(n) != then.get(n)]
    output = _output_path(setup)
    wrong = [n for n in differ if n.rpartition(".")[0] != output]
    if wrong:
        raise ValueError(
            f"{wrong[0]} has shape {then.get(wrong[0], 'none')} in the tickets, but {now.get(wrong[0], 'none')} in "
            f"{setup.model} on {setup.data}; only the output layer may differ"
        )
    return tuple(n for n in differ if n in prunable(setup))


def _layers(levels: SourceLevels, *, seed: int) -> list[Mapping[str, int]]:
    """Weights that the source's allocation keeps of each layer under random scores, at levels 0..levels."""
    mask, generator = levels.whole, torch.Generator().manual_seed(seed)
    scores = {name: torch.rand(keep.shape, generator=generator) for name, keep in mask.keep.items()}
    kept = [mask.layers()]
    for density in levels.densities:
        mask = levels.allocate(scores, mask, density=density)
        kept.append(mask.layers())
    return [{name: count for name, (count, _) in layers.items()} for layers in kept]
