"""`Reading`: how a file of a user's own is read, as plain values that travel with the experiment."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, get_args

from winticket.data.content import Task
from winticket.text import nearest

MISSING = ("refuse", "mean", "median", "indicator", "category")
TASKS = get_args(Task)


@dataclass(frozen=True)
class Reading:
    """How data are read. Every field has a default that leaves the data as they are.

    label    names of the columns with labels or targets (in an npz file: of the array; beside an npy file: a file)
    ignore   names of columns that are not used
    missing  what happens to missing values of features: "refuse"; "mean" or "median" of the training split;
             "indicator": the mean, and a column of 0 and 1 that says where a value is missing; "category": missing
             categories are a category of their own, and missing numbers are refused. Categories are treated so under
             every choice but "refuse"
    task     "classification", "regression", "multi-label" or "segmentation"; None: what the labels look like
    group    column by which examples are split: no group has rows in two splits
    time     column by which examples are split: the last ones are for testing, those before them for validation
    size     images are resized to this "HEIGHTxWIDTH", or "SIDE" for squares
    alphabet a text file whose characters are numbered instead of a text's own: that of pretrained weights
    tokenizer the folder of a language model, whose tokenizer cuts a text into tokens
    window   number of characters or tokens of an example of text
    rows     number of training rows to keep, drawn without replacement from a fixed seed

    Raises ValueError or TypeError for values that are not possible.

    >>> Reading(label="price", missing="median").label
    ('price',)
    >>> Reading(size="32").pixels()
    (32, 32)
    """

    label: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    missing: str = "refuse"
    task: str | None = None
    group: str | None = None
    time: str | None = None
    size: str | None = None
    alphabet: str | None = None
    tokenizer: str | None = None
    window: int | None = None
    rows: int | None = None

    def __post_init__(self) -> None:
        for name in ("label", "ignore"):
            value = getattr(self, name)
            columns = (
                (value,) if isinstance(value, str) else tuple(value) if isinstance(value, Iterable) else ()
            )
            if not all(isinstance(column, str) for column in columns) or (value and not columns):
                raise TypeError(f"{name} is {value!r}; it is the name of a column, or a list of names")
            object.__setattr__(self, name, columns)
            if twice := [column for column in columns if columns.count(column) > 1]:
                raise ValueError(f"{name} names column {twice[0]!r} twice")
        for name in ("group", "time", "size", "alphabet", "tokenizer"):
            value = getattr(self, name)
            if name == "size" and isinstance(value, int) and not isinstance(value, bool):
                object.__setattr__(self, name, str(value))
            elif value is not None and not isinstance(value, str):
                raise TypeError(f"{name} is {value!r}; it is text")
        if self.missing not in MISSING:
            raise ValueError(
                f"missing is {self.missing!r}{nearest(str(self.missing), MISSING)}; possible: {', '.join(MISSING)}"
            )
        if self.task is not None and self.task not in TASKS:
            raise ValueError(
                f"task is {self.task!r}{nearest(str(self.task), TASKS)}; possible: {', '.join(TASKS)}"
            )
        if self.group is not None and self.time is not None:
            raise ValueError("examples are split by group or by time, not by both; leave one of them out")
        if self.rows is not None and (isinstance(self.rows, bool) or not isinstance(self.rows, int)):
            raise TypeError(f"rows is {self.rows!r}; it is a whole number")
        if self.rows is not None and self.rows < 1:
            raise ValueError(f"rows is {self.rows}; give at least 1, or leave it out for all rows")
        if self.window is not None and (isinstance(self.window, bool) or not isinstance(self.window, int)):
            raise TypeError(f"window is {self.window!r}; it is a whole number")
        if self.window is not None and self.window < 2:
            raise ValueError(f"window is {self.window}; give at least 2 characters or tokens")
        if self.alphabet is not None and self.tokenizer is not None:
            raise ValueError("alphabet numbers characters and tokenizer makes tokens; leave one of them out")
        self.pixels()

    def pixels(self) -> tuple[int, int] | None:
        """The (height, width) that images are resized to; None if they stay as they are."""
        if self.size is None:
            return None
        sides = re.fullmatch(r"([1-9]\d{0,4})(?:x([1-9]\d{0,4}))?", self.size, re.ASCII)
        if sides is None:
            raise ValueError(
                f"size is {self.size!r}; give the side in pixels, as 32, or height and width, as 32x48"
            )
        return int(sides[1]), int(sides[2] or sides[1])

    def chosen(self) -> dict[str, Any]:
        """The fields that differ from their defaults, by name; JSON.

        >>> Reading(label="y", rows=100).chosen()
        {'label': ['y'], 'rows': 100}
        """
        values = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def require_only(self, *names: str, of: str) -> None:
        """ValueError if a field is set that has no meaning for such data; `of` says what they are."""
        if other := [name for name in self.chosen() if name not in names]:
            raise ValueError(
                f"{OPTIONS[other[0]]} has no meaning for {of}; leave it out"
                + (f" (these data take {', '.join(OPTIONS[name] for name in names)})" if names else "")
            )


USUAL = Reading()
"""The reading that leaves data as they are."""
FIELDS = tuple(f.name for f in fields(Reading))
OPTIONS = {**{name: f"--{name}" for name in FIELDS}, "group": "--split-by-group", "time": "--split-by-time"}
"""The command's option for every field."""


def folded(choices: Mapping[str, Any], data: str) -> dict[str, Any]:
    """Choices in which fields of `Reading` are gathered under `reading`. A file of labels gets its absolute path."""
    named = {name: value for name, value in choices.items() if name in FIELDS}
    others = {name: value for name, value in choices.items() if name not in FIELDS}
    if not named:
        return others
    reading = replace(others.get("reading", Reading()), **named)
    for name in ("alphabet", "tokenizer"):  # worker processes may have another working directory
        if (path := getattr(reading, name)) is not None:
            reading = replace(reading, **{name: str(Path(path).expanduser().absolute())})
    if Path(data).suffix.lower() == ".npy":
        files = tuple(
            str(Path(f).expanduser().absolute()) if Path(f).expanduser().exists() else f
            for f in reading.label
        )
        reading = replace(reading, label=files)
    return {**others, "reading": reading}
