"""Experiment: the declared question, its plan and cost, and carrying it out."""

from winticket.experiment.outcome import Runs, collect
from winticket.experiment.plan import Cost, Plan, cost, plan
from winticket.experiment.running import Result, conduct, environment, find, load_spec
from winticket.experiment.spec import Experiment

__all__ = [
    "Cost",
    "Experiment",
    "Plan",
    "Result",
    "Runs",
    "collect",
    "conduct",
    "cost",
    "environment",
    "find",
    "load_spec",
    "plan",
]
