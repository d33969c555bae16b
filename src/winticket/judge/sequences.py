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
from winticket.judge.statistics import Array, replicates_for, t_test

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
    its advantage over a control is shown to be less than the margin.
    """
    level = alpha / 2
    enough = evidence.worst["dense"].shape[-1] >= MIN_REPLICATES
    matches = enough & (t_test(evidence.worst["dense"], null=-margin).p_greater <= level)
    refuted = enough & (t_test(evidence.best["dense"], null=-margin).p_less <= level)
    beats: dict[str, Flags] = {}
    for arm in CONTROLS:
        beats[arm] = enough & (t_test(evidence.worst[arm], null=0.0).p_greater <= level)
        shown_small = enough & (t_test(evidence.best[arm], null=margin).p_less <= level)
        refuted = refuted | (shown_small & ~beats[arm])
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
    one refuted check at every level. Each check is given 80 % power at one-sided alpha/2. None if no number
    decides: a reference is missing, or a sequence is blocked by a level that the estimates say would fail.
    Under 5 replicates at least 5 are needed, whatever the estimates.
    """
    n: int = evidence.worst["dense"].shape[-1]
    if n < 2:  # No spread to plan with.
        return MIN_REPLICATES
    boundaries: dict[str, tuple[float, float]] = {"dense": (-margin, -margin)} | dict.fromkeys(
        CONTROLS, (0.0, margin)
    )
    need: dict[str, list[float]] = {
        arm: [_needed(row, null=null, sign=1, alpha=alpha) for row in evidence.worst[arm]]
        for arm, (null, _) in boundaries.items()
    }
    refute: dict[str, list[float]] = {
        arm: [_needed(row, null=null, sign=-1, alpha=alpha) for row in evidence.best[arm]]
        for arm, (_, null) in boundaries.items()
    }
    levels = range(len(need["dense"]))
    wins: list[float] = [
        max(*need["dense"][: i + 1], *(one for arm in CONTROLS for one in need[arm][i:]), MIN_REPLICATES)
        for i in levels
    ]
    defeat: float = max(min(refute[arm][i] for arm in boundaries) for i in levels)
    decides = min(*wins, max(defeat, MIN_REPLICATES))
    if math.isinf(decides):
        return MIN_REPLICATES if n < MIN_REPLICATES else None
    return max(int(decides), n + 1)


def _needed(row: Array, *, null: float, sign: int, alpha: float) -> float:
    """Replicates for one check on differences [n]; infinite where none suffices."""
    test = t_test(row, null=null)
    distance = sign * (float(test.mean) - null)
    if not distance > 0:
        return math.inf
    n = replicates_for(distance / float(test.sd) if test.sd > 0 else math.inf, alpha=alpha / 2)
    return math.inf if n is None else n
