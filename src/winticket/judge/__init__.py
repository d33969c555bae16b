"""The verdict: paired statistics over replicates that say won, not won or inconclusive."""

from __future__ import annotations

from winticket.judge.checks import Check, Level, TrainedEnough
from winticket.judge.gate import gate
from winticket.judge.learned import Learned, has_learned
from winticket.judge.looks import Look, Spending
from winticket.judge.pace import (
    FRACTIONS,
    JUDGED_FRACTION,
    Pace,
    first_step,
    pace_against_dense,
    target,
    uninformative_early_stop,
)
from winticket.judge.ratio import Relative
from winticket.judge.record import LevelChecks, MarginPoint, Margins, Verdict
from winticket.judge.statistics import mean_interval, power, replicates_for
from winticket.judge.timing import TimeCheck
from winticket.judge.verdict import judge
from winticket.objective import ACCURACY, Scale

__all__ = [
    "ACCURACY",
    "FRACTIONS",
    "JUDGED_FRACTION",
    "Check",
    "Learned",
    "Level",
    "LevelChecks",
    "Look",
    "MarginPoint",
    "Margins",
    "Pace",
    "Relative",
    "Scale",
    "Spending",
    "TimeCheck",
    "TrainedEnough",
    "Verdict",
    "first_step",
    "gate",
    "has_learned",
    "judge",
    "mean_interval",
    "pace_against_dense",
    "power",
    "replicates_for",
    "target",
    "uninformative_early_stop",
]
