"""How a network is trained: the recipe, as plain values that can be hashed, printed and compared."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from winticket.limits import RECIPE, check
from winticket.train.precision import Precision

Optimizer = Literal["sgd", "adam", "adamw"]
Schedule = Literal["constant", "step", "cosine"]
Stacking = Literal["auto", "stacked", "one by one"]

EARLY_SHARE = 6
"""Early points at step s are s / EARLY_SHARE apart, so their number grows with the logarithm of the length."""

ADDED: Mapping[str, object] = {"clip_norm": None}
"""Fields that came after results were stored, with the default that trains as before: keys leave that default out."""

BF16_REVISION = 2
"""Raised when numbers of trainings in bf16 change; 2: layers on sparse kernels compute in float32."""


@dataclass(frozen=True)
class Recipe:
    """How one training runs: optimiser, schedule, length, evaluation grid, augmentation.

    `steps`, `warmup` and `evaluate_every` count optimiser steps. `milestones` are fractions of `steps`, so a recipe
    of twice the length keeps its shape. `crop` is the padding of the random crop in pixels (0: no crop). Curves have
    a point every `evaluate_every` steps and, with `early_points`, more points early in training, when networks learn
    fastest; see `grid`. `warmup` raises the learning rate linearly to `lr` over that many steps, as in Frankle &
    Carbin 2019, §5. `precision` applies to a step's forward and backward pass: bf16 rounds as `torch.autocast` does,
    but for layers on the sparse kernels; tf32 uses the products of an NVIDIA GPU. Weights, updates and evaluation are
    float32 in each. `clip_norm` scales the gradient of a
    step down to that norm if it is larger (Pascanu et al. 2013), for each replicate by itself; pruned weights do not
    count.

    Raises TypeError or ValueError for a value of the wrong type or out of range, and for options that contradict one
    another.

    >>> Recipe(steps=100, lr=0.1, warmup=4).rate(0)
    0.025
    >>> Recipe(steps=100, momentum=0.9)
    Traceback (most recent call last):
    ValueError: momentum and nesterov belong to sgd; adam has its own moments
    """

    steps: int
    batch: int = 60
    optimizer: Optimizer = "adam"
    lr: float = 1.2e-3
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    schedule: Schedule = "constant"
    milestones: tuple[float, ...] = (0.5, 0.75)
    gamma: float = 0.1
    warmup: int = 0
    evaluate_every: int = 100
    early_points: bool = True
    flip: bool = False
    crop: int = 0
    stacking: Stacking = "auto"
    precision: Precision = "float32"
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        check(RECIPE, {name: getattr(self, name) for name in RECIPE})
        for name in ("nesterov", "flip", "early_points"):
            if not isinstance(getattr(self, name), bool):  # the text "False" would count as true
                raise TypeError(f"{name} is {getattr(self, name)!r}; it is True or False")
        for name, kinds in (
            ("optimizer", Optimizer),
            ("schedule", Schedule),
            ("stacking", Stacking),
            ("precision", Precision),
        ):
            value = getattr(self, name)
            if value not in get_args(kinds):
                raise ValueError(f"{name} is {value!r}; possible: {', '.join(get_args(kinds))}")
        if self.optimizer != "sgd" and (self.momentum or self.nesterov):
            raise ValueError(f"momentum and nesterov belong to sgd; {self.optimizer} has its own moments")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")
        if any(not 0 < m < 1 for m in self.milestones) or list(self.milestones) != sorted(self.milestones):
            raise ValueError(
                f"milestones are {self.milestones}; give rising fractions of the training in (0, 1)"
            )
        if self.warmup >= self.steps and self.warmup:
            raise ValueError(
                f"warmup of {self.warmup} steps does not end within the {self.steps} steps of training"
            )

    def key_fields(self) -> dict[str, Any]:
        """What keys hold: every field, but for those of `ADDED` that are at their defaults; in bf16 its REVISION."""
        known = {f.name: getattr(self, f.name) for f in fields(self)}
        kept = {name: value for name, value in known.items() if name not in ADDED or value != ADDED[name]}
        return {**kept, "bf16": BF16_REVISION} if self.precision == "bf16" else kept

    def rate(self, step: int) -> float:
        """The learning rate of step number `step`, counted from 0."""
        rise = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        if self.schedule == "cosine":
            return self.lr * rise * 0.5 * (1 + math.cos(math.pi * step / self.steps))
        if self.schedule == "step":
            passed = sum(step >= round(m * self.steps) for m in self.milestones)
            return self.lr * rise * self.gamma**passed
        return self.lr * rise

    def settled(self) -> Recipe:
        """This recipe with the learning rate of its last step at every step."""
        return replace(self, schedule="constant", warmup=0, lr=self.rate(self.steps - 1))

    def regular(self, start: int = 0) -> list[int]:
        """The steps that evaluate all validation data: `start`, the multiples of `evaluate_every`, and the last."""
        every = self.evaluate_every
        return sorted({start, *range((start // every + 1) * every, self.steps, every), self.steps})

    def grid(self, start: int = 0) -> list[int]:
        """The steps at which the curves have a point: the regular ones and, early in training, others between them.

        Early points at step s are s/6 apart (at least one step): 1 to 12, 14, 16, 18, 21, 24, 28, ... They end once
        they are `evaluate_every` apart. So the step at which, say, an accuracy is first reached is known to within a
        sixth of that step or to within `evaluate_every`, whichever is less.

        >>> Recipe(steps=60, evaluate_every=5).grid()[11:]
        [11, 12, 14, 15, 16, 18, 20, 21, 24, 25, 28, 30, 32, 35, 40, 45, 50, 55, 60]
        """
        points = set(self.regular(start))
        step = 1
        while self.early_points and step < self.steps:
            if step > start:
                points.add(step)
            apart = max(1, step // EARLY_SHARE)
            if apart >= self.evaluate_every:
                break
            step += apart
        return sorted(points)
