"""Masks that change within a training loop of one's own: dynamic sparse training, and gradual magnitude pruning."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial

from torch import Tensor, nn

from winticket.allocate import Allocate, erk, layerwise
from winticket.criteria import Criterion, magnitude
from winticket.criteria.applied import mask_of, name_of
from winticket.criteria.evidence import Batch
from winticket.loops.hooks import Optimizer
from winticket.loops.masking import claimed
from winticket.loops.scoring import (
    Density,
    Scoring,
    allocation_for,
    check_by_layer,
    check_classes,
    check_densities,
    seeds_for,
    whole,
    without_classes,
)
from winticket.loops.sparse import Sparse
from winticket.loops.wrapped import bare
from winticket.pairing import check_exchange
from winticket.schedules import cubic_at
from winticket.ticket import JSON, Mask, Seeds, State, Ticket
from winticket.train import check_changes
from winticket.train.rules import (
    Grow,
    Regrowing,
    Thinning,
    at_random,
    by_gradient,
    random_mask,
    usual_every,
)

_CALLER = 4  # of the `with` statement, through contextlib and this module


def set_(
    model: nn.Module,
    density: Density,
    *,
    steps: int,
    every: int | None = None,
    criterion: Criterion = magnitude,
    allocate: Allocate | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    batches: Sequence[Batch] = (),
    example: Tensor | None = None,
    seeds: Seeds | None = None,
    optimizer: Optimizer | Sequence[Optimizer] = (),
) -> AbstractContextManager[Sparse]:
    """Sparse evolutionary training: the weakest weights of every layer go, and as many places at random come.

    Mocanu et al. 2018, with the falling share of Evci et al. 2020. Everything else is as in `rigl`, but that no
    gradient is looked at: of layers without one those alone keep their part of the mask that are frozen by then. Given
    the same seeds, data and optimiser, masks are those of the method `set`.
    """
    check_exchange(criterion, "set")
    begin = partial(
        _regrowing,
        Scoring(model, criterion, batches, example),
        density,
        "set",
        grow=at_random,
        steps=steps,
        every=every,
        allocate=allocation_for(criterion, allocate, default=_spread(density), stacklevel=2),
        include=include,
        exclude=exclude,
        seeds=seeds,
    )
    return _block(model, optimizer, begin)


def rigl(
    model: nn.Module,
    density: Density,
    *,
    steps: int,
    every: int | None = None,
    criterion: Criterion = magnitude,
    allocate: Allocate | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    batches: Sequence[Batch] = (),
    example: Tensor | None = None,
    seeds: Seeds | None = None,
    optimizer: Optimizer | Sequence[Optimizer] = (),
) -> AbstractContextManager[Sparse]:
    """Rigged lottery: the weakest weights of every layer go, and those of the largest gradient come.

    ```python
    with rigl(model, 0.1, steps=2000) as sparse:
        my_training_loop(model)  # 2000 updates
    sparse.ticket.save("ticket.safetensors")
    ```
    Evci et al. 2020, algorithm 1. The model's own weights, under a random mask as `allocate` spreads it (`erk`, the
    paper's best, by default), begin; after every `every` updates (a hundred, or a twentieth of a short training) in
    the first three quarters of `steps` a share of each layer is replaced, .3 at first and falling to 0 on a cosine
    (eq. 1). Every layer keeps its count at every step. The mask is in force as `masked` has it, and stays when the
    block ends; `sparse.mask` is the last one, and `sparse.ticket` has it with the weights and buffers from before it.

    The gradient is the loop's own, of its own loss: that of the update after which the mask changes, by all weights,
    summed over the backward passes of that update; what `torch.autograd.grad` gives beside them does not count. (In the
    paper that update is left out.) New weights begin at exactly 0, and so does what a torch.optim optimiser keeps of
    them in tensors of the weight's shape; one of another make, named as `optimizer`, is followed, but sees to its own
    state. Steps of torch.optim optimisers over the model's parameters are counted, and of those named; else say
    `sparse.at(step)`.

    Layers that nothing trains are to be excluded: one without a gradient in the update after which the mask changes
    keeps its part of the mask in that change.

    `density`, `include`, `exclude`, `criterion`, `batches`, `example` and `seeds` are as in `prune`; the criterion
    scores what goes. Give a model in DistributedDataParallel as it is wrapped, on every rank with the same arguments:
    gradients are summed over the ranks, and masks compared.

    Raises ValueError, before any training, for what `prune` raises it, where a layer is frozen, the mask would never
    change in so many steps, the allocation does not decide by layers alone, or the model is within another such block.
    A step of LBFGS or Rprop raises it as well. RuntimeWarning where the block ends before the last change.
    """
    check_exchange(criterion, "rigl")
    begin = partial(
        _regrowing,
        Scoring(model, criterion, batches, example),
        density,
        "rigl",
        grow=by_gradient,
        steps=steps,
        every=every,
        allocate=allocation_for(criterion, allocate, default=_spread(density), stacklevel=2),
        include=include,
        exclude=exclude,
        seeds=seeds,
    )
    return _block(model, optimizer, begin)


def gradual(
    model: nn.Module,
    density: Density,
    *,
    steps: int,
    every: int | None = None,
    criterion: Criterion = magnitude,
    allocate: Allocate | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    batches: Sequence[Batch] = (),
    example: Tensor | None = None,
    seeds: Seeds | None = None,
    optimizer: Optimizer | Sequence[Optimizer] = (),
) -> AbstractContextManager[Sparse]:
    """Gradual pruning within one training, to a density that falls on a cubic: d + (1 - d) · (1 - t / T)³ at step t.

    Zhu & Gupta 2017, eq. 1; T is three quarters of `steps`, and the mask changes after every `every` updates until
    then, which are to be fewer than T. No lottery: the weights are never rewound, though `sparse.ticket` has those from
    before the block. Options, counting and errors are as in `rigl`, but that layers may be frozen, and any optimiser
    will do and any allocation that can prune a little at a time.
    """
    begin = partial(
        _thinning,
        Scoring(model, criterion, batches, example),
        density,
        steps=steps,
        every=every,
        allocate=allocation_for(criterion, allocate, stacklevel=2),
        include=include,
        exclude=exclude,
        seeds=seeds,
    )
    return _block(model, optimizer, begin)


def _spread(density: Density) -> Allocate:
    """How a random mask is spread by default: as in Evci et al. 2020, unless layers' densities are given."""
    return layerwise if isinstance(density, Mapping) else erk


@contextmanager
def _block(
    model: nn.Module, optimizer: Optimizer | Sequence[Optimizer], begin: Callable[[], Sparse]
) -> Iterator[Sparse]:
    with claimed(model, alone=True), begin()._going_on(optimizer) as sparse:
        yield sparse


def _thinning(
    score: Scoring,
    density: Density,
    *,
    steps: int,
    every: int | None,
    allocate: Allocate,
    include: Sequence[str],
    exclude: Sequence[str],
    seeds: Seeds | None,
) -> Sparse:
    every = _checked("gradual", steps, every)
    seeds = seeds_for(score.model, seeds, criterion=score.criterion)
    left = without_classes(score.model, allocate, exclude)
    dense = whole(score.model, include=include, exclude=left, seeds=seeds, stacklevel=_CALLER)
    check_classes(score.model, dense.mask, allocate)
    check_densities(dense, [density], allocate)
    magnitudes = {name: dense.start.weights[name].abs() for name in dense.mask.keep}
    try:
        allocate(magnitudes, dense.mask, density=cubic_at(density, 0.5))
    except ValueError as error:
        error.add_note("gradual prunes a little at a time")
        raise
    score.check(dense, allocate=allocate, density=cubic_at(density, 0.5))

    def prune(ticket: Ticket, now: State, density: Density) -> Mask:
        return mask_of(score.criterion, score.evidence(ticket, now), allocate=allocate, density=density)

    changes = Thinning(steps, partial(cubic_at, density), prune, every)
    dense = replace(dense, about=_about("gradual", score, allocate, steps=steps, every=every))
    return Sparse(score.model, dense, dense.mask, changes, steps)


def _regrowing(
    score: Scoring,
    density: Density,
    method: str,
    *,
    grow: Grow,
    steps: int,
    every: int | None,
    allocate: Allocate,
    include: Sequence[str],
    exclude: Sequence[str],
    seeds: Seeds | None,
) -> Sparse:
    check_by_layer(method, allocate)
    every = _checked(method, steps, every)
    seeds = seeds_for(score.model, seeds)
    dense = whole(score.model, include=include, exclude=exclude, seeds=seeds, stacklevel=_CALLER)
    _check_trained(method, score.model, dense.mask)
    check_densities(dense, [density], allocate)
    score.check(dense, allocate=layerwise, density=0.5)
    mask = random_mask(dense.mask, dense.seeds, density=density, allocate=allocate)
    dense = replace(dense, about=_about(method, score, allocate, steps=steps, every=every))
    return Sparse(score.model, dense, mask, Regrowing(steps, grow, score, every), steps)


def _check_trained(method: str, model: nn.Module, mask: Mask) -> None:
    parameters = dict(bare(model).named_parameters())
    if frozen := [name for name in mask.keep if not parameters[name].requires_grad]:
        raise ValueError(
            f"{', '.join(frozen)} is frozen, and {method} would exchange its weights for zeros that no optimiser "
            f"moves; exclude it (exclude={frozen})"
        )


def _checked(method: str, steps: int, every: int | None) -> int:
    if steps < 1 or (every is not None and every < 1):
        raise ValueError(f"steps is {steps} and every {every}; both are at least 1")
    check_changes(method, steps, every)
    return every or usual_every(steps)


def _about(method: str, score: Scoring, allocate: Allocate, *, steps: int, every: int) -> dict[str, JSON]:
    return {
        "method": method,
        "criterion": name_of(score.criterion),
        "allocate": name_of(allocate),
        "steps": steps,
        "every": every,
    }
