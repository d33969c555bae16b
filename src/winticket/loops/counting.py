"""Which steps of optimisers are updates of a model."""

from __future__ import annotations

import sys
from types import FrameType

import torch
from torch import nn

from winticket.loops.hooks import Followed
from winticket.loops.wrapped import bare

# What torch.optim.Optimizer puts around every subclass's `step`; it calls the hooks.
_STEP = torch.optim.Optimizer.profile_hook_step(lambda: None).__code__
_FOLLOWED = Followed.__call__.__code__


def updates(optimizer: torch.optim.Optimizer, model: nn.Module) -> bool:
    """Whether the optimiser has a parameter of the model."""
    own = {id(p) for p in bare(model).parameters()}
    return any(id(p) in own for group in optimizer.param_groups for p in group["params"])


def is_update(optimizer: torch.optim.Optimizer, model: nn.Module) -> bool:
    """Whether the step just made, whose hook asks, is an update of the model: outermost, and not left out.

    A GradScaler calls fused optimisers in any case, and has them leave out the step themselves.
    """
    left_out = getattr(optimizer, "found_inf", None)
    return updates(optimizer, model) and not (left_out is not None and bool(left_out)) and outermost(model)


def outermost(model: nn.Module) -> bool:
    """Whether the step whose hook or follower asks is no part of another one, as where an optimiser wraps another.

    Read off the calls that have not returned: a count of steps begun would be wrong after one that raised.
    """
    named, steps = set(), 0
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code is _STEP:
            steps += updates(frame.f_locals["self"], model)
        elif frame.f_code is _FOLLOWED:  # several blocks may follow one optimiser
            named.add(id(frame.f_locals["self"].optimizer))
        frame = frame.f_back
    return steps + len(named) <= 1
