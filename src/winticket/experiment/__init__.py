"""Experiment: the declared question, its plan and cost, and running it."""

from __future__ import annotations

from winticket.experiment.compare import compare
from winticket.experiment.entries import USUAL_METHODS
from winticket.experiment.execution import Execution
from winticket.experiment.machine import environment, processes
from winticket.experiment.names import offered
from winticket.experiment.plan import Plan, parameters, plan
from winticket.experiment.price import Cost, cost
from winticket.experiment.running import Ready, conduct, execute, find, prepare
from winticket.experiment.runs import Runs, collect
from winticket.experiment.sources import load_source
from winticket.experiment.spec import Experiment
from winticket.experiment.spec_file import load_spec
from winticket.experiment.transfers import transferred
from winticket.experiment.writing import Result

__all__ = [
    "USUAL_METHODS",
    "Cost",
    "Execution",
    "Experiment",
    "Plan",
    "Ready",
    "Result",
    "Runs",
    "collect",
    "compare",
    "conduct",
    "cost",
    "environment",
    "execute",
    "find",
    "load_source",
    "load_spec",
    "offered",
    "parameters",
    "plan",
    "prepare",
    "processes",
    "transferred",
]
