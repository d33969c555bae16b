"""The stages that plans are made of: each ties one room's function to a setup.

`train_stack` is the expensive one and is stored; the others work on one replicate, cost next to nothing and are
evaluated by whoever needs them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from winticket import data, models
from winticket.align import symmetry
from winticket.criteria import Criterion, Evidence
from winticket.criteria.applied import careful, mask_of
from winticket.criteria.evidence import DATA, NETWORK, Batch, needed, rounds_at_init
from winticket.procedures.setup import Setup
from winticket.rewind import Rewind, fine_tune
from winticket.run import Json, Task, step, task
from winticket.schedules import geometric_at
from winticket.ticket import Curve, Failed, Mask, Seeds, State, Ticket, Trajectory, Weights
from winticket.train import Changes, Learning, train
from winticket.units import layouts

REVISION = 3
SCORED_PER_CLASS = 10

Density = float | Mapping[str, float]


@dataclass(frozen=True)
class Found:
    """A level's tickets as a procedure plans them, and the training of its own that they come from, if there is one.

    `search` is a stored task whose trajectories stand beside the ticket's: a network that was sparse while its mask
    was found (dynamic sparse training), or that was never trained (a supermask).
    """

    ticket: Task
    search: Task | None = None


def dense_ticket(setup: Setup, replicate: int) -> Ticket:
    """The whole network at its own initialisation: one replicate's θ₀ with nothing pruned."""
    seeds = Seeds(setup.seed, replicate)
    start = setup.initial(seeds.derive("init"))
    return Ticket(whole_mask(setup, start.weights), start, "dense", seeds)


def whole_mask(setup: Setup, weights: Weights) -> Mask:
    """The mask that prunes nothing of what may be pruned."""
    return Mask.full({n: weights[n] for n in prunable(setup)}, layout=layouts(setup.module()))


def prunable(setup: Setup) -> tuple[str, ...]:
    """Eligible weights and those of `setup.include`, less `setup.exclude`. ValueError where a pattern fits none."""
    left = models.chosen(
        setup.module(), include=setup.include, exclude=setup.exclude, of=f" of {setup.model}"
    )
    if not left:
        raise ValueError(
            f"{setup.model} has no weight left to prune: no Linear or Conv layer, or all are excluded; parameters that "
            f"could be included: {', '.join(models.includable(setup.module())) or 'none'}"
        )
    return left


def spared(setup: Setup) -> dict[str, str]:
    """Every parameter that is not pruned, by name, with the reason in words."""
    pruned, reasons = set(prunable(setup)), models.excluded(setup.module(), setup.include)
    return {n: reasons.get(n, "excluded") for n, _ in setup.module().named_parameters() if n not in pruned}


def place() -> torch.device:
    """Where trainings are computed."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def train_stack(
    setup: Setup,
    stack: Sequence[Ticket | Failed],
    *,
    save: Sequence[int] = (),
    checkpoint: Any = None,
    report: Callable[[int, int], None] | None = None,
) -> tuple[Trajectory | Failed, ...]:
    """Train a stack of tickets by the setup's recipe, on a GPU where there is one."""
    return carry_out(setup, stack, save=save, checkpoint=checkpoint, report=report)


def carry_out(
    setup: Setup,
    stack: Sequence[Ticket | Failed],
    *,
    save: Sequence[int] = (),
    changes: Changes | None = None,
    learning: Learning | None = None,
    checkpoint: Any = None,
    report: Callable[[int, int], None] | None = None,
) -> tuple[Trajectory | Failed, ...]:
    """As `train_stack`; with masks that change on the way, or learning a mask, as `winticket.train.train` has it."""
    if not any(isinstance(t, Ticket) for t in stack):
        return tuple(t for t in stack if isinstance(t, Failed))
    return train(
        setup.module(),
        examples(setup, stack, place()),
        data,
        stack,
        setup.recipe,
        save=save,
        device=place(),
        engine=setup.engine,
        changes=changes,
        learning=learning,
        own=setup.own_split,
        checkpoint=checkpoint,
        report=report,
    )


@dataclass(frozen=True)
class Examples:
    """Data of a stack: the parts of a dataset, or one of each per replicate under a leading dimension."""

    train: data.Split
    validation: data.Split
    test: data.Split


def examples(setup: Setup, stack: Sequence[Ticket | Failed], device: torch.device) -> Examples:
    """What a stack trains and is measured on: shared, or each replicate's own split, stacked."""
    if not setup.own_split:
        shared = setup.dataset(device)
        return Examples(shared.train, shared.validation, shared.test)
    own = [setup.dataset(device, t.seeds.replicate) for t in stack]

    def stacked(parts: Sequence[data.Split]) -> data.Split:
        return data.Split(torch.stack([p.x for p in parts]), torch.stack([p.y for p in parts]))

    return Examples(
        stacked([d.train for d in own]), stacked([d.validation for d in own]), stacked([d.test for d in own])
    )


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
    """Score the trained weights, keep the best, rewind: the next level's ticket."""
    now = path.saved[max(path.saved)]
    seen = evidence(setup, path.ticket, now, criterion)
    mask = mask_of(criterion, seen, allocate=allocate, density=density)
    where = {"step": rewind_step} if takes_step(rewind) else {}
    return replace(careful(rewind)(path, mask, **where), origin="ticket").settled(setup.module())


def takes_step(rewind: Rewind) -> bool:
    """Whether a rewind goes to a step that it is told."""
    return "step" in signature(rewind).parameters


def retraining(setup: Setup, rewind: Rewind) -> Setup:
    """What a rewind's tickets are trained by: the setup, at its last learning rate throughout where they fine-tune."""
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
    """Score a network that has not been trained and keep the best, in as many rounds as the criterion's paper takes.

    The density falls exponentially from round to round: d^(k/n) after round k of n (Tanaka et al. 2020, algorithm 1).
    """
    rounds, found = rounds_at_init(criterion), ticket
    for number in range(1, rounds + 1):
        now = geometric_at(density, number / rounds)
        path = Trajectory(found, {found.start.step: found.start}, no_curve())
        seen = evidence(setup, found, found.start, criterion)
        mask = mask_of(criterion, seen, allocate=allocate, density=now)
        found = replace(careful(rewind)(path, mask), origin="ticket").settled(setup.module())
    return found


def evidence(setup: Setup, ticket: Ticket, now: State, criterion: Criterion) -> Evidence:
    """What `criterion` is given to score `now`, with the network and examples where it says that it needs them.

    Where it began is the replicate's initialisation, whatever the ticket was rewound to.
    """
    needs = needed(criterion)
    return Evidence(
        now=now,
        start=setup.initial(ticket.seeds.derive("init")),
        mask=ticket.mask,
        generator=torch.Generator().manual_seed(ticket.seeds.derive("criterion", ticket.mask.count())),
        network=setup.module() if NETWORK in needs else None,
        example=setup.blank(1) if NETWORK in needs else None,
        batches=scored(setup, ticket.seeds) if DATA in needs else (),
        classes_last=True,
    )


def scored(setup: Setup, seeds: Seeds) -> tuple[Batch, ...]:
    """Training examples that criteria look at: the first few of each class in an order of the replicate's own.

    As many per class as Wang et al. 2020 (GraSP) and Tanaka et al. 2020 take, in batches of at most the recipe's size
    that are equal to one example, so that none has the statistics of a few. Of text, where an example has classes of
    many kinds, as many examples as have so many answers per class on average.
    """
    part = setup.dataset(torch.device("cpu"), seeds.replicate).train
    order = data.permutation(len(part.y), seed=seeds.derive("scored"), epoch=0)
    if setup.tokens:
        chosen = order[: max(1, SCORED_PER_CLASS * setup.classes // part.y.shape[1])]
        return _in_batches(part, chosen, setup.recipe.batch)
    y = part.y[order]
    chosen = torch.cat(
        [order[(y == k).nonzero().squeeze(1)[:SCORED_PER_CLASS]] for k in range(setup.classes)]
    )
    mixed = chosen[data.permutation(len(chosen), seed=seeds.derive("scored"), epoch=1)]
    return _in_batches(part, mixed, setup.recipe.batch)


def _in_batches(part: data.Split, chosen: Tensor, most: int) -> tuple[Batch, ...]:
    return tuple((part.x[rows], part.y[rows]) for rows in chosen.tensor_split(-(-len(chosen) // most)))


def no_curve() -> Curve:
    """The curve of a network that was not trained."""
    nothing = torch.empty(0, dtype=torch.float64)
    return Curve(torch.empty(0, dtype=torch.int64), *[nothing] * 6)


def control_ticket(setup: Setup, ticket: Ticket, *, control: Callable[..., Ticket]) -> Ticket:
    """A control of the ticket, with a seed of its own for each control, replicate and size of ticket."""
    name = str(getattr(control, "__name__", control))
    options: dict[str, Any] = {"seed": ticket.seeds.derive("control", name, ticket.mask.count())}
    if "draw" in signature(control).parameters:
        options["draw"] = setup.initial
    return control(ticket, **options)


def needs_neighbour(control: Callable[..., Ticket]) -> bool:
    """Whether a control takes something from another replicate."""
    return "neighbour" in signature(control).parameters


def needs_symmetry(control: Callable[..., Ticket]) -> bool:
    """Whether a control takes the trained dense networks, to match their hidden units."""
    return "symmetry" in signature(control).parameters


def neighbours(
    setup: Setup, tickets: Task, dense: Task, count: int, *, control: Callable[..., Ticket]
) -> Task:
    """The step that makes a stack's controls from the tickets of its other replicates.

    Each takes the next one's, and the last the first's. `dense` is the stack's training with nothing pruned.
    """
    places = tuple((r, (r + 1) % count) for r in range(count))
    # In a list, stacks are handed over whole and not element by element.
    stacks = [tickets, dense] if needs_symmetry(control) else [tickets]
    return step(neighbour_ticket, setup, tickets, places, stacks, control=control)


def neighbour_ticket(
    setup: Setup,
    ticket: Ticket,
    places: tuple[int, int],
    stacks: Sequence[Sequence[Ticket | Trajectory | Failed]],
    *,
    control: Callable[..., Ticket],
) -> Ticket | Failed:
    """A control of the ticket at the first of two places in its stack that takes something from the one at the second.

    `stacks` are the whole stack's tickets and, for a control that matches hidden units, its dense trainings. Where
    one of the two replicates failed, the control is a `Failed` that says which.
    """
    for lost in (stack[place] for stack in stacks for place in places):
        if isinstance(lost, Failed):
            told = f"it takes the mask of another replicate, and replicate {lost.seeds.replicate} failed: {lost.reason}"
            return Failed(told, None, ticket.seeds)
    options: dict[str, Any] = {"neighbour": stacks[0][places[1]]}
    if needs_symmetry(control):
        paths = [path for path in (stacks[1][place] for place in places) if isinstance(path, Trajectory)]
        options["ends"] = tuple(path.saved[max(path.saved)].weights for path in paths)
        options["symmetry"] = symmetry(setup.module(), setup.input_shape)
    seed = ticket.seeds.derive("control", control.__name__, ticket.mask.count())
    return control(ticket, seed=seed, **options)


def trained(
    setup: Setup,
    stack: Task,
    *,
    arm: str,
    level: int,
    first: int,
    count: int,
    cost: float = 1.0,
    save: tuple[int, ...] = (),
    how: Callable[..., Any] = train_stack,
    **options: Any,
) -> Task:
    """The task that trains a stack of `count` replicates from number `first`, labelled for people.

    States at the steps in `save` are kept. `cost` is what a step takes in units of the dense network's; with the number
    of steps it makes the task's weight. `how` is the stage that trains, with its options.
    """
    label: dict[str, Json] = {"arm": arm, "level": level, "first": first, "count": count}
    weight = cost * setup.recipe.steps * count
    if how is train_stack:
        options = {"save": save}
    return task(how, setup, stack, label=label, weight=weight, **options)
