"""What a verdict takes: the levels and options of `judge`, checked before anything is computed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Sequence

from winticket.judge.checks import CONTROLS, Level
from winticket.judge.frame import ByArm
from winticket.objective import ACCURACY, Scale

ARMS = ("dense", "ticket", *CONTROLS)


def _ranges(scale: Scale) -> dict[str, tuple[float, float]]:
    return {
        "accuracy": (scale.low, scale.high),
        "accuracy_at_early_stop": (scale.low, scale.high),
        "early_stop_step": (0.0, math.inf),
        "train_loss": (-math.inf, math.inf),
    }


def constant_of(constant: float | None, commonest: float | None, scale: Scale) -> float | None:
    """The value of the best constant answer; `commonest` is its older name, which accuracy alone has."""
    if commonest is None:
        return constant
    if constant is not None or scale != ACCURACY:
        raise ValueError(
            "the commonest class's rate is what the best constant answer reaches in accuracy; give `constant` alone"
        )
    return commonest


def check_numbers(
    grid: int | None, test_examples: int | None, constant: float | None, scale: Scale = ACCURACY
) -> None:
    """Raise ValueError for a number out of range; see `judge`."""
    if grid is not None and grid < 1:
        raise ValueError(
            f"evaluation grid of {grid} steps; give the number of steps between evaluations, 1 or more"
        )
    if test_examples is not None and test_examples < 1:
        raise ValueError(
            f"{test_examples} test examples; give the number of examples that a test accuracy is measured on"
        )
    if constant is not None and scale == ACCURACY and not 0 < constant <= 1:
        raise ValueError(
            f"the commonest class's rate is {constant}; give a fraction above 0, e.g. 0.1 for ten equal classes"
        )
    if constant is not None and not (math.isfinite(constant) and scale.low <= constant <= scale.high):
        raise ValueError(
            f"the best constant answer reaches {constant}; give the value of {scale.name} that it reaches on the test "
            f"data, from {scale.low} to {scale.high}"
        )


def require_not_negative(levels: Sequence[Level], scale: Scale) -> None:
    """Raise ValueError if a dense network's value is negative, so that no margin is a share of it."""
    for level in levels:
        for measured in (level.accuracy, level.accuracy_at_early_stop):
            for value in measured.get("dense", ()):
                if value is not None and value < 0:
                    raise ValueError(
                        f"level of density {level.density}: the dense network's {scale.name} is {value}, and a share "
                        "of that is no margin; give the margin in the metric's own unit (relative=False)"
                    )


def checked(levels: Sequence[Level], expected: Collection[str], scale: Scale = ACCURACY) -> list[Level]:
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
        _check_values(level, replicates, scale)
    return ordered


def _check_values(level: Level, replicates: int, scale: Scale) -> None:
    name = f"level of density {level.density}"
    for what, (low, high) in _ranges(scale).items():
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
                        f"{name}: {what} of arm {arm} holds {value}; {_possible(scale)}, "
                        "steps are 0 or more, losses are finite, and a failed training is None"
                    )


def _possible(scale: Scale) -> str:
    if scale == ACCURACY:
        return "accuracies are fractions from 0 to 1"
    return f"values of {scale.name} are finite and from {scale.low} to {scale.high}"
