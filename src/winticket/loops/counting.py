"""Which optimiser steps are updates of a model."""

from __future__ import annotations

import sys
from types import FrameType

import torch
from torch import nn

from winticket.loops.hooks import Followed
from winticket.loops.wrapped import bare

# The wrapper that torch.optim.Optimizer puts around the `step` of every subclass; it calls the hooks.
_STEP = torch.optim.Optimizer.profile_hook_step(lambda: None).__code__
_FOLLOWED = Followed.__call__.__code__


def updates(optimizer: torch.optim.Optimizer, model: nn.Module) -> bool:
    """True if the optimiser has a parameter of the model."""
    ids = {id(p) for p in bare(model).parameters()}
    return any(id(p) in ids for group in optimizer.param_groups for p in group["params"])


def is_update(optimizer: torch.optim.Optimizer, model: nn.Module) -> bool:
    """True if this step updated `model`: not nested in another optimiser's step and not skipped by a GradScaler.

    Call it from the optimiser's step hook. A GradScaler calls fused optimisers in any case; they skip the step
    themselves.
    """
    overflow = getattr(optimizer, "found_inf", None)
    return updates(optimizer, model) and not (overflow is not None and bool(overflow)) and outermost(model)


def outermost(model: nn.Module) -> bool:
    """True if the step whose hook calls this is not part of another step, as when one optimiser wraps another.

    Read off the call stack: a counter of steps begun would be wrong after a step that raised.
    """
    followed, steps = set(), 0
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code is _STEP:
            steps += updates(frame.f_locals["self"], model)
        elif frame.f_code is _FOLLOWED:  # several blocks may follow one optimiser
            followed.add(id(frame.f_locals["self"].optimizer))
        frame = frame.f_back
    return steps + len(followed) <= 1
