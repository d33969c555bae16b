"""Experiment: the declared question, its plan and cost, and carrying it out."""

from winticket.experiment.machine import environment, processes
from winticket.experiment.outcome import Runs, collect
from winticket.experiment.plan import Plan, parameters, plan
from winticket.experiment.price import Cost, cost
from winticket.experiment.running import Ready, carry_out, conduct, find, prepare
from winticket.experiment.spec import Experiment, offered
from winticket.experiment.spec_file import load_spec
from winticket.experiment.writing import Result

__all__ = [
    "Cost",
    "Experiment",
    "Plan",
    "Ready",
    "Result",
    "Runs",
    "carry_out",
    "collect",
    "conduct",
    "cost",
    "environment",
    "find",
    "load_spec",
    "offered",
    "parameters",
    "plan",
    "prepare",
    "processes",
]
