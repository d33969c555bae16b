"""Plan, keep and compute: tasks named by what they compute, a store of results by those names, executors."""

from .errors import Damaged, Interrupted, RunError, StoreError, TaskFailed
from .keys import Json, import_path, resolve
from .local import run
from .schedule import Event, Outcomes
from .store import Failure, Problem, Removed, Row, Store
from .task import Task, key, step, stored_needs, task, walk
from .work import Checkpoint, Report

__all__ = [
    "Checkpoint",
    "Damaged",
    "Event",
    "Failure",
    "Interrupted",
    "Json",
    "Outcomes",
    "Problem",
    "Removed",
    "Report",
    "Row",
    "RunError",
    "Store",
    "StoreError",
    "Task",
    "TaskFailed",
    "import_path",
    "key",
    "resolve",
    "run",
    "step",
    "stored_needs",
    "task",
    "walk",
]
