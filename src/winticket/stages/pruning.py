"""From trained weights to the next ticket: evidence, scores, a smaller mask, a rewind; one replicate at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from winticket import data
from winticket.criteria import Criterion, Evidence
from winticket.criteria.applied import careful, mask_of
from winticket.criteria.evidence import DATA, NETWORK, needed, rounds_at_init
from winticket.criteria.evidence import REVISION as EVIDENCE
from winticket.rewind import Rewind, fine_tune, learning_rate, takes_step
from winticket.schedules import geometric_at
from winticket.stages.setup import Setup
from winticket.stages.tickets import Density
from winticket.ticket import Mask, Seeds, State, Ticket, Trajectory, no_curve

REVISION = 1 + EVIDENCE  # both only rise, so that a change of either gives a new sum
SCORED_PER_CLASS = 10


def prune(
    setup: Setup,
    path: Trajectory,
    *,
    density: Density,
    criterion: Criterion,
    allocate: Callable[..., Mask],
    rewind: Rewind,
    rewind_step: int = 0,
) -> Ticket:
    """Score the trained weights, keep the best and rewind: the ticket of the next level.

    `density` is that of the new mask. Errors: ValueError for scores that are not finite, or a density that `allocate`
    cannot give.
    """
    now = path.saved[max(path.saved)]
    seen = evidence(setup, path.ticket, now, criterion)
    mask = mask_of(criterion, seen, allocate=allocate, density=density)
    where = {"step": rewind_step} if takes_step(rewind) else {}
    return replace(careful(rewind)(path, mask, **where), origin="ticket").settled(setup.module())


def saved_for(rewind: Rewind, step: int) -> tuple[int, ...]:
    """The steps of the dense training whose states a rewind needs."""
    return (step,) if step and rewind not in (learning_rate, fine_tune) else ()


def retraining(setup: Setup, rewind: Rewind) -> Setup:
    """The setup that trains a rewind's tickets: under `fine_tune`, always at the schedule's last learning rate."""
    return replace(setup, recipe=setup.recipe.settled()) if rewind is fine_tune else setup


def prune_untrained(
    setup: Setup,
    ticket: Ticket,
    *,
    density: Density,
    criterion: Criterion,
    allocate: Callable[..., Mask],
    rewind: Rewind,
) -> Ticket:
    """Score an untrained network and keep the best weights, in as many rounds as the criterion's paper takes.

    The density falls exponentially: d^(k/n) after round k of n (Tanaka et al. 2020, algorithm 1).

    >>> from winticket.experiment import Experiment
    >>> setup = Experiment.of("digits", steps=20).setup()
    >>> from winticket import allocate, criteria, rewind
    >>> from winticket.stages import dense_ticket
    >>> how = {"criterion": criteria.snip, "allocate": allocate.global_top, "rewind": rewind.to_init}
    >>> prune_untrained(setup, dense_ticket(setup, 0), density=0.1, **how).mask.count()
    5020
    """
    rounds, sparser = rounds_at_init(criterion), ticket
    for number in range(1, rounds + 1):
        now = geometric_at(density, number / rounds)
        path = Trajectory(sparser, {sparser.start.step: sparser.start}, no_curve())
        seen = evidence(setup, sparser, sparser.start, criterion)
        mask = mask_of(criterion, seen, allocate=allocate, density=now)
        sparser = replace(careful(rewind)(path, mask), origin="ticket").settled(setup.module())
    return sparser


def evidence(setup: Setup, ticket: Ticket, now: State, criterion: Criterion) -> Evidence:
    """What `criterion` gets to score the state `now`: the network and examples only if it needs them.

    `start` of the evidence is the replicate's initialisation, whatever step the ticket was rewound to. The loss is the
    one by which the experiment trains.
    """
    needs, made = needed(criterion), setup.loss_and_metric()
    return Evidence.of_ticket(
        ticket,
        now,
        start=setup.initial(ticket.seeds.derive("init")),
        network=setup.module() if NETWORK in needs else None,
        example=setup.blank(1) if NETWORK in needs else None,
        batches=scored(setup, ticket.seeds) if DATA in needs else (),
        classes_last=True,
        loss=None if made is None else made.loss,
    )


def scored(setup: Setup, seeds: Seeds) -> tuple[tuple[Tensor, Tensor], ...]:
    """Training examples for criteria: the first ten of each class, in an order drawn for each replicate.

    Wang et al. 2020 (GraSP) and Tanaka et al. 2020 take as many per class. Batches are at most as large as the recipe's
    and differ by at most one example, so that no batch takes its statistics from a few. An example of text has answers
    of many classes; there, ten answers per class are meant on average. Of examples without a class, ten are taken per
    output, but at least a hundred.

    >>> from winticket.experiment import Experiment
    >>> setup = Experiment.of("digits", steps=20).setup()
    >>> [y.shape for _, y in scored(setup, Seeds(0, 0))]
    [torch.Size([50]), torch.Size([50])]
    """
    part = setup.dataset(torch.device("cpu"), seeds.replicate).train
    order = data.permutation(len(part.y), seed=seeds.derive("scored"), epoch=0)
    if setup.tokens:
        chosen = order[: max(1, SCORED_PER_CLASS * setup.classes // part.y.shape[1])]
        return _in_batches(part, chosen, setup.recipe.batch)
    made = setup.loss_and_metric()
    if made is not None:
        part = data.Split(part.x, made.trained(part.y))
    if made is not None and made.objective.task not in ("classification", "next-token"):
        chosen = order[: SCORED_PER_CLASS * max(SCORED_PER_CLASS, setup.classes)]
        return _in_batches(part, chosen, setup.recipe.batch)
    y = part.y[order]
    chosen = torch.cat(
        [order[(y == k).nonzero().squeeze(1)[:SCORED_PER_CLASS]] for k in range(setup.classes)]
    )
    mixed = chosen[data.permutation(len(chosen), seed=seeds.derive("scored"), epoch=1)]
    return _in_batches(part, mixed, setup.recipe.batch)


def _in_batches(part: data.Split, chosen: Tensor, most: int) -> tuple[tuple[Tensor, Tensor], ...]:
    return tuple((part.x[rows], part.y[rows]) for rows in chosen.tensor_split(-(-len(chosen) // most)))
