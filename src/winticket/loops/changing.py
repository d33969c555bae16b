"""Masks that change within a training loop of one's own: dynamic sparse training, and gradual magnitude pruning."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from winticket.allocate import Allocate, layerwise
from winticket.criteria import Criterion, magnitude
from winticket.criteria.evidence import Batch
from winticket.loops.counting import is_update, outermost, updates
from winticket.loops.scoring import (
    Density,
    Scoring,
    check_by_layer,
    check_densities,
    name_of,
    state_of,
    warn_of_emptied,
    whole,
)
from winticket.schedules import cubic_at
from winticket.ticket import JSON, Mask, Seeds, Ticket
from winticket.train import Changes, bare, check_changes, check_ranks, summed_over_ranks
from winticket.train.masked import Optimizer, Rule, claimed, follow, in_force, of_another_make
from winticket.train.rules import (
    Grow,
    Regrowing,
    Thinning,
    at_random,
    by_gradient,
    random_mask,
    usual_every,
)

_CALLER = 5  # of the `with` statement, through contextlib and this module
_UNRESET = (torch.optim.LBFGS, torch.optim.Rprop)


class Sparse:
    """A training whose mask changes: what its `with` block gives. `step` counts the updates made in the block."""

    def __init__(self, model: nn.Module, dense: Ticket, mask: Mask, changes: Changes, total: int) -> None:
        self.step, self._model, self._total = 0, model, total
        self._ticket, self._changes = replace(dense, mask=mask), changes
        self._at = frozenset(changes.steps(0, total))
        self._grow = changes.grow if isinstance(changes, Regrowing) else None
        self._rule: Rule | None = None
        self._told = False
        self._optimizers: list[torch.optim.Optimizer] = []

    @property
    def mask(self) -> Mask:
        """The mask that is in force, or was at the end."""
        return self._ticket.mask

    @property
    def ticket(self) -> Ticket:
        """That mask, with the weights and buffers that the model had before the block."""
        return replace(self._ticket, origin="ticket")

    def __repr__(self) -> str:
        return f"Sparse(step {self.step} of {self._total}, {self.ticket})"

    def at(self, step: int) -> None:
        """Say that `step` updates have been made, after each update; from the first time on none is counted.

        Not needed where each update is one step of a torch.optim optimiser, or of one of another make that the block
        was given: those are counted, and of one that wraps another the outer ones. Where an update takes several, say
        `at(0)` before the first. RuntimeError outside the block; ValueError where steps fall, or one at which the mask
        changes was left out.
        """
        if self._rule is None:
            raise RuntimeError("no training is going on; `at` is for the loop within the block")
        left_out = sorted(t for t in self._at if self.step < t < step)
        if step < self.step or left_out:
            raise ValueError(
                f"step {step} is said after step {self.step}"
                + (f", and at step {left_out[0]} the mask changes" if left_out else "; steps rise")
                + "; say every one"
            )
        self._told = True
        self._arrive(step)

    @contextmanager
    def _going_on(self, optimizer: Optimizer | Sequence[Optimizer]) -> Iterator[Sparse]:
        warn_of_emptied("the mask that training begins with", self.mask, stacklevel=_CALLER)
        with ExitStack() as stack:
            # The mask's hook comes first, so what a change sees is masked.
            self._rule = stack.enter_context(in_force(self._model, self.mask, optimizer=optimizer))
            stack.callback(setattr, self, "_rule", None)
            stack.callback(self._optimizers.clear)
            self._record_step(1)
            # What happens here is no part of a step that is compiled.
            before, after, followed = map(
                torch.compiler.disable, (self._before_step, self._after_step, self._after_followed)
            )
            stack.callback(register_optimizer_step_pre_hook(before).remove)
            stack.callback(register_optimizer_step_post_hook(after).remove)
            for other in of_another_make(optimizer):
                stack.callback(follow(other, followed))
            yield self
        if missed := [t for t in sorted(self._at) if t > self.step]:
            warnings.warn(
                f"the block ended at step {self.step} of {self._total}, and the mask would have changed until step "
                f"{missed[-1]}; its density is {self.mask.density():.4g}. Steps of torch.optim optimisers are counted; "
                "with another, name it (optimizer=...) or say after each update which it was: at(step)",
                RuntimeWarning,
                stacklevel=_CALLER,
            )

    def _before_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if self._grow and isinstance(optimizer, _UNRESET) and updates(optimizer, self._model):
            raise ValueError(
                f"{type(optimizer).__name__} keeps a state in which new weights cannot begin at 0; take another"
            )

    def _after_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if updates(optimizer, self._model):
            if not any(optimizer is known for known in self._optimizers):
                self._optimizers.append(optimizer)
            if is_update(optimizer, self._model):
                self._count()

    def _after_followed(self) -> None:
        if outermost(self._model):
            self._count()

    def _count(self) -> None:
        if not self._told:
            self._arrive(self.step + 1)

    def _arrive(self, step: int) -> None:
        assert self._rule is not None
        new, self.step = step > self.step, step
        if new and step in self._at:
            self._change(self._rule)
        if new:
            self._record_step(step + 1)

    def _record_step(self, step: int) -> None:
        assert self._rule is not None
        self._rule.record(self._grow is by_gradient and step in self._at)

    def _change(self, rule: Rule) -> None:
        before = self.mask
        mask = self._changes.change(self._ticket, state_of(self._model, step=self.step), self._gradient)
        if self._grow:
            mask = Mask({**mask.keep, **{name: before.keep[name] for name in self._untrained()}})
        check_ranks(self._model, mask)
        warn_of_emptied(f"the mask after step {self.step}", mask, before=before, stacklevel=_CALLER)
        self._ticket = replace(self._ticket, mask=mask)
        rule.replace(mask)
        parameters = dict(bare(self._model).named_parameters())
        for name, keep in mask.keep.items():
            fresh = ~(keep & before.keep[name])
            for optimizer in self._optimizers:
                _forget(optimizer, parameters[name], fresh)

    def _untrained(self) -> list[str]:
        """Layers whose new weights would stay at 0: frozen, or, where gradients are looked at, without any."""
        parameters = dict(bare(self._model).named_parameters())
        if self._grow is not by_gradient:
            return [name for name in self.mask.keep if not parameters[name].requires_grad]
        return [name for name, times in self._times_seen().items() if not times]

    def _times_seen(self) -> dict[str, float]:
        """On how many ranks each layer had a gradient in the step just made."""
        assert self._rule is not None
        names, device = list(self.mask.keep), next(bare(self._model).parameters()).device
        own = torch.tensor([float(name in self._rule.seen) for name in names], device=device)
        return dict(zip(names, summed_over_ranks(self._model, {"": own})[""].tolist(), strict=True))

    def _gradient(self) -> Mapping[str, Tensor]:
        """The loop's own, of all weights, pruned ones too: that of the step which has just been made."""
        assert self._rule is not None
        seen, parameters = self._rule.seen, dict(bare(self._model).named_parameters())
        own = {}
        for name in self.mask.keep:
            weight = parameters[name]
            wide = torch.promote_types(weight.dtype, torch.float32)
            own[name] = seen[name] if name in seen else torch.zeros_like(weight, dtype=wide)
        if not any(self._times_seen().values()):  # ranks find the same, and raise together
            raise RuntimeError(
                f"no gradient of the masked weights was seen for step {self.step}, where the mask changes; each update "
                "is to follow a backward pass, within the block, and what torch.autograd.grad gives is not the update's"
            )
        found = summed_over_ranks(self._model, {name: g.detach() for name, g in own.items()})
        for name, gradient in found.items():
            if not bool(gradient.isfinite().all()):
                raise RuntimeError(
                    f"the gradient of {name} is not finite at step {self.step}, where the mask changes; the training "
                    "has diverged, or its loss is scaled too high"
                )
        return {name: gradient.cpu() for name, gradient in found.items()}


def _forget(optimizer: torch.optim.Optimizer, parameter: nn.Parameter, fresh: Tensor) -> None:
    """Zero what the optimiser remembers of the `fresh` places of a parameter."""
    for value in optimizer.state.get(parameter, {}).values():
        if isinstance(value, Tensor) and value.shape == parameter.shape:
            value.masked_fill_(fresh.to(value.device), 0)


@contextmanager
def set_(
    model: nn.Module,
    density: Density,
    *,
    steps: int,
    every: int | None = None,
    criterion: Criterion = magnitude,
    allocate: Allocate = layerwise,
    exclude: Sequence[str] = (),
    batches: Sequence[Batch] = (),
    example: Tensor | None = None,
    seeds: Seeds | None = None,
    optimizer: Optimizer | Sequence[Optimizer] = (),
) -> Iterator[Sparse]:
    """Sparse evolutionary training: the weakest weights of every layer go, and as many places at random come.

    Mocanu et al. 2018, with the falling share of Evci et al. 2020. Everything else is as in `rigl`, but that no
    gradient is looked at: of layers without one those alone keep their part of the mask that are frozen by then. Given
    the same seeds, data and optimiser, masks are those of the method `set`.
    """
    with claimed(model, alone=True):
        begun = _regrowing(
            Scoring(model, criterion, batches, example),
            density,
            "set",
            grow=at_random,
            steps=steps,
            every=every,
            allocate=allocate,
            exclude=exclude,
            seeds=seeds,
        )
        with begun._going_on(optimizer) as sparse:
            yield sparse


@contextmanager
def rigl(
    model: nn.Module,
    density: Density,
    *,
    steps: int,
    every: int | None = None,
    criterion: Criterion = magnitude,
    allocate: Allocate = layerwise,
    exclude: Sequence[str] = (),
    batches: Sequence[Batch] = (),
    example: Tensor | None = None,
    seeds: Seeds | None = None,
    optimizer: Optimizer | Sequence[Optimizer] = (),
) -> Iterator[Sparse]:
    """Rigged lottery: the weakest weights of every layer go, and those of the largest gradient come.

    ```python
    with rigl(model, 0.1, steps=2000, allocate=allocate.erk) as sparse:
        my_training_loop(model)  # 2000 updates
    sparse.ticket.save("ticket.safetensors")
    ```
    Evci et al. 2020, algorithm 1. The model's own weights, under a random mask as `allocate` spreads it (the paper's
    best: erk), begin; after every `every` updates (a hundred, or a twentieth of a short training) in the first three
    quarters of `steps` a share of each layer is replaced, .3 at first and falling to 0 on a cosine (eq. 1). Every layer
    keeps its count at every step. The mask is in force as `masked` has it, and stays when the block ends; `sparse.mask`
    is the last one, and `sparse.ticket` has it with the weights and buffers from before the block.

    The gradient is the loop's own, of its own loss: that of the update after which the mask changes, by all weights,
    summed over the backward passes of that update; what `torch.autograd.grad` gives beside them does not count. (In the
    paper that update is left out.) New weights begin at exactly
    0, and so does what a torch.optim optimiser keeps of them in tensors of the weight's shape; one of another make,
    named as `optimizer`, is followed, but sees to its own state. Steps of torch.optim optimisers over the model's
    parameters are counted, and of those named; else say `sparse.at(step)`.

    Layers that nothing trains are to be excluded: one without a gradient in the update after which the mask changes
    keeps its part of the mask in that change.

    `density`, `exclude`, `criterion`, `batches`, `example` and `seeds` are as in `prune`; the criterion scores what
    goes. Give a model in DistributedDataParallel as it is wrapped, on every rank with the same arguments: gradients are
    summed over the ranks, and masks compared.

    Raises ValueError, before any training, for what `prune` raises it, where a layer is frozen, the mask would never
    change in so many steps, the allocation does not decide by layers alone, or the model is within another such block.
    A step of LBFGS or Rprop raises it as well. RuntimeWarning where the block ends before the last change.
    """
    with claimed(model, alone=True):
        begun = _regrowing(
            Scoring(model, criterion, batches, example),
            density,
            "rigl",
            grow=by_gradient,
            steps=steps,
            every=every,
            allocate=allocate,
            exclude=exclude,
            seeds=seeds,
        )
        with begun._going_on(optimizer) as sparse:
            yield sparse


@contextmanager
def gradual(
    model: nn.Module,
    density: Density,
    *,
    steps: int,
    every: int | None = None,
    criterion: Criterion = magnitude,
    allocate: Allocate = layerwise,
    exclude: Sequence[str] = (),
    batches: Sequence[Batch] = (),
    example: Tensor | None = None,
    seeds: Seeds | None = None,
    optimizer: Optimizer | Sequence[Optimizer] = (),
) -> Iterator[Sparse]:
    """Gradual pruning within one training, to a density that falls on a cubic: d + (1 - d) · (1 - t / T)³ at step t.

    Zhu & Gupta 2017, eq. 1; T is three quarters of `steps`, and the mask changes after every `every` updates until
    then, which are to be fewer than T. No lottery: the weights are never rewound, though `sparse.ticket` has those from
    before the block. Options, counting and errors are as in `rigl`, but that layers may be frozen, and any optimiser
    will do and any allocation that can prune a little at a time.
    """
    with claimed(model, alone=True):
        begun = _thinning(
            Scoring(model, criterion, batches, example),
            density,
            steps=steps,
            every=every,
            allocate=allocate,
            exclude=exclude,
            seeds=seeds,
        )
        with begun._going_on(optimizer) as sparse:
            yield sparse


def _thinning(
    score: Scoring,
    density: Density,
    *,
    steps: int,
    every: int | None,
    allocate: Allocate,
    exclude: Sequence[str],
    seeds: Seeds | None,
) -> Sparse:
    every = _checked("gradual", steps, every)
    dense = whole(score.model, exclude=exclude, seeds=seeds)
    check_densities(dense, [density], allocate)
    magnitudes = {name: dense.start.weights[name].abs() for name in dense.mask.keep}
    try:
        allocate(magnitudes, dense.mask, density=cubic_at(density, 0.5))
    except ValueError as error:
        error.add_note("gradual prunes a little at a time")
        raise
    changes = Thinning(steps, partial(cubic_at, density), score, allocate, every)
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
    exclude: Sequence[str],
    seeds: Seeds | None,
) -> Sparse:
    check_by_layer(method, allocate)
    every = _checked(method, steps, every)
    dense = whole(score.model, exclude=exclude, seeds=seeds)
    _check_trained(method, score.model, dense.mask)
    check_densities(dense, [density], allocate)
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
