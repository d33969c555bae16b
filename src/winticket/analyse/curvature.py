"""The curvature of the loss within a mask: the Hessian's largest eigenvalues and its trace."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
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
from winticket.analyse.networks import drawn_examples, last, parts
from winticket.analyse.summary import kept_percent, said, summarised
from winticket.run import Task
from winticket.stages import Setup
from winticket.table import Table
from winticket.ticket import Failed, Mask, Trajectory

REVISION = 2
Vector = NDArray[np.float64]
Loss = Callable[[Tensor, Tensor], Tensor]
DENSE = 64
"""Up to this many weights the whole matrix is made, since Lanczos' method needs more weights than eigenvalues."""


@dataclass(frozen=True)
class Hessian:
    """What is known of a Hessian of the loss, restricted to the weights of a mask.

    eigenvalues  the largest ones, by size of their amount, largest first
    trace        its sum of eigenvalues, by Hutchinson's estimate
    trace_error  the standard error of that estimate over its probes; 0 if the trace is exact
    size         number of weights
    """

    eigenvalues: tuple[float, ...]
    trace: float
    trace_error: float
    size: int


def hessian(
    model: nn.Module,
    data: tuple[Tensor, Tensor],
    *,
    mask: Mask | None = None,
    values: Mapping[str, Tensor] | None = None,
    loss: Loss = nn.functional.cross_entropy,
    count: int = 1,
    probes: int = 20,
    seed: int = 0,
) -> Hessian:
    """The largest eigenvalues and the trace of the Hessian of a network's mean loss, within a mask.

    data    examples x [N, ...] and targets y, as `loss(model(x), y)` takes them
    mask    the weights that count: P H P for the projection P on them; default: all parameters
    values  weights and buffers by name; default: the model's own
    count   eigenvalues, largest amount first, by Lanczos' method (ARPACK)
    probes  random sign vectors of Hutchinson's estimate of the trace (Hutchinson 1990)

    The model computes in evaluation mode and float64, and is not changed. Products with the Hessian are exact
    (Pearlmutter 1994), by differentiating the gradient. ValueError for a count or a number of probes below 1.

    >>> import torch
    >>> line = torch.nn.Linear(2, 1, bias=False)
    >>> x, y = torch.tensor([[3.0, 0.0], [0.0, 1.0]]), torch.zeros(2, 1)
    >>> made = hessian(line, (x, y), loss=torch.nn.functional.mse_loss)  # 2/N XᵀX = diag(9, 1)
    >>> round(made.eigenvalues[0], 6), round(made.trace, 6)
    (9.0, 10.0)
    """
    if count < 1 or probes < 1:
        raise ValueError(f"count is {count} and probes {probes}; both are at least 1")
    own = {n: v.detach() for n, v in (*model.named_parameters(), *model.named_buffers())}
    held = {n: v.double() if v.is_floating_point() else v for n, v in {**own, **(values or {})}.items()}
    keep = (
        mask.keep
        if mask is not None
        else {n: torch.ones_like(p, dtype=torch.bool) for n, p in model.named_parameters()}
    )
    product = _products(model, held, keep, data, loss)
    size = sum(int(k.sum()) for k in keep.values())
    if size <= max(DENSE, count + 1):
        whole = np.stack([product(row) for row in np.eye(size)]) if size else np.zeros((0, 0))
        values_of = np.linalg.eigvalsh((whole + whole.T) / 2)
        top = sorted(values_of.tolist(), key=abs, reverse=True)[:count]
        return Hessian(tuple(top), float(np.trace(whole)), 0.0, size)
    from scipy.sparse.linalg import LinearOperator, eigsh  # They take half a second to import.

    generator = np.random.default_rng(seed)
    operator: Any = LinearOperator((size, size), matvec=product, dtype=np.float64)
    start = generator.standard_normal(size)
    found = eigsh(operator, k=count, which="LM", v0=start, return_eigenvectors=False, tol=1e-3)
    signs = generator.choice([-1.0, 1.0], size=(probes, size))
    traces = [float(sign @ product(sign)) for sign in signs]
    error = float(np.std(traces, ddof=1)) / math.sqrt(probes) if probes > 1 else math.nan
    return Hessian(
        tuple(sorted((float(v) for v in found), key=abs, reverse=True)), float(np.mean(traces)), error, size
    )


def _products(
    model: nn.Module,
    held: Mapping[str, Tensor],
    keep: Mapping[str, Tensor],
    data: tuple[Tensor, Tensor],
    loss: Loss,
) -> Callable[[Vector], Vector]:
    """The function from a vector over the kept weights to its product with the Hessian of the loss by them.

    The gradient's graph is made once; a product is one pass backwards through it.
    """
    x, y = (t.double() if t.is_floating_point() else t for t in data)
    chosen = {name: held[name].clone().requires_grad_() for name in keep}
    was = model.training
    model.eval()
    try:
        with torch.enable_grad():
            answers: Tensor = functional_call(model, {**held, **chosen}, (x,))
            if answers.ndim > 2 and y.ndim == answers.ndim - 1:
                answers, y = answers.flatten(0, -2), y.flatten()
            slopes = torch.autograd.grad(
                loss(answers, y), list(chosen.values()), create_graph=True, materialize_grads=True
            )
            gradient = torch.cat([slope[kept] for slope, kept in zip(slopes, keep.values(), strict=True)])
    finally:
        model.train(was)

    def product(vector: Vector) -> Vector:
        along = torch.from_numpy(np.array(vector, np.float64).ravel())
        if not gradient.requires_grad:  # the loss is linear in these weights
            return np.zeros(len(along))
        made = torch.autograd.grad(
            gradient, list(chosen.values()), along, retain_graph=True, materialize_grads=True
        )
        return np.concatenate([m[kept].numpy() for m, kept in zip(made, keep.values(), strict=True)])

    return product


CURVATURE = {
    "level": "number of the level; 0 is the dense network",
    "density": "share of the eligible weights kept",
    "arm": "whose network",
    "when": "at the start or at the end of training",
    "replicate": "number of the replicate, from 1",
    "top_eigenvalue": "eigenvalue of largest amount of the Hessian of the training loss, within the mask",
    "trace": "its trace, by Hutchinson's estimate",
    "trace_error": "standard error of that estimate",
    "weights": "number of weights within the mask; biases and other parameters that are never pruned do not count",
}


def curvature_of_stack(
    setup: Setup,
    stack: Sequence[Trajectory | Failed],
    *,
    place: tuple[int, float, str],
    examples: int,
    probes: int,
) -> Table:
    """Top eigenvalue and trace at start and end of each training of a stack; `place` is its level, density and arm."""
    rows: list[tuple[Any, ...]] = []
    for number, path in present(stack):
        seen = drawn_examples(parts(setup, number).train, path.ticket.seeds, examples)
        data = seen.x, seen.y
        for when, state in (("start", path.ticket.start), ("end", last(path))):
            mask = path.ticket.mask
            values = {**mask.apply(state.weights), **state.buffers}
            made = hessian(setup.module(), data, mask=mask, values=values, probes=probes, seed=number)
            measures = (made.eigenvalues[0], made.trace, made.trace_error, made.size)
            rows.append((*place, when, number + 1, *measures))
    return Table(tuple(CURVATURE), tuple(rows))


def curvature_says(table: Table) -> list[str]:
    """The largest eigenvalue at the end of training, of the sparsest networks against the dense one."""
    ends = table.where(when="end")
    if not ends.values:
        return ["No training has finished."]
    means = summarised(ends, "top_eigenvalue", ["arm", "density"])
    sparsest = min(float(str(d)) for d in ends.column("density"))
    words = [f"dense {said(row, 'top_eigenvalue')}" for row in means.where(arm="dense").rows()[:1]]
    for arm, name in (("ticket", "ticket"), ("reinit", "re-initialised"), ("random", "random mask")):
        words += [
            f"{name} {said(row, 'top_eigenvalue')}" for row in means.where(arm=arm, density=sparsest).rows()
        ]
    return [
        f"Largest eigenvalue of the training loss's Hessian at the end, at a density of {kept_percent(sparsest)}: "
        f"{', '.join(words)}. Networks that end at another loss also have another curvature, so compare arms that end "
        "alike."
    ]


@analysis(
    "curvature",
    answers="classes",
    title="How sharp is the minimum?",
    source="P H P for the projection P on the mask; Lanczos; trace: Hutchinson 1990; products: Pearlmutter 1994",
    says=curvature_says,
    lines=(
        Lines(
            x="density", y="top_eigenvalue", series="arm", panel="when", x_label="weights kept",
            y_label="largest eigenvalue of the Hessian", y_log=True,
        ),
    ),
    columns=CURVATURE,
)  # fmt: skip
def curvature(
    cells: Cells, *, replicates: int = 5, levels: int = 3, examples: int = 200, probes: int = 5
) -> Task:
    """Measures the curvature of the training loss within the mask: the Hessian's largest eigenvalue and its trace.

    On `examples` training examples, at the start and at the end of training, at `levels` levels.
    """
    tasks = [
        part(
            curvature_of_stack, setup_of(stack), stack, name="curvature", place=(level, cells.densities[level], arm),
            examples=examples, probes=probes,
        )
        for arm in ("dense", "ticket", "reinit", "random")
        for level in cells.chosen_levels(arm, levels)
        for stack in cells.stacks(level, arm, replicates=replicates)
    ]  # fmt: skip
    if not tasks:
        raise NothingToAnalyseError("no training has finished")
    return together(tasks, name="curvature")
