"""A chain of sparse Linear layers with ReLUs between them, trained and scored by one call for many steps.

A small network spends more time between its operators than in them, and a stack's tensors do not fit the second-level
cache together. So each replicate is trained by itself, for as many steps as one call is given: gather, forward pass,
cross-entropy, backward pass and the optimiser's update, with nothing between them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from winticket.sparse.native import require
from winticket.sparse.products import address

TILE = 64
"""Examples that are scored at a time: four vectors of the widest instruction set."""
KINDS = {"sgd": 0, "adam": 1, "adamw": 2}


@dataclass(frozen=True)
class Link:
    """One Linear layer of a stack of S replicates; see `Structure` for the indices.

    weight [S, P], bias [S, out] or None; `relu` if a ReLU follows. The others are for training: factors of the bias
    after an update [S, out] (1 or 0), and the optimiser's state, shaped like weight and bias.
    """

    weight: Tensor
    bias: Tensor | None
    start: Tensor
    place: Tensor
    by_column: Tensor
    row_of: Tensor
    order: Tensor
    relu: bool
    keep_bias: Tensor | None = None
    weight_slots: tuple[Tensor, ...] = ()
    bias_slots: tuple[Tensor, ...] = ()

    def tensors(self) -> list[Tensor]:
        """All of them, the five indices first."""
        biases = [t for t in (self.bias, self.keep_bias) if t is not None]
        indices = [self.start, self.place, self.by_column, self.row_of, self.order]
        return [*indices, self.weight, *biases, *self.weight_slots, *self.bias_slots]

    def numbers(self) -> list[int]:
        """What the compiled chain takes: sizes and addresses. TypeError for tensors that it cannot read."""
        for at, t in enumerate(self.tensors()):
            kind = torch.int32 if at < 5 else torch.float32
            if t.dtype != kind or not t.is_contiguous() or t.device.type != "cpu":
                raise TypeError(f"a chain takes contiguous {kind} on the CPU, not {t.dtype} on {t.device}")
        whole = self.tensors()[:5]
        rows, columns = self.start.shape[-1] - 1, self.by_column.shape[-1] - 1
        sizes = (rows, columns, self.weight.shape[-1], self.start.shape[-2], self.by_column.shape[-2])
        slots = [
            address(of[i]) if i < len(of) else 0
            for of in (self.weight_slots, self.bias_slots)
            for i in (0, 1)
        ]
        return [
            *sizes, self.relu, *(t.data_ptr() for t in whole), self.weight.data_ptr(), address(self.bias),
            address(self.keep_bias), *slots,
        ]  # fmt: skip


@dataclass(frozen=True)
class Rule:
    """How an optimiser updates: its `kind` is "sgd", "adam" or "adamw"; the numbers are those of torch.optim."""

    kind: str
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8


def _check(x: Tensor, y: Tensor, links: Sequence[Link]) -> None:
    """Raise unless the compiled chain can read the examples, and the links follow one another."""
    if x.dtype != torch.float32 or y.dtype != torch.int64 or not (x.is_contiguous() and y.is_contiguous()):
        raise TypeError(
            f"a chain takes contiguous float32 inputs and int64 classes, not {x.dtype} and {y.dtype}"
        )
    widths = [(link.start.shape[-1] - 1, link.by_column.shape[-1] - 1) for link in links]
    if any(out != following for (out, _), (_, following) in itertools.pairwise(widths)):
        raise ValueError(f"the layers' (outputs, inputs) do not form a chain: {widths}")
    if len({len(t) for link in links for t in link.tensors()}) > 1:
        raise ValueError(f"layers of different stacks: {[tuple(link.weight.shape) for link in links]}")


def train_links(
    links: Sequence[Link],
    x: Tensor,
    y: Tensor,
    rows: Tensor,
    rates: Tensor,
    *,
    rule: Rule,
    taken: int,
) -> Tensor:
    """Train in place; returns the mean cross-entropy [T, S] before each update.

    x [N, features] and y [N] are the examples, `rows` [T, S, B] (int64) numbers those of each step's batches, and
    `rates` [T] (float64) are the learning rates. `taken` updates precede these. Raises TypeError for other types,
    ValueError if the layers do not follow one another, and IndexError for a row that x does not have.
    """
    _check(x, y, links)
    features = links[0].by_column.shape[-1] - 1
    if x.ndim != 2 or x.shape[1] != features or len(y) != len(x):
        raise ValueError(
            f"{features} inputs and a class for each, but x is {tuple(x.shape)} and y {tuple(y.shape)}"
        )
    steps, stack, batch = rows.shape
    if stack != len(links[0].weight) or len(rates) != steps or rows.dtype != torch.int64:
        raise ValueError(
            f"{len(links[0].weight)} networks and {len(rates)} steps, but batches are {rows.dtype} {tuple(rows.shape)}"
        )
    rows, rates = rows.contiguous(), rates.to(torch.float64).contiguous()
    losses = x.new_empty(steps, stack)
    require().train_chain(
        torch.get_num_threads(), [link.numbers() for link in links], x.data_ptr(), y.data_ptr(), len(x), features,
        links[-1].start.shape[-1] - 1, [steps, stack, batch], rows.data_ptr(), rates.data_ptr(), losses.data_ptr(),
        taken, KINDS[rule.kind], rule.nesterov, [rule.momentum, rule.weight_decay, *rule.betas, rule.eps],
    )  # fmt: skip
    return losses


def tiles(x: Tensor) -> Tensor:
    """Examples x [N, features] as `score_links` reads them: [tiles, features, TILE], the examples innermost.

    >>> tiles(torch.zeros(100, 5)).shape
    torch.Size([2, 5, 64])
    """
    count, features = x.shape
    whole = -(-count // TILE)
    laid = x.new_zeros(whole, features, TILE)
    for number in range(whole):
        part = x[number * TILE : (number + 1) * TILE]
        laid[number, :, : len(part)] = part.T
    return laid


def score_links(links: Sequence[Link], laid: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Summed cross-entropy (float64) and correct answers (int64), [S], on examples from `tiles` of classes y [N]."""
    _check(laid, y, links)
    stack, features = links[0].weight.shape[0], laid.shape[1]
    loss, correct = torch.empty(stack, dtype=torch.float64), torch.empty(stack, dtype=torch.int64)
    require().score_chain(
        torch.get_num_threads(), [link.numbers() for link in links], laid.data_ptr(), y.data_ptr(), len(y), features,
        links[-1].start.shape[-1] - 1, [stack, TILE, TILE], loss.data_ptr(), correct.data_ptr(),
    )  # fmt: skip
    return loss, correct
