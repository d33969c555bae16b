"""Training and evaluation of a stack as one call, if its traced computation is nothing but a chain of sparse layers.

The fused trace of a step shows whether it is: sparse Linear layers, each with or without a ReLU, and the cross-entropy.
The compiled chain (`winticket.sparse.chain`) then takes the place of the trace. Its first step is compared with the
same step by the trace; if they differ, the trace stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from winticket.sparse import Link, Names, batch_last, score_links, tiles, train_links
from winticket.train.onepass import rule_of, slots_for
from winticket.train.recipe import Recipe
from winticket.train.step import Step

Tensors = Mapping[str, Tensor]

AT_ONCE = 32
"""Steps of one call: enough that calls cost nothing, few enough that Ctrl-C and the progress bar do not wait."""
NEAR = 0.01
"""Largest distance between an update by the chain and one by the trace, relative to the update."""
_MOST = 1 << 26  # elements of a copy of data that is kept between evaluations


def _link(n: Names, weights: Tensors, buffers: Tensors) -> Link:
    start, place, by_column, row_of, order = (buffers[name] for name in n.indices)
    bias = None if n.bias is None else weights[n.bias]
    return Link(weights[n.weight], bias, start, place, by_column, row_of, order, relu=n.relu)


class Chain:
    """The steps of a stack through the compiled chain, in place of `Step`."""

    def __init__(
        self,
        names: Sequence[Names],
        weights: Tensors,
        *,
        buffers: Tensors,
        masks: Tensors,
        optimizer: torch.optim.Optimizer,
        recipe: Recipe,
    ) -> None:
        slots = {
            name: slots_for(optimizer, weights[name], recipe)
            for n in names
            for name in (n.weight, n.bias)
            if name
        }
        self.links = [
            replace(
                _link(n, weights, buffers),
                keep_bias=masks.get(n.bias or ""),
                weight_slots=slots[n.weight],
                bias_slots=slots[n.bias] if n.bias else (),
            )
            for n in names
        ]
        self.rule = rule_of(optimizer, recipe)
        self.counts = [state["step"] for state in optimizer.state.values() if "step" in state]

    def __call__(self, x: Tensor, y: Tensor, rows: Tensor, rates: Sequence[float]) -> Tensor:
        """Take the steps of batches `rows` [T, S, B] of examples x [N, F], y [N]; returns the losses [T, S]."""
        taken = int(self.counts[0]) if self.counts else 0
        losses = train_links(
            self.links, x, y, rows, torch.tensor(rates, dtype=torch.float64), rule=self.rule, taken=taken
        )
        if self.counts:
            torch._foreach_add_(self.counts, len(rows))
        return losses


_agreed: WeakKeyDictionary[nn.Module, dict[tuple[object, ...], bool]] = WeakKeyDictionary()


def begin_chain(step: Step, module: nn.Module, x: Tensor, y: Tensor, rows: Tensor) -> Chain | None:
    """The chain that takes `step`'s place for examples x [N, F], y [N]; None if there is none, or if they disagree.

    The first time for a module, one step on the batches `rows` [1, S, B] is taken both ways. The stack is left as it
    was.
    """
    names, recipe = step.lifted.chain, step.recipe
    covered = {name for n in names for name in (n.weight, n.bias) if name}
    stack = len(next(iter(step.weights.values())))
    if (
        not names
        or not step.lifted.batch_last
        or covered != set(step.weights)
        or not set(step.mask_of) <= {n.bias for n in names}
        or step.supermask
        or recipe.clip_norm is not None
        or torch.get_num_threads() > stack  # several threads share a replicate in the products themselves
        or not readable(x, y)
    ):
        return None
    chain = Chain(
        names,
        step.weights,
        buffers=step.buffers,
        masks=step.mask_of,
        optimizer=step.optimizer,
        recipe=recipe,
    )
    agreed = _agreed.setdefault(module, {})
    if (key := (names, chain.rule)) not in agreed:
        agreed[key] = _agrees(chain, step, x, y, rows)
    return chain if agreed[key] else None


def _agrees(chain: Chain, step: Step, x: Tensor, y: Tensor, rows: Tensor) -> bool:
    """True if the chain and the trace change weights and optimiser alike in one step."""
    changing = step.changing()
    before = [t.clone() for t in changing]
    rate = step.recipe.lr
    step.eager(batch_last(x, rows[0]), y[rows[0]], rate)
    eager = [t.clone() for t in changing]
    for tensor, value in zip(changing, before, strict=True):
        tensor.copy_(value)
    chain(x, y, rows, [rate])
    alike = _near(eager, changing, before)
    for tensor, value in zip(changing, before, strict=True):
        tensor.copy_(value)
    return alike


def _near(eager: Sequence[Tensor], chained: Sequence[Tensor], before: Sequence[Tensor]) -> bool:
    """True if two ways to take a step changed each tensor alike, measured by the length of the change.

    Single weights may differ by a whole step: Adam's first update is as long for a gradient of 1e-9 as for one of 1.
    """
    return all(
        bool((a - b).norm() <= NEAR * (a - c).norm() + 1e-12)
        for a, b, c in zip(*(map(_finite, tensors) for tensors in (eager, chained, before)), strict=True)
    )


def _finite(x: Tensor) -> Tensor:
    return torch.nan_to_num(x.double(), 0.0, 0.0, 0.0)  # a replicate that has diverged says nothing


def readable(x: Tensor, y: Tensor) -> bool:
    """True if a chain can read these examples x [N, ...] with classes y [N]."""
    return x.dtype == torch.float32 and x.is_contiguous() and y.dtype == torch.int64 and y.ndim == 1


class Laid:
    """Examples as the chain scores them, kept between the evaluations of a training."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, tuple[int, ...]], tuple[Tensor, Tensor]] = {}

    def __call__(self, x: Tensor) -> Tensor:
        key = (x.data_ptr(), tuple(x.shape))
        if key not in self._kept:
            laid = tiles(x.flatten(1))
            if laid.numel() > _MOST:
                return laid
            self._kept[key] = (x, laid)  # x as well: its address stays taken
        return self._kept[key][1]


def score(
    names: Sequence[Names],
    weights: Tensors,
    buffers: Tensors,
    x: Tensor,
    y: Tensor,
    *,
    laid: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """Summed loss (float64) and correct answers, [S], on examples x [N, ...] that all replicates share."""
    return score_links([_link(n, weights, buffers) for n in names], laid(x), y)
