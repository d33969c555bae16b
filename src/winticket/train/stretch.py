"""The hot loop: consecutive steps of a stack, as one call of a compiled chain or operator by operator."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from winticket.sparse import multiplies
from winticket.train import stacked
from winticket.train.chain import AT_ONCE, Chain, begin_chain
from winticket.train.feed import Drawn, Feed
from winticket.train.onepass import supported
from winticket.train.precision import matrix_products
from winticket.train.running import Training
from winticket.train.step import Step

Report = Callable[[int, int], None]
"""Called with the steps done and the steps of the recipe."""


PAUSE_SECONDS = 1.0
"""A stretch of steps that take so long in all may end early, so that the training can be checkpointed."""


def stretch(
    training: Training, feed: Feed, stop: int, report: Report | None, *, pauses: bool = False
) -> None:
    """Take the steps up to `stop` in place, and note their losses; with `pauses`, only those of the next second.

    At least one step is taken. No number depends on where a stretch ends.
    """
    first = training.step
    rows, drawn = feed.stretch(first, stop)
    training.module.train()
    if training.update is None:
        training.update = _update(training, feed, rows, drawn)
        if not feed.augmented:
            training.chain = begin_chain(training.update, training.module, feed.flat, feed.y, rows[:1])
    if training.chain:
        losses = _chained(training.chain, training, feed, rows, report=report)
    else:
        losses = _step_by_step(training.update, training, feed, rows, drawn, report=report, pauses=pauses)
    training.step = first + len(losses)
    training.losses[first - training.start : training.step - training.start] = torch.stack(losses)


def _update(training: Training, feed: Feed, rows: Tensor, drawn: list[Drawn]) -> Step:
    """How this stack takes a step, from the shapes of its first batch."""
    recipe, module, device = training.recipe, training.module, training.losses.device
    x, y = (t.to(device) for t in feed.batch(rows, drawn, 0))
    x = stacked.channels_last(module, x, recipe.stacking)
    buffers = training.all_buffers
    # A learned mask makes its weights anew at every step, and clipping scales gradients in float32.
    copies = not training.supermask and supported(list(training.weights.values()))
    lifted = stacked.gradients(
        module,
        training.weights,
        buffers,
        x,
        y,
        how=recipe.stacking,
        objective=training.settings.objective,
        precision=recipe.precision,
        copies=copies,
        halves=copies and recipe.clip_norm is None,
        factors=recipe.precision == "bf16" and multiplies(),
    )
    return Step(
        lifted,
        training.weights,
        buffers=buffers,
        masks=training.masks,
        optimizer=training.optimizer,
        recipe=recipe,
        supermask=training.supermask,
    )


def _chained(
    chain: Chain,
    training: Training,
    feed: Feed,
    rows: Tensor,
    *,
    report: Report | None,
) -> list[Tensor]:
    """The losses [S] of each step on the batches `rows` [T, S, B], several steps to a call."""
    first, recipe, losses = training.step, training.recipe, list[Tensor]()
    for at in range(0, len(rows), AT_ONCE):
        chosen = rows[at : at + AT_ONCE]
        rates = [recipe.rate(first + at + t) for t in range(len(chosen))]
        losses.extend(chain(feed.flat, feed.y, chosen, rates))
        if report:
            report(first + len(losses), recipe.steps)
    return losses


def _step_by_step(
    update: Step,
    training: Training,
    feed: Feed,
    rows: Tensor,
    drawn: list[Drawn],
    *,
    report: Report | None,
    pauses: bool,
) -> list[Tensor]:
    """The losses [S] of each step on the batches `rows` [T, S, B], or with `pauses` of the steps of a second."""
    begun = time.monotonic()
    first, recipe, device, lifted = training.step, training.recipe, training.losses.device, update.lifted
    seed_noise = torch.cuda.manual_seed if device.type == "cuda" else torch.default_generator.manual_seed
    losses: list[Tensor] = []
    with torch.inference_mode() if lifted.traced else torch.no_grad(), matrix_products(recipe.precision):
        for at in range(len(rows)):
            x, y = (t.to(device) for t in feed.batch(rows, drawn, at, laid=lifted.batch_last))
            if not lifted.stacked:
                x = stacked.channels_last(training.module, x, recipe.stacking)
            # Dropout's noise is a function of the step alone, so a training that resumes or rewinds repeats it.
            seed_noise(feed.noise + first + at)
            losses.append(update(x, y, recipe.rate(first + at)))
            if report:
                report(first + at + 1, recipe.steps)
            if pauses and time.monotonic() - begun > PAUSE_SECONDS:
                break
    return losses
