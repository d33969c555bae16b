"""From tests at each level to claims over densities, and how many replicates would decide.

Arrays run over the pruned levels from the densest to the sparsest: on axis −1 of decisions and axis −2 of
differences. Leading axes are independent experiments, so the simulation runs the very code that judges.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from winticket.judge.checks import CONTROLS, MIN_REPLICATES
from winticket.judge.frame import contrast
from winticket.judge.statistics import Array, power, replicates_for, t_test

POWER = 0.8
Flags = npt.NDArray[np.bool_]
Outcome = Literal["won", "not won", "inconclusive"]


@dataclass(frozen=True)
class Differences:
    """Paired differences ticket − reference: "dense" and the controls -> [..., levels, replicates].

    `worst` and `best` differ if trainings failed (see `winticket.judge.checks.differences`). A reference that was not
    run at a level is NaN there; it passes nothing and refutes nothing. step: between two possible accuracies.

    dense_worst, dense_best: the dense network's values with the same failures, of the same shape; given if the margin
    is a share of its mean (see `winticket.judge.frame.contrast`).
    """

    worst: Mapping[str, Array]
    best: Mapping[str, Array]
    step: float = 0.0
    dense_worst: Array | None = None
    dense_best: Array | None = None

    def tested(self, arm: str, *, margin: float, worst: bool = True) -> tuple[Array, float]:
        """The values compared with an arm, and the boundary that their mean has to exceed."""
        values = (self.worst if worst else self.best)[arm]
        if arm != "dense":
            return values, 0.0
        return contrast(values, self.dense_worst if worst else self.dense_best, -margin)


@dataclass(frozen=True)
class Decision:
    """What is decided at each level; arrays are [..., levels], except `control_level` [...].

    matches, beats, refuted: the tests of each level; `beats` holds the controls' at `control_level`, the level at which
    Holm's procedure ended. matched, nontrivial: what is claimed over all densities, that the ticket matches the dense
    network and that it beats both controls. A ticket is non-trivial exactly if it beats both. structure: it matches,
    and beats the random mask by a separate Holm procedure.
    """

    matches: Flags
    beats: Mapping[str, Flags]
    refuted: Flags
    matched: Flags
    nontrivial: Flags
    structure: Flags
    control_level: Array

    @property
    def claimed(self) -> Flags:
        return self.matched & self.nontrivial

    def outcome(self) -> Outcome:
        """The outcome of one experiment: won if anything is claimed, not won if every level is refuted."""
        if self.claimed.any():
            return "won"
        return "not won" if self.refuted.all() else "inconclusive"


def decide(differences: Differences, *, margin: float, alpha: float) -> Decision:
    """Tests accuracy from the densest level down and the controls at all levels at once, each family at alpha/2.

    Matching (ticket − dense > −margin) is claimed level by level from the densest down to the first failure (fixed
    sequence: Maurer, Hothorn & Lehmacher 1995). Being non-trivial (the ticket is above *both* controls:
    intersection–union, Berger 1982) is claimed by Holm's procedure (1979) over all levels, so that a level at which
    every arm collapses obstructs no other level. A false claim of both needs a false rejection in one family, so the
    chance of any false claim over all densities is at most alpha/2 + alpha/2.

    margin: in the unit of the differences, a fraction for accuracies; a share of the dense network's mean if
    `differences` has its values. A level is refuted if the ticket is shown, at alpha/2, to be more than the margin
    below the dense network, or below a control. Each of these is the claim's own test in the other direction: a small
    advantage is no refutation, since more replicates may yet show it.
    """
    level, step = alpha / 2, differences.step
    enough = differences.worst["dense"].shape[-1] >= MIN_REPLICATES
    worst, boundary = differences.tested("dense", margin=margin)
    best, _ = differences.tested("dense", margin=margin, worst=False)
    matches = enough & (t_test(worst, null=boundary, floor=step).p_greater <= level)
    refuted = enough & (t_test(best, null=boundary, floor=step).p_less <= level)
    p = {}
    for arm in CONTROLS:
        p[arm] = t_test(differences.worst[arm], null=0.0, floor=step).p_greater
        refuted = refuted | (enough & (t_test(differences.best[arm], null=0.0, floor=step).p_less <= level))
    both = holm(np.maximum(p["reinit"], p["random"]), alpha=level)
    beats = {arm: enough & (p[arm] <= both[..., None]) for arm in CONTROLS}
    matched = np.logical_and.accumulate(matches, axis=-1)
    structure = matched & enough & (p["random"] <= holm(p["random"], alpha=level)[..., None])
    return Decision(
        matches, beats, refuted, matched, beats["reinit"] & beats["random"], structure, control_level=both
    )


def holm(p: Array, *, alpha: float) -> Array:
    """The level [...] at which Holm's step-down procedure over p [..., m] ends: it rejects exactly the p ≤ that level.

    The smallest p is held to alpha/m, the next to alpha/(m − 1), and so on. The procedure ends at the level of the
    first p that fails, or of the last p (Holm 1979). A NaN is never rejected and counts among the m. The chance of any
    false rejection is at most alpha, however the tests depend on each other.

    >>> round(float(holm(np.array([0.001, 0.011, 0.5]), alpha=0.025)), 4)
    0.025
    """
    m = p.shape[-1]
    ordered = np.sort(np.where(np.isnan(p), np.inf, p), axis=-1)
    levels = alpha / (m - np.arange(m))
    failed = ordered > levels
    first = np.where(failed.any(axis=-1), failed.argmax(axis=-1), m - 1)
    ended: Array = levels[first]
    return ended


def replicates_to_decide(differences: Differences, *, margin: float, alpha: float) -> int | None:
    """About how many replicates would decide one experiment [levels, replicates] if its estimates were the truth.

    A win at a level needs every check on the path to it. These are accuracy here and at all denser levels, and the
    controls here and wherever they are beaten more clearly, each at its level of Holm's procedure. A defeat needs one
    refuted check at every level. All checks of a path must pass together with 80 % power, by the union bound. None if
    no number decides: a reference is missing, or every path contains a level that the estimates say would fail. With
    fewer than 5 replicates nothing is extrapolated, and the answer is 5.
    """
    n: int = differences.worst["dense"].shape[-1]
    if n < MIN_REPLICATES:
        return MIN_REPLICATES
    single: dict[tuple[float, float], int | None] = {}
    paths = _paths(differences, margin=margin, level=alpha / 2)
    numbers = [number for path in paths if (number := _together(path, single)) is not None]
    return max(min(numbers), MIN_REPLICATES) if numbers else None


def _paths(differences: Differences, *, margin: float, level: float) -> list[list[tuple[float, float]]]:
    """The checks (effect, level) that must all pass: to refute every level, and to win at each of them."""
    arms = ("dense", *CONTROLS)

    def effects(arm: str, sign: int) -> list[float]:
        rows, null = differences.tested(arm, margin=margin, worst=sign > 0)
        return [_effect(row, null=null, sign=sign, floor=differences.step) for row in rows]

    win, lose = ({arm: effects(arm, sign) for arm in arms} for sign in (1, -1))
    count = len(win["dense"])
    clearest_first = sorted(range(count), key=lambda i: -min(win[arm][i] for arm in CONTROLS))
    paths = [[(max(lose[arm][i] for arm in arms), level) for i in range(count)]]
    for rank, i in enumerate(clearest_first):
        path = [(effect, level) for effect in win["dense"][: i + 1]]
        path += [
            (win[arm][j], level / (count - r))
            for r, j in enumerate(clearest_first[: rank + 1])
            for arm in CONTROLS
        ]
        paths.append(path)
    return paths


def _effect(row: Array, *, null: float, sign: int, floor: float) -> float:
    """How far differences [n] lie beyond `null`, in standard deviations; 0 if they do not or are missing."""
    test = t_test(row, null=null, floor=floor)
    distance = sign * (float(test.mean) - null)
    if not distance > 0:
        return 0.0
    return distance / float(test.sd) if test.sd > 0 else math.inf


def _together(
    checks: Sequence[tuple[float, float]], single: dict[tuple[float, float], int | None]
) -> int | None:
    """The fewest replicates with which all checks (effect, level) pass with 80 % power; None if no number suffices.

    `single` keeps how many each check needs by itself, because paths share checks.
    """
    needed = []
    for effect, alpha in checks:
        if (effect, alpha) not in single:
            single[effect, alpha] = replicates_for(effect, alpha=alpha)
        alone = single[effect, alpha]
        if alone is None:
            return None
        needed.append(alone)
    low = max(needed)
    finite = [(effect, alpha) for effect, alpha in checks if math.isfinite(effect)]

    def lost(n: int) -> float:
        return sum(1 - power(effect, n, alpha=alpha) for effect, alpha in finite)

    high = low
    while lost(high) > 1 - POWER:
        low, high = high + 1, 2 * high
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if lost(middle) <= 1 - POWER else (middle + 1, high)
    return high
