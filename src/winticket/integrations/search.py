"""What both callbacks share: levels that last some epochs or updates, with optimisers and learning rates reset."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from winticket.loops.levels import Density, Level, Levels
from winticket.loops.masking import masked
from winticket.loops.wrapped import bare
from winticket.ticket import Ticket

Settings = list[Callable[[], None]]
_SHARDED = {"ZeroRedundancyOptimizer", "DistributedOptimizer"}


class Search:
    """Levels inside a trainer, whose callback reports when epochs and updates begin and end.

    A level ends when the first batch after it begins: by then the trainer has validated and saved what it trained.
    """

    def __init__(
        self,
        densities: Sequence[Density],
        *,
        epochs: int | None,
        steps: int | None,
        folder: str | Path | None,
        options: dict[str, Any],
    ) -> None:
        length = epochs if steps is None else steps
        if (epochs is None) == (steps is None) or length is None or length < 1:
            raise ValueError(
                f"a level lasts either epochs or steps, at least 1; got epochs={epochs}, steps={steps}"
            )
        signature(Levels).bind(None, densities, **options)  # a misspelt option fails here
        if options.get("rewind_step", 0) and steps is None:
            raise ValueError(
                "to rewind to a step, count levels in steps (steps=...), since later levels are shorter"
            )
        if steps is not None and options.get("rewind_step", 0) >= steps:
            raise ValueError(f"rewind_step {options['rewind_step']} is not within a level of {steps} steps")
        self.densities, self.epochs, self.steps, self.options = densities, epochs, steps, options
        self.folder = None if folder is None else Path(folder)
        self.tickets: list[Ticket] = []
        self.trained: Ticket | None = None
        self.level: Level | None = None
        self._guard = ExitStack()

    @property
    def total_epochs(self) -> int | None:
        """Epochs of all levels together; None if levels are counted in steps."""
        return None if self.epochs is None else self.epochs * (len(self.densities) + 1)

    @property
    def total_steps(self) -> int | None:
        """Updates of all levels together, without the rewound steps; None if levels are counted in epochs."""
        if self.steps is None:
            return None
        return self.steps + len(self.densities) * (self.steps - int(self.options.get("rewind_step", 0)))

    def begin(
        self,
        model: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        schedulers: Sequence[Any],
        *,
        writes: bool,
        averages: Callable[[], Iterable[AveragedModel]] = tuple,
    ) -> None:
        """Begin before the first batch, with the current state of the model as θ₀.

        `writes` is True for the process that writes files; `averages` returns what restarts at each level.
        """
        if len(optimizers) != 1 and self.steps is not None:
            raise ValueError(
                f"levels that are counted in steps need one optimiser, but there are {len(optimizers)}; count epochs"
            )
        if any(isinstance(o, torch.optim.LBFGS) for o in optimizers):
            raise ValueError(
                "LBFGS keeps its state in lists, which a search cannot reset; use another optimiser"
            )
        for kind in {type(o).__name__ for o in optimizers} & _SHARDED:
            raise ValueError(
                f"{kind} shards its state over processes, which a search cannot reset; use an optimiser that does not"
            )
        self.fail(RuntimeError("another training begins"))  # an earlier one may have raised without notice
        self.model, self.averages = model, averages
        self.optimizers, self.schedulers, self.writes = list(optimizers), list(schedulers), writes
        self.levels = Levels(model, self.densities, **self.options)
        self.settings, self.settled = self._settings(), 0
        self.tickets, self.trained, self.epochs_done = [], None, 0
        self._enter(self.levels.first())

    def batch_begins(self) -> None:
        """Begin the next level, before an update's first batch, if the current level is complete.

        Also saves the settings of the step to rewind to: by now schedules that follow a validation have moved, too.
        """
        level = self.level
        if level is None:
            return
        if self._complete() and not self.last:
            self._leave()
            self.epochs_done = 0
            self._enter(self.levels.after(level))
        elif level.number == 0 and level.step == self.levels.rewind_step > max(
            self.settled, level.ticket.start.step
        ):
            self.settings, self.settled = self._settings(), level.step

    def epoch_ended(self) -> None:
        """Count an epoch that was trained to its end."""
        self.epochs_done += 1

    @property
    def last(self) -> bool:
        """True during the last level."""
        return self.level is not None and self.level.number == len(self.densities)

    def finished(self) -> bool:
        """True if the last level is complete."""
        return self.last and self._complete()

    def end(self, *, guard: bool) -> str:
        """End the search after training; the weights stay pruned. Returns a sentence if the search is incomplete.

        With `guard` the mask stays in force until `release`, for what other callbacks still write to the weights.
        """
        if self.level is None:
            return ""
        missing = ""
        if not self.finished():
            done = (
                f"{self.level.step} of {self.steps} updates"
                if self.steps is not None
                else f"{self.epochs_done} of {self.epochs} epochs"
            )
            missing = (
                f"training ended within level {self.level.number} of {len(self.densities)}, at density "
                f"{self.level.density:.4g}; the search is incomplete: this level made {done}"
            )
        self._leave()
        if guard:
            self._guard.enter_context(masked(bare(self.model), self.tickets[-1].mask))
        return missing

    def release(self) -> None:
        """Remove the mask's hooks; RuntimeWarning if dense weights were written since the training."""
        self._guard.close()

    def revived(self) -> dict[str, int]:
        """Layer -> number of weights that the last ticket prunes and that are not 0; empty before training ends."""
        if self.level is not None or not self.tickets:
            return {}
        parameters, counts = dict(bare(self.model).named_parameters()), {}
        for name, keep in self.tickets[-1].mask.keep.items():
            if count := int(parameters[name].detach()[~keep.to(parameters[name].device)].count_nonzero()):
                counts[name] = count
        return counts

    def fail(self, error: BaseException) -> None:
        """Remove the mask's hooks because training raised `error`."""
        self._guard.close()
        if self.level is not None:
            self.level.__exit__(type(error), error, error.__traceback__)
            self.level = None

    def _complete(self) -> bool:
        assert self.level is not None
        if self.steps is not None:
            return self.level.step >= self.steps
        return self.epochs is not None and self.epochs_done >= self.epochs

    def _enter(self, level: Level) -> None:
        level.__enter__()
        self.level = level
        try:
            self._start(level)
        except BaseException as error:
            self.fail(error)
            raise

    def _start(self, level: Level) -> None:
        self.tickets.append(level.ticket)
        for average in self.averages():
            level.reset(average)
        if self.folder is not None and self.writes:
            self.folder.mkdir(parents=True, exist_ok=True)
            level.ticket.save(self.folder / f"level-{level.number}.safetensors")
        if level.number == 0 and level.ticket.start.step == 0:
            return
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
            level.reset(optimizer)
        for restore in self.settings:
            restore()

    def _leave(self) -> None:
        assert self.level is not None
        self.level.__exit__(None, None, None)
        self.trained = self.level.trained_ticket()
        self.level = None

    def _settings(self) -> Settings:
        """Functions that restore the current options of the optimisers, such as rates, and the schedules."""
        restores: Settings = []
        for optimizer in self.optimizers:
            groups = [
                {k: copy.deepcopy(v) for k, v in group.items() if k != "params"}
                for group in optimizer.param_groups
            ]
            restores.append(_regroup(optimizer, groups))
        restores += [
            _reload(scheduler, copy.deepcopy(scheduler.state_dict())) for scheduler in self.schedulers
        ]
        return restores


def _regroup(optimizer: torch.optim.Optimizer, groups: list[dict[str, Any]]) -> Callable[[], None]:
    def restore() -> None:
        for group, before in zip(optimizer.param_groups, groups, strict=True):
            group.update(copy.deepcopy(before))

    return restore


def _reload(scheduler: Any, state: dict[str, Any]) -> Callable[[], None]:
    return lambda: scheduler.load_state_dict(copy.deepcopy(state))
