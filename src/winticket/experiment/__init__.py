"""Experiment: declare a question, plan it, forecast its cost and run it.

>>> from winticket.experiment import Execution, Experiment, cost, plan
>>> experiment = Experiment.of("digits", steps=20, levels=3, replicates=5)
>>> planned = plan(experiment)
>>> [round(density, 3) for density in planned.densities()]
[1.0, 0.802, 0.643, 0.516]
>>> cost(planned, Execution.local("memory://runs"), measure=False).trainings
55

`conduct(experiment)` runs it, and `find("digits", steps=20, levels=3, replicates=5)` does all of this at once.
"""

from __future__ import annotations

from winticket.experiment.compare import compare
from winticket.experiment.entries import USUAL_METHODS
from winticket.experiment.execution import Execution
from winticket.experiment.finished import Finished, trained
from winticket.experiment.machine import environment, processes
from winticket.experiment.names import offered
from winticket.experiment.opened import Run, Training
from winticket.experiment.opening import existing_store, open, open_run  # noqa: A004 - winticket.open
from winticket.experiment.plan import Plan, parameters, plan
from winticket.experiment.price import Cost, cost
from winticket.experiment.running import Ready, conduct, execute, find, prepare
from winticket.experiment.runs import Runs, collect
from winticket.experiment.sources import load_source
from winticket.experiment.spec import Experiment
from winticket.experiment.spec_file import load_spec
from winticket.experiment.trained_network import TrainedNetwork, from_ticket
from winticket.experiment.transfers import transferred
from winticket.experiment.writing import Result

__all__ = [
    "USUAL_METHODS",
    "Cost",
    "Execution",
    "Experiment",
    "Finished",
    "Plan",
    "Ready",
    "Result",
    "Run",
    "Runs",
    "TrainedNetwork",
    "Training",
    "collect",
    "compare",
    "conduct",
    "cost",
    "environment",
    "execute",
    "existing_store",
    "find",
    "from_ticket",
    "load_source",
    "load_spec",
    "offered",
    "open",
    "open_run",
    "parameters",
    "plan",
    "prepare",
    "processes",
    "trained",
    "transferred",
]
