"""The straight line between two networks of one architecture: losses and errors on it, and how high they rise."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from winticket.analyse.networks import BATCH, last, outputs, parts
from winticket.stages import Setup
from winticket.ticket import Trajectory
from winticket.ticket.mask import same_layers

REVISION = 1

REFRESHED = 2000
"""Training examples from which BatchNorm's statistics are recomputed at every point of a line."""
_BATCHNORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True)
class Barrier:
    """The straight line between two networks.

    alphas         positions on the line, from 0 (the first network) to 1 (the second)
    losses, errors mean cross-entropy, and share of wrong answers, at each
    """

    alphas: tuple[float, ...]
    losses: tuple[float, ...]
    errors: tuple[float, ...]

    @property
    def error(self) -> float:
        """The error barrier: the highest error on the line less the mean error of its ends; 0 or more."""
        return _height(self.errors)

    @property
    def loss(self) -> float:
        """The loss barrier, likewise."""
        return _height(self.losses)


def _height(values: Sequence[float]) -> float:
    # The line includes its ends, so the highest value is at least their mean; rounding of the mean may hide that.
    return max(0.0, max(values) - (values[0] + values[-1]) / 2)


def barrier(
    model_a: nn.Module,
    model_b: nn.Module,
    data: tuple[Tensor, Tensor],
    *,
    points: int = 11,
    train: Tensor | None = None,
) -> Barrier:
    """The error and loss barrier on the straight line between two trained networks of one architecture.

    data    examples x [N, ...] and classes y [N], or [N, T] for T answers an example
    points  positions on the line, ends included
    train   training examples, from which BatchNorm's statistics are recomputed at every point; needed if the networks
            have BatchNorm layers with running statistics, whose interpolation would mean nothing

    Frankle, Dziugaite, Roy & Carbin 2020, section 2: the error barrier height is the highest error on the line less the
    mean of the ends'. Raises ValueError if the networks' parameters differ in names or shapes, for fewer than two
    points, or if `train` is needed and missing.

    >>> import torch
    >>> model = torch.nn.Linear(3, 2)
    >>> barrier(model, model, (torch.randn(8, 3), torch.zeros(8, dtype=torch.int64))).error
    0.0
    """
    if points < 2:
        raise ValueError(f"points is {points}; a line has at least its two ends")
    a, b = ({n: p.detach() for n, p in m.named_parameters()} for m in (model_a, model_b))
    same_layers("the two networks", a, b)
    if train is None and _has_statistics(model_a):
        raise ValueError("the networks have BatchNorm layers, so pass training examples: train=x")
    buffers = {n: v.detach() for n, v in model_a.named_buffers()}
    return line(model_a, (a, b), buffers, *data, points=points, train=train)


def line(
    module: nn.Module,
    ends: tuple[Mapping[str, Tensor], Mapping[str, Tensor]],
    buffers: Mapping[str, Tensor],
    x: Tensor,
    y: Tensor,
    *,
    points: int,
    train: Tensor | None = None,
) -> Barrier:
    """The line between two sets of weights by name, in the computation of `module`; see `barrier`."""
    alphas = [n / (points - 1) for n in range(points)]
    losses, errors = [], []
    for alpha in alphas:
        weights = {name: torch.lerp(value, ends[1][name], alpha) for name, value in ends[0].items()}
        there = buffers if train is None else refreshed(module, weights, buffers, train)
        logits = outputs(module, weights, there, x).flatten(0, -2)
        answers = y.flatten()
        losses.append(float(nn.functional.cross_entropy(logits.double(), answers)))
        errors.append(float((logits.argmax(-1) != answers).double().mean()))
    return Barrier(tuple(alphas), tuple(losses), tuple(errors))


def _has_statistics(module: nn.Module) -> bool:
    return any(isinstance(m, _BATCHNORM) and m.running_mean is not None for m in module.modules())


@torch.no_grad()
def refreshed(
    module: nn.Module, weights: Mapping[str, Tensor], buffers: Mapping[str, Tensor], x: Tensor
) -> dict[str, Tensor]:
    """The buffers with BatchNorm's running statistics recomputed: their mean over batches of examples x [N, ...].

    Each batch counts alike. Other layers, such as dropout, compute as in evaluation.
    """
    if not _has_statistics(module):
        return dict(buffers)
    fresh = copy.deepcopy(module).eval()
    fresh.load_state_dict({**weights, **buffers}, strict=False)
    for one in fresh.modules():
        if isinstance(one, _BATCHNORM) and one.running_mean is not None:
            one.reset_running_stats()
            one.momentum = None  # a cumulative mean
            one.train()
    for batch in torch.split(x, BATCH):
        if len(batch) > 1:
            fresh(batch)
    return {name: value.detach().clone() for name, value in fresh.named_buffers()}


def between(setup: Setup, path: Trajectory, other: Trajectory, *, points: int) -> Barrier:
    """The line between the ends of two trainings of one replicate, on its test data."""
    number = path.ticket.seeds.replicate
    examples = parts(setup, number)
    ends = last(path), last(other)
    module = setup.module()
    train = examples.train.x[:REFRESHED] if _has_statistics(module) else None
    test = examples.test
    return line(
        module,
        (ends[0].weights, ends[1].weights),
        ends[0].buffers,
        test.x,
        test.y,
        points=points,
        train=train,
    )
