"""What a verdict takes: the levels and options of `judge`, checked before anything is computed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Sequence

from winticket.judge.checks import CONTROLS, ByArm, Level

ARMS = ("dense", "ticket", *CONTROLS)
_RANGES = {
    "accuracy": (0.0, 1.0),
    "accuracy_at_early_stop": (0.0, 1.0),
    "early_stop_step": (0.0, math.inf),
    "train_loss": (-math.inf, math.inf),
}


def check_numbers(grid: int | None, test_examples: int | None, commonest: float | None) -> None:
    """Raise ValueError for a number out of range; see `judge`."""
    if grid is not None and grid < 1:
        raise ValueError(
            f"evaluation grid of {grid} steps; give the number of steps between evaluations, 1 or more"
        )
    if test_examples is not None and test_examples < 1:
        raise ValueError(
            f"{test_examples} test examples; give the number of examples that a test accuracy is measured on"
        )
    if commonest is not None and not 0 < commonest <= 1:
        raise ValueError(
            f"the commonest class's rate is {commonest}; give a fraction above 0, e.g. 0.1 for ten equal classes"
        )


def checked(levels: Sequence[Level], expected: Collection[str]) -> list[Level]:
    """The levels from the densest to the sparsest. Raises ValueError, with the level and arm, if one is unusable."""
    if unknown := set(expected) - set(ARMS):
        raise ValueError(
            f"unknown arms expected: {', '.join(sorted(unknown))}; the arms are {', '.join(ARMS)}"
        )
    ordered = sorted(levels, key=lambda level: -level.density)
    for level in ordered:
        if not 0 < level.density <= 1:
            raise ValueError(
                f"density {level.density} is not in (0, 1]; a density is kept / eligible weights"
            )
    for dense_side, sparse_side in itertools.pairwise(ordered):
        if dense_side.density == sparse_side.density:
            raise ValueError(f"density {dense_side.density} is given twice; give one level per density")
    pruned = [level for level in ordered if level.density < 1]
    if not pruned:
        raise ValueError(f"{len(levels)} levels and none of density below 1; a verdict needs a pruned level")
    for level in pruned:
        missing = [arm for arm in ARMS if arm in {"dense", "ticket", *expected} and arm not in level.accuracy]
        if missing:
            raise ValueError(
                f"level of density {level.density} has no arm {' or '.join(missing)}; "
                f"it has {', '.join(level.accuracy) or 'none'}"
            )
    replicates = len(pruned[0].accuracy["ticket"])
    if replicates == 0:
        raise ValueError(
            "no replicates; give at least one, and 5 or more for a verdict other than inconclusive"
        )
    for level in ordered:
        _check_values(level, replicates)
    return ordered


def _check_values(level: Level, replicates: int) -> None:
    name = f"level of density {level.density}"
    for what, (low, high) in _RANGES.items():
        measured: ByArm = getattr(level, what)
        for arm, values in measured.items():
            if arm not in ARMS:
                raise ValueError(f"{name}: unknown arm {arm!r} in {what}; the arms are {', '.join(ARMS)}")
            if len(values) != replicates:
                raise ValueError(
                    f"{name}: {what} of arm {arm} has {len(values)} values for {replicates} replicates; "
                    "values are paired by position, and a failed training is None"
                )
            for value in values:
                if value is not None and not (math.isfinite(value) and low <= value <= high):
                    raise ValueError(
                        f"{name}: {what} of arm {arm} holds {value}; accuracies are fractions from 0 to 1, "
                        "steps are 0 or more, losses are finite, and a failed training is None"
                    )
