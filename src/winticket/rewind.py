"""Rewinding: a trajectory and a new mask -> the next ticket.

Functions that take a `step` rewind to that step of training; the procedure makes the first training save its state
then.
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
    """Back to the start of the trajectory's ticket: weights, buffers, and optimiser state if there was any.

    Frankle & Carbin 2019, §2 step 4: the remaining weights are reset to their values in θ₀.
    Raises ValueError if the mask revives a weight.

    >>> from winticket.ticket import Curve, Seeds
    >>> none = torch.empty(0, dtype=torch.float64)
    >>> states = {k: State({"fc": torch.tensor([[1.0 + k, 2.0 + k]])}, {}, {}, k) for k in (0, 4, 9)}
    >>> dense = Ticket(Mask.full(states[0].weights), states[0], "dense", Seeds(0, 0))
    >>> path = Trajectory(dense, states, Curve(none.long(), *[none] * 6))
    >>> ticket = to_init(path, Mask({"fc": torch.tensor([[True, False]])}))
    >>> ticket.start.step, ticket.start.weights
    (0, {'fc': tensor([[1., 2.]])})
    """
    return _next(path, mask, path.ticket.start)


def to_step(path: Trajectory, mask: Mask, *, step: int) -> Ticket:
    """Back to the weights and buffers of step k of the first training; the optimiser starts fresh.

    Frankle et al. 2020 (Linear Mode Connectivity and the Lottery Ticket Hypothesis): deeper networks have tickets from
    a k that is small but not 0. Raises ValueError if the mask revives a weight, or if no state was saved at that step.

    >>> from winticket.ticket import Curve, Seeds
    >>> none = torch.empty(0, dtype=torch.float64)
    >>> states = {k: State({"fc": torch.tensor([[1.0 + k, 2.0 + k]])}, {}, {}, k) for k in (0, 4, 9)}
    >>> dense = Ticket(Mask.full(states[0].weights), states[0], "dense", Seeds(0, 0))
    >>> path = Trajectory(dense, states, Curve(none.long(), *[none] * 6))
    >>> ticket = to_step(path, Mask({"fc": torch.tensor([[True, False]])}), step=4)
    >>> ticket.start.step, ticket.start.weights
    (4, {'fc': tensor([[5., 6.]])})
    """
    return _next(path, mask, replace(_at(path, step), optimizer={}))


def to_step_with_optimizer(path: Trajectory, mask: Mask, *, step: int) -> Ticket:
    """Like `to_step`, but the optimiser resumes from its state at that step.

    Frankle et al. 2020. With nothing pruned, training from there repeats the first training, bit for bit. Raises
    ValueError as `to_step` does.

    >>> from winticket.ticket import Curve, Seeds
    >>> none = torch.empty(0, dtype=torch.float64)
    >>> states = {k: State({"fc": torch.tensor([[1.0 + k, 2.0 + k]])}, {}, {}, k) for k in (0, 9)}
    >>> states[4] = State({"fc": torch.ones(1, 2)}, {}, {"momentum_buffer/fc": torch.full((1, 2), 0.4)}, 4)
    >>> dense = Ticket(Mask.full(states[0].weights), states[0], "dense", Seeds(0, 0))
    >>> path = Trajectory(dense, states, Curve(none.long(), *[none] * 6))
    >>> ticket = to_step_with_optimizer(path, Mask({"fc": torch.tensor([[True, False]])}), step=4)
    >>> ticket.start.optimizer
    {'momentum_buffer/fc': tensor([[0.4000, 0.4000]])}
    """
    return _next(path, mask, _at(path, step))


def learning_rate(path: Trajectory, mask: Mask, *, step: int) -> Ticket:
    """The trained weights and buffers, with the learning-rate schedule back at step k; the optimiser starts fresh.

    Renda et al. 2020 (Comparing Rewinding and Fine-tuning). These weights are then trained for more steps in total than
    the dense network's. Raises ValueError if the mask revives a weight.

    >>> from winticket.ticket import Curve, Seeds
    >>> none = torch.empty(0, dtype=torch.float64)
    >>> states = {k: State({"fc": torch.tensor([[1.0 + k, 2.0 + k]])}, {}, {}, k) for k in (0, 4, 9)}
    >>> dense = Ticket(Mask.full(states[0].weights), states[0], "dense", Seeds(0, 0))
    >>> path = Trajectory(dense, states, Curve(none.long(), *[none] * 6))
    >>> ticket = learning_rate(path, Mask({"fc": torch.tensor([[True, False]])}), step=4)
    >>> ticket.start.step, ticket.start.weights
    (4, {'fc': tensor([[10., 11.]])})
    """
    return _trained(path, mask, step=step)


def fine_tune(path: Trajectory, mask: Mask, *, step: int) -> Ticket:
    """The trained weights and buffers, trained further at the schedule's last rate, for as many steps as follow step k.

    Renda et al. 2020, "fine-tuning". The ticket is the same as `learning_rate`'s; the procedure makes its training hold
    the last rate (`winticket.stages.retraining`). If the schedule is constant, the two methods are the same. Raises
    ValueError if the mask revives a weight.

    >>> from winticket.ticket import Curve, Seeds
    >>> none = torch.empty(0, dtype=torch.float64)
    >>> states = {k: State({"fc": torch.tensor([[1.0 + k, 2.0 + k]])}, {}, {}, k) for k in (0, 4, 9)}
    >>> dense = Ticket(Mask.full(states[0].weights), states[0], "dense", Seeds(0, 0))
    >>> path = Trajectory(dense, states, Curve(none.long(), *[none] * 6))
    >>> ticket = fine_tune(path, Mask({"fc": torch.tensor([[True, False]])}), step=4)
    >>> ticket.start.step, ticket.start.weights
    (4, {'fc': tensor([[10., 11.]])})
    """
    return _trained(path, mask, step=step)


def _trained(path: Trajectory, mask: Mask, *, step: int) -> Ticket:
    last, start = path.saved[max(path.saved)], path.ticket.start
    # A weight pruned before has no trained value now; it gets the value it was pruned at, for masks that take it in.
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
    """The state at a step: the one that this training began in, or one that it saved."""
    if path.ticket.start.step == step:
        return path.ticket.start
    if step not in path.saved:
        raise ValueError(
            f"no state was saved at step {step}; the training began at step {path.ticket.start.step} and saved at "
            f"{', '.join(map(str, sorted(path.saved)))}"
        )
    return path.saved[step]
