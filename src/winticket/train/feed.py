"""Batches for every replicate, each in its own order: plain indexing, a stretch of steps at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from winticket.sparse import batch_last
from winticket.ticket import Ticket
from winticket.train.recipe import Recipe


class Part(Protocol):
    """Examples x [N, ...] and classes y [N], or y [N, T] if each example has T answers, as text has.

    Both have a leading dimension for the stack if each replicate has its own data.
    """

    @property
    def x(self) -> Tensor: ...
    @property
    def y(self) -> Tensor: ...


class Data(Protocol):
    """The parts of a dataset that training reads."""

    @property
    def train(self) -> Part: ...
    @property
    def validation(self) -> Part: ...
    @property
    def test(self) -> Part: ...


class Order(Protocol):
    """The order and augmentation of examples, as pure functions of a seed and an epoch; see `winticket.data`."""

    def permutation(self, count: int, *, seed: int, epoch: int) -> Tensor: ...
    def augmentation(
        self, count: int, *, seed: int, epoch: int, flip: bool, crop: int
    ) -> tuple[Any, Any]: ...
    def augment(self, x: Tensor, *, flip: Any, shift: Any, pad: int) -> Tensor: ...


Drawn = tuple[Tensor | None, Tensor | None]
"""Flips and shifts of consecutive examples."""


class Feed:
    """The training batches of a stack.

    With `per_replicate`, each replicate has its own training set, under a leading dimension. Raises ValueError if a
    batch is larger than the training set, or if there are not as many training sets as replicates.
    """

    def __init__(
        self,
        part: Part,
        order: Order,
        tickets: Sequence[Ticket],
        recipe: Recipe,
        *,
        per_replicate: bool = False,
    ) -> None:
        self.count = part.y.shape[1 if per_replicate else 0]
        if recipe.batch > self.count:
            raise ValueError(f"batch {recipe.batch} is larger than the training set of {self.count} examples")
        if per_replicate and len(part.y) != len(tickets):
            raise ValueError(f"{len(part.y)} training sets for {len(tickets)} replicates")
        self.x, self.y = (part.x.flatten(0, 1), part.y.flatten(0, 1)) if per_replicate else (part.x, part.y)
        self.flat = self.x.flatten(1)
        self.offsets = [r * self.count if per_replicate else 0 for r in range(len(tickets))]
        self.order, self.recipe = order, recipe
        self.seeds = [t.seeds.derive("order") for t in tickets]
        self.augment_seeds = [t.seeds.derive("augment") for t in tickets]
        self.noise = tickets[0].seeds.derive("dropout")
        self.augmented = recipe.flip or recipe.crop > 0
        # Early grid points cut an epoch into many stretches; sorting it again for each would cost more than they do.
        self.drawn: dict[tuple[str, int, int], Any] = {}

    def stretch(self, first: int, last: int) -> tuple[Tensor, list[Drawn]]:
        """Example indices [last - first, S, B] of steps first to last - 1, and each replicate's augmentations."""
        begin, end = first * self.recipe.batch, last * self.recipe.batch
        epochs = range(begin // self.count, (end - 1) // self.count + 1)
        cut = slice(begin - epochs[0] * self.count, end - epochs[0] * self.count)
        rows = [
            torch.cat([self._permutation(seed, e) for e in epochs])[cut] + offset
            for seed, offset in zip(self.seeds, self.offsets, strict=True)
        ]
        by_step = torch.stack(rows).view(len(rows), -1, self.recipe.batch).transpose(0, 1).contiguous()
        drawn = self._augmentations(epochs, cut) if self.augmented else []
        self.drawn = {key: value for key, value in self.drawn.items() if key[2] >= epochs[-1]}
        return by_step.to(self.x.device), drawn

    def _permutation(self, seed: int, epoch: int) -> Tensor:
        key = ("order", seed, epoch)
        if key not in self.drawn:
            self.drawn[key] = self.order.permutation(self.count, seed=seed, epoch=epoch)
        order: Tensor = self.drawn[key]
        return order

    def _augmentations(self, epochs: range, cut: slice) -> list[Drawn]:
        return [
            _joined([self._augmentation(seed, e) for e in epochs], cut, self.x.device)
            for seed in self.augment_seeds
        ]

    def _augmentation(self, seed: int, epoch: int) -> Drawn:
        key, recipe = ("augment", seed, epoch), self.recipe
        if key not in self.drawn:
            self.drawn[key] = self.order.augmentation(
                self.count, seed=seed, epoch=epoch, flip=recipe.flip, crop=recipe.crop
            )
        flip_and_shift: Drawn = self.drawn[key]
        return flip_and_shift

    def batch(
        self, rows: Tensor, drawn: list[Drawn], at: int, *, laid: bool = False
    ) -> tuple[Tensor, Tensor]:
        """x [S, B, ...] and y [S, B] or [S, B, T] of the `at`-th step of a stretch.

        If `laid`, x is [S, B, features] with the batch innermost in memory, as `sparse.batch_last` lays it out.
        """
        chosen = rows[at]
        flat = chosen.view(-1)
        y = self.y.index_select(0, flat).view(*chosen.shape, *self.y.shape[1:])
        if laid and not drawn:
            return batch_last(self.flat, chosen), y
        x = self.x.index_select(0, flat)
        if drawn:
            of_step = slice(at * self.recipe.batch, (at + 1) * self.recipe.batch)
            step = [(None if f is None else f[of_step], None if s is None else s[of_step]) for f, s in drawn]
            flip, shift = _joined(step, slice(None), self.x.device)
            x = self.order.augment(x, flip=flip, shift=shift, pad=self.recipe.crop)
        x = x.view(*chosen.shape, *x.shape[1:])
        return batch_last(x.flatten(2)) if laid else x, y


def _joined(parts: Sequence[Drawn], cut: slice, device: torch.device) -> Drawn:
    """The `cut` of all flips and of all shifts, each joined end to end; None if there are none."""
    flips = [f for f, _ in parts if f is not None]
    shifts = [s for _, s in parts if s is not None]
    return (
        torch.cat(flips)[cut].to(device) if flips else None,
        torch.cat(shifts)[cut].to(device) if shifts else None,
    )
