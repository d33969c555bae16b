"""How tickets of one network fit into another: which weights are new there, and how many each level keeps."""

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
class Left:
    """What the source's levels keep: counts at levels 0..levels, and how they come about."""

    counts: Sequence[int]
    whole: Mask
    densities: Sequence[Density]
    allocate: Allocate


def new_weights(experiment: Experiment, here: Setup, there: Setup) -> tuple[str, ...]:
    """The eligible weights that no ticket of the source brings: an output layer for another number of classes.

    ValueError where the source's tickets do not fit.
    """
    if here.input_shape != there.input_shape:
        raise ValueError(
            f"the tickets were found on {there.data}, with examples of shape {there.input_shape}, and those "
            f"of {here.data} have shape {here.input_shape}; a mask fits one shape alone"
        )
    weights: Weights = {n: p.detach() for n, p in there.module().named_parameters()}
    if another_width(here, there):
        if "other-aligned" in experiment.controls:
            raise ValueError(
                "other-aligned matches hidden units by what a dense network learnt, and these tickets were found "
                f"in another one ({there.model}); leave it out of the controls"
            )
        weights = _widened(weights, here, there)
    return _new(here, weights)


def counts(experiment: Experiment, here: Setup, whole: Mask, there: Setup, left: Left) -> list[int]:
    """Weights kept at level 0 and at each that is carried, without an output layer that is new."""
    levels = (0, *experiment.carried)
    wider = another_width(here, there)
    if whole.keep.keys() == left.whole.keep.keys() and not wider:
        return [left.counts[level] for level in levels]
    once, again = (_layers(left, seed=seed) for seed in (0, 1))
    if any(
        {n: a[n] for n in whole.keep} != {n: b[n] for n in whole.keep}
        for a, b in zip(once, again, strict=True)
    ):
        source = experiment.source
        allocation = source.allocate if source else ""
        raise ValueError(
            f"allocate {allocation} lets layers compete, so in a network of another width tickets keep "
            "different counts; let the source prune layer by layer (allocate layerwise)"
            if wider
            else f"allocate {allocation} lets the output layer compete with the others, so without it "
            "tickets keep different counts; let the source leave it out (exclude "
            f"{models.output_layer(there.module())})"
        )
    sizes = {n: keep.numel() for n, keep in whole.keep.items()}
    return [sum(kept_here(once[level][n], once[0][n], sizes[n]) for n in sizes) for level in levels]


def another_width(here: Setup, there: Setup) -> bool:
    """Whether the networks differ by more than their output layer, so that no start can be carried."""
    if here.model == there.model:
        return False
    now, then = ({n: p.shape for n, p in setup.module().named_parameters()} for setup in (here, there))
    return any(
        now.get(n) != then.get(n) for n in {**then, **now} if n.rpartition(".")[0] != _output_path(here)
    )


def _output_path(setup: Setup) -> str | None:
    """The output layer's path; None in a network without Linear and Conv layers."""
    weight = models.output_layer(setup.module())
    return None if weight is None else weight.rpartition(".")[0]


def _widened(weights: Weights, here: Setup, there: Setup) -> Weights:
    """The source's weights in the shapes of another width. ValueError where the networks do not correspond."""
    between = f"tickets of {there.model} cannot be carried into {here.model}"
    try:
        units = [symmetry(setup.module(), setup.input_shape) for setup in (there, here)]
    except ValueError as error:
        raise ValueError(f"{between}, since no unit can be followed into another width: {error}") from error
    try:
        return resized(weights, *units)
    except ValueError as error:
        raise ValueError(
            f"{between}, which is not the same network with other numbers of hidden units: {error}"
        ) from error


def _new(here: Setup, weights: Weights) -> tuple[str, ...]:
    """The weights to prune that are new here: the output layer's, for another number of classes.

    ValueError where anything else of what is `weights` is of another shape.
    """
    now = {n: tuple(p.shape) for n, p in here.module().named_parameters()}
    then = {n: tuple(w.shape) for n, w in weights.items()}
    differ = [n for n in {**then, **now} if now.get(n) != then.get(n)]
    output = _output_path(here)
    wrong = [n for n in differ if n.rpartition(".")[0] != output]
    if wrong:
        raise ValueError(
            f"the tickets' {wrong[0]} has shape {then.get(wrong[0], 'none')} where {here.model} on {here.data} has "
            f"{now.get(wrong[0], 'none')}; only the output layer may differ"
        )
    return tuple(n for n in differ if n in prunable(here))


def _layers(left: Left, *, seed: int) -> list[Mapping[str, int]]:
    """What the source's allocation keeps of random scores in every layer, at levels 0..levels."""
    mask, generator = left.whole, torch.Generator().manual_seed(seed)
    scores = {name: torch.rand(keep.shape, generator=generator) for name, keep in mask.keep.items()}
    kept = [mask.layers()]
    for density in left.densities:
        mask = left.allocate(scores, mask, density=density)
        kept.append(mask.layers())
    return [{name: count for name, (count, _) in layers.items()} for layers in kept]
