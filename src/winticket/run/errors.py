"""Errors around a task, in contrast to errors that the task itself raises."""

from __future__ import annotations


class StoreError(Exception):
    """The store cannot be read or written: damaged, newer, foreign, read-only or full."""


class Damaged(StoreError):  # noqa: N818 - reads as what it says of the file
    """A file is truncated, or its content is not what was written."""


class Missing(StoreError, KeyError):  # noqa: N818 - reads as what it says of the result
    """The store has nothing under that key: it never had, or the result was removed."""

    __str__ = Exception.__str__  # KeyError would put the sentence in quotes


class RunError(Exception):
    """A run was given up for a reason outside the tasks, such as a worker that was killed for its memory."""


class Unavailable(RunError, ValueError):  # noqa: N818 - reads as what it says of the data
    """Something that a training needs, such as its data, is unavailable now; that is not a result of the training."""


class TaskFailed(Exception):  # noqa: N818 - an outcome that was requested by name, not an error of the caller
    """The requested task failed, or was skipped because a task that it needs failed."""


class Interrupted(KeyboardInterrupt):
    """The run was stopped on request; what is finished is in the store, and running again resumes."""
