"""Pruning in one go: at initialisation, or of a trained network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from winticket import units
from winticket.allocate import Allocate
from winticket.criteria import Criterion, magnitude
from winticket.criteria.applied import mask_of, name_of
from winticket.criteria.batches import Batch, Inputs
from winticket.criteria.evidence import TRAINING, needed, rounds_at_init
from winticket.criteria.losses import Loss
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
    example: Inputs | None = None,
    loss: Loss | None = None,
    seeds: Seeds | None = None,
) -> Ticket:
    """Score the model's current weights, keep the best, and return the ticket with its current weights and buffers.

    For a freshly initialised network this is pruning at initialisation (Lee et al. 2019); for a trained one it is
    one-shot pruning, and the ticket continues from the trained weights. A criterion takes as many rounds as in its
    paper: SynFlow takes 100, with density d^(k/100) after round k (Tanaka et al. 2020, algorithm 1). The model itself
    does not change.

    `density` is in (0, 1), or a mapping of shares by layer. `allocate` defaults to the allocation of the criterion's
    paper. An allocation that turns the criterion into another method causes a warning; one that undoes it is refused.
    Weights of Linear and Conv layers are eligible, and parameters in `include` (names or patterns, as 'lstm.weight_*'),
    except those in `exclude` (default for whole units: the output layer). Of a weight-normed layer the original tensor
    is pruned.

    Criteria that look at data need `batches`, those that look at the network alone an `example` [1, ...] of its inputs;
    they compute on the CPU, in float64 if model and loss can. A batch is a tuple whose last part is the target, as
    (x [B, ...], y [B, ...]) or (x1, x2, y), or a mapping, of which the model gets by name what its `forward` has
    parameters for. `loss` takes the model's output and the target, for a mapping the whole batch, and returns the mean
    loss; batches count by their examples. Without it, the model must return logits [B, classes] for classes y [B], or,
    for a mapping, an object or dict with a `loss`, as the models of Transformers do if the batch has labels. Criteria
    that need no loss ignore it, as they ignore batches. Random criteria draw from `seeds` (default: drawn from torch's
    global generator).

    Under DistributedDataParallel pass the wrapped model, with the same arguments on every rank. ValueError, before
    anything is scored, if a pattern matches no weight, the criterion lacks what it needs, or the allocation cannot
    reach the density; and if ranks arrive at different tickets. RuntimeWarning if most of the model's parameters could
    be included and are in neither `include` nor `exclude`.

    >>> import torch, winticket
    >>> winticket.prune(torch.nn.Linear(50, 4), 0.25).mask.count()
    50
    >>> x, y = torch.randn(8, 50), torch.randn(8, 4)  # a regression
    >>> how = {"criterion": winticket.criteria.snip, "batches": [(x, y)], "loss": torch.nn.functional.mse_loss}
    >>> winticket.prune(torch.nn.Linear(50, 4), 0.25, **how).mask.count()
    50
    """
    score = Scoring(model, criterion, batches, example, loss)
    allocate = allocation_for(criterion, allocate, stacklevel=2)
    seeds = seeds_for(model, seeds, criterion=criterion)
    excluded = without_classes(model, allocate, exclude, include)
    dense = whole(model, include=include, exclude=excluded, seeds=seeds)
    return _pruned(score, dense, density, allocate)


def _pruned(score: Scoring, dense: Ticket, density: Density, allocate: Allocate) -> Ticket:
    model, criterion = score.model, score.criterion
    check_classes(model, dense.mask, allocate)
    if TRAINING in needed(criterion):
        raise ValueError(
            f"{name_of(criterion)} scores what training did to each weight, and a model alone does not show where "
            "its training began; choose another criterion, or use Levels, which sees the training"
        )
    ticket = _in_rounds(score, dense, density, allocate)
    warn_of_emptied(f"density {density}", ticket.mask, model=model, stacklevel=3)
    about: dict[str, JSON] = {"criterion": name_of(criterion), "allocate": name_of(allocate)}
    if units.takes_whole_units(ticket.mask):
        about["effective_density"] = units.effective_count(bare(model), ticket.mask) / ticket.mask.total()
    ticket = replace(ticket, origin="ticket", about=about)
    check_ranks(model, ticket)
    return ticket


def _in_rounds(score: Scoring, ticket: Ticket, density: Density, allocate: Allocate) -> Ticket:
    """Prune in as many rounds as the criterion's paper takes. ValueError if the allocation cannot reach the density."""
    rounds = rounds_at_init(score.criterion)
    check_densities(ticket, [density], allocate)
    densities = [geometric_at(density, number / rounds) for number in range(1, rounds + 1)]
    magnitudes = {name: ticket.start.weights[name].abs() for name in ticket.mask.keep}
    try:
        allocate(magnitudes, ticket.mask, density=densities[0])
    except ValueError as error:
        error.add_note(f"{name_of(score.criterion)} prunes in {rounds} rounds of falling density")
        raise
    for each in densities:
        evidence = score.evidence(ticket, ticket.start)
        mask = mask_of(score.criterion, evidence, allocate=allocate, density=each)
        ticket = replace(ticket, mask=mask).settled(bare(score.model))
    return ticket
