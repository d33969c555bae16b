"""The verdict: paired statistics over replicates that say won, not won or inconclusive."""

from winticket.judge.checks import Check, Level, TimeCheck, TrainedEnough
from winticket.judge.gate import gate
from winticket.judge.record import LevelChecks, MarginPoint, Margins, Verdict
from winticket.judge.statistics import mean_interval, power, replicates_for
from winticket.judge.verdict import judge

__all__ = [
    "Check",
    "Level",
    "LevelChecks",
    "MarginPoint",
    "Margins",
    "TimeCheck",
    "TrainedEnough",
    "Verdict",
    "gate",
    "judge",
    "mean_interval",
    "power",
    "replicates_for",
]
