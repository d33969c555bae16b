"""What learning did to a ticket's weights, from the start of a training to its end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

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
from winticket.analyse.learning_said import learning_says
from winticket.analyse.movement import REVISION as MOVEMENT
from winticket.analyse.movement import displacement, sign_agreement
from winticket.run import Task
from winticket.stages import Setup, at_steps
from winticket.table import Table
from winticket.ticket import Failed, Mask, Trajectory

REVISION = MOVEMENT  # plus 1 for every change of the numbers made here

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
