"""Plan, keep and compute: tasks named by what they compute, a store of results by those names, executors."""

from __future__ import annotations

from winticket.run.checkpoints import Checkpoint, Report
from winticket.run.crew import Crew, Workers
from winticket.run.desk import Conditions, Parts
from winticket.run.errors import Damaged, Interrupted, Missing, RunError, StoreError, TaskFailed, Unavailable
from winticket.run.executor import run
from winticket.run.fitting import Machine, Needs, fits, gibibytes, this_machine, why_not
from winticket.run.futures import ExecutorCrew
from winticket.run.inline import Inline
from winticket.run.keys import Json, resolve
from winticket.run.layout import Failure, Problem, Removed, Row
from winticket.run.local import local
from winticket.run.on_dask import dask_crew
from winticket.run.on_ray import ray_crew
from winticket.run.pool import Pool
from winticket.run.schedule import Event, Outcomes
from winticket.run.store import Store
from winticket.run.task import Task, derive, key, part_of, stored_needs, task, walk, whole_of
from winticket.run.variants import Variants

__all__ = [
    "Checkpoint",
    "Conditions",
    "Crew",
    "Damaged",
    "Event",
    "ExecutorCrew",
    "Failure",
    "Inline",
    "Interrupted",
    "Json",
    "Machine",
    "Missing",
    "Needs",
    "Outcomes",
    "Parts",
    "Pool",
    "Problem",
    "Removed",
    "Report",
    "Row",
    "RunError",
    "Store",
    "StoreError",
    "Task",
    "TaskFailed",
    "Unavailable",
    "Variants",
    "Workers",
    "dask_crew",
    "derive",
    "fits",
    "gibibytes",
    "key",
    "local",
    "part_of",
    "ray_crew",
    "resolve",
    "run",
    "stored_needs",
    "task",
    "this_machine",
    "walk",
    "whole_of",
    "why_not",
]
