"""Rewinding: a trajectory and a new mask -> the next ticket.

Functions that take a `step` rewind to that step of training; a procedure has the first training save its state there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from inspect import signature

import torch

from winticket.ticket import Mask, State, Ticket, Trajectory

__all__ = ["Rewind", "fine_tune", "learning_rate", "to_init", "to_step", "to_step_with_optimizer"]

REVISION = 1

Rewind = Callable[..., Ticket]


def takes_step(rewind: Rewind) -> bool:
    """Whether a rewind goes to a step that the caller names.

    >>> from winticket import rewind
    >>> rewind.takes_step(rewind.to_init), rewind.takes_step(rewind.to_step)
    (False, True)
    """
    return "step" in signature(rewind).parameters


def to_init(path: Trajectory, mask: Mask) -> Ticket:
    """Back to where the trajectory's own ticket began: weights, buffers, and optimiser state if it had any.

    Frankle & Carbin 2019, §2 step 4: the remaining weights are reset to their values in θ₀.
    Raises ValueError where the mask revives a weight.
    """
    return _next(path, mask, path.ticket.start)


def to_step(path: Trajectory, mask: Mask, *, step: int) -> Ticket:
    """Back to the weights and buffers of step k of the first training; the optimiser starts afresh.

    Frankle et al. 2020 (Linear Mode Connectivity and the Lottery Ticket Hypothesis): deeper networks have tickets from
    a k that is small but not 0. Raises ValueError where the mask revives a weight or nothing was saved at the step.
    """
    return _next(path, mask, replace(_at(path, step), optimizer={}))


def to_step_with_optimizer(path: Trajectory, mask: Mask, *, step: int) -> Ticket:
    """As `to_step`, and the optimiser goes on from its state at that step.

    Frankle et al. 2020. With nothing pruned, training on from there is the first training, bit for bit. Raises
    ValueError as `to_step` does.
    """
    return _next(path, mask, _at(path, step))


def learning_rate(path: Trajectory, mask: Mask, *, step: int) -> Ticket:
    """The trained weights and buffers, with the learning-rate schedule back at step k; the optimiser starts afresh.

    Renda et al. 2020 (Comparing Rewinding and Fine-tuning). The weights have then been trained for more steps than the
    dense network's. Raises ValueError where the mask revives a weight.
    """
    return _trained(path, mask, step=step)


def fine_tune(path: Trajectory, mask: Mask, *, step: int) -> Ticket:
    """The trained weights and buffers, trained on at the schedule's last rate for as many steps as follow step k.

    Renda et al. 2020, "fine-tuning". The ticket is `learning_rate`'s; that its training holds the last rate is the
    procedure's part (`winticket.stages.retraining`). Where the schedule is constant, the two are one. Raises
    ValueError where the mask revives a weight.
    """
    return _trained(path, mask, step=step)


def _trained(path: Trajectory, mask: Mask, *, step: int) -> Ticket:
    last, start = path.saved[max(path.saved)], path.ticket.start
    # What was pruned before has no trained weight now: it has the one that it was pruned with, for masks that take it.
    weights = {
        name: torch.where(path.ticket.mask.keep[name], w, start.weights[name])
        if name in path.ticket.mask.keep
        else w
        for name, w in last.weights.items()
    }
    return _next(path, mask, State(weights, last.buffers, {}, step))


def _next(path: Trajectory, mask: Mask, start: State) -> Ticket:
    if not mask.within(path.ticket.mask):
        raise ValueError(
            "the new mask keeps weights that the trajectory's ticket had pruned; a mask only shrinks"
        )
    return Ticket(mask, start, path.ticket.origin, path.ticket.seeds, path.ticket.about)


def _at(path: Trajectory, step: int) -> State:
    """The state at a step: where this training began, or one that it saved."""
    if path.ticket.start.step == step:
        return path.ticket.start
    if step not in path.saved:
        raise ValueError(
            f"nothing was saved at step {step}; the training began at step {path.ticket.start.step} and saved at "
            f"{', '.join(map(str, sorted(path.saved)))}"
        )
    return path.saved[step]
