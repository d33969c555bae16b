"""What an experiment is judged by, and what its tests have decided."""

from __future__ import annotations

from dataclasses import dataclass

from winticket.judge.checks import MIN_REPLICATES, TrainedEnough
from winticket.judge.frame import Frame, Margin
from winticket.judge.learned import Learned
from winticket.judge.looks import Spending
from winticket.judge.sequences import Decision, Differences


@dataclass(frozen=True)
class Terms:
    """What one experiment is judged by. step: between two possible accuracies; grid: steps between evaluations."""

    margin_pp: float
    margin: Margin
    alpha: float
    spending: Spending
    step: float
    grid: int | None
    trained_enough: TrainedEnough | None
    frame: Frame
    constant: float | None

    @property
    def framed(self) -> float:
        """The margin as the tests take it."""
        return self.margin.framed(self.frame)


@dataclass(frozen=True)
class Judged:
    """The pruned levels' tests, the decision on them, and whether the dense network learned."""

    terms: Terms
    differences: Differences
    decision: Decision
    learned: Learned
    replicates: int

    def stands(self, density: float, *, margin_pp: float, refuted: bool) -> bool:
        """True if an earlier look's claim at `density` holds at this margin, since this look does not refute it.

        With fewer than five replicates nothing is claimed, whatever was claimed before.
        """
        alpha, earlier = self.terms.alpha, self.terms.spending.earlier
        relative = self.terms.margin.relative
        return (
            self.replicates >= MIN_REPLICATES
            and not refuted
            and any(
                look.shows(density, margin_pp=margin_pp, alpha=alpha, relative=relative) for look in earlier
            )
        )
