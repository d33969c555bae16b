"""Plan, keep and compute: tasks named by what they compute, a store of results by those names, executors."""

from __future__ import annotations

from winticket.run.errors import Damaged, Interrupted, Missing, RunError, StoreError, TaskFailed, Unavailable
from winticket.run.keys import Json, resolve
from winticket.run.layout import Failure, Problem, Removed, Row
from winticket.run.local import run
from winticket.run.schedule import Event, Outcomes
from winticket.run.store import Store
from winticket.run.task import Task, derive, key, part_of, stored_needs, task, walk, whole_of
from winticket.run.work import Checkpoint, Parts, Report

__all__ = [
    "Checkpoint",
    "Damaged",
    "Event",
    "Failure",
    "Interrupted",
    "Json",
    "Missing",
    "Outcomes",
    "Parts",
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
    "derive",
    "key",
    "part_of",
    "resolve",
    "run",
    "stored_needs",
    "task",
    "walk",
    "whole_of",
]
