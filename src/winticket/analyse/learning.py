"""What learning did to a ticket's weights: how far they moved, which signs they kept, and what gradient they met."""

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
    first_replicate,
    part,
    present,
    setup_of,
    tickets_of,
    together,
)
from winticket.analyse.networks import batch_statistics, drawn_examples, parts
from winticket.analyse.summary import kept_percent, said, summarised
from winticket.run import Task
from winticket.stages import Setup, at_steps
from winticket.table import Table
from winticket.ticket import Failed, Mask, Trajectory

REVISION = 2
EXAMPLES = 1000
"""Training examples of which the gradient at the start is the mean."""


def displacement(start: Mapping[str, Tensor], end: Mapping[str, Tensor], mask: Mask) -> float:
    """The distance that the kept weights moved, relative to their length at the start: |end - start| / |start|.

    start, end: weights by name. ValueError if all kept weights are 0 at the start.

    >>> from winticket import Mask
    >>> mask = Mask({"w": torch.tensor([True, True, False])})
    >>> displacement({"w": torch.tensor([3.0, 4.0, 9.0])}, {"w": torch.tensor([3.0, 9.0, 0.0])}, mask)
    1.0
    """
    moved = sum(float((end[n] - start[n])[k].double().square().sum()) for n, k in mask.keep.items())
    length = sum(float(start[n][k].double().square().sum()) for n, k in mask.keep.items())
    if length == 0:
        raise ValueError(
            "all kept weights are 0 at the start, so there is no length to compare the movement with"
        )
    return float((moved / length) ** 0.5)


def sign_agreement(start: Mapping[str, Tensor], end: Mapping[str, Tensor], mask: Mask) -> float:
    """The share of the kept weights whose sign at the end is that at the start.

    Weights that are 0 in either are left out; nan if none is left. Gadhikar & Burkholz 2024 (Masks, Signs, and Learning
    Rate Rewinding) count the complement, sign flips.

    >>> from winticket import Mask
    >>> mask = Mask({"w": torch.tensor([True, True, True])})
    >>> sign_agreement({"w": torch.tensor([1.0, -1.0, 0.0])}, {"w": torch.tensor([2.0, 3.0, 1.0])}, mask)
    0.5
    """
    same, all_of_them = 0, 0
    for name, keep in mask.keep.items():
        signs = torch.sign(start[name][keep]) * torch.sign(end[name][keep])
        same, all_of_them = same + int((signs > 0).sum()), all_of_them + int((signs != 0).sum())
    return same / all_of_them if all_of_them else float("nan")


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


LEARNING = {
    "level": "number of the level; 0 is the dense network",
    "density": "share of the eligible weights kept",
    "arm": "whose weights",
    "group": "kept: the weights that the next level keeps; pruned next: the others; all: both",
    "step": "step after which the weights were looked at",
    "share": "that step as a share of the training",
    "at_end": "whether it is the last step",
    "replicate": "number of the replicate, from 1",
    "displacement": "distance from the start relative to the weights' length there",
    "sign_agreement": "share of the weights whose sign is that at the start",
    "init_agreement": "share of the weights whose sign is that at the start of the dense network's training, which "
    "differs from the share before if tickets start from trained weights",
}


def learning_of_stacks(
    setup: Setup,
    stack: Sequence[Trajectory | Failed],
    after: Sequence[Trajectory | Failed],
    dense: Sequence[Trajectory | Failed],
    *,
    place: tuple[int, float, str],
) -> Table:
    """Displacement and sign agreement of a stack at every saved step; `place` is its level, density and arm.

    after: the stack of the next level, which tells survivors from pruned weights; empty for none. dense: the dense
    network's stack; empty if it does not matter.
    """
    rows: list[tuple[Any, ...]] = []
    following = {number: path.ticket.mask for number, path in present(after)}
    inits = {number: path.ticket.start.weights for number, path in present(dense)}
    for number, path in present(stack):
        start, mask = path.ticket.start, path.ticket.mask
        for step, state in path.saved.items():
            at_end = step == max(path.saved)
            groups = {"all": mask}
            if number in following and at_end:
                kept = {n: keep & following[number].keep[n] for n, keep in mask.keep.items()}
                lost = {n: keep & ~following[number].keep[n] for n, keep in mask.keep.items()}
                groups |= {"kept": Mask(kept), "pruned next": Mask(lost)}
            for group, chosen in groups.items():
                if not chosen.count():
                    continue
                there = any(bool(start.weights[n][k].any()) for n, k in chosen.keep.items())
                moved = displacement(start.weights, state.weights, chosen) if there else None
                same = _agreement(start.weights, state.weights, chosen)
                init = _agreement(inits[number], state.weights, chosen) if number in inits else None
                where = (*place, group, step, step / setup.recipe.steps, at_end, number + 1)
                rows.append((*where, moved, same, init))
    return Table(tuple(LEARNING), tuple(rows))


def _agreement(start: Mapping[str, Tensor], end: Mapping[str, Tensor], mask: Mask) -> float | None:
    share = sign_agreement(start, end, mask)
    return None if math.isnan(share) else share


WORDS = {"ticket": "tickets", "reinit": "re-initialised tickets", "random": "random masks"}


def learning_says(table: Table) -> list[str]:
    """How many signs training changes, in the dense network and in tickets; survivors against pruned weights."""
    ends = table.where(at_end=True)
    if not ends.values:
        return ["No training has finished."]
    means = summarised(ends.where(group="all"), "sign_agreement", ["arm", "density"])
    dense = means.where(arm="dense").rows()
    lines = []
    if dense:
        lines.append(
            f"After training, {said(dense[0], 'sign_agreement', share=True)} of the dense network's weights have the "
            f"sign "
            "that they started with."
        )
    for arm, words in WORDS.items():
        rows = means.where(arm=arm).sort("density").rows()
        if rows:
            lines.append(
                f"At a density of {kept_percent(float(rows[0]['density'] or 0))}, so do "
                f"{said(rows[0], 'sign_agreement', share=True)} of the kept weights of {words}."
            )
    groups = {
        str(r["group"]): r for r in summarised(ends.where(arm="dense"), "sign_agreement", ["group"]).rows()
    }
    if {"kept", "pruned next"} <= groups.keys():
        lines.append(
            f"Of the dense network's weights that the first level keeps, "
            f"{said(groups['kept'], 'sign_agreement', share=True)} keep their sign; of those that it prunes, "
            f"{said(groups['pruned next'], 'sign_agreement', share=True)}."
        )
    return lines


@analysis(
    "learning",
    title="What did training do to the weights?",
    source="Gadhikar & Burkholz 2024 (Masks, Signs, and Learning Rate Rewinding); distance: |end - start| / |start|",
    says=learning_says,
    lines=(
        Lines(
            x="density", y="sign_agreement", series="arm", x_label="weights kept", y_label="signs kept by training",
            percent=True, where={"group": "all", "at_end": True},
        ),
        Lines(
            x="share", y="sign_agreement", series="density", x_label="step (% of the training)",
            y_label="signs as at the start", percent=True, x_percent=True, scale="linear",
            where={"group": "all", "arm": "ticket"},
        ),
    ),
    columns=LEARNING,
)  # fmt: skip
def learning(
    cells: Cells, *, shares: tuple[float, ...] = (0.05, 0.2, 0.5), replicates: int = 5, levels: int = 4
) -> Task:
    """Follows the weights from start to end of a training: how far they move, and which change their sign.

    At `levels` levels, and after `shares` of the training. Weights that the next level keeps are set against those that
    it prunes.
    """
    if any(not 0 < share < 1 for share in shares):
        raise ValueError(f"shares is {shares}; each lies between the start and the end, so between 0 and 1")
    steps = cells.setup.recipe.steps
    splits = tuple(sorted({round(share * steps) for share in shares}))
    tasks = []
    tickets = [0, *cells.levels("ticket")]
    dense = {first_replicate(stack): stack for stack in cells.stacks(0, "dense", replicates=replicates)}
    for arm in ("dense", "ticket", "reinit", "random"):
        for level in cells.chosen_levels(arm, levels):
            nexts = [one for one in tickets if one > level]
            after = {first_replicate(s): s for s in cells.stacks(nexts[0], "ticket")} if nexts else {}
            for stack in cells.stacks(level, arm, replicates=replicates):
                setup, seen = setup_of(stack), stack
                if arm in ("dense", "ticket"):
                    start = _start_of(cells, level, arm)
                    seen = at_steps(setup, tickets_of(stack), stack, tuple(s for s in splits if s > start))
                first, from_dense = first_replicate(stack), arm in ("dense", "ticket")
                following, whole = (stacks.get(first, ()) if from_dense else () for stacks in (after, dense))
                place = (level, cells.densities[level], arm)
                tasks.append(
                    part(learning_of_stacks, setup, seen, following, whole, name="learning", place=place)
                )
    if not tasks:
        raise NothingToAnalyseError("no training has finished")
    return together(tasks, name="learning")


def _start_of(cells: Cells, level: int, arm: str) -> int:
    """The step that tickets of a level are rewound to."""
    return 0 if arm == "dense" or level == 0 else cells.rewind_step


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


def gradients_says(table: Table) -> list[str]:
    """The gradient at the start of the sparsest tickets and controls, against the dense network's."""
    if not table.values:
        return ["No training has finished."]
    means = summarised(table, "gradient_norm", ["arm", "density"])
    parts_of = [f"dense {said(row, 'gradient_norm')}" for row in means.where(arm="dense").rows()[:1]]
    sparsest = min(float(str(d)) for d in table.column("density"))
    for arm, words in WORDS.items():
        parts_of += [
            f"{words} {said(row, 'gradient_norm')}" for row in means.where(arm=arm, density=sparsest).rows()
        ]
    return [
        f"Length of the gradient at the start, at a density of {kept_percent(sparsest)}: {', '.join(parts_of)}. A "
        f"larger "
        "one does not by itself mean better training."
    ]


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
