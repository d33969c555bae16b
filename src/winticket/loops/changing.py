"""Masks that change within your own training loop: dynamic sparse training, and gradual magnitude pruning."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import KW_ONLY, dataclass, replace
from functools import partial, wraps
from inspect import cleandoc, signature
from typing import ParamSpec

from torch import nn

from winticket.allocate import Allocate, erk, layerwise
from winticket.criteria import Criterion, magnitude
from winticket.criteria.applied import mask_of, name_of
from winticket.criteria.batches import Batch, Inputs
from winticket.criteria.losses import Loss
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
P = ParamSpec("P")


@dataclass(frozen=True, eq=False)
class Options:
    """Options (the same for `rigl`, `set_` and `gradual`):

    - `density`: share of the eligible weights to keep, in (0, 1), or shares by layer.
    - `steps`: updates that the whole training makes.
    - `every`: updates between two changes of the mask (default: 100, or a twentieth of a short training).
    - `criterion`: scores the weights; the lowest-scored ones are dropped.
    - `allocate`: distributes the kept weights over the layers.
    - `include`, `exclude`: names or patterns of parameters, as in `prune`.
    - `batches`, `example`, `loss`: what the criterion needs to look at the network or at data, as in `prune`.
    - `seeds`: what random choices draw from (default: drawn from torch's global generator).
    - `optimizer`: optimisers that do not derive from `torch.optim.Optimizer`, whose steps are to be followed.
    """

    model: nn.Module
    density: Density
    _: KW_ONLY
    steps: int
    every: int | None = None
    criterion: Criterion = magnitude
    allocate: Allocate | None = None
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    batches: Sequence[Batch] = ()
    example: Inputs | None = None
    loss: Loss | None = None
    seeds: Seeds | None = None
    optimizer: Optimizer | Sequence[Optimizer] = ()

    def scoring(self) -> Scoring:
        """How these options score the model."""
        return Scoring(self.model, self.criterion, self.batches, self.example, self.loss)

    def interval(self, rule: type[Regrowing] | type[Thinning], method: str) -> int:
        """Updates between two changes. ValueError if the mask of `method` would never change."""
        if self.steps < 1 or (self.every is not None and self.every < 1):
            raise ValueError(f"steps is {self.steps} and every {self.every}; both are at least 1")
        rule.check(method, self.steps, self.every)
        return self.every or usual_every(self.steps)

    def about(self, method: str, allocate: Allocate, every: int) -> dict[str, JSON]:
        """What the ticket says of how its mask was made."""
        return {
            "method": method,
            "criterion": name_of(self.criterion),
            "allocate": name_of(allocate),
            "steps": self.steps,
            "every": every,
        }


Begin = Callable[[], Sparse]


def _takes(
    options: Callable[P, Options],
) -> Callable[[Callable[[Options], Begin]], Callable[P, AbstractContextManager[Sparse]]]:
    """Give a method the signature and the documentation of `options`, and make it a context manager."""

    def decorate(method: Callable[[Options], Begin]) -> Callable[P, AbstractContextManager[Sparse]]:
        @wraps(method)
        def changing(*args: P.args, **kwargs: P.kwargs) -> AbstractContextManager[Sparse]:
            try:
                shown.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{method.__name__}() {error}") from None
            chosen = options(*args, **kwargs)
            return _block(chosen, method(chosen))

        shown = signature(options).replace(return_annotation="AbstractContextManager[Sparse]")
        vars(changing)["__signature__"] = shown
        changing.__doc__ = f"{cleandoc(method.__doc__ or '')}\n\n{cleandoc(options.__doc__ or '')}\n"
        return changing

    return decorate


@_takes(Options)
def set_(options: Options) -> Begin:
    """Sparse evolutionary training (SET): drop the lowest-scored weights of each layer and regrow as many at random.

    Mocanu et al. 2018, with the decaying drop fraction of Evci et al. 2020. `set_` behaves like `rigl`, except that it
    ignores gradients, so only layers that are frozen by then keep their part of the mask. With the same seeds, data and
    optimiser the masks are those of the method `set` of `winticket find`.

    >>> import torch, winticket
    >>> model = torch.nn.Linear(10, 10)
    >>> with winticket.set_(model, 0.5, steps=20) as sparse:
    ...     optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ...     for _ in range(20):
    ...         optimizer.zero_grad()
    ...         model(torch.randn(8, 10)).square().mean().backward()
    ...         optimizer.step()
    >>> sparse.mask.count()
    50
    """
    check_exchange(options.criterion, "set")
    allocate = _spread(options)
    return partial(_regrowing, options, options.scoring(), "set", grow=at_random, allocate=allocate)


@_takes(Options)
def rigl(options: Options) -> Begin:
    """RigL: drop the lowest-scored weights of each layer and regrow as many where the gradient is largest.

    Evci et al. 2020, algorithm 1. The model keeps its weights and starts under a random mask, which `allocate` spreads
    over the layers (default: `erk`, the paper's best). In the first three quarters of `steps`, after every `every`
    updates, each layer exchanges a share of its weights: 0.3 at first, falling to 0 on a cosine (eq. 1). The number of
    weights in each layer never changes. The mask is in force as under `masked`, and stays when the block ends.
    `sparse.mask` is the current mask; `sparse.ticket` is that mask with the weights and buffers from before the block.

    The gradient is that of your own loss with respect to all weights, in the update after which the mask changes,
    summed over the backward passes of that update. Gradients from `torch.autograd.grad` do not count. (The paper skips
    the update itself in that step.) A regrown weight starts at exactly 0, and so does the state that a `torch.optim`
    optimiser keeps for it in tensors of the weight's shape. An optimiser of another kind is followed if you pass it as
    `optimizer`, but has to reset its state itself. Steps of `torch.optim` optimisers over the model's parameters are
    counted, and those of the optimisers that you pass; otherwise call `sparse.at(step)`.

    Exclude layers that are not trained: a layer without a gradient in the update after which the mask changes keeps its
    part of the mask in that change.

    Under DistributedDataParallel pass the wrapped model, with the same arguments on every rank: gradients are summed
    over the ranks, and masks are compared.

    Raises ValueError, before any training, for the reasons that `prune` does, if a layer is frozen, if the mask would
    never change in so many steps, if the allocation does not work layer by layer, or if another block already controls
    the model's mask. A step of LBFGS or Rprop raises ValueError as well. Warns (RuntimeWarning) if the block ends
    before the last change.

    >>> import torch, winticket
    >>> model = torch.nn.Sequential(torch.nn.Linear(10, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> with winticket.rigl(model, 0.25, steps=40, every=10) as sparse:
    ...     optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    ...     for _ in range(40):
    ...         optimizer.zero_grad()
    ...         model(torch.randn(8, 10)).square().mean().backward()
    ...         optimizer.step()
    >>> sparse.step, sparse.mask.count(), sparse.ticket.mask.total()
    (40, 24, 96)
    """
    check_exchange(options.criterion, "rigl")
    allocate = _spread(options)
    return partial(_regrowing, options, options.scoring(), "rigl", grow=by_gradient, allocate=allocate)


@_takes(Options)
def gradual(options: Options) -> Begin:
    """Gradual pruning: within one training the density falls along a cubic, d + (1 - d) · (1 - t / T)³ at step t.

    Zhu & Gupta 2017, eq. 1. T is three quarters of `steps`; until then the mask changes after every `every` updates,
    so `every` must be below T. The weights are never rewound, so this does not search for a ticket, although
    `sparse.ticket` has the weights from before the block. Counting and errors are as in `rigl`, except that layers may
    be frozen, any optimiser will do, and so will any allocation that can prune in small steps.

    >>> import torch, winticket
    >>> model = torch.nn.Linear(10, 10)
    >>> with winticket.gradual(model, 0.2, steps=40, every=10) as sparse:
    ...     optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ...     for _ in range(40):
    ...         optimizer.zero_grad()
    ...         model(torch.randn(8, 10)).square().mean().backward()
    ...         optimizer.step()
    >>> sparse.mask.count()
    20
    """
    allocate = allocation_for(options.criterion, options.allocate, stacklevel=_CALL)
    return partial(_thinning, options, options.scoring(), allocate)


_CALL = 3  # of the function, through the one that `_takes` puts around it


def _spread(options: Options) -> Allocate:
    """The allocation of a random mask (default: as in Evci et al. 2020, unless densities are given by layer)."""
    default = layerwise if isinstance(options.density, Mapping) else erk
    return allocation_for(options.criterion, options.allocate, default=default, stacklevel=_CALL + 1)


@contextmanager
def _block(options: Options, begin: Begin) -> Iterator[Sparse]:
    with claimed(options.model, alone=True), begin()._training(options.optimizer) as sparse:
        yield sparse


def _thinning(options: Options, score: Scoring, allocate: Allocate) -> Sparse:
    model, density = options.model, options.density
    every = options.interval(Thinning, "gradual")
    seeds = seeds_for(model, options.seeds, criterion=options.criterion)
    excluded = without_classes(model, allocate, options.exclude, options.include)
    dense = whole(model, include=options.include, exclude=excluded, seeds=seeds, stacklevel=_CALLER)
    check_classes(model, dense.mask, allocate)
    check_densities(dense, [density], allocate)
    magnitudes = {name: dense.start.weights[name].abs() for name in dense.mask.keep}
    try:
        allocate(magnitudes, dense.mask, density=cubic_at(density, 0.5))
    except ValueError as error:
        error.add_note("gradual prunes in small steps")
        raise
    score.check(dense, allocate=allocate, density=cubic_at(density, 0.5))

    def prune(ticket: Ticket, now: State, density: Density) -> Mask:
        return mask_of(score.criterion, score.evidence(ticket, now), allocate=allocate, density=density)

    changes = Thinning(options.steps, partial(cubic_at, density), prune, every)
    dense = replace(dense, about=options.about("gradual", allocate, every))
    return Sparse(model, dense, dense.mask, changes, options.steps)


def _regrowing(options: Options, score: Scoring, method: str, *, grow: Grow, allocate: Allocate) -> Sparse:
    model, density = options.model, options.density
    check_by_layer(method, allocate)
    every = options.interval(Regrowing, method)
    seeds = seeds_for(model, options.seeds)
    dense = whole(model, include=options.include, exclude=options.exclude, seeds=seeds, stacklevel=_CALLER)
    _check_trained(method, model, dense.mask)
    check_densities(dense, [density], allocate)
    score.check(dense, allocate=layerwise, density=0.5)
    mask = random_mask(dense.mask, dense.seeds, density=density, allocate=allocate)
    dense = replace(dense, about=options.about(method, allocate, every))
    return Sparse(model, dense, mask, Regrowing(options.steps, grow, score, every), options.steps)


def _check_trained(method: str, model: nn.Module, mask: Mask) -> None:
    parameters = dict(bare(model).named_parameters())
    if frozen := [name for name in mask.keep if not parameters[name].requires_grad]:
        raise ValueError(
            f"{', '.join(frozen)} is frozen, and {method} would exchange its weights for zeros that no optimiser "
            f"moves; exclude it (exclude={frozen})"
        )
