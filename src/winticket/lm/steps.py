"""The steps of a tuning: AdamW on the next token of windows of text, at a rate that falls by a half cosine."""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor, nn
from torch.nn import functional

from winticket.lm.pruning import Say


def descend(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    windows: Tensor,
    *,
    batch: int,
    rate: float,
    say: Say,
    what: str = "Step",
) -> None:
    """Train in place, one step for each `batch` of the windows [samples, length] in their order.

    The rate falls from `rate` to 0 by a half cosine, and gradients are clipped to a norm of 1. Raises ValueError if the
    loss is not finite.
    """
    steps, began = len(windows) // batch, time.monotonic()
    model.train()
    for step in range(steps):
        some = windows[step * batch : (step + 1) * batch]
        for group in optimizer.param_groups:
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.zero_grad()
        logits = model(input_ids=some, use_cache=False).logits[:, :-1]
        loss = functional.cross_entropy(logits.flatten(0, 1), some[:, 1:].flatten())
        if not bool(loss.isfinite()):
            raise ValueError(f"the loss is {float(loss)} at step {step}; give a smaller --lr than {rate:g}")
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(
            [p for group in optimizer.param_groups for p in group["params"]], max_norm=1.0
        )
        optimizer.step()
        passed = time.monotonic() - began
        say(
            f"{what} {step + 1} of {steps}, loss {float(loss.detach()):.3f}",
            passed / (step + 1) * (steps - step - 1),
        )
