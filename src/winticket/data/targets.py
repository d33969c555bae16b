"""What the answers of examples are: classes, numbers, labels or positions, guessed from labels or as users say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from winticket.data.columns import Column, Kind, Values, absent, in_words, words
from winticket.data.content import Target
from winticket.text import counted

FEW = 20
"""Whole numbers with at most so many different values are taken for classes."""


@dataclass(frozen=True)
class Answers:
    """The answers y of every split, as `Split` has them; `column` names the label if there is one."""

    kind: Target
    rows: Mapping[str, NDArray[Any]]
    class_names: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    column: str | None = None


def target_of(labels: Sequence[Column], task: str | None, origin: str) -> Answers:
    """The answers in columns of labels, none of which is missing.

    If `task` is None: one column of text, booleans, or whole numbers with at most FEW values is classes; other numbers
    are numbers; several columns are labels if all hold 0 and 1 alone, else numbers. Raises ValueError for labels that
    are not what the task needs, or from which nothing can be learned.
    """
    task = task or _guess(labels, origin)
    names = [one.name for one in labels]
    if task == "segmentation":
        raise ValueError(
            "segmentation needs a class for each position, which a table does not have; give arrays (.npz) with y of "
            "shape [N, H, W]"
        )
    if task == "classification":
        if len(labels) > 1:
            raise ValueError(
                f"classification has one label, but --label names {in_words(names)}; name one, or choose --task "
                "multi-label or regression"
            )
        return _classes(labels[0], origin)
    texts = [one.name for one in labels if one.kind == "text"]
    if texts:
        raise ValueError(
            f"{task} needs numbers, but {in_words(texts)} of {origin} holds text; choose another label"
        )
    rows = {
        split: np.stack([one.rows[split] for one in labels], axis=1).astype(np.float32)
        for split in labels[0].rows
    }
    if task == "multi-label":
        return _labels(rows, names, origin)
    return numbers(rows, names, origin)


def _guess(labels: Sequence[Column], origin: str) -> str:
    if len(labels) == 1:
        one = labels[0]
        if one.kind == "real":
            return "regression"
        few = one.kind != "whole" or len(np.unique(one.rows["train"])) <= FEW
        return "classification" if few else "regression"
    if texts := [one.name for one in labels if one.kind == "text"]:
        raise ValueError(
            f"several labels must all be numbers, but {in_words(texts)} of {origin} holds text; name one label"
        )
    whole = all(one.kind in ("whole", "boolean") for one in labels)
    binary = all(set(np.unique(values)) <= {0, 1} for one in labels for values in one.rows.values())
    return "multi-label" if whole and binary else "regression"


def _classes(one: Column, origin: str) -> Answers:
    if one.kind == "real":
        fractions = [value for rows in one.rows.values() for value in rows if value != np.floor(value)]
        if fractions:
            raise ValueError(
                f"label {one.name!r} of {origin} holds numbers that are not whole, such as {fractions[0]:g}, so they "
                "are no classes; choose --task regression"
            )
    rows = {split: words(one, split) for split in one.rows}
    return classes(rows, one.kind, name=one.name, origin=origin)


def classes(rows: Mapping[str, Values], kind: Kind, *, name: str, origin: str) -> Answers:
    """Classes named by text, numbered in sorted order: of numbers if they are `whole` or `real`, else of text."""
    known, counts = np.unique(rows["train"].astype(str), return_counts=True)
    if len(known) < 2:
        raise ValueError(
            f"label {name!r} of {origin} is {str(known[0]) if len(known) else 'empty'!r} in all training rows; "
            "classification needs at least two classes"
        )
    if 2 * len(known) > len(rows["train"]):
        raise ValueError(
            f"label {name!r} of {origin} has {len(known)} different values in {len(rows['train'])} rows, which are too "
            "many for classes; choose another label, or --task regression for numbers"
        )
    if (counts < 2).any():
        single = [repr(str(value)) for value in known[counts < 2]]
        raise ValueError(
            f"label {name!r} of {origin} has classes with one example: {in_words(single)}, which cannot be in "
            "training, validation and test; remove it, add examples, or join classes"
        )
    names = sorted(known.tolist(), key=float) if kind in ("whole", "real") else sorted(known.tolist())
    number = {value: position for position, value in enumerate(names)}
    for split, values in rows.items():
        if strange := sorted(set(map(str, values)) - set(names)):
            raise ValueError(
                f"the {split} rows of {origin} have the class {strange[0]!r}, of which there is no training example; "
                "remove these rows or add examples"
            )
    numbered = {
        split: np.array([number[str(v)] for v in values], dtype=np.int64) for split, values in rows.items()
    }
    return Answers("classes", numbered, class_names=tuple(map(str, names)), column=name)


def numbers(rows: Mapping[str, NDArray[Any]], names: Sequence[str], origin: str) -> Answers:
    """Real numbers y [N, K] in their own unit, float32."""
    _check_varies(rows, names, origin)
    ready = {split: np.ascontiguousarray(values, dtype=np.float32) for split, values in rows.items()}
    if not all(np.isfinite(values).all() for values in ready.values()):
        raise ValueError(
            f"labels of {origin} are infinite, or too large for float32; correct them, or change their unit"
        )
    return Answers("numbers", ready, names=tuple(names), column=names[0] if len(names) == 1 else None)


def _labels(rows: Mapping[str, NDArray[Any]], names: Sequence[str], origin: str) -> Answers:
    for position, name in enumerate(names):
        strange = [v for values in rows.values() for v in np.unique(values[:, position]) if v not in (0, 1)]
        if strange:
            raise ValueError(
                f"multi-label needs 0 and 1, but label {name!r} of {origin} holds {strange[0]:g}; choose --task "
                "regression, or correct it"
            )
    _check_varies(rows, names, origin)
    ready = {split: np.ascontiguousarray(values, dtype=np.float32) for split, values in rows.items()}
    return Answers("labels", ready, names=tuple(names), column=names[0] if len(names) == 1 else None)


def _check_varies(rows: Mapping[str, NDArray[Any]], names: Sequence[str], origin: str) -> None:
    for position, name in enumerate(names):
        values = rows["train"][:, position]
        if len(values) and (values == values[0]).all():
            raise ValueError(
                f"label {name!r} of {origin} is {values[0]:g} in all training rows, so there is nothing to learn; "
                "choose another label"
            )


def of_array(rows: Mapping[str, NDArray[Any]], task: str | None, *, name: str, origin: str) -> Answers:
    """The answers in arrays y by split.

    y [N] is a column, and y [N, K] are K columns, for which the rules of `target_of` hold. y [N, H, W] of whole numbers
    are the classes of positions. Raises ValueError as `target_of` does.
    """
    y = rows["train"]
    if y.ndim == 2 and y.shape[1] == 1:
        rows, y = {split: values[:, 0] for split, values in rows.items()}, y[:, 0]
    if task == "segmentation" or (task is None and y.ndim == 3):
        return _positions(rows, name=name, origin=origin)
    if y.ndim not in (1, 2):
        raise ValueError(
            f"{name} of {origin} has shape {list(y.shape)}; labels are [N], numbers and several labels [N, K], and "
            "classes of positions [N, H, W]"
        )
    columns = (
        [_column(rows, None, name)] if y.ndim == 1 else [_column(rows, k, name) for k in range(y.shape[1])]
    )
    for one in columns:
        if count := sum(int(absent(v).sum()) for v in one.rows.values()):
            raise ValueError(
                f"{one.name} of {origin} lacks {counted(count, 'value')} (NaN); remove these examples"
            )
        if one.kind != "text" and not all(np.isfinite(v).all() for v in one.rows.values()):
            raise ValueError(f"{one.name} of {origin} holds infinity; correct these examples")
    return target_of(columns, task, origin)


def _column(rows: Mapping[str, NDArray[Any]], number: int | None, name: str) -> Column:
    parts = {split: values if number is None else values[:, number] for split, values in rows.items()}
    code = parts["train"].dtype.kind
    named = name if number is None else f"{name}[{number}]"
    if code in "US":
        texts = {}
        for split, values in parts.items():
            array = np.empty(len(values), dtype=object)
            array[:] = [
                v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in values.tolist()
            ]
            texts[split] = array
        return Column(named, "text", texts)
    kinds: dict[str, Kind] = {"b": "boolean", "i": "whole", "u": "whole", "f": "real"}
    return Column(named, kinds[code], {split: values.astype(np.float64) for split, values in parts.items()})


def _positions(rows: Mapping[str, NDArray[Any]], *, name: str, origin: str) -> Answers:
    y = rows["train"]
    if y.ndim != 3 or y.dtype.kind not in "iub":
        raise ValueError(
            f"{name} of {origin} is {y.dtype} {list(y.shape)}; segmentation needs whole numbers [N, H, W], a class for "
            "each position"
        )
    known = np.unique(y)
    if len(known) < 2 or known[0] < 0:
        raise ValueError(
            f"{name} of {origin} holds {in_words([str(value) for value in known])}; classes of positions are 0, 1, "
            "..., and at least two"
        )
    most = int(known[-1]) + 1
    if most > 65536:
        raise ValueError(
            f"{name} of {origin} holds class {most - 1}; number the classes from 0, to 65535 at most"
        )
    for split, values in rows.items():
        if values.size and (values.min() < 0 or values.max() >= most):
            raise ValueError(
                f"{name} of {split} of {origin} holds classes that no training example has; correct it"
            )
    ready = {split: np.ascontiguousarray(values, dtype=np.int64) for split, values in rows.items()}
    return Answers("positions", ready, class_names=tuple(map(str, range(most))), column=None)
