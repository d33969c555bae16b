"""The iterative procedure inside anybody's training loop: train, score, prune, rewind, train again."""

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
from winticket.criteria.evidence import Batch
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
    """Levels of iterative pruning around a training loop of your own; the loop trains, this prunes and rewinds.

    ```python
    for level in Levels(model, [0.5, 0.25, 0.1]):
        with level:  # the level's ticket is in the model, and its mask in force
            my_training_loop(model)
    level.ticket.save("ticket.safetensors")
    ```
    The first level trains the whole network as it is now, or `ticket`; each further one trains the ticket of the next
    density: weights scored by `criterion` after the level before, the best kept by `allocate`, weights and buffers put
    back by `rewind`, which goes to step `rewind_step` where it takes one. What optimiser and learning rate
    do at a new level is the loop's own affair: make them anew within the block, or call `level.reset(optimizer)`.

    `densities` fall, each in (0, 1) or shares by layer as the allocation takes them. Weights of Linear and Conv layers
    may be pruned, and further parameters that `include` names (names or patterns, as in `prune`), less those in
    `exclude`. Criteria that look at the network or at data are given the model and `batches` of (x [B, ...], classes y
    [B]), for which the model has to return logits [B, classes]; or an `example` [1, ...] where they need no data. They
    compute on the CPU, in float64 where the model can. Those that compare with a weight's initial value take it from
    where the levels began, under every rewind. `seeds` are what random criteria draw from; without them, they are drawn
    from torch's global generator. `allocate` is by default that of the criterion's paper.

    Under DistributedDataParallel give the wrapped module, on every rank with the same arguments.

    Raises ValueError, before any training, where densities do not fall, a pattern fits no weight, the criterion lacks
    what it needs or cannot score this model (it is tried on the weights that are there now), the allocation cannot give
    these densities (it is tried on their magnitudes), or the model's weights are cut up over processes.
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
        example: Tensor | None = None,
        ticket: Ticket | None = None,
        seeds: Seeds | None = None,
    ) -> None:
        check_whole(model)
        if isinstance(densities, float | str) or not isinstance(densities, Sequence):
            raise TypeError(f"densities is {densities!r}; give those of all levels, falling, as [0.5, 0.25]")
        require_function("rewind", rewind)
        self.model, self.densities = model, tuple(densities)
        self.rewind, self.rewind_step = rewind, rewind_step
        self.score = Scoring(model, criterion, batches, example)
        self.allocate = allocation_for(criterion, allocate, stacklevel=2)
        self.buffer_persistence = buffer_persistence(model)  # before any training, which may add buffers
        if ticket is None:
            seeds = seeds_for(model, seeds, criterion=criterion)
            left = without_classes(model, self.allocate, exclude)
            ticket = whole(model, include=include, exclude=left, seeds=seeds)
        elif include or exclude or seeds is not None:
            raise ValueError(
                "a ticket has its mask and its seeds; leave include, exclude and seeds out beside one"
            )
        # A mask that was made by hand, or read from a state dict, knows nothing of transposed convolutions.
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
        """Trainings: one per density, and the first."""
        return len(self.densities) + 1

    def __iter__(self) -> Iterator[Level]:
        level = self.first()
        yield level
        while level.number < len(self.densities):
            level = self.after(level)
            yield level

    def first(self) -> Level:
        """The level that trains what there was to begin with."""
        return Level(self, 0, self.start)

    def after(self, level: Level) -> Level:
        """The next level: the ticket that the training of `level` leads to.

        RuntimeError where that training did not happen, IndexError after the last level.
        """
        if level.number >= len(self.densities):
            raise IndexError(f"level {level.number} is the last of {len(self)}")
        path = level.path()
        mask = self._mask(path, self.densities[level.number])
        where = {"step": self.rewind_step} if takes_step(self.rewind) else {}
        try:
            ticket = careful(self.rewind)(path, mask, **where)
        except ValueError as error:
            error.add_note(
                f"level {level.number} ended at step {level.step}. Steps of torch.optim optimisers are counted; with "
                "another, or where one update takes several, say after each update which it was: level.at(step)"
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
            raise ValueError("no density is given; levels are the densities to prune to, such as [0.5, 0.25]")
        if self.rewind_step < 0:
            raise ValueError(f"rewind_step {self.rewind_step} is negative")
        if self.rewind_step and not takes_step(self.rewind):
            raise ValueError(
                f"{name_of(self.rewind)} goes to no step; with rewind_step {self.rewind_step} give rewind.to_step or "
                "another that does"
            )
        if not self.rewind_step and self.rewind in (to_step, to_step_with_optimizer):
            raise ValueError(
                f"{name_of(self.rewind)} goes to a step, and none is said; say which (rewind_step=...), or give "
                "rewind.to_init"
            )
        check_densities(self.start, self.densities, self.allocate)
        self.score.check(self.start, allocate=self.allocate, density=self.densities[0])


class Level:
    """One training: enter it, train, leave it. `ticket` is what it trains, `trained` what came of it.

    `number` is 0 for the first training; `step` counts updates, from the step that the ticket starts at: a loop that
    trains T steps in all makes T - `ticket.start.step` of them here, the schedule beginning there.
    """

    def __init__(self, levels: Levels, number: int, ticket: Ticket) -> None:
        self.number, self.ticket, self.step = number, ticket, ticket.start.step
        self.trained: State | None = None
        self._levels, self._model = levels, levels.model
        self._kept: State | None = None
        self._stack: ExitStack | None = None
        self._hooks: MaskHooks | None = None
        self._entered = False
        self._owes_optimizer = bool(ticket.start.optimizer)

    @property
    def density(self) -> float:
        """Kept / eligible weights."""
        return self.ticket.mask.density()

    def __repr__(self) -> str:
        return f"Level({self.number} of {len(self._levels.densities)}, {self.ticket})"

    def __enter__(self) -> Level:
        if self._entered:
            raise RuntimeError(f"level {self.number} was entered before; a level is one training")
        self._entered = True
        with ExitStack() as stack:
            # The mask's hook comes first, so what is kept after a step is masked.
            stack.enter_context(claimed(self._model, alone=False))
            put_back_buffers(self._model, self.ticket.start.buffers, self._levels.buffer_persistence)
            self._hooks = stack.enter_context(in_force(self._model, self.ticket))
            # What happens here is no part of a step that is compiled.
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
        """Say that `step` updates have been made, counted from the first of the first level.

        Not needed where each update is one step of a torch.optim optimiser: those are counted, and of one that wraps
        another the outer ones. A rewind that puts the optimiser's state back is given its state from `optimizer`; give
        the inner one here where that has the state. RuntimeError outside the level's block.
        """
        if self._stack is None:
            raise RuntimeError(f"level {self.number} is not being trained; enter it first: `with level:`")
        self.step = step
        levels = self._levels
        if step != levels.rewind_step or step == self.ticket.start.step:
            return
        if takes_step(levels.rewind):
            wanted = optimizer is not None and levels.rewind not in _WITHOUT_OPTIMIZER
            slots: dict[str, Tensor] = {}
            if wanted and optimizer is not None:
                parameters = dict(bare(self._model).named_parameters())
                slots = {name: slot.cpu() for name, slot in slots_of(optimizer, parameters).items()}
            self._kept = state_of(self._model, step=step, optimizer=slots)

    def reset(self, optimizer: torch.optim.Optimizer | AveragedModel) -> None:
        """Put `optimizer` at the level's start: no moments, or those of the step that was rewound to.

        The second under `rewind.to_step_with_optimizer`, where training goes on only after this was called. Learning
        rates stay as they are; they are the schedule's. An AveragedModel of the model, kept over levels, begins anew
        from the level's weights.
        """
        if isinstance(optimizer, AveragedModel):
            reset_average(optimizer, self._model)
            return
        load_slots(optimizer, dict(bare(self._model).named_parameters()), self.ticket.start.optimizer)
        self._owes_optimizer = False

    def path(self) -> Trajectory:
        """The training as rewinds take it: where it began, what was kept of it, how it ended.

        RuntimeError where the level was not trained to its end, or updates were no longer counted after the step to
        rewind to.
        """
        if self.trained is None:
            raise RuntimeError(
                f"level {self.number} was not trained; do it within its block: `with level: train(model)`"
            )
        saved = {self.trained.step: self.trained}
        if self._kept is not None:
            step = self._kept.step
            if step >= self.trained.step and not same_bits(self._kept.weights, self.trained.weights):
                raise RuntimeError(
                    f"the model went on after step {step}, which is rewound to, but no later step was counted; call "
                    "level.at(step) after every update"
                )
            saved.setdefault(step, self._kept)
        return Trajectory(self.ticket, saved, no_curve())

    def _before_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if self._owes_optimizer and updates(optimizer, self._model):
            raise RuntimeError(
                f"level {self.number} goes on with the optimiser's state of step {self.ticket.start.step}; call "
                "level.reset(optimizer) before the first step"
            )

    def _after_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if is_update(optimizer, self._model):
            self.at(self.step + 1, optimizer)
