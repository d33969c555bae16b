"""Pruning at once: at initialisation, or of a network that is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from winticket import units
from winticket.allocate import Allocate
from winticket.criteria import Criterion, magnitude
from winticket.criteria.applied import mask_of, name_of
from winticket.criteria.evidence import TRAINING, Batch, needed, rounds_at_init
from winticket.loops.scoring import (
    Density,
    Scoring,
    allocation_for,
    check_classes,
    check_densities,
    seeds_for,
    warn_of_emptied,
    whole,
    without_classes,
)
from winticket.loops.wrapped import bare, check_ranks
from winticket.schedules import geometric_at
from winticket.ticket import JSON, Seeds, Ticket


def prune(
    model: nn.Module,
    density: Density,
    *,
    criterion: Criterion = magnitude,
    allocate: Allocate | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    batches: Sequence[Batch] = (),
    example: Tensor | None = None,
    seeds: Seeds | None = None,
) -> Ticket:
    """The ticket of the model as it is: its weights scored and the best kept, with the weights and buffers that it has.

    ```python
    ticket = prune(model, 0.1, criterion=criteria.snip, batches=[(x, y)])
    with masked(model, ticket):
        my_training_loop(model)
    ```
    Of a fresh network that is pruning at initialisation (Lee et al. 2019), of a trained one pruning in one shot, the
    ticket then going on from the trained weights. A criterion takes as many rounds as its paper: SynFlow a hundred, at
    density d^(k/100) after round k (Tanaka et al. 2020, algorithm 1). The model itself is left alone.

    `allocate` is by default that of the criterion's paper: `layerwise` for magnitude, `global_top` for SNIP, `units`
    for criteria that score those (the output layer, whose units are the classes, is then left out unless `exclude` says
    otherwise). One that makes another method of the criterion is warned of, and refused if it undoes the criterion, as
    LAMP in layers.

    `density` is in (0, 1), or shares by layer as the allocation takes them; weights of Linear and Conv layers may be
    pruned, and parameters of other layers that `include` names (names or patterns, as 'lstm.weight_*'), less those in
    `exclude`. Of a weight-normed or spectral-normed layer the original tensor is included and scored, whose zeros are
    zeros of the weight. Criteria that look at the network or at data are given the model and
    `batches` of (x [B, ...], classes y [B]), for which it has to return logits [B, classes]; or an `example` [1, ...]
    where they need no data. They compute on the CPU, in float64 where the model can. `seeds` are what random criteria
    draw from; without them, each call draws its own from torch's global generator.

    Under DistributedDataParallel give the wrapped module, on every rank with the same arguments.

    RuntimeWarning if most of the model is in parameters that are in neither `include` nor `exclude`. Raises ValueError,
    before anything is scored, where a pattern fits no weight, the criterion lacks what it needs, or
    the allocation cannot give the density; and where ranks come to different tickets.
    """
    score = Scoring(model, criterion, batches, example)
    allocate = allocation_for(criterion, allocate, stacklevel=2)
    seeds = seeds_for(model, seeds, criterion=criterion)
    left = without_classes(model, allocate, exclude)
    found = whole(model, include=include, exclude=left, seeds=seeds)
    check_classes(model, found.mask, allocate)
    if TRAINING in needed(criterion):
        raise ValueError(
            f"{name_of(criterion)} looks at what training did to each weight, and a model as it is does not say where "
            "it began; give another criterion, or take Levels, which sees the training"
        )
    rounds = rounds_at_init(criterion)
    check_densities(found, [density], allocate)
    ways = [geometric_at(density, number / rounds) for number in range(1, rounds + 1)]
    try:
        allocate({n: found.start.weights[n].abs() for n in found.mask.keep}, found.mask, density=ways[0])
    except ValueError as error:
        error.add_note(f"{name_of(criterion)} prunes in {rounds} rounds of falling density")
        raise
    for now in ways:
        mask = mask_of(criterion, score.evidence(found, found.start), allocate=allocate, density=now)
        found = replace(found, mask=mask).settled(bare(model))
    warn_of_emptied(f"density {density}", found.mask, model=model, stacklevel=2)
    about: dict[str, JSON] = {"criterion": name_of(criterion), "allocate": name_of(allocate)}
    if units.whole(found.mask):
        about["effective_density"] = units.effective_count(bare(model), found.mask) / found.mask.total()
    found = replace(found, origin="ticket", about=about)
    check_ranks(model, found)
    return found
