"""A few steps of training on noise: does the network train, and how long does a step take?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from winticket import data, objective
from winticket.stages.setup import Setup
from winticket.stages.training import device
from winticket.ticket import Failed, Ticket, Trajectory
from winticket.train import Engine, train


def trial(
    setup: Setup, stack: Sequence[Ticket], *, steps: int, engine: Engine = "auto"
) -> tuple[Trajectory | Failed, ...]:
    """A training of `steps` steps on noise, with the recipe's batch size and optimiser."""
    recipe = replace(setup.recipe, steps=steps, evaluate_every=steps, early_points=False, warmup=0)
    rows = recipe.batch
    generator = torch.Generator().manual_seed(0)
    if setup.tokens:
        x = torch.randint(setup.classes, (rows, *setup.input_shape), generator=generator)
        some = data.Split(x, x.roll(-1, 1))
    else:
        noise = torch.rand(rows, *setup.input_shape, generator=generator)
        task = setup.objective.task if setup.objective else "classification"
        some = data.Split(noise, objective.noise_targets(task, rows, setup.classes, setup.input_shape))
    few = data.Split(some.x[:1], some.y[:1])
    return train(
        setup.module(),
        _Noise(some, few, few),
        data,
        stack,
        recipe,
        device=device(),
        engine=engine,
        objective=setup.loss_and_metric(),
    )


@dataclass(frozen=True)
class _Noise:
    train: data.Split
    validation: data.Split
    test: data.Split
