"""Early-stop steps of the ticket against the dense network's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from winticket import results
from winticket.judge.checks import MIN_REPLICATES
from winticket.judge.frame import ByArm
from winticket.judge.statistics import hodges_lehmann, signed_rank


@dataclass(frozen=True)
class TimeCheck:
    """Early-stop steps of the ticket against the dense network's: exact signed-rank test on log(ticket / dense).

    outcome: "faster" or "slower" if that is shown, one-sided at `alpha` in each direction and without a correction for
    the number of densities. "as fast" means only that neither was shown. None with fewer than 5 replicates, or if the
    dense network did not learn. ratio: Hodges–Lehmann estimate of ticket / dense, and ratio_ci
    its 95 % interval; None if they are not finite. never_reached: arm -> trainings that failed or never improved.
    grid: steps between two evaluations.

    >>> from winticket.judge import Level, judge
    >>> accuracies = {arm: (0.97, 0.98, 0.96, 0.97, 0.98) for arm in ("dense", "ticket")}
    >>> level = Level(0.1, accuracies, early_stop_step={"dense": (400,) * 5, "ticket": (200,) * 5})
    >>> time = judge([level]).levels[0].time
    >>> time.outcome, round(time.ratio, 3), time.p_faster
    ('faster', 0.5, 0.03125)
    """

    outcome: Literal["faster", "as fast", "slower"] | None
    alpha: float
    ratio: float | None
    ratio_ci: tuple[float, float] | None
    p_faster: float
    p_slower: float
    replicates: int
    ties: int
    never_reached: Mapping[str, int]
    grid: int | None

    def resolution(self) -> str:
        """How precisely the steps are known, in words."""
        if self.grid is None:
            return "the number of steps between two evaluations is not known"
        return f"steps are known to within one evaluation interval of {self.grid} steps"

    def as_json(self) -> results.TimeDetail:
        return {
            "ratio": self.ratio,
            "ratio_ci": None if self.ratio_ci is None else list(self.ratio_ci),
            "p_faster": self.p_faster,
            "p_slower": self.p_slower,
            "alpha": self.alpha,
            "replicates": self.replicates,
            "ties": self.ties,
            "never_reached": dict(self.never_reached),
            "grid": self.grid,
            "resolution": self.resolution(),
        }


def time_check(steps: ByArm, *, alpha: float, grid: int | None) -> TimeCheck | None:
    """The early-stop steps of the ticket against the dense network's; None if either was not recorded.

    A failed training ranks last (log ratio ±∞), as does one whose validation loss never improved on its start
    (step 0). A pair in which both did is a tie.
    """
    if "ticket" not in steps or "dense" not in steps:
        return None
    a, b = ([step if step else math.inf for step in steps[arm]] for arm in ("ticket", "dense"))
    ratios = np.array([0.0 if x == y else math.log(x) - math.log(y) for x, y in zip(a, b, strict=True)])
    test = signed_rank(ratios)
    centre, interval = hodges_lehmann(ratios)
    outcome: Literal["faster", "as fast", "slower"] | None = "as fast"
    if len(a) < MIN_REPLICATES:
        outcome = None
    elif test.p_less <= alpha:
        outcome = "faster"
    elif test.p_greater <= alpha:
        outcome = "slower"
    bounded = interval is not None and all(math.isfinite(end) for end in interval)
    return TimeCheck(
        outcome=outcome,
        alpha=alpha,
        ratio=math.exp(centre) if math.isfinite(centre) else None,
        ratio_ci=(math.exp(interval[0]), math.exp(interval[1])) if interval is not None and bounded else None,
        p_faster=test.p_less,
        p_slower=test.p_greater,
        replicates=len(a),
        ties=test.zeros,
        never_reached={"ticket": a.count(math.inf), "dense": b.count(math.inf)},
        grid=grid,
    )
