"""Plan, keep and compute: tasks named by what they compute, a store of results by those names, executors."""

from .errors import Damaged, Interrupted, Missing, RunError, StoreError, TaskFailed, Unavailable
from .keys import Json, resolve
from .layout import Failure, Problem, Removed, Row
from .local import run
from .schedule import Event, Outcomes
from .store import Store
from .task import Task, key, part_of, step, stored_needs, task, walk, whole_of
from .work import Checkpoint, Parts, Report

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
    "key",
    "part_of",
    "resolve",
    "run",
    "step",
    "stored_needs",
    "task",
    "walk",
    "whole_of",
]
