"""Iterative pruning inside your own training loop: train, score, prune, rewind, train again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.optim.swa_utils import AveragedModel

from winticket.allocate import Allocate
from winticket.criteria import Criterion, magnitude
from winticket.criteria.applied import careful, mask_of, name_of
from winticket.criteria.batches import Batch, Inputs
from winticket.criteria.losses import Loss
from winticket.loops.counting import is_update, updates
from winticket.loops.hooks import MaskHooks
from winticket.loops.masking import claimed, in_force, warn_of_overwritten
from winticket.loops.scoring import (
    Density,
    Scoring,
    allocation_for,
    check_classes,
    check_densities,
    require_function,
    seeds_for,
    state_of,
    warn_of_emptied,
    whole,
    without_classes,
)
from winticket.loops.wrapped import bare, buffer_persistence, check_whole, put_back_buffers, reset_average
from winticket.rewind import Rewind, learning_rate, takes_step, to_init, to_step, to_step_with_optimizer
from winticket.ticket import JSON, Mask, Seeds, State, Ticket, Trajectory, no_curve, same_bits
from winticket.train.slots import load_slots, slots_of
from winticket.units import layouts

__all__ = ["Density", "Level", "Levels"]

_CALLER = 3
_WITHOUT_OPTIMIZER = (to_init, to_step, learning_rate)


class Levels:
    """Levels of iterative pruning around your own training loop: your loop trains, `Levels` prunes and rewinds.

    The first level trains the whole network in its current state, or `ticket`. Each further level trains the ticket of
    the next density: `criterion` scores the weights that the previous level trained, `allocate` keeps the best, and
    `rewind` restores weights and buffers, at step `rewind_step` if it takes a step. Optimiser and learning rate are up
    to your loop: create them within the block, or call `level.reset(optimizer)`.

    `densities` must fall; each is in (0, 1), or a mapping of shares by layer if the allocation takes one. The options
    `criterion`, `allocate`, `include`, `exclude`, `batches`, `example`, `loss` and `seeds` are as in `prune`. Criteria
    that compare a weight with its initial value use its value before the first level, under every rewind.

    Under DistributedDataParallel pass the wrapped module, with the same arguments on every rank.

    Raises ValueError, before any training, if densities do not fall, a pattern matches no weight, the criterion lacks
    what it needs or cannot score this model (it is tried on the current weights), the allocation cannot reach these
    densities (it is tried on the weights' magnitudes), or the model's weights are sharded over processes.

    >>> import torch, winticket
    >>> model = torch.nn.Sequential(torch.nn.Linear(10, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> for level in winticket.Levels(model, [0.5, 0.25]):
    ...     with level:  # the model has the level's ticket, and its mask is in force
    ...         optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ...         for _ in range(5):
    ...             optimizer.zero_grad()
    ...             model(torch.randn(8, 10)).square().mean().backward()
    ...             optimizer.step()
    ...     print(level.number, level.density)
    0 1.0
    1 0.5
    2 0.25
    """

    def __init__(
        self,
        model: nn.Module,
        densities: Sequence[Density],
        *,
        criterion: Criterion = magnitude,
        allocate: Allocate | None = None,
        rewind: Rewind = to_init,
        rewind_step: int = 0,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        batches: Sequence[Batch] = (),
        example: Inputs | None = None,
        loss: Loss | None = None,
        ticket: Ticket | None = None,
        seeds: Seeds | None = None,
    ) -> None:
        check_whole(model)
        if isinstance(densities, float | str) or not isinstance(densities, Sequence):
            raise TypeError(
                f"densities is {densities!r}; give falling densities, one for each level, as [0.5, 0.25]"
            )
        require_function("rewind", rewind)
        self.model, self.densities = model, tuple(densities)
        self.rewind, self.rewind_step = rewind, rewind_step
        self.score = Scoring(model, criterion, batches, example, loss)
        self.allocate = allocation_for(criterion, allocate, stacklevel=2)
        self.buffer_persistence = buffer_persistence(model)  # before any training, which may add buffers
        if ticket is None:
            seeds = seeds_for(model, seeds, criterion=criterion)
            excluded = without_classes(model, self.allocate, exclude, include)
            ticket = whole(model, include=include, exclude=excluded, seeds=seeds)
        elif include or exclude or seeds is not None:
            raise ValueError(
                "a ticket already has a mask and seeds; do not pass include, exclude or seeds with one"
            )
        # A mask made by hand, or read from a state dict, has no layout for transposed convolutions.
        ticket = replace(ticket, mask=replace(ticket.mask, layout=layouts(bare(model))))
        check_classes(model, ticket.mask, self.allocate)
        self.start = ticket
        self._check()
        self._about: dict[str, JSON] = {
            **ticket.about,
            "criterion": name_of(criterion),
            "allocate": name_of(self.allocate),
            "rewind": name_of(rewind),
            "rewind_step": rewind_step,
        }

    def __len__(self) -> int:
        """Number of trainings: the first, and one per density."""
        return len(self.densities) + 1

    def __iter__(self) -> Iterator[Level]:
        level = self.first()
        yield level
        while level.number < len(self.densities):
            level = self.after(level)
            yield level

    def first(self) -> Level:
        """The first level: it trains the initial state."""
        return Level(self, 0, self.start)

    def after(self, level: Level) -> Level:
        """The level after `level`, with the ticket that its training leads to.

        RuntimeError if `level` has not been trained; IndexError if it is the last.
        """
        if level.number >= len(self.densities):
            raise IndexError(f"level {level.number} is the last of {len(self)}")
        path = level.path()
        mask = self._mask(path, self.densities[level.number])
        options = {"step": self.rewind_step} if takes_step(self.rewind) else {}
        try:
            ticket = careful(self.rewind)(path, mask, **options)
        except ValueError as error:
            error.add_note(
                f"level {level.number} ended at step {level.step}. Steps of torch.optim optimisers are counted; with "
                "any other optimiser, or if one update takes several steps, call level.at(step) after each update"
            )
            raise
        number = level.number + 1
        before = path.ticket.mask
        warn_of_emptied(f"level {number}", ticket.mask, model=self.model, before=before, stacklevel=_CALLER)
        about = {**self._about, "level": number}
        return Level(self, number, replace(ticket, origin="ticket", about=about).settled(bare(self.model)))

    def _mask(self, path: Trajectory, density: Density) -> Mask:
        now = path.saved[max(path.saved)]
        evidence = self.score.evidence(path.ticket, now, start=self.start.start)
        return mask_of(self.score.criterion, evidence, allocate=self.allocate, density=density)

    def _check(self) -> None:
        if not self.densities:
            raise ValueError("densities is empty; give the densities to prune to, such as [0.5, 0.25]")
        if self.rewind_step < 0:
            raise ValueError(f"rewind_step {self.rewind_step} is negative")
        if self.rewind_step and not takes_step(self.rewind):
            raise ValueError(
                f"{name_of(self.rewind)} takes no step; to use rewind_step={self.rewind_step}, pass rewind.to_step or "
                "another rewind that takes one"
            )
        if not self.rewind_step and self.rewind in (to_step, to_step_with_optimizer):
            raise ValueError(
                f"{name_of(self.rewind)} needs a step; set rewind_step=..., or pass rewind.to_init"
            )
        check_densities(self.start, self.densities, self.allocate)
        self.score.check(self.start, allocate=self.allocate, density=self.densities[0])


class Level:
    """One training, as a `with` block. `ticket` is what it trains; `trained` is the trained state.

    `number` is 0 for the first training. `step` counts updates and starts at `ticket.start.step`: a loop whose whole
    training has T steps makes T - `ticket.start.step` of them here, and its schedule starts at that step.

    >>> import torch, winticket
    >>> level = winticket.Levels(torch.nn.Linear(4, 2), [0.5]).first()
    >>> level
    Level(0 of 1, Ticket(...))
    >>> level.number, level.step, level.density
    (0, 0, 1.0)
    """

    def __init__(self, levels: Levels, number: int, ticket: Ticket) -> None:
        self.number, self.ticket, self.step = number, ticket, ticket.start.step
        self.trained: State | None = None
        self._levels, self._model = levels, levels.model
        self._saved: State | None = None
        self._stack: ExitStack | None = None
        self._hooks: MaskHooks | None = None
        self._entered = False
        self._needs_reset = bool(ticket.start.optimizer)

    @property
    def density(self) -> float:
        """Kept weights / eligible weights."""
        return self.ticket.mask.density()

    def __repr__(self) -> str:
        return f"Level({self.number} of {len(self._levels.densities)}, {self.ticket})"

    def __enter__(self) -> Level:
        if self._entered:
            raise RuntimeError(f"level {self.number} was entered before; each level can be trained once")
        self._entered = True
        with ExitStack() as stack:
            # The mask's hook comes first, so that a state saved after a step is masked.
            stack.enter_context(claimed(self._model, alone=False))
            put_back_buffers(self._model, self.ticket.start.buffers, self._levels.buffer_persistence)
            self._hooks = stack.enter_context(in_force(self._model, self.ticket))
            # Keep these out of compiled steps.
            before, after = map(torch.compiler.disable, (self._before_step, self._after_step))
            stack.callback(register_optimizer_step_pre_hook(before).remove)
            stack.callback(register_optimizer_step_post_hook(after).remove)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._stack is not None
        assert self._hooks is not None
        stack, self._stack = self._stack, None
        stack.__exit__(kind, error, traceback)
        if kind is None:
            self.trained = state_of(self._model, step=self.step)
            warn_of_overwritten(self._hooks, stacklevel=_CALLER - 1)

    def at(self, step: int, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Report that `step` updates have been made since the beginning of the first level.

        You do not need it if each update is one step of a `torch.optim` optimiser: those are counted (only the outer
        ones if one optimiser wraps another). A rewind that restores the optimiser's state takes it from `optimizer`;
        pass the inner optimiser if that has the state. RuntimeError outside the level's block.
        """
        if self._stack is None:
            raise RuntimeError(f"level {self.number} is not being trained; enter it first: `with level:`")
        self.step = step
        levels = self._levels
        if step != levels.rewind_step or step == self.ticket.start.step:
            return
        if takes_step(levels.rewind):
            slots: dict[str, Tensor] = {}
            if optimizer is not None and levels.rewind not in _WITHOUT_OPTIMIZER:
                parameters = dict(bare(self._model).named_parameters())
                slots = {name: slot.cpu() for name, slot in slots_of(optimizer, parameters).items()}
            self._saved = state_of(self._model, step=step, optimizer=slots)

    def reset(self, optimizer: torch.optim.Optimizer | AveragedModel) -> None:
        """Reset the state of `optimizer` to the level's start.

        The state becomes empty; under `rewind.to_step_with_optimizer` it becomes that of the step rewound to, and the
        first step raises RuntimeError unless you called `reset` before. Learning rates do not change; they belong to
        your schedule. An AveragedModel that you keep over levels restarts from the level's weights.
        """
        if isinstance(optimizer, AveragedModel):
            reset_average(optimizer, self._model)
            return
        load_slots(optimizer, dict(bare(self._model).named_parameters()), self.ticket.start.optimizer)
        self._needs_reset = False

    def path(self) -> Trajectory:
        """The training as rewinds take it: its ticket, the saved states, and the trained state.

        RuntimeError if the level was not trained to its end, or if updates were no longer counted after the step to
        rewind to.
        """
        trained = self._end()
        saved = {trained.step: trained}
        if self._saved is not None:
            step = self._saved.step
            if step >= trained.step and not same_bits(self._saved.weights, trained.weights):
                raise RuntimeError(
                    f"the model changed after step {step}, to which it is rewound, but no later step was counted; "
                    "call level.at(step) after every update"
                )
            saved.setdefault(step, self._saved)
        return Trajectory(self.ticket, saved, no_curve())

    def trained_ticket(self) -> Ticket:
        """What the level trained, as a ticket: its mask, and the trained weights and buffers in place of the start.

        `load_into` puts them into a model, to evaluate or ship it. RuntimeError if the level has not been trained.
        """
        return replace(self.ticket, start=self._end(), origin="trained")

    def _end(self) -> State:
        """The trained state. RuntimeError if there is none."""
        if self.trained is None:
            raise RuntimeError(
                f"level {self.number} was not trained; train it within its block: `with level: train(model)`"
            )
        return self.trained

    def _before_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if self._needs_reset and updates(optimizer, self._model):
            raise RuntimeError(
                f"level {self.number} continues with the optimiser's state of step {self.ticket.start.step}; call "
                "level.reset(optimizer) before the first step"
            )

    def _after_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if is_update(optimizer, self._model):
            self.at(self.step + 1, optimizer)
