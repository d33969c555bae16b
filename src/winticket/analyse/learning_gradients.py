"""What gradient a ticket's weights meet at the start of training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from winticket.analyse.facts import (
    Cells,
    Lines,
    NothingToAnalyseError,
    analysis,
    part,
    present,
    setup_of,
    together,
)
from winticket.analyse.learning_said import gradients_says
from winticket.analyse.networks import batch_statistics, drawn_examples, parts
from winticket.run import Task
from winticket.stages import Setup
from winticket.table import Table
from winticket.ticket import Failed, Mask, Trajectory

REVISION = 2

EXAMPLES = 1000
"""Training examples of which the gradient at the start is the mean."""


def gradient_norm(
    module: torch.nn.Module, values: Mapping[str, Tensor], x: Tensor, y: Tensor, mask: Mask
) -> float:
    """The length of the gradient of the mean cross-entropy on examples x, y [N] by the weights that the mask keeps.

    values: the network's weights and buffers by name. Evci, Ioannou, Keskin & Dauphin 2022 (Gradient Flow in Sparse
    Neural Networks and How Lottery Tickets Win), whose gradient flow is its square, as in Wang, Zhang & Grosse 2020
    (GraSP). BatchNorm takes the statistics of these examples, as training takes those of a batch; dropout is off. The
    module is not changed.

    >>> from winticket import Mask
    >>> module = torch.nn.Linear(2, 2, bias=False)
    >>> mask = Mask({"weight": torch.ones(2, 2, dtype=torch.bool)})
    >>> x, y = torch.tensor([[2.0, 0.0]]), torch.tensor([0])
    >>> round(gradient_norm(module, {"weight": torch.zeros(2, 2)}, x, y, mask), 4)  # |(p - onehot) x|
    1.4142
    """
    leaves = {name: values[name].detach().clone().requires_grad_() for name in mask.keep}
    others = {name: value.detach().clone() for name, value in values.items() if name not in leaves}
    with batch_statistics(module), torch.enable_grad():
        logits = functional_call(module, {**others, **leaves}, (x,))
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, -2), y.flatten())
        slopes = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
    squares = [g[k].double().square().sum() for g, k in zip(slopes, mask.keep.values(), strict=True)]
    return math.sqrt(float(sum(squares)))


GRADIENTS = {
    "level": "number of the level; 0 is the dense network",
    "density": "share of the eligible weights kept",
    "arm": "whose start",
    "replicate": "number of the replicate, from 1",
    "gradient_norm": f"length of the gradient of the mean loss of {EXAMPLES} training examples, by the kept weights",
    "per_weight": "the same as a root mean square over the kept weights, whose number it does not grow with",
}


def gradients_of_stack(
    setup: Setup, stack: Sequence[Trajectory | Failed], *, place: tuple[int, float, str]
) -> Table:
    """The gradient norm at the start of each training of a stack; `place` is its level, density and arm."""
    rows: list[tuple[Any, ...]] = []
    for number, path in present(stack):
        start, mask = path.ticket.start, path.ticket.mask
        seen = drawn_examples(parts(setup, number).train, path.ticket.seeds, EXAMPLES)
        values = {**mask.apply(start.weights), **start.buffers}
        norm = gradient_norm(setup.module(), values, seen.x, seen.y, mask)
        rows.append((*place, number + 1, norm, norm / math.sqrt(max(mask.count(), 1))))
    return Table(tuple(GRADIENTS), tuple(rows))


@analysis(
    "gradients",
    answers="classes",
    title="Does a ticket start with a better gradient?",
    source="Evci, Ioannou, Keskin & Dauphin 2022 (Gradient Flow in Sparse Neural Networks and How Lottery Tickets Win)",
    says=gradients_says,
    lines=(
        Lines(
            x="density", y="gradient_norm", series="arm", x_label="weights kept",
            y_label="length of the gradient at the start", y_log=True,
        ),
    ),
    columns=GRADIENTS,
)  # fmt: skip
def gradients(cells: Cells, *, replicates: int = 5, levels: int = 8) -> Task:
    """Measures the gradient of the loss by the kept weights at the start of training, for tickets and controls."""
    tasks = [
        part(
            gradients_of_stack,
            setup_of(stack),
            stack,
            name="gradients",
            place=(level, cells.densities[level], arm),
        )
        for arm in ("dense", "ticket", "reinit", "random")
        for level in cells.chosen_levels(arm, levels)
        for stack in cells.stacks(level, arm, replicates=replicates)
    ]
    if not tasks:
        raise NothingToAnalyseError("no training has finished")
    return together(tasks, name="gradients")
