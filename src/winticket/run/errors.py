"""What can go wrong around a task, as against inside it."""

from __future__ import annotations


class StoreError(Exception):
    """The store cannot be read or written: damaged, newer, foreign, read-only or full."""


class Damaged(StoreError):  # noqa: N818 - reads as what it says of the file
    """A file is truncated, or its content is not what was written."""


class Missing(StoreError, KeyError):  # noqa: N818 - reads as what it says of the result
    """Nothing is kept under that key: never was, or no longer."""

    __str__ = Exception.__str__  # KeyError would put the sentence in quotes


class RunError(Exception):
    """A run had to be given up for a reason outside the tasks, such as a worker killed for its memory."""


class Unavailable(RunError, ValueError):  # noqa: N818 - reads as what it says of the data
    """What a training needs cannot be had just now, such as its data: no doing of the training, and no result."""


class TaskFailed(Exception):  # noqa: N818 - it is an outcome asked for by name, not an error of the caller
    """The value of a task was asked for that failed, or that was skipped because of one that failed."""


class Interrupted(KeyboardInterrupt):
    """The run was stopped on request; what is finished is in the store, and running again goes on."""
