"""From per-level tests to claims over densities: two fixed sequences, and how many replicates would decide.

Arrays run over the pruned levels from the densest to the sparsest on axis −1 of decisions and axis −2 of
evidence; leading axes are independent experiments, which is how the simulation runs the very code that
judges.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
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
    is NaN there: it passes nothing and refutes nothing.
    """

    worst: Mapping[str, Array]
    best: Mapping[str, Array]


@dataclass(frozen=True)
class Decision:
    """Everything [..., levels]. `matched` and `nontrivial` are what the two fixed sequences claim."""

    matches: Flags
    beats: Mapping[str, Flags]
    refuted: Flags
    matched: Flags
    nontrivial: Flags
    structure: Flags

    @property
    def claimed(self) -> Flags:
        return self.matched & self.nontrivial

    def outcome(self) -> Outcome:
        """Of one experiment: won if anything is claimed, not won if every level is refuted."""
        if self.claimed.any():
            return "won"
        return "not won" if self.refuted.all() else "inconclusive"


def decide(evidence: Evidence, *, margin: float, alpha: float) -> Decision:
    """All tests one-sided at alpha/2, and the two fixed sequences.

    Matching (ticket − dense > −margin) is claimed from the densest level down, being non-trivial (ticket
    above *both* controls: intersection–union, Berger 1982) from the sparsest level up, each up to its first
    failure (fixed sequence: Maurer, Hothorn & Lehmacher 1995). A false claim of both needs a false rejection
    in one sequence, so the chance of any false claim over all densities is at most alpha/2 + alpha/2.

    margin: a fraction. A level is refuted when the ticket is shown to be more than the margin below dense, or
    below a control. Each test is the claim's own in the other direction: an advantage that is merely small is no
    refutation, since more replicates may yet show it, and a true winner is refuted with probability alpha/2 at most.
    """
    level = alpha / 2
    enough = evidence.worst["dense"].shape[-1] >= MIN_REPLICATES
    matches = enough & (t_test(evidence.worst["dense"], null=-margin).p_greater <= level)
    refuted = enough & (t_test(evidence.best["dense"], null=-margin).p_less <= level)
    beats: dict[str, Flags] = {}
    for arm in CONTROLS:
        beats[arm] = enough & (t_test(evidence.worst[arm], null=0.0).p_greater <= level)
        refuted = refuted | (enough & (t_test(evidence.best[arm], null=0.0).p_less <= level))
    matched = np.logical_and.accumulate(matches, axis=-1)
    both = beats["reinit"] & beats["random"]
    structure = matched & _from_sparsest(beats["random"])
    return Decision(matches, beats, refuted, matched, _from_sparsest(both), structure)


def _from_sparsest(passed: Flags) -> Flags:
    reached: Flags = np.logical_and.accumulate(passed[..., ::-1], axis=-1)[..., ::-1]
    return reached


def replicates_to_decide(evidence: Evidence, *, margin: float, alpha: float) -> int | None:
    """About how many replicates would decide one experiment [levels, replicates], were its estimates true.

    A win at a level needs every check that the two sequences pass through on the way there; a defeat needs
    one refuted check at every level. All checks of a way are to pass together with 80 % power, by the union
    bound, each one-sided at alpha/2. None if no number decides: a reference is missing, or a sequence is
    blocked by a level that the estimates say would fail. Under 5 replicates at least 5 are needed, whatever
    the estimates.
    """
    n: int = evidence.worst["dense"].shape[-1]
    if n < 2:  # No spread to plan with.
        return MIN_REPLICATES
    boundaries: dict[str, float] = {"dense": -margin} | dict.fromkeys(CONTROLS, 0.0)
    win = {
        arm: [_effect(row, null=null, sign=1) for row in evidence.worst[arm]]
        for arm, null in boundaries.items()
    }
    lose = {
        arm: [_effect(row, null=null, sign=-1) for row in evidence.best[arm]]
        for arm, null in boundaries.items()
    }
    levels = range(len(win["dense"]))
    ways = [[*win["dense"][: i + 1], *(one for arm in CONTROLS for one in win[arm][i:])] for i in levels]
    ways.append([max(lose[arm][i] for arm in boundaries) for i in levels])
    # The weakest check all but decides what a way costs; only the cheapest way is worked out in full.
    decides = _together(max(ways, key=min), alpha=alpha / 2)
    if decides is None:
        return MIN_REPLICATES if n < MIN_REPLICATES else None
    return max(decides, MIN_REPLICATES, n + 1)


def _effect(row: Array, *, null: float, sign: int) -> float:
    """How far differences [n] lie beyond `null`, in standard deviations; 0 where they do not, or are missing."""
    test = t_test(row, null=null)
    distance = sign * (float(test.mean) - null)
    if not distance > 0:
        return 0.0
    return distance / float(test.sd) if test.sd > 0 else math.inf


def _together(effects: list[float], *, alpha: float) -> int | None:
    """Fewest replicates with which all checks pass with the power wanted; None where none suffices."""
    low = replicates_for(min(effects), alpha=alpha)
    if low is None:
        return None
    high = replicates_for(min(effects), alpha=alpha, wanted=1 - (1 - POWER) / len(effects))
    if high is None:
        return low
    finite = [effect for effect in effects if math.isfinite(effect)]

    def lost(n: int) -> float:
        return sum(1 - power(effect, n, alpha=alpha) for effect in finite)

    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if lost(middle) <= 1 - POWER else (middle + 1, high)
    return high
