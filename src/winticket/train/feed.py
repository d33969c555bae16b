"""Batches of every replicate in its own order: plain indexing, a stretch of steps at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from winticket.sparse import batch_last
from winticket.ticket import Ticket
from winticket.train.recipe import Recipe


class Part(Protocol):
    """Examples x [N, ...] and classes y [N], or y [N, T] where T answers are wanted of each, as of text.

    With a leading dimension for the stack where each replicate has data of its own.
    """

    @property
    def x(self) -> Tensor: ...
    @property
    def y(self) -> Tensor: ...


class Data(Protocol):
    """What training needs of a dataset."""

    @property
    def train(self) -> Part: ...
    @property
    def validation(self) -> Part: ...
    @property
    def test(self) -> Part: ...


class Order(Protocol):
    """Where examples come from, as pure functions of a seed and an epoch; see `winticket.data`."""

    def permutation(self, count: int, *, seed: int, epoch: int) -> Tensor: ...
    def augmentation(
        self, count: int, *, seed: int, epoch: int, flip: bool, crop: int
    ) -> tuple[Any, Any]: ...
    def augment(self, x: Tensor, *, flip: Any, shift: Any, pad: int) -> Tensor: ...


Drawn = tuple[Tensor | None, Tensor | None]
"""Flips and shifts of consecutive examples."""


class Feed:
    """The training batches of a stack. ValueError where a batch is larger than the training set.

    With `own`, each replicate has a set of its own, under a leading dimension.
    """

    def __init__(
        self, part: Part, order: Order, tickets: Sequence[Ticket], recipe: Recipe, *, own: bool = False
    ) -> None:
        self.count = part.y.shape[1 if own else 0]
        if recipe.batch > self.count:
            raise ValueError(f"batch {recipe.batch} is larger than the training set of {self.count} examples")
        if own and len(part.y) != len(tickets):
            raise ValueError(f"{len(part.y)} training sets for {len(tickets)} replicates")
        self.x, self.y = (part.x.flatten(0, 1), part.y.flatten(0, 1)) if own else (part.x, part.y)
        self.flat = self.x.flatten(1)
        self.offsets = [r * self.count if own else 0 for r in range(len(tickets))]
        self.order, self.recipe = order, recipe
        self.seeds = [t.seeds.derive("order") for t in tickets]
        self.augment_seeds = [t.seeds.derive("augment") for t in tickets]
        self.noise = tickets[0].seeds.derive("dropout")
        self.augmented = recipe.flip or recipe.crop > 0
        # An early grid cuts an epoch into many stretches, and sorting it anew for each would cost more than they do.
        self.drawn: dict[tuple[str, int, int], Any] = {}

    def stretch(self, first: int, last: int) -> tuple[Tensor, list[Drawn]]:
        """Indices [last - first, S, B] of the steps first..last-1, and each replicate's augmentation of them all."""
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

        x `laid` batch-last is [S, B, features].
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
    """Flips and shifts one after another, `cut` out of them; None where none were drawn."""
    flips = [f for f, _ in parts if f is not None]
    shifts = [s for _, s in parts if s is not None]
    return (
        torch.cat(flips)[cut].to(device) if flips else None,
        torch.cat(shifts)[cut].to(device) if shifts else None,
    )
