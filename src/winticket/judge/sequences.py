"""From per-level tests to claims over densities, and how many replicates would decide.

Arrays run over the pruned levels from the densest to the sparsest on axis −1 of decisions and axis −2 of
evidence; leading axes are independent experiments, which is how the simulation runs the very code that
judges.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from winticket.judge.checks import CONTROLS, MIN_REPLICATES
from winticket.judge.statistics import Array, power, replicates_for, t_test

POWER = 0.8
Flags = npt.NDArray[np.bool_]
Outcome = Literal["won", "not won", "inconclusive"]


@dataclass(frozen=True)
class Evidence:
    """Paired differences ticket − reference, "dense" and controls -> [..., levels, replicates].

    `worst` and `best` differ where runs failed (see `differences`). A reference that was not run at a level
    is NaN there: it passes nothing and refutes nothing. `step` is that between two possible accuracies.
    """

    worst: Mapping[str, Array]
    best: Mapping[str, Array]
    step: float = 0.0


@dataclass(frozen=True)
class Decision:
    """Everything [..., levels], but for `control_level` [...]: the level that Holm's procedure came to.

    `matched` and `nontrivial` are what is claimed over all densities: that the ticket matches the dense network, and
    that it beats both controls. `beats` are the controls' tests at `control_level`; a ticket is non-trivial exactly
    where it beats both. `structure`: matched, and above the random mask by a Holm procedure of its own.
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
        """Of one experiment: won if anything is claimed, not won if every level is refuted."""
        if self.claimed.any():
            return "won"
        return "not won" if self.refuted.all() else "inconclusive"


def decide(evidence: Evidence, *, margin: float, alpha: float) -> Decision:
    """Accuracy is tested from the densest level down, the controls at all levels at once; each family at alpha/2.

    Matching (ticket − dense > −margin) is claimed level by level from the densest down, up to the first failure (fixed
    sequence: Maurer, Hothorn & Lehmacher 1995). Being non-trivial (ticket above *both* controls: intersection–union,
    Berger 1982) is claimed by Holm's procedure (1979) over all levels, so a level where every arm collapses stands in
    no other's way. A false claim of both needs a false rejection in one family, so the chance of any false claim over
    all densities is at most alpha/2 + alpha/2.

    margin: a fraction. A level is refuted when the ticket is shown to be more than the margin below dense, or
    below a control, at alpha/2. Each test is the claim's own in the other direction: an advantage that is merely small
    is no refutation, since more replicates may yet show it.
    """
    level, step = alpha / 2, evidence.step
    enough = evidence.worst["dense"].shape[-1] >= MIN_REPLICATES
    matches = enough & (t_test(evidence.worst["dense"], null=-margin, floor=step).p_greater <= level)
    refuted = enough & (t_test(evidence.best["dense"], null=-margin, floor=step).p_less <= level)
    p = {}
    for arm in CONTROLS:
        p[arm] = t_test(evidence.worst[arm], null=0.0, floor=step).p_greater
        refuted = refuted | (enough & (t_test(evidence.best[arm], null=0.0, floor=step).p_less <= level))
    both = holm(np.maximum(p["reinit"], p["random"]), alpha=level)
    beats = {arm: enough & (p[arm] <= both[..., None]) for arm in CONTROLS}
    matched = np.logical_and.accumulate(matches, axis=-1)
    structure = matched & enough & (p["random"] <= holm(p["random"], alpha=level)[..., None])
    return Decision(
        matches, beats, refuted, matched, beats["reinit"] & beats["random"], structure, control_level=both
    )


def holm(p: Array, *, alpha: float) -> Array:
    """The level [...] at which Holm's step-down procedure over p [..., m] ends: it rejects exactly where p ≤ that.

    The smallest p is held to alpha/m, the next to alpha/(m − 1), and so on up to the first that fails, at whose level
    it ends (Holm 1979). A NaN is rejected never and counts among the m. The chance of any false rejection is at most
    alpha, however the tests depend on each other.

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


def replicates_to_decide(evidence: Evidence, *, margin: float, alpha: float) -> int | None:
    """About how many replicates would decide one experiment [levels, replicates], were its estimates true.

    A win at a level needs every check that is passed on the way there: accuracy at all denser levels, and the controls
    here and wherever they are beaten more clearly, each at its level of Holm's procedure. A defeat needs
    one refuted check at every level. All checks of a way are to pass together with 80 % power, by the union
    bound. None if no number decides: a reference is missing, or a way is blocked by a level that the estimates say
    would fail. Under 5 replicates nothing is extrapolated: 5 is the answer, whatever the numbers.
    """
    n: int = evidence.worst["dense"].shape[-1]
    if n < MIN_REPLICATES:
        return MIN_REPLICATES
    level, floor = alpha / 2, evidence.step
    boundaries: dict[str, float] = {"dense": -margin} | dict.fromkeys(CONTROLS, 0.0)
    win = {
        arm: [_effect(row, null=null, sign=1, floor=floor) for row in evidence.worst[arm]]
        for arm, null in boundaries.items()
    }
    lose = {
        arm: [_effect(row, null=null, sign=-1, floor=floor) for row in evidence.best[arm]]
        for arm, null in boundaries.items()
    }
    count = len(win["dense"])
    order = sorted(range(count), key=lambda i: -min(win[arm][i] for arm in CONTROLS))
    ways = [[(max(lose[arm][i] for arm in boundaries), level) for i in range(count)]]
    for rank, i in enumerate(order):
        way = [(effect, level) for effect in win["dense"][: i + 1]]
        way += [
            (win[arm][j], level / (count - r)) for r, j in enumerate(order[: rank + 1]) for arm in CONTROLS
        ]
        ways.append(way)
    known: dict[tuple[float, float], int | None] = {}
    decides = [_together(way, known) for way in ways]
    numbers = [number for number in decides if number is not None]
    return max(min(numbers), MIN_REPLICATES) if numbers else None


def _effect(row: Array, *, null: float, sign: int, floor: float) -> float:
    """How far differences [n] lie beyond `null`, in standard deviations; 0 where they do not, or are missing."""
    test = t_test(row, null=null, floor=floor)
    distance = sign * (float(test.mean) - null)
    if not distance > 0:
        return 0.0
    return distance / float(test.sd) if test.sd > 0 else math.inf


def _together(
    checks: Sequence[tuple[float, float]], known: dict[tuple[float, float], int | None]
) -> int | None:
    """Fewest replicates with which all checks (effect, level) pass with the power wanted; None where none suffices.

    `known` keeps what single checks need, for ways that share them.
    """
    needed = []
    for effect, alpha in checks:
        if (effect, alpha) not in known:
            known[effect, alpha] = replicates_for(effect, alpha=alpha)
        alone = known[effect, alpha]
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
