"""A training whose mask changes, within your own loop."""

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
    """A training whose mask changes, as `rigl`, `set_` and `gradual` yield it. `step` counts updates in the block.

    >>> import torch, winticket
    >>> with winticket.gradual(torch.nn.Linear(50, 4), 0.5, steps=8, every=2) as sparse:
    ...     for step in range(8):
    ...         sparse.at(step + 1)  # an update of your own would come first
    >>> sparse.mask.density()
    0.5
    """

    def __init__(self, model: nn.Module, dense: Ticket, mask: Mask, changes: Changes, total: int) -> None:
        self.step, self._model, self._total = 0, model, total
        self._ticket, self._changes = replace(dense, mask=mask), changes
        self._at = frozenset(changes.steps(0, total))
        self._grow = changes.grow if isinstance(changes, Regrowing) else None
        self._warned_model = None if self._grow else model  # a regrown mask may revive units
        self._hooks: MaskHooks | None = None
        self._by_hand = False
        self._optimizers: list[torch.optim.Optimizer] = []

    @property
    def mask(self) -> Mask:
        """The current mask; after the block, the last one."""
        return self._ticket.mask

    @property
    def ticket(self) -> Ticket:
        """The current mask with the weights and buffers that the model had before the block."""
        return replace(self._ticket, origin="ticket").settled(bare(self._model))

    def __repr__(self) -> str:
        return f"Sparse(step {self.step} of {self._total}, {self.ticket})"

    def at(self, step: int) -> None:
        """Report that `step` updates have been made. Call it after each update; automatic counting then stops.

        You do not need it if each update is one step of a `torch.optim` optimiser, or of an optimiser that the block
        got as `optimizer`: those steps are counted (only the outer ones if one optimiser wraps another). If an update
        takes several steps, call `at(0)` before the first. RuntimeError outside the block; ValueError if steps fall, or
        if you skip one at which the mask changes.
        """
        if self._hooks is None:
            raise RuntimeError("there is no training now; call `at` within the block")
        skipped = sorted(t for t in self._at if self.step < t < step)
        if step < self.step or skipped:
            raise ValueError(
                f"step {step} was reported after step {self.step}"
                + (f", and the mask changes at step {skipped[0]}" if skipped else "; steps must rise")
                + "; report every step"
            )
        self._by_hand = True
        self._arrive(step)

    @contextmanager
    def _training(self, optimizer: Optimizer | Sequence[Optimizer]) -> Iterator[Sparse]:
        warn_of_emptied(
            "the mask that training starts with",
            self.mask,
            model=self._warned_model,
            stacklevel=_CALLER,
        )
        with ExitStack() as stack:
            # The mask's hook comes first, so that a change sees masked weights.
            self._hooks = stack.enter_context(in_force(self._model, self.mask, optimizer=optimizer))
            stack.callback(setattr, self, "_hooks", None)
            stack.callback(self._optimizers.clear)
            self._record_step(1)
            # Keep these out of compiled steps.
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
                f"the block ended at step {self.step} of {self._total}, before the last change of the mask at step "
                f"{missed[-1]}; its density is {self.mask.density():.4g}. Steps of torch.optim optimisers are counted; "
                "pass any other optimiser as optimizer=..., or call at(step) after each update",
                RuntimeWarning,
                stacklevel=_CALLER,
            )

    def _before_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if self._grow and isinstance(optimizer, _UNRESET) and updates(optimizer, self._model):
            raise ValueError(
                f"{type(optimizer).__name__} keeps a state in which new weights cannot start at 0; use another one"
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
        if not self._by_hand:
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
            model=self._warned_model,
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
        """Layers whose new weights would stay at 0: frozen ones or, under RigL, those without a gradient."""
        parameters = dict(bare(self._model).named_parameters())
        if self._grow is not by_gradient:
            return [name for name in self.mask.keep if not parameters[name].requires_grad]
        return [name for name, times in self._times_seen().items() if not times]

    def _times_seen(self) -> dict[str, float]:
        """Number of ranks on which each layer had a gradient in the last step."""
        assert self._hooks is not None
        names, device = list(self.mask.keep), next(bare(self._model).parameters()).device
        here = torch.tensor([float(name in self._hooks.recorded) for name in names], device=device)
        return dict(zip(names, summed_over_ranks(self._model, {"": here})[""].tolist(), strict=True))

    def _gradient(self) -> Mapping[str, Tensor]:
        """The gradient of your loss in the last step, with respect to all weights, including pruned ones."""
        assert self._hooks is not None
        seen, parameters = self._hooks.recorded, dict(bare(self._model).named_parameters())
        gradients = {}
        for name in self.mask.keep:
            weight = parameters[name]
            wide = torch.promote_types(weight.dtype, torch.float32)
            gradients[name] = seen[name] if name in seen else torch.zeros_like(weight, dtype=wide)
        if not any(self._times_seen().values()):  # the same on all ranks, so that all raise
            raise RuntimeError(
                f"no gradient of the masked weights arrived for step {self.step}, at which the mask changes; every "
                "update has to follow a backward pass within the block, and torch.autograd.grad does not count"
            )
        sums = summed_over_ranks(self._model, {name: g.detach() for name, g in gradients.items()})
        for name, gradient in sums.items():
            if not bool(gradient.isfinite().all()):
                raise RuntimeError(
                    f"the gradient of {name} is not finite at step {self.step}, at which the mask changes; the "
                    "training has diverged, or its loss is scaled too high"
                )
        return {name: gradient.cpu() for name, gradient in sums.items()}


def _forget(optimizer: torch.optim.Optimizer, parameter: nn.Parameter, fresh: Tensor) -> None:
    """Zero the optimiser's state for the `fresh` entries of a parameter."""
    for value in optimizer.state.get(parameter, {}).values():
        if isinstance(value, Tensor) and value.shape == parameter.shape:
            value.masked_fill_(fresh.to(value.device), 0)
