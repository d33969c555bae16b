"""The steps of a tuning: AdamW on the next token of windows of text, at a rate that falls by a half cosine."""

from __future__ import annotations

import math
import threading
import time

import torch
from torch import Tensor, nn
from torch.nn import functional

from winticket.interrupts import first_interrupt
from winticket.lm.checkpoints import Checkpoints
from winticket.lm.progress import Say


def descend(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    windows: Tensor,
    *,
    batch: int,
    rate: float,
    say: Say,
    kept: Checkpoints,
    what: str = "Step",
) -> None:
    """Train in place, one step for each `batch` of the windows [samples, length] in their order.

    The rate falls from `rate` to 0 by a half cosine, and gradients are clipped to a norm of 1. Training goes on from
    the checkpoint of the phase `what`, if there is one, and saves others. The first Ctrl-C lets the step end and its
    state be saved, and then raises KeyboardInterrupt; the second raises it at once. Raises FloatingPointError if the
    loss is not finite.
    """
    steps, pressed = len(windows) // batch, threading.Event()
    first, began = kept.restore(what, optimizer), time.monotonic()
    model.train()
    with first_interrupt(pressed, lambda: True):
        for step in range(first, steps):
            for group in optimizer.param_groups:
                group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / steps))
            loss = _step(model, optimizer, windows[step * batch : (step + 1) * batch])
            if not math.isfinite(loss):
                raise FloatingPointError(
                    f"the loss is {loss} at step {step + 1}; give a smaller --lr than {rate:g}, and another --out"
                )
            if pressed.is_set() or kept.due() or step + 1 == steps:
                kept.save(what, step + 1, optimizer)
            if pressed.is_set():
                raise KeyboardInterrupt
            passed = time.monotonic() - began
            say(
                f"{what} {step + 1} of {steps}, loss {loss:.3f}",
                passed / (step + 1 - first) * (steps - step - 1),
            )


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, some: Tensor) -> float:
    """One step on windows [batch, length]; their mean loss before it. Nothing is changed if that is not finite."""
    optimizer.zero_grad()
    logits = model(input_ids=some, use_cache=False).logits[:, :-1]
    loss = functional.cross_entropy(logits.flatten(0, 1), some[:, 1:].flatten())
    if not bool(loss.isfinite()):
        return float(loss.detach())
    torch.autograd.backward(loss)
    torch.nn.utils.clip_grad_norm_(
        [p for group in optimizer.param_groups for p in group["params"]], max_norm=1.0
    )
    optimizer.step()
    return float(loss.detach())
