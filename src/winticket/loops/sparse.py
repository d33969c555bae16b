"""A training whose mask changes, within a loop of one's own."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from winticket.loops.counting import is_update, outermost, updates
from winticket.loops.hooks import MaskHooks, Optimizer, follow, without_hooks
from winticket.loops.masking import in_force, warn_of_overwritten
from winticket.loops.scoring import state_of, warn_of_emptied
from winticket.loops.wrapped import bare, check_ranks, summed_over_ranks
from winticket.ticket import Mask, Ticket
from winticket.train import Changes
from winticket.train.rules import Regrowing, by_gradient

_CALLER = 5  # of the `with` statement, through contextlib and this module
_UNRESET = (torch.optim.LBFGS, torch.optim.Rprop)


class Sparse:
    """A training whose mask changes: what its `with` block gives. `step` counts the updates made in the block."""

    def __init__(self, model: nn.Module, dense: Ticket, mask: Mask, changes: Changes, total: int) -> None:
        self.step, self._model, self._total = 0, model, total
        self._ticket, self._changes = replace(dense, mask=mask), changes
        self._at = frozenset(changes.steps(0, total))
        self._grow = changes.grow if isinstance(changes, Regrowing) else None
        self._told_of = None if self._grow else model  # units may come back in a mask that is regrown
        self._hooks: MaskHooks | None = None
        self._told = False
        self._optimizers: list[torch.optim.Optimizer] = []

    @property
    def mask(self) -> Mask:
        """The mask that is in force, or was at the end."""
        return self._ticket.mask

    @property
    def ticket(self) -> Ticket:
        """That mask, with the weights and buffers that the model had before the block."""
        return replace(self._ticket, origin="ticket").settled(bare(self._model))

    def __repr__(self) -> str:
        return f"Sparse(step {self.step} of {self._total}, {self.ticket})"

    def at(self, step: int) -> None:
        """Say that `step` updates have been made, after each update; from the first time on none is counted.

        Not needed where each update is one step of a torch.optim optimiser, or of one of another make that the block
        was given: those are counted, and of one that wraps another the outer ones. Where an update takes several, say
        `at(0)` before the first. RuntimeError outside the block; ValueError where steps fall, or one at which the mask
        changes was left out.
        """
        if self._hooks is None:
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
        warn_of_emptied(
            "the mask that training begins with",
            self.mask,
            model=self._told_of,
            stacklevel=_CALLER,
        )
        with ExitStack() as stack:
            # The mask's hook comes first, so what a change sees is masked.
            self._hooks = stack.enter_context(in_force(self._model, self.mask, optimizer=optimizer))
            stack.callback(setattr, self, "_hooks", None)
            stack.callback(self._optimizers.clear)
            self._record_step(1)
            # What happens here is no part of a step that is compiled.
            before, after, followed = map(
                torch.compiler.disable, (self._before_step, self._after_step, self._after_followed)
            )
            stack.callback(register_optimizer_step_pre_hook(before).remove)
            stack.callback(register_optimizer_step_post_hook(after).remove)
            for other in without_hooks(optimizer):
                stack.callback(follow(other, followed))
            hooks = self._hooks
            yield self
        warn_of_overwritten(hooks, stacklevel=_CALLER)
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
        assert self._hooks is not None
        new, self.step = step > self.step, step
        if new and step in self._at:
            self._change(self._hooks)
        if new:
            self._record_step(step + 1)

    def _record_step(self, step: int) -> None:
        assert self._hooks is not None
        self._hooks.record(self._grow is by_gradient and step in self._at)

    def _change(self, hooks: MaskHooks) -> None:
        before = self.mask
        mask = self._changes.change(self._ticket, state_of(self._model, step=self.step), self._gradient)
        if self._grow:
            mask = replace(mask, keep={**mask.keep, **{n: before.keep[n] for n in self._untrained()}})
        check_ranks(self._model, mask)
        warn_of_emptied(
            f"the mask after step {self.step}",
            mask,
            model=self._told_of,
            before=before,
            stacklevel=_CALLER,
        )
        self._ticket = replace(self._ticket, mask=mask)
        hooks.replace(mask)
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
        assert self._hooks is not None
        names, device = list(self.mask.keep), next(bare(self._model).parameters()).device
        own = torch.tensor([float(name in self._hooks.recorded) for name in names], device=device)
        return dict(zip(names, summed_over_ranks(self._model, {"": own})[""].tolist(), strict=True))

    def _gradient(self) -> Mapping[str, Tensor]:
        """The loop's own, of all weights, pruned ones too: that of the step which has just been made."""
        assert self._hooks is not None
        seen, parameters = self._hooks.recorded, dict(bare(self._model).named_parameters())
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
