"""The straight line between two networks of one architecture: losses and errors on it, and how high they rise."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from winticket.analyse.networks import BATCH, drawn_examples, last, outputs, parts
from winticket.criteria.losses import IGNORED, by_answer
from winticket.stages import Setup
from winticket.ticket import Trajectory
from winticket.ticket.mask import same_layers

REVISION = 1

REFRESHED = 2000
"""Training examples from which BatchNorm's statistics are recomputed at every point of a line."""
_COUNTER = "num_batches_tracked"

Weights = Mapping[str, Tensor]
Batch = tuple[Tensor, Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]
"""Outputs and targets of a batch -> their mean loss."""


@dataclass(frozen=True)
class Barrier:
    """The straight line between two networks: how loss and error change on it.

    alphas          positions on the line, from 0 (the first network) to 1 (the second)
    losses, errors  mean loss, and share of wrong answers, at each; errors are nan if the targets are no classes

    >>> made = Barrier((0.0, 0.5, 1.0), losses=(1.0, 2.0, 2.0), errors=(0.1, 0.4, 0.3))
    >>> round(made.error, 3), round(made.loss, 3), round(made.error_rise, 3)
    (0.2, 0.5, 0.2)
    """

    alphas: tuple[float, ...]
    losses: tuple[float, ...]
    errors: tuple[float, ...]

    @property
    def error(self) -> float:
        """The error barrier: the highest error on the line less the mean error of its ends; 0 or more.

        Frankle, Dziugaite, Roy & Carbin 2020, section 2. If the ends differ, it is at least half of their difference.
        """
        return _height(self.errors)

    @property
    def loss(self) -> float:
        """The loss barrier, likewise."""
        return _height(self.losses)

    @property
    def error_rise(self) -> float:
        """How far the error rises above the values between those of the ends; 0 or more.

        The largest E(point) - [(1 - α) E(first) + α E(second)], as in Entezari et al. 2022 (The Role of Permutation
        Invariance in Linear Mode Connectivity). If the ends have the same error, it is the error barrier. It is 0 on
        a line that only leads from a good network to a worse one.
        """
        return _rise(self.alphas, self.errors)

    @property
    def loss_rise(self) -> float:
        """How far the loss rises above the values between those of the ends, likewise."""
        return _rise(self.alphas, self.losses)


def _height(values: Sequence[float]) -> float:
    # The line includes its ends, so the highest value is at least their mean; rounding of the mean may hide that.
    return math.nan if math.isnan(sum(values)) else max(0.0, max(values) - (values[0] + values[-1]) / 2)


def _rise(alphas: Sequence[float], values: Sequence[float]) -> float:
    if math.isnan(sum(values)):
        return math.nan
    first, end = values[0], values[-1]
    return max(0.0, *(v - (first + alpha * (end - first)) for alpha, v in zip(alphas, values, strict=True)))


def barrier(
    model_a: nn.Module,
    model_b: nn.Module,
    data: Batch | Iterable[Batch],
    *,
    points: int = 11,
    train: Tensor | Iterable[Tensor | Batch] | None = None,
    loss: Loss | None = None,
) -> Barrier:
    """Loss and error on the straight line between two trained networks of one architecture, and their barriers.

    data    examples and targets: x [N, ...] and y [N], or a loader of such batches; for several answers an example, y
            is [N, ...] and outputs are [N, ..., classes] or [N, classes, ...]
    points  positions on the line, ends included
    train   training examples x [N, ...], or a loader, from which BatchNorm's statistics are recomputed at every point;
            needed if the networks have BatchNorm layers with running statistics, whose interpolation would mean nothing
    loss    outputs and targets of a batch -> mean loss (default: cross-entropy)

    Frankle, Dziugaite, Roy & Carbin 2020 (Linear Mode Connectivity and the Lottery Ticket Hypothesis), section 2; they
    take 30 points. The networks compute in evaluation mode on `model_a`'s device, and do not change. A loader is read
    once. Raises ValueError, before anything is computed, if layers, parameters or buffers of the networks differ, for
    fewer than two points, without examples, or if `train` is needed and missing.

    >>> import torch
    >>> model = torch.nn.Linear(3, 2)
    >>> barrier(model, model, (torch.randn(8, 3), torch.zeros(8, dtype=torch.int64))).error
    0.0
    """
    if points < 2:
        raise ValueError(f"points is {points}; a line has at least its two ends")
    _require_one_architecture(model_a, model_b)
    if train is None and _has_statistics(model_a):
        raise ValueError("the networks have BatchNorm layers, so pass training examples: train=x")
    device = next((p.device for p in model_a.parameters()), torch.device("cpu"))
    (a, a_buffers), (b, b_buffers) = (_tensors(model, device) for model in (model_a, model_b))
    batches = [(x.to(device), y.to(device)) for x, y in _batches(data)]
    seen = None if train is None else torch.cat([x.to(device) for x in _inputs(train)])
    return line(model_a, (a, b), (a_buffers, b_buffers), batches, points=points, train=seen, loss=loss)


def _tensors(model: nn.Module, device: torch.device) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    weights = {name: p.detach().to(device) for name, p in model.named_parameters()}
    return weights, {name: value.detach().to(device) for name, value in model.named_buffers()}


def _batches(data: Batch | Iterable[Batch]) -> list[Batch]:
    if isinstance(data, tuple) and len(data) == 2 and all(isinstance(part, Tensor) for part in data):
        x, y = cast("Batch", data)
        if len(x) != len(y):
            raise ValueError(f"{len(x)} examples and {len(y)} targets; there is one target for each example")
        batches = list(zip(torch.split(x, BATCH), torch.split(y, BATCH), strict=True))
    else:
        batches = [(x, y) for x, y in data]
    if not sum(len(x) for x, _ in batches):
        raise ValueError("data has no examples")
    return batches


def _inputs(train: Tensor | Iterable[Tensor | Batch]) -> list[Tensor]:
    if isinstance(train, Tensor):
        return [train]
    return [batch if isinstance(batch, Tensor) else batch[0] for batch in train]


def _require_one_architecture(one: nn.Module, other: nn.Module) -> None:
    same_layers("the two networks", dict(one.named_parameters()), dict(other.named_parameters()))
    same_layers("the buffers of the two networks", dict(one.named_buffers()), dict(other.named_buffers()))
    kinds, others = ({n: type(m).__name__ for n, m in model.named_modules() if n} for model in (one, other))
    for name in {**kinds, **others}:
        if kinds.get(name) != others.get(name):
            raise ValueError(
                f"the two networks do not compute alike: {name!r} is {kinds.get(name, 'absent')} in the first and "
                f"{others.get(name, 'absent')} in the second, so no network lies between them"
            )
    replaced = _refreshed_names(one)
    for (name, a), b in zip(one.named_buffers(), dict(other.named_buffers()).values(), strict=True):
        if name not in replaced and not a.is_floating_point() and not torch.equal(a, b.to(a.device)):
            raise ValueError(
                f"buffer {name!r} differs between the networks and is {a.dtype}: nothing lies between"
            )


def line(
    module: nn.Module,
    ends: tuple[Weights, Weights],
    buffers: tuple[Weights, Weights],
    batches: Sequence[Batch],
    *,
    points: int,
    train: Tensor | None = None,
    loss: Loss | None = None,
) -> Barrier:
    """The line between two sets of weights and buffers by name, in the computation of `module`; see `barrier`."""
    alphas = [n / (points - 1) for n in range(points)]
    losses, errors = [], []
    for alpha in alphas:
        weights, there = (
            {name: _between(value, pair[1][name], alpha) for name, value in pair[0].items()}
            for pair in (ends, buffers)
        )
        if train is not None:
            there = refreshed(module, weights, there, train)
        mean, wrong = _evaluated(module, weights, there, batches, loss)
        losses.append(mean)
        errors.append(wrong)
    return Barrier(tuple(alphas), tuple(losses), tuple(errors))


def _between(one: Tensor, other: Tensor, alpha: float) -> Tensor:
    # lerp gives the ends exactly, and equal values exactly, so a network's barrier to itself is 0.
    return torch.lerp(one, other, alpha) if one.is_floating_point() else one


@torch.no_grad()
def _evaluated(
    module: nn.Module, weights: Weights, buffers: Weights, batches: Sequence[Batch], loss: Loss | None
) -> tuple[float, float]:
    """Mean loss and share of wrong answers; each answer counts alike."""
    total, wrong, count = 0.0, 0.0, 0
    for x, y in batches:
        logits = outputs(module, weights, buffers, x)
        if loss is not None and (y.is_floating_point() or y.shape == logits.shape):
            total, wrong, count = total + float(loss(logits, y)) * y.numel(), math.nan, count + y.numel()
            continue
        rows, classes = by_answer(logits, y, classes_last=True)
        counted = classes != IGNORED
        answers = int(counted.sum())
        if loss is None:
            total += float(
                nn.functional.cross_entropy(rows[counted].double(), classes[counted], reduction="sum")
            )
        else:
            total += float(loss(logits, y)) * answers
        wrong += int((rows.argmax(-1) != classes)[counted].sum())
        count += answers
    return total / count, wrong / count


def _statistics(module: nn.Module) -> dict[str, nn.modules.batchnorm._BatchNorm]:
    layers = {n: m for n, m in module.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    return {name: layer for name, layer in layers.items() if layer.running_mean is not None}


def _has_statistics(module: nn.Module) -> bool:
    return bool(_statistics(module))


def _refreshed_names(module: nn.Module) -> set[str]:
    prefixes = [f"{name}." if name else "" for name in _statistics(module)]
    return {prefix + kind for prefix in prefixes for kind in ("running_mean", "running_var", _COUNTER)}


@torch.no_grad()
def refreshed(module: nn.Module, weights: Weights, buffers: Weights, x: Tensor) -> dict[str, Tensor]:
    """The buffers with BatchNorm's running statistics recomputed: their mean over batches of examples x [N, ...].

    The batches differ in size by at most one example, and count alike. Other layers, such as dropout, compute as in
    evaluation.
    """
    if not _has_statistics(module):
        return dict(buffers)
    fresh = copy.deepcopy(module).eval()
    fresh.load_state_dict({**weights, **buffers}, strict=False)
    for one in _statistics(fresh).values():
        one.reset_running_stats()
        one.momentum = None  # a cumulative mean
        one.train()
    for batch in x.tensor_split(-(-len(x) // BATCH)):
        fresh(batch)
    return {name: value.detach().clone() for name, value in fresh.named_buffers()}


def between(setup: Setup, path: Trajectory, other: Trajectory, *, points: int) -> Barrier:
    """The line between the ends of two trainings of one replicate, on its test data."""
    seeds, module = path.ticket.seeds, setup.module()
    one, two = last(path), last(other)
    split = parts(setup, seeds.replicate)
    train, test = drawn_examples(split.train, seeds, REFRESHED).x, split.test
    return line(
        module,
        (one.weights, two.weights),
        (one.buffers, two.buffers),
        _batches((test.x, test.y)),
        points=points,
        train=train if _has_statistics(module) else None,
    )
